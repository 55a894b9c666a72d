// What went wrong, in words: what happened, and what to try.

import { ApiError } from "./api.js";
import { h } from "./dom.js";
import { command } from "./parts.js";

const WORDS = {
  0: ["The collector does not answer", "This page is here, the collector behind it is not: it was stopped, it is starting, or the network between is down. The page asks again by itself."],
  400: ["This address asks for something that the collector does not know", "A filter in it may be misspelt, or from another version."],
  403: ["Your token may not see this", "Each token has a role, which whoever runs the collector gave it."],
  404: ["There is no such thing here", "It may have another name, belong to another tenant, or never have been."],
  406: ["The collector cannot say this in a form that the page reads", "Page and collector may be of two versions: reload the page."],
  429: ["Too many questions at once", "Somebody, perhaps another tab, asks faster than the collector's limit. The page asks again by itself."],
  503: ["The books are being read", "The collector takes records as ever; the process that answers for the page is starting or catching up. The page asks again by itself."],
};

// What of it passes by itself, so that the page should ask again: seconds, or null.
export const again = (error) => (!(error instanceof ApiError) ? null : [0, 429, 502, 503, 504].includes(error.status) ? 3 : null);

export function fault(error, retry, user) {
  if (!(error instanceof ApiError)) {
    return card("This page failed", "That is a mistake in the page, not in your books.", String(error?.message ?? error), [
      "Reload it. If it stays, report it with the text above and the version in the footer; the terminal shows the same figures: flopmeter runs list.",
    ], retry);
  }
  const [title, why] = WORDS[error.status] ?? [error.title || `The collector answered ${error.status}`, ""];
  const steps = [error.hint].filter(Boolean).map((hint) => `${hint[0].toUpperCase()}${hint.slice(1)}${/[.!?]$/.test(hint) ? "" : "."}`);
  if (error.status === 403 && user) steps.unshift(`You are signed in as ${user.who}, with the role ${user.role}.`);
  if (error.status === 0 && !steps.length) steps.push("Is it running, and does it answer?");
  return card(title, why, [error.detail, error.status ? `(HTTP ${error.status})` : ""].filter(Boolean).join(" "), steps, retry,
    error.status === 0 ? command(`curl ${location.origin}/readyz`) : null);
}

function card(title, why, detail, steps, retry, more) {
  return h("section", { class: "fault card", role: "alert" },
    h("h1", null, title),
    why && h("p", null, why),
    detail && h("p", { class: "detail" }, detail),
    steps.map((step) => h("p", null, step)),
    more,
    h("p", { class: "buttons" },
      retry && h("button", { type: "button", class: "primary", onclick: retry }, "Try again"),
      location.pathname !== "/runs" && h("a", { href: "/runs", class: "button" }, "All runs")),
  );
}
