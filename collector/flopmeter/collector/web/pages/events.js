// What is due when, for whom and why; and what was raised, the newest first.

import { get } from "./api.js";
import { h, render } from "./dom.js";
import { clock, count, many, short } from "./format.js";
import { onChange } from "./live.js";
import { announce, choice, due, instant, mark, severity } from "./parts.js";
import { deadlineHref, eventHref, nodeHref, runHref, setQuery } from "./route.js";

const STATES = { open: ["warn", "○"], acknowledged: ["accent", "◐"], resolved: ["good", "✓"] };
const TYPES = ["threshold", "plan.exceeds", "coverage.lost", "agent.silent", "usage.unattributed", "method.disagrees", "evidence", "deadline", "fleet.capacity"];
const SOON_S = 172_800;
const MONTH_S = 2_592_000;
const MORE = 100;

export async function show(root, { query, signal }) {
  let pages = 1;
  let seen = 0;
  async function draw() {
    const [deadlines, ...lists] = await Promise.all([
      get("/deadlines", { parameters: { run: query.run, limit: 1000 }, signal }),
      ...(await listed(query, pages, signal)),
    ]);
    if (signal.aborted) return;
    const events = lists.flatMap((l) => l.items);
    if (seen && lists[0].total > seen) announce(`${many(lists[0].total - seen, "new event")}`);
    seen = lists[0].total;
    render(root,
      h("div", { class: "head" }, h("h1", null, "Events and deadlines")),
      deadlineSection(deadlines),
      h("section", { "aria-labelledby": "events-title", class: "stacked" },
        h("div", { class: "head" }, h("h2", { id: "events-title" }, "What was raised"),
          h("span", { class: "dim", role: "status" }, shownText(events, lists[0].total))),
        filters(query),
        events.length ? eventList(events) : none(query),
        lists.at(-1).next && h("p", { class: "buttons" },
          h("button", { type: "button", onclick: () => { pages += 1; return draw(); } }, `Show ${MORE} older ones`))));
  }
  onChange(draw, signal);
  await draw();
}

// As many pages as the reader has asked for: each names where the next begins.
async function listed(query, pages, signal) {
  const parameters = {
    state: query.state === "all" ? "" : query.state || "open", severity: query.severity, type: query.type, run: query.run, limit: MORE,
  };
  const found = [];
  for (let after; found.length < pages; after = found.at(-1).next) {
    if (found.length && !after) break;
    found.push(await get("/events", { parameters: { ...parameters, after }, signal }));
  }
  return found;
}

const shownText = (events, total) => (events.length < total ? `${count(events.length)} of ${count(total)}, the newest first` : `${count(total)}, the newest first`);

function filters(query) {
  const set = (name) => (value) => setQuery({ [name]: value });
  return h("form", { class: "filters", role: "search", "aria-label": "Filter events", onsubmit: (e) => e.preventDefault() },
    choice("state", "State", query.state ?? "open", [["open", "open"], ["acknowledged", "acknowledged"], ["resolved", "resolved"], ["all", "all"]], set("state")),
    choice("severity", "At least", query.severity, [["", "any"], ["notice", "notice"], ["warning", "warning"], ["critical", "critical"]], set("severity")),
    choice("type", "Type", query.type, [["", "any"], ...withOwn(TYPES, query.type).map((t) => [t, t])], set("type")),
    h("label", { class: "choice" }, h("span", null, "Run"),
      h("input", { type: "search", name: "run", size: 18, value: query.run ?? "", placeholder: "whole name", spellcheck: "false", autocomplete: "off", onchange: (e) => setQuery({ run: e.target.value.trim() }) })),
    ["state", "severity", "type", "run"].some((name) => query[name]) && h("a", { href: "/events" }, "Clear filters"));
}

const withOwn = (list, own) => (own && !list.includes(own) ? [...list, own] : list);

function none(query) {
  if (query.severity || query.type || query.run || query.state) {
    return h("section", { class: "panel" }, h("p", null, "No event matches these filters. ", h("a", { href: "/events?state=all" }, "Show all events")));
  }
  return h("section", { class: "panel" }, h("p", null, mark("good", "✓", "No open event."), " Nothing waits for a person: ",
    "what is crossed, lost, silent, forked or due appears here by itself. ", h("a", { href: "/events?state=all" }, "Show all events")));
}

