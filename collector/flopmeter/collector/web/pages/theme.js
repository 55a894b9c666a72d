// Runs before anything is drawn, so that a dark room sees no white page: what was chosen here, else the system's.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("flopmeter-theme");
  } catch {
    // Storage may be forbidden: then the system's choice stands.
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
