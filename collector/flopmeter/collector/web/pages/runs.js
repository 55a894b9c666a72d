// Every run: how much, how sure, how far from each line, when it gets there, what is open.

import { get } from "./api.js";
import { h, render, svg } from "./dom.js";
import { NONE, count, day, deviceTime, flop, flopUp, many, percent } from "./format.js";
import { bandFigure, figure, longer } from "./figures.js";
import { follow } from "./pace.js";
import { announce, choice, empty, instant, mark, severity } from "./parts.js";
import { queryHref, runHref, setQuery } from "./route.js";
import { legend, letterOf, lettered, scaleHead, scaleOf, strip, verdict } from "./standing.js";

const LIMIT = 100; // a page; 1,000 runs are ten
const STATUS = { running: ["good", "●"], silent: ["warn", "◌"], stopped: ["dim", "○"], "not begun": ["dim", "·"] };
const SORTS = [
  ["", "largest"], ["nearest", "nearest to a line"], ["rate", "fastest now"], ["open_events", "most open events"],
  ["last_seen", "last seen"], ["run", "name"],
];
const ANSWERS = {
  crossed: "crossed", "will-be-met": "will be met", "may-be-met": "may be met", "not-in-sight": "not in sight", "too-young": "too young to tell",
};

// Why there is no forecast.
const WITHOUT = {
  "no-line": ["no line applies", ""], far: ["far from every line", "below a 64th of each"],
  "too-young": ["too young to tell", "fewer than four whole hours"], "not-yet": ["no rate yet", "asked once an hour"],
};

export const status = (name) => mark(...(STATUS[name] ?? ["dim", "·"]), name);

export async function show(root, { query, signal }) {
  const asked = () => ({ q: query.q, status: query.status, sort: query.sort, after: query.after, limit: LIMIT });
  const draw = async () => {
    const found = await get("/runs", { parameters: asked(), signal });
    if (!signal.aborted) render(root, view(found, query));
    return found;
  };
  follow(draw, signal);
  const found = await draw();
  if (query.q || query.status) announce(`${many(found.total, "run")} found`);
}

function view(found, query) {
  const filtered = Boolean(query.q || query.status);
  const planned = found.planned_total > 0 && !query.after && plannedCard(found);
  if (found.total === 0 && !filtered) return [head(found, query), found.shared.length > 0 ? sharedCard(found.shared) : nothing(), planned].filter(Boolean);
  return [
    head(found, query),
    filters(query),
    found.items.length > 0 ? table(found, query) : !planned && noneFits(query),
    pages(found, query),
    planned,
    found.shared.length > 0 && sharedCard(found.shared),
  ].filter(Boolean);
}

/** A tenant's own part of runs that are not theirs alone. */
function sharedCard(shared) {
  return h("section", { class: "card", "data-key": "shared", "aria-labelledby": "shared-title" },
    h("h2", { id: "shared-title" }, "Your part of runs that others work in too"),
    h("p", { class: "dim" }, "Totals, lines, events and deadlines of such a run are of all who work in it, and stand with whoever runs the collector. If the run is one owner's, it can be declared so: then that owner sees it whole."),
    h("div", { class: "scroll" }, h("table", { class: "card-table", role: "table" },
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ["Run", "Your FLOP", "Your device time", "Your jobs", "From", "To"].map((t) => h("th", { scope: "col", role: "columnheader" }, t)))),
      h("tbody", { role: "rowgroup" }, shared.map((part, i) => h("tr", { role: "row", "data-key": part.run ?? `part-${i}` },
        h("th", { scope: "row", role: "rowheader" }, part.run === null ? h("span", { class: "dim" }, "a run that somebody put it into") : h("bdi", null, part.run)),
        [["Your FLOP", bandFigure(part.flop)], ["Your device time", deviceTime(part.device_seconds)], ["Your jobs", count(part.jobs)], ["From", instant(part.first_seen)], ["To", instant(part.last_seen)]]
          .map(([label, content]) => h("td", { role: "cell", "data-label": label }, h("div", null, content)))))))));
}

