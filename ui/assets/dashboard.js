// What Streamlit leaves out: the language of the page and growing answers for screen readers, drafts
// of each conversation, the way to the newest text, copying, and where one types next.
(() => {
  if (window.dashboardMended) return;
  window.dashboardMended = true;
  const find = (selector) => document.querySelector(selector);
  const main = () => find("[data-testid='stAppScrollToBottomContainer'], [data-testid='stMain']");
  const box = () => find("[data-testid='stChatInputTextArea']");
  const isNew = () => !new URLSearchParams(location.search).has("c");

  // --- screen readers

  const tellScreenReaders = () => {
    const page = find("#page-language");
    if (page) document.documentElement.lang = page.lang;
    const answers = [...document.querySelectorAll("[class*='st-key-answer_']")];
    answers.forEach((answer, i) => {
      const live = grew && i === answers.length - 1 ? "polite" : "off";
      if (answer.getAttribute("aria-live") !== live) answer.setAttribute("aria-live", live);
    });
  };

  // --- the newest text: shown when an answer begins, and a button away while one reads above it

  let grew = false, fromEnd = null;
  const toNewest = () => main()?.scrollTo({ top: main().scrollHeight });
  const arrow = document.createElement("button");
  arrow.id = "to-newest";
  arrow.textContent = "↓";
  arrow.onclick = toNewest;
  document.body.append(arrow);
  const followNewest = () => {
    const grows = find(".st-key-chat_stop") !== null;
    if (grows && !grew) toNewest();
    grew = grows;
  };
  // Earlier messages come in above what is being read, which stays where it is.
  const noteEnd = () => { fromEnd = [main().scrollHeight, main().scrollHeight - main().scrollTop]; };
  const keepFromEnd = () => {
    if (fromEnd === null || main()?.scrollHeight === fromEnd[0]) return;
    main()?.scrollTo({ top: main().scrollHeight - fromEnd[1] });
    fromEnd = null;
  };
  const placeArrow = () => {
    const area = main(), input = box();
    const above = area ? area.scrollHeight - area.scrollTop - area.clientHeight : 0;
    arrow.hidden = !input || above < 400;
    if (arrow.hidden) return;
    const typed = input.getBoundingClientRect();
    arrow.style.left = `${typed.left + typed.width / 2}px`;
    arrow.ariaLabel = arrow.title = find("#page-language")?.dataset.newest ?? "";
  };
  document.addEventListener("scroll", placeArrow, true);

  // --- drafts: what is typed stays with its conversation, until the tab is closed

  let seen = null, at = "", sentAt = 0;
  const place = () => `draft ${location.pathname}${location.search}`;
  const keep = (where, text) => {
    if (text) sessionStorage.setItem(where, text);
    else sessionStorage.removeItem(where);
  };
  const fill = (element, text) => {
    if (element.value === text) return;
    Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set.call(element, text);
    element.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const keepDraft = () => {
    const element = box(), here = place(), before = at;
    if (!element) { seen = null; return; }
    const moved = here !== before, other = element !== seen;
    [seen, at] = [element, here];
    const sent = performance.now() - sentAt < 3000;
    if (!moved && !other) {
      // Streamlit empties the box when it sends, and also when it leaves the page.
      if (element.value || sent) keep(here, element.value);
      return;
    }
    if (moved && !other) {
      // A first question makes its conversation: what is typed since then belongs to that.
      const made = sent && !before.includes("c=") && !isNew();
      keep(before, made ? "" : element.value);
      if (made) return keep(here, element.value);
    }
    if (moved || !element.value) fill(element, sessionStorage.getItem(here) ?? "");
    if (isNew() && matchMedia("(hover: hover)").matches) element.focus();
  };
  const noteSent = () => { sentAt = performance.now(); };
  document.addEventListener("input", (event) => { // typed, perhaps down to nothing
    if (event.isTrusted && event.target === box()) keep(place(), event.target.value);
  }, true);

  // --- copying: the text as it was written comes with the click; where it may not, it is shown

  const written = (id) => new Promise((found, given) => {
    const began = performance.now();
    const look = () => {
      const code = find(`.st-key-written_${id} code`);
      if (code) found(new Blob([code.textContent], { type: "text/plain" }));
      else if (performance.now() - began > 4000) given();
      else requestAnimationFrame(look);
    };
    look();
  });
  const copy = (id) => {
    if (!navigator.clipboard || !window.ClipboardItem) return;
    navigator.clipboard.write([new ClipboardItem({ "text/plain": written(id) })]).then(
      () => find(`.st-key-written_${id}`)?.classList.add("copied"),
      () => {},
    );
  };

  // --- where one types next

  let typed = null;
  const focusField = () => {
    const field = find("[class*='st-key-edit_text_'] textarea, [class*='st-key-title_'] input");
    if (field && field !== typed) {
      field.focus();
      field.setSelectionRange(field.tagName === "INPUT" ? 0 : field.value.length, field.value.length);
    }
    typed = field;
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[class*='st-key-copy_']");
    if (button) copy(/st-key-copy_(\S+)/.exec(button.className)[1]);
    if (event.target.closest("[class*='st-key-pages_below_'] button")) {
      find("[class*='st-key-pages_above_']")?.scrollIntoView(); // where the next page begins
    }
    if (event.target.closest(".st-key-chat_earlier")) noteEnd();
    if (event.target.closest(".st-key-suggestions button, [data-testid='stChatInputSubmitButton']")) noteSent();
  }, true);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.isComposing) return;
    if (event.target === box() && !event.shiftKey) noteSent();
    if ((event.ctrlKey || event.metaKey) && event.target.closest("[class*='st-key-edit_text_']")) {
      event.stopPropagation(); // Streamlit would only take note of the text
      find(".st-key-edit_send button")?.focus();
      find(".st-key-edit_send button")?.click();
    }
  }, true);

  let waiting = false;
  const mend = () => { followNewest(); keepFromEnd(); tellScreenReaders(); placeArrow(); focusField(); };
  new MutationObserver(() => {
    keepDraft();
    if (waiting) return;
    waiting = true;
    setTimeout(() => { waiting = false; mend(); }, 250);
  }).observe(document.body, { childList: true, subtree: true });
  keepDraft();
  mend();
})();