// The same thing about the same subject, day after day, is one line with its number.
function eventList(events) {
  const groups = new Map();
  for (const event of events) {
    const name = JSON.stringify([event.type, event.subject, event.data.regime ?? "", event.state]);
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(event);
  }
  return h("ol", { class: "events" }, [...groups.values()].map(([newest, ...older]) =>
    h("li", { "data-key": newest.id, class: newest.state === "resolved" ? "event settled" : "event" },
      eventHead(newest),
      older.length > 0 && h("details", { "data-key": `older-${newest.type}-${newest.subject}` },
        h("summary", null, `and ${many(older.length, "earlier one")} of the same, since ${older.at(-1).time.slice(0, 10)}`),
        h("ul", null, older.map((e) => h("li", { "data-key": e.id }, instant(e.time, { ago: false }), " ",
          h("a", { href: eventHref(e.id) }, h("span", { class: "mono" }, short(e.id))), " ", e.data.message))))) ));
}

function eventHead(event) {
  const [kind, sign] = STATES[event.state];
  return [
    h("div", { class: "event-line" },
      severity(event.severity),
      h("a", { href: eventHref(event.id), class: "event-type" }, event.type),
      subject(event),
      h("span", { class: "push" }, event.state !== "open" && mark(kind, sign, event.state), " ", instant(event.time))),
    h("p", { class: "message" }, event.data.message),
    event.data.due && h("p", null, due(event.data.due), ` to ${event.data.recipient ?? "the recipient"}`),
    event.answer && h("p", { class: "dim" }, `${event.answer.state === "open" ? "reopened" : event.answer.state} by ${event.answer.who}: ${event.answer.why}`),
    event.over && h("p", { class: "dim" }, `No longer so: ${event.over.because}`),
  ];
}

// Whom it is about, as a link where there is a view of it.
export function subject(event) {
  const node = /^node\/[^/]*\/(.+)$/.exec(event.subject);
  if (node) return h("a", { href: nodeHref(node[1]), class: "name" }, event.subject);
  if (event.data?.run && event.data.run === event.subject) return h("a", { href: runHref(event.subject), class: "name" }, event.subject);
  return h("span", { class: "name" }, event.subject);
}

export function stateMark(state, outcome) {
  const [kind, sign] = STATES[state] ?? STATES.open;
  return mark(kind, sign, outcome ? `${state}: ${outcome}` : state);
}

function deadlineSection({ items }) {
  const groups = { overdue: [], soon: [], month: [], later: [], resolved: [] };
  for (const d of items) groups[groupOf(d)].push(d);
  const open = items.length - groups.resolved.length;
  return h("section", { "aria-labelledby": "due-title", class: "stacked" },
    h("div", { class: "head" }, h("h2", { id: "due-title" }, "What is due"), h("span", { class: "dim" }, open ? many(open, "open deadline") : "")),
    !items.length && h("p", { class: "panel" }, mark("good", "✓", "Nothing is due."),
      " A deadline appears when an event starts a clock: a line that is crossed, or known to be, in a regime that sets one."),
    group("Overdue", groups.overdue, "overdue", "bad"), group("Within two days", groups.soon, "soon", "warn"),
    group("Within 30 days", groups.month), group("Later", groups.later),
    groups.resolved.length > 0 && h("details", { "data-key": "resolved" },
      h("summary", null, many(groups.resolved.length, "resolved deadline")), table(groups.resolved)));
}

function groupOf(d) {
  if (d.state === "resolved") return "resolved";
  const left = (Date.parse(d.due) - clock.now()) / 1000;
  return left < 0 ? "overdue" : left < SOON_S ? "soon" : left < MONTH_S ? "month" : "later";
}

function group(title, deadlines, when = "", kind = "") {
  return deadlines.length > 0 && h("div", { class: `due-group ${when}`, "data-key": title },
    h("h3", { class: kind }, `${title} · ${deadlines.length}`), table(deadlines));
}

export function table(deadlines) {
  return h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Deadlines" }, h("table", { class: "stackable dues" },
    h("thead", null, h("tr", null, ["Due", "What", "To whom", "Run", "Why", "Standing"].map((t) => h("th", { scope: "col" }, t)))),
    h("tbody", null, deadlines.map((d) => h("tr", { "data-key": d.id },
      h("th", { scope: "row", class: "nowrap" }, h("a", { href: deadlineHref(d.id) }, d.due.slice(0, 16).replace("T", " ")),
        h("br"), d.state === "resolved" ? "" : due(d.due)),
      h("td", { "data-label": "What" }, d.what || d.act),
      h("td", { "data-label": "To whom" }, d.recipient),
      h("td", { class: "name", "data-label": "Run" }, d.run ? h("a", { href: runHref(d.run) }, d.run) : "–"),
      h("td", { "data-label": "Why" }, `${d.regime}, ${d.rule}`, h("br"), h("span", { class: "dim" }, `the clock runs since ${d.trigger.slice(0, 16).replace("T", " ")}`)),
      h("td", { "data-label": "Standing" }, stateMark(d.state, d.outcome)))))));
}