/** Runs of which there is a plan, and no usage: they are in no table of usage, no total and no order. */
function plannedCard({ planned, planned_total: total }) {
  const cells = ({ declared: d }) => [
    ["Budget, FLOP", d.budget_flop ? figure(d.budget_flop) : NONE], ["Until", d.expected_end ? day(d.expected_end) : NONE],
    ["Owner", d.owner ?? NONE], ["Hardware", d.hardware ?? NONE], ["Purpose", d.purpose ?? NONE],
  ];
  return h("section", { class: "card", "data-key": "planned", "aria-labelledby": "planned-title" },
    h("h2", { id: "planned-title" }, "Planned"),
    h("p", { class: "dim" }, "Declared, and nothing of them is metered: no usage, and in no total. A run begins with the first record of a job that carries its name."),
    h("div", { class: "scroll" }, h("table", { class: "card-table", role: "table" },
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ["Run", ...cells(planned[0]).map(([label]) => label)].map((t) => h("th", { scope: "col", role: "columnheader" }, t)))),
      h("tbody", { role: "rowgroup" }, planned.map((run) => h("tr", { role: "row", "data-key": run.run },
        h("th", { scope: "row", role: "rowheader" }, h("a", { href: runHref(run.run), class: "run-name", title: run.run }, h("bdi", null, run.run)), h("div", { class: "under" }, status(run.status))),
        cells(run).map(([label, content]) => h("td", { role: "cell", "data-label": label }, h("div", null, content)))))))),
    total > planned.length && h("p", { class: "dim" }, `${count(total - planned.length)} more: a part of a name, above, finds them.`));
}

function head(found) {
  return h("header", { class: "head", "data-key": "head" }, h("h1", null, "Runs"),
    h("p", { class: "dim" }, many(found.total, "run"), found.planned_total > 0 && `, ${count(found.planned_total)} planned`, ", executed and countable FLOP as a band (lower, point, upper) against the lines that apply"));
}

function filters(query) {
  let timer = 0;
  const search = (value) => {
    clearTimeout(timer);
    timer = setTimeout(() => setQuery({ q: value.trim(), after: null }), 200);
  };
  return h("form", { class: "filters", role: "search", "data-key": "filters", onsubmit: (e) => e.preventDefault() },
    h("label", { class: "choice" }, h("span", null, "Name"),
      h("input", { type: "search", name: "q", value: query.q ?? "", placeholder: "part of a name", maxlength: "200", autocomplete: "off", spellcheck: "false", oninput: (e) => search(e.target.value) })),
    choice("status", "Status", query.status, [["", "all"], ["running", "running"], ["silent", "silent"], ["stopped", "stopped"]],
      (value) => setQuery({ status: value, after: null })),
    choice("sort", "Order", query.sort, SORTS, (value) => setQuery({ sort: value, after: null })),
    (query.q || query.status) && h("a", { class: "button quiet", href: queryHref({ q: null, status: null, after: null }) }, "Clear"));
}

function nothing() {
  return empty("No run yet", "A run appears here with the first record of a job that an agent ships. Nothing has to be changed in the job; a label only gives it a name.",
    h("p", null, "On a GPU node, see whether the agent reads its GPUs and knows who holds them:"), "flopmeter agent doctor",
    h("p", null, "Without a GPU, see the whole system with a simulated cluster:"), "flopmeter demo",
    h("p", null, "Work that no job owns stands under ", h("a", { href: "/fleet" }, "Fleet"), " as unattributed."));
}

function noneFits(query) {
  return h("section", { class: "empty card", "data-key": "none" }, h("h2", null, "No run fits"),
    h("p", null, query.q ? `No run's name has “${query.q.slice(0, 100)}” in it` : "No run", query.status ? ` with status ${query.status}` : "", "."),
    h("p", null, h("a", { href: queryHref({ q: null, status: null, after: null }) }, "Show all runs"),
      ". A run that was given another name is found under the new one."));
}

