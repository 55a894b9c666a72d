// A person's answer to an event or a deadline: shown as given only once the collector has written it down.

import { ApiError, post } from "./api.js";
import { h } from "./dom.js";
import { announce, command, instant } from "./parts.js";
import { stateMark } from "./events.js";

const WHY_MAX = 2000;
const MAY = ["operator", "admin"];
const SAID = { acknowledged: "Acknowledge", resolved: "Resolve", open: "Reopen" };
const NEXT = { open: ["acknowledged", "resolved"], acknowledged: ["resolved", "open"], resolved: ["open"] };

// `path`: /events/ID or /deadlines/ID; `redraw` reads it again and draws; `word`: what the terminal calls it.
export function answering({ path, id, state, user, word, outcomes, redraw }) {
  const form = { busy: false, said: "", failed: false };
  async function give(next, outcome, element) {
    const why = element.elements.why.value.trim();
    if (!why) {
      form.said = "Say why: whoever reads this in three years has only these words.";
      form.failed = true;
      await redraw();
      element.elements.why.focus();
      return;
    }
    form.busy = true;
    form.said = "Writing it down…";
    form.failed = false;
    await redraw();
    try {
      await post(`${path}/answers`, { state: next, why, ...(outcome ? { outcome } : {}) });
      element.reset();
      form.said = `Written down: ${outcome ?? next}.`;
      announce(form.said);
    } catch (error) {
      if (!(error instanceof ApiError) || error.status === 401) throw error;
      form.failed = true;
      form.said = ["It was not written down.", error.detail || error.title, error.hint].filter(Boolean).join(" ");
    } finally {
      form.busy = false;
    }
    await redraw();
  }
  return (now = state) => (MAY.includes(user.role) ? fields(form, now, outcomes, give) : closed(user, word, id));
}

function fields(form, state, outcomes, give) {
  const button = (next, outcome, said) =>
    h("button", {
      type: "button", "data-key": outcome ?? next, class: next === "acknowledged" ? "primary" : null, "aria-disabled": form.busy ? "true" : null,
      onclick: (e) => !form.busy && give(next, outcome, e.currentTarget.form),
    }, said);
  return h("form", { class: "stack answer", "data-key": "answer", onsubmit: (e) => e.preventDefault() },
    h("label", { for: "why" }, "Why"),
    h("input", { id: "why", name: "why", type: "text", maxlength: WHY_MAX, autocomplete: "off", placeholder: "counsel drafts the notification", "aria-describedby": "why-help why-said" }),
    h("p", { id: "why-said", class: `said ${form.failed ? "bad" : "good"}`, role: form.failed ? "alert" : "status" }, form.said),
    h("p", { class: "buttons" }, NEXT[state].flatMap((next) =>
      next === "resolved" && outcomes ? outcomes.map(([outcome, said]) => button(next, outcome, said)) : [button(next, null, SAID[next])])),
    h("p", { id: "why-help", class: "dim" }, "Your name and these words are appended to the books and chained to what was said before: they can be answered, and never edited."));
}

function closed(user, word, id) {
  return h("div", { class: "panel", "data-key": "answer" },
    h("p", null, `You read as ${user.role}: answering takes the role operator or admin. Ask for such a token, or have it answered on the collector's machine:`),
    command(`flopmeter ${word} ack ${id.slice(0, 12)} --why "…"`));
}

// What people said, oldest first, between what raised it and what ended it.
export function history(steps) {
  return h("ol", { class: "history" }, steps.filter(Boolean).map(([time, what, why, key]) =>
    h("li", { "data-key": key }, h("div", null, what, " ", instant(time)), why && h("p", null, why))));
}

export const answerSteps = (answers) =>
  answers.map((a) => [a.time, h("span", null, stateMark(a.state, a.outcome), ` by `, h("b", { class: "name" }, a.who)), a.why, `a${a.number}`]);
