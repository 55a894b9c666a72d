// Who is here. A token is shown to the collector once and becomes a cookie that scripts cannot read.

import { ApiError, forget, get, post, send } from "./api.js";
import { h, render } from "./dom.js";

// The token of a link (…#token=FMA1…), taken out of the address before anything else happens, so that it
// stays in no history, bookmark or screenshot.
export function takeToken() {
  const found = /^#token=([^&]+)$/.exec(location.hash);
  if (!found) return null;
  history.replaceState(null, "", location.pathname + location.search);
  try {
    return decodeURIComponent(found[1]);
  } catch {
    return found[1];
  }
}

export const whoami = () => get("/whoami");

export async function signIn(token) {
  forget();
  await post("/session", { token: token.trim() });
  return whoami();
}

export async function signOut() {
  forget();
  await send("DELETE", "/session");
}

// The form, where the view would stand: the address stays what it was. Resolves with who came in.
export function show(root, { why = "" } = {}) {
  return new Promise((resolve) => {
    let busy = false;
    let said = why;
    const draw = () =>
      render(
        root,
        h("section", { class: "narrow card", "aria-labelledby": "login-title" },
          h("h1", { id: "login-title" }, "Sign in"),
          h("form", { class: "stack", onsubmit: submit },
            h("label", { for: "token" }, "API token"),
            h("input", {
              id: "token", name: "token", type: "password", autocomplete: "current-password", required: true,
              spellcheck: "false", autocapitalize: "off", placeholder: "FMA1…", "aria-describedby": "token-help login-said",
            }),
            h("p", { id: "login-said", class: "said bad", role: "alert" }, said),
            h("button", { type: "submit", class: "primary", "aria-disabled": busy ? "true" : null }, busy ? "Signing in…" : "Sign in"),
          ),
          h("div", { id: "token-help", class: "help" },
            h("p", null, "Whoever runs the collector makes tokens, on its machine:"),
            h("pre", { class: "command", tabindex: "0" }, "flopmeter collector token create --role viewer --name you@example.org"),
            h("p", null, "Viewers see runs, events and the fleet; auditors also evidence and exports; operators also answer events. The token becomes a session of 12 hours and is not kept in this browser."),
          ),
        ),
      );
    async function submit(event) {
      event.preventDefault();
      if (busy) return;
      const token = root.querySelector("#token").value;
      busy = true;
      said = "";
      draw();
      try {
        resolve(await signIn(token));
      } catch (error) {
        busy = false;
        said = refused(error);
        draw();
        root.querySelector("#token").select();
      }
    }
    draw();
    root.querySelector("#token").focus();
  });
}

export function refused(error) {
  if (!(error instanceof ApiError)) throw error;
  if (error.status === 401) return "No such token, or it was revoked or has expired. Nothing else is said of it.";
  return [error.detail || error.title || `HTTP ${error.status}`, error.hint].filter(Boolean).join(" ");
}
