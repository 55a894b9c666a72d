// One event, whole: what it says, what it rests on, what became of it.

import { get } from "./api.js";
import { answering, answerSteps, history } from "./answering.js";
import { h, outside, render } from "./dom.js";
import { band, count, exact, flop, line } from "./format.js";
import { onChange } from "./live.js";
import { command, due, instant, severity } from "./parts.js";
import { segment } from "./route.js";
import { stateMark, subject, table } from "./events.js";

// Said in words above, or only of use to a program.
const TOLD = new Set(["message", "due", "recipient", "conditions", "open_questions", "note", "citation", "when_met", "counting_note", "deadline"]);
const FLOP = /(^|_)(flop|lower|point|upper|line|counted|integer_ops)$/;

export async function show(root, { path: [id], signal, user }) {
  const answer = answering({ path: `/events/${segment(id)}`, id, state: "open", user, word: "events", redraw: draw });
  async function draw() {
    const document = await get(`/events/${segment(id)}`, { signal });
    if (!signal.aborted) render(root, ...whole(document, answer));
  }
  onChange(draw, signal);
  await draw();
}

function whole({ event, answers, deadlines }, answer) {
  const d = event.data;
  return [
    h("div", { class: "head" },
      h("a", { href: "/events" }, "Events"), h("h1", null, event.type), severity(event.severity), stateMark(event.state),
      h("span", { class: "push" }, instant(event.time))),
    h("div", { class: "columns lead" },
      h("section", { class: "card", "aria-label": "What it says" },
        h("p", null, "About ", subject(event)),
        h("p", { class: "lede" }, d.message),
        d.due && h("p", null, due(d.due), " ", instant(d.due, { ago: false }), ` UTC, to ${d.recipient ?? "the recipient"}`),
        !d.due && d.deadline && h("p", { class: "dim" }, `Deadline: ${d.deadline}.`),
        event.over && h("p", null, h("b", null, "No longer so"), event.over.since ? [" since ", instant(event.over.since)] : "", `: ${event.over.because}`)),
      h("section", { class: "card", "aria-labelledby": "answer-title" },
        h("h2", { id: "answer-title" }, "What becomes of it"),
        history([
          [event.time, h("span", null, "Raised by the collector"), `at position ${exact(event.position)} of the books`, "raised"],
          ...answerSteps(answers),
          event.over?.since && [event.over.since, h("span", null, "Its condition ceased"), event.over.because, "over"],
        ]),
        answer(event.state))),
    deadlines.length > 0 && h("section", { class: "stacked", "aria-labelledby": "clocks" }, h("h2", { id: "clocks" }, "Deadlines that it started"), table(deadlines)),
    d.regime && law(d),
    h("section", { class: "card", "aria-labelledby": "rests" },
      h("h2", { id: "rests" }, "What it rests on"),
      values(Object.fromEntries(Object.entries(d).filter(([key]) => !TOLD.has(key)))),
      h("details", { "data-key": "raw" }, h("summary", null, "As it is delivered (CloudEvents 1.0)"),
        h("pre", { class: "command", tabindex: "0" }, JSON.stringify(event, null, 2)))),
    h("section", { class: "panel" }, h("p", { class: "dim" }, "The same in the terminal:"), command(`flopmeter events show ${event.id.slice(0, 12)}`)),
  ];
}

function law(d) {
  const counted = d.counted ?? d.countable?.flop;
  return h("section", { class: "card", "aria-labelledby": "law-title" },
    h("h2", { id: "law-title" }, "The rule"),
    h("dl", { class: "pairs" },
      pair("Regime", `${d.regime}, version ${d.regime_version ?? "unknown"}`),
      d.threshold_flop && pair("Line", h("span", { title: exact(d.threshold_flop) }, `${d.comparison ?? ""} ${line(d.threshold_flop)} operations`)),
      counted && pair("Counted", h("span", { title: `${exact(counted.lower)} to ${exact(counted.upper)}` }, `${band(counted)} FLOP`, d.counting ? `, by profile ${d.counting}` : "")),
      d.verdict && pair("Verdict", d.verdict),
      d.when_met && pair("When it is met", d.when_met),
      d.counting_note && pair("What counts", d.counting_note),
      d.conditions?.length > 0 && pair("Only if", h("ul", null, d.conditions.map((c) => h("li", null, c)))),
      d.open_questions?.length > 0 && pair("Left open", h("ul", null, d.open_questions.map((c) => h("li", null, c)))),
      d.citation && pair("Source", d.citation),
      d.note && pair("Note", d.note)));
}

const pair = (name, value) => [h("dt", null, name), h("dd", null, value)];

// Any value of an event's data, with its names as they stand: nothing is left out.
function values(data) {
  return h("dl", { class: "pairs" }, Object.entries(data).filter(([, v]) => !nothing(v)).map(([key, v]) => pair(key.replaceAll("_", " "), value(v, key))));
}

const nothing = (v) => v === null || v === "" || (Array.isArray(v) && !v.length);

function value(v, key) {
  if (Array.isArray(v)) return v.every((x) => typeof x !== "object") ? v.join("; ") : h("ul", null, v.map((x) => h("li", null, value(x, key))));
  if (v && typeof v === "object") {
    if ("lower" in v && "upper" in v) return h("span", { title: `${exact(v.lower)} · ${exact(v.point)} · ${exact(v.upper)}` }, band(v));
    return values(v);
  }
  if (typeof v === "number") return Number.isInteger(v) ? count(v) : String(v);
  if (typeof v === "boolean") return v ? "yes" : "no";
  if (FLOP.test(key) && /^\d+$/.test(v)) return h("span", { title: exact(v) }, flop(v));
  if (/^\d{4}-\d\d-\d\dT[\d:.]+Z$/.test(v)) return instant(v);
  return /^https?:\/\//.test(v) ? outside(v) : h("span", { class: key.endsWith("digest") ? "mono" : "name" }, String(v));
}