// ---- the table; on narrow screens each row is a card ---------------------------------------------------

function table(found, query) {
  const groups = lettered(found.lines);
  const whole = found.items.filter((run) => run.fault === null);
  const scale = scaleOf(whole.flatMap((run) => [run.executed, ...Object.values(run.countable)]), groups);
  const headings = [
    ["Run", "run"], ["Executed FLOP", ""], [h("span", null, h("span", { class: "unseen" }, "Against the lines"), scaleHead(scale, groups)), null],
    ["Nearest line", "nearest"], ["Rate", "rate"], ["Forecast", null], ["Evidence", null], ["Open", "open_events"],
  ];
  return h("section", { class: "runs", "data-key": "table", "aria-label": "Runs" },
    legend(groups),
    h("p", { class: "band-legend dim" }, h("span", null, sample("executed"), " executed"), h("span", null, sample("countable"), " countable under the nearest line"), h("span", null, "bar from lower to upper, diamond at the point")),
    h("div", { class: "scroll" }, h("table", { class: "runs-table card-table", role: "table" },
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, headings.map(([text, sort]) => heading(text, sort, query)))),
      h("tbody", { role: "rowgroup" }, found.items.map((run) => row(run, scale, groups, found.lines))))));
}

function sample(of) {
  return svg("svg", { class: "strip sample", width: 26, height: 10, viewBox: "0 0 26 10", "aria-hidden": "true" },
    svg("g", { class: `band-mark ${of}` }, svg("rect", { x: 1, y: 2, width: 24, height: 6, rx: 1 }), svg("path", { d: "M13 0L18 5L13 10L8 5Z" })));
}

function heading(text, sort, query) {
  const sorted = sort !== null && (query.sort ?? "") === sort;
  return h("th", { scope: "col", role: "columnheader", "aria-sort": sorted ? (sort === "run" ? "ascending" : "descending") : null },
    sort === null ? text : h("a", { href: queryHref({ sort, after: null }) }, text, sorted && h("span", { "aria-hidden": "true" }, sort === "run" ? " ▲" : " ▼")));
}

function row(run, scale, groups, lines) {
  const cell = (label, ...content) => h("td", { role: "cell", "data-label": label }, h("div", null, content));
  const name = h("th", { scope: "row", role: "rowheader", class: "run-cell" },
    h("a", { href: runHref(run.run), class: "run-name", title: run.run }, h("bdi", null, run.run)));
  if (run.fault !== null) {
    return h("tr", { role: "row", "data-key": run.run }, name,
      h("td", { role: "cell", colspan: "7" }, mark("bad", "✕", "could not be read"), " ", run.fault));
  }
  name.append(h("div", { class: "under" }, status(run.status), " ", spark(run.spark)));
  const counted = run.nearest ? run.countable[run.nearest.regime] : null;
  return h("tr", { role: "row", "data-key": run.run }, name,
    cell("Executed", bandFigure(run.executed), counted && counted.point !== run.executed.point &&
      h("div", { class: "under" }, "countable ", bandFigure(counted, `FLOP countable under ${run.nearest.regime}`, { range: false }))),
    cell("Against the lines", strip(scale, groups, run.executed, counted)),
    cell("Nearest line", nearest(run.nearest, lines, groups)),
    cell("Rate", rate(run.rate)),
    cell("Forecast", forecast(run, groups)),
    cell("Evidence", h("div", null, classes(run.classes)), coverage(run.coverage)),
    cell("Open events", open(run)));
}

function nearest(found, lines, groups) {
  if (!found) return h("span", { class: "dim" }, "no line applies");
  const of = lines.find((one) => one.regime === found.regime);
  const [low, high] = found.fraction_bounds;
  return [
    verdict(found.verdict), " ",
    longer(percent(found.fraction), `${percent(found.fraction, 3)} of the line, between ${percent(low, 3)} and ${percent(high, 3)}`),
    h("div", { class: "under" }, letterOf(found.regime, groups), " ", h("span", { title: of?.title }, found.regime)),
  ];
}

