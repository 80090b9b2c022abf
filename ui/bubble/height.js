// The component tells its height when it is drawn; a bubble that gets narrower later is taller.
const tell = () => parent.postMessage({
  isStreamlitMessage: true, type: "streamlit:setFrameHeight", height: document.body.scrollHeight,
}, "*");
new ResizeObserver(tell).observe(document.body);
