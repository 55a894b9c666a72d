// One deadline: when, what, to whom, why, and what people said to it.

import { get } from "./api.js";
import { answering, answerSteps, history } from "./answering.js";
import { h, render } from "./dom.js";
import { onChange } from "./live.js";
import { command, due, instant } from "./parts.js";
import { eventHref, runHref, segment } from "./route.js";
import { stateMark } from "./events.js";

const OUTCOMES = [["done", "Done"], ["not-applicable", "Does not apply"]];

export async function show(root, { path: [id], signal, user }) {
  const path = `/deadlines/${segment(id)}`;
  const answer = answering({ path, id, state: "open", user, word: "deadlines", outcomes: OUTCOMES, redraw: draw });
  async function draw() {
    const document = await get(path, { signal });
    if (!signal.aborted) render(root, ...whole(document, answer));
  }
  onChange(draw, signal);
  await draw();
}

function whole({ deadline: d, trigger_event: trigger, answers, note }, answer) {
  return [
    h("div", { class: "head" },
      h("a", { href: "/events" }, "Events and deadlines"), h("h1", null, d.what || d.act), stateMark(d.state, d.outcome),
      h("span", { class: "push" }, d.state === "resolved" ? null : due(d.due))),
    h("div", { class: "columns lead" },
      h("section", { class: "card", "aria-label": "What is due" },
        h("dl", { class: "pairs" },
          pair("Due", h("span", null, h("b", null, instant(d.due, { ago: false })), " UTC, by ", d.due_local)),
          pair("To", d.recipient),
          pair("Act", d.act),
          d.run && pair("Run", h("a", { href: runHref(d.run), class: "name" }, d.run)),
          pair("Why", `${d.regime}, rule ${d.rule}`),
          pair("The clock runs since", instant(d.trigger)),
          trigger && pair("Started by", h("a", { href: eventHref(trigger.id) }, trigger.type)),
          !trigger && pair("Started by", "a person"),
          note && pair("Note", note))),
      h("section", { class: "card", "aria-labelledby": "answer-title" },
        h("h2", { id: "answer-title" }, "What becomes of it"),
        history([[d.opened, h("span", null, "Opened"), trigger?.data?.message, "opened"], ...answerSteps(answers)]),
        answer(d.state))),
    h("section", { class: "panel" }, h("p", { class: "dim" }, "Into a calendar, or as a draft to be filed:"),
      command("flopmeter deadlines export --ics deadlines.ics"), command("flopmeter drafts list")),
  ];
}

const pair = (name, value) => [h("dt", null, name), h("dd", null, value)];