function rate(found) {
  if (!found) return h("span", { class: "dim" }, "none now");
  return [bandFigure(found.flop_per_second, "FLOP/s", { range: false }), h("div", { class: "under" }, `FLOP/s at ${found.hour.slice(11, 16)}`)];
}

function forecast({ forecast: found, no_forecast: why, status: stands }, groups) {
  if (!found) {
    const [said, more] = why === "not-running" ? [`the run is ${stands}`, "nothing is forecast"] : WITHOUT[why] ?? [why, ""];
    return [h("span", { class: "dim" }, said), more && h("div", { class: "under" }, more)];
  }
  if (found.regime === null) {
    return [h("span", { class: "dim" }, "no line in sight"), h("div", { class: "under" }, `until ${day(found.until)}`)];
  }
  const { earliest, point, latest } = found.crosses ?? {};
  const dates = earliest || point;
  const exactly = `${found.regime}: point ${point ?? "none"}\nearliest ${earliest ?? "none"}\nlatest ${latest ?? "none"} (${found.confidence_percent} % interval)`;
  return [
    h("div", null, letterOf(found.regime, groups), " ", dates ? longer(point ? day(point) : "no date", exactly) : (ANSWERS[found.answer] ?? found.answer)),
    dates && h("div", { class: "under" }, ANSWERS[found.answer] ?? found.answer),
    dates && h("div", { class: "under" }, `${earliest ? day(earliest) : "?"} to ${latest ? day(latest) : "later"}`),
  ];
}

function classes(shares) {
  const sorted = Object.entries(shares).sort((a, b) => b[1] - a[1]);
  if (sorted.length === 0) return h("span", { class: "dim" }, NONE);
  const [best, share] = sorted[0];
  const all = sorted.map(([name, part]) => `${name} ${percent(part, 2)}`).join("\n");
  return [h("span", { class: "tag" }, best), " ", longer(percent(share), all, { class: "dim" })];
}

function coverage({ expected_device_seconds: expected, observed_device_seconds: observed }) {
  if (!expected) return h("span", { class: "dim" }, NONE);
  const missing = expected - observed;
  return [
    h("div", { class: "under" }, longer(percent(observed / expected), `${deviceTime(observed)} observed of ${deviceTime(expected)}`), " covered"),
    missing > 0 && h("div", { class: "under" }, `${deviceTime(missing)} missing`),
  ];
}

function open(run) {
  const kinds = Object.entries(run.open_events).filter(([, number]) => number > 0);
  if (kinds.length === 0) return h("span", { class: "dim" }, "none");
  const gravest = kinds[0][0];
  const total = kinds.reduce((sum, [, number]) => sum + number, 0);
  return h("a", { href: `/events?run=${encodeURIComponent(run.run)}`, title: kinds.map(([name, number]) => `${number} ${name}`).join(", ") },
    `${count(total)} `, severity(gravest));
}

function spark(found) {
  if (!found || found.flop.length === 0) return null;
  const top = Math.max(...found.flop, 1);
  const bars = found.flop.map((value, i) => {
    const height = value > 0 ? Math.max(1, (value / top) * 16) : 0;
    return svg("rect", { x: i * 3, y: 16 - height, width: 2, height });
  });
  return svg("svg", { class: "spark", width: found.flop.length * 3, height: 16, role: "img", "aria-label": `FLOP a day since ${found.from}: at most ${flopUp(String(BigInt(Math.round(top))))}, last ${flop(String(BigInt(Math.round(found.flop.at(-1)))))}` }, bars);
}

function pages(found, query) {
  if (!found.next && !query.after) return null;
  return h("nav", { class: "pages", "aria-label": "Pages", "data-key": "pages" },
    query.after && h("a", { class: "button", href: queryHref({ after: null }) }, "First page"),
    found.next && h("a", { class: "button", href: queryHref({ after: found.next }) }, `Next ${Math.min(LIMIT, found.total)}`),
    h("span", { class: "dim" }, `${many(found.total, "run")} in all; the name filter finds any of them.`));
}
