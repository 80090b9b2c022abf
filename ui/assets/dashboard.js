// What Streamlit leaves out for screen readers: the language of the page, and that answers grow.
(() => {
  if (window.dashboardMended) return;
  window.dashboardMended = true;
  const mend = () => {
    const marker = document.getElementById("page-language");
    if (marker) document.documentElement.lang = marker.lang;
    const growing = document.querySelector(".st-key-chat_stop") !== null;
    const answers = [...document.querySelectorAll("[class*='st-key-answer_']")];
    answers.forEach((answer, i) => {
      const live = growing && i === answers.length - 1 ? "polite" : "off";
      if (answer.getAttribute("aria-live") !== live) answer.setAttribute("aria-live", live);
    });
  };
  let waiting = false;
  new MutationObserver(() => {
    if (waiting) return;
    waiting = true;
    setTimeout(() => { waiting = false; mend(); }, 500);
  }).observe(document.body, { childList: true, subtree: true });
  mend();
})();
