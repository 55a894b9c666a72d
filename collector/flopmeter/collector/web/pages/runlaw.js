// A run against the law: each line with its verdict, the forecast's dates, how exact the figure is, and the plan.

import { h } from "./dom.js";
import { NONE, count, day, exact, line as lineText, many, percent, percentUp } from "./format.js";
import { bandFigure, figure, longer } from "./figures.js";
import { mark } from "./parts.js";
import { comparison, legend, lettered, scaleHead, scaleOf, strip, verdict } from "./standing.js";

const ANSWERS = {
  crossed: "crossed for certain", "will-be-met": "will be met", "may-be-met": "may be met", "not-in-sight": "not in sight", "too-young": "too young to tell",
};

export function lawCard(run) {
  if (run.thresholds.length === 0) {
    return h("section", { class: "card", "data-key": "law" }, h("h2", null, "Lines of the law"),
      h("p", null, "No regime draws a line for this run: none is in force, or its files could not be read (flopmeter regimes status)."));
  }
  const groups = lettered(run.thresholds);
  const counted = (t) => run.countable[t.regime]?.flop ?? null;
  const scale = scaleOf([run.executed.flop, ...run.thresholds.map(counted)], groups);
  return h("section", { class: "card", "data-key": "law", "aria-labelledby": "law-title" },
    h("h2", { id: "law-title" }, "Lines of the law"), legend(groups),
    h("div", { class: "scroll" }, h("table", { class: "law-table card-table", role: "table" },
      h("caption", { class: "unseen" }, "Each regime's line, what it counts of this run, and the verdict"),
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" },
        ["Regime", "Line", "Counted", ""].map((t, i) => h("th", { scope: "col", role: "columnheader" }, i === 3 ? [h("span", { class: "unseen" }, "On a scale"), scaleHead(scale, groups)] : t)),
        ["Share", "Verdict", "Forecast", "What follows"].map((t) => h("th", { scope: "col", role: "columnheader" }, t)))),
      h("tbody", { role: "rowgroup" }, run.thresholds.map((t) => row(run, t, counted(t), scale, groups))))),
    accuracy(run.accuracy, run.declared_dtypes),
    run.modifications.length > 0 && modifications(run.modifications));
}

function row(run, t, counted, scale, groups) {
  const own = run.forecast?.lines.find((one) => one.regime === t.regime && !one.original);
  const [low, high] = t.fraction_bounds ?? [];
  const cell = (label, ...content) => h("td", { role: "cell", "data-label": label }, h("div", null, content));
  return h("tr", { role: "row", "data-key": t.regime },
    h("th", { scope: "row", role: "rowheader" }, h("div", null, t.regime), h("div", { class: "under" }, t.title)),
    cell("Line", longer(`${comparison(t)} ${lineText(t.threshold_flop)}`, `${comparison(t)} ${exact(t.threshold_flop)} operations (${t.unit})`),
      !t.in_force && h("div", { class: "under" }, t.effective ? `from ${t.effective}` : t.status)),
    cell("Counted", bandFigure(counted, `operations countable under ${t.regime}`), different(run, t, counted)),
    cell("On a scale", strip(scale, groups, counted, null)),
    cell("Share", longer(percent(t.fraction), `${percent(t.fraction, 4)} of the line, between ${percent(low, 4)} and ${percent(high, 4)}`)),
    cell("Verdict", verdict(t.verdict), t.verdict_of_records !== t.verdict && h("div", { class: "under" }, `records alone: ${t.verdict_of_records}`)),
    cell("Forecast", own ? forecast(own) : h("span", { class: "dim wraps" }, withoutForecast(run, high))),
    cell("What follows", t.act, t.recipient && h("div", { class: "under" }, `to ${t.recipient}`), t.deadline && h("div", { class: "under" }, t.deadline)));
}

function different(run, t, counted) {
  const of = run.countable[t.regime];
  if (!counted || counted.point === run.executed.flop.point) return null;
  const why = [of.excluded?.length && `${count(of.excluded.length)} left out`, of.ancestors?.length && `${many(of.ancestors.length, "ancestor")} added`, of.unit !== "floating-point" && "with integer operations"];
  return h("div", { class: "under" }, why.filter(Boolean).join(", "));
}

function withoutForecast(run, high) {
  if (high < 1 / 64) return "far: below a 64th of it";
  return run.status === "running" ? "none yet" : `none: the run is ${run.status}`;
}

function forecast(own) {
  const said = ANSWERS[own.answer] ?? own.answer;
  const { earliest, point, latest } = own.crosses ?? {};
  if (!earliest && !point) return said;
  const from = earliest ? day(earliest) : NONE;
  return [h("div", null, said), h("div", null, longer(point ? day(point) : "no date", `point ${point ?? "none"}\nearliest ${earliest ?? "none"}\nlatest ${latest ?? "none"}`)),
    h("div", { class: "under" }, `${from} to ${latest ? day(latest) : "later"}`)];
}

// ---- +-30 %: what the EU's guidelines allow -----------------------------------------------------------

function accuracy(found, dtypes) {
  if (!found) return null;
  const one = (of, said) => h("li", null,
    mark(of.within ? "good" : "warn", of.within ? "✓" : "✕", of.within ? "within" : "not within"),
    ` ±${found.limit_percent} % ${said}: −${of.below_percent} % / +${of.above_percent} % of the point. `,
    of.best_estimate && h("span", { class: "dim" }, "Best single figure ", figure(of.best_estimate.flop), ` ±${of.best_estimate.percent} %`, of.best_estimate.percent <= found.limit_percent ? ", within." : "."));
  return h("div", { class: "accuracy" }, h("h3", null, `Is the figure within the EU's ±${found.limit_percent} %?`),
    h("ul", null, one(found, "by counters alone"), found.if_declared && one(found.if_declared, `if ${dtypes.join(" and ")} is true as declared`)));
}

function modifications(list) {
  return h("div", { class: "accuracy" }, h("h3", null, "As a modification of another model"),
    h("ul", null, list.map((m) => h("li", { "data-key": `${m.regime}/${m.original}` },
      verdict(m.verdict), ` ${m.regime}: ${m.share} of what training `, h("bdi", null, m.original), " took ",
      bandFigure(m.line, "FLOP", { range: false }), ", counted ", bandFigure(m.counted, "FLOP", { range: false }), !m.in_force && h("span", { class: "dim" }, " (not in force)")))));
}

// ---- the plan ---------------------------------------------------------------------------------------------

export function planCard(report) {
  const d = report?.declared;
  if (!d) return null;
  const used = report.plan?.budget_used_ppm;
  const rows = [
    ["Owner", d.owner], ["Budget", d.budget_flop && [figure(d.budget_flop), used && h("span", { class: "dim" }, ` ${percent(used.point / 1e6)} used (${percent(used.lower / 1e6)} to ${percentUp(used.upper / 1e6)})`)]],
    ["Ends", d.expected_end && [day(d.expected_end), report.plan?.past_expected_end && mark("warn", "◆", " past")]], ["Hardware", d.hardware], ["Dtype", d.dtype], ["Purpose", d.purpose],
    ["Base models", d.base_models?.join(", ")], ["Said by", d.by?.join(", ")],
  ].filter(([, value]) => value);
  return h("section", { class: "card", "data-key": "plan" }, h("h2", null, "Plan, as declared"),
    h("dl", { class: "pairs" }, rows.map(([name, value]) => [h("dt", null, name), h("dd", null, value)])));
}

/** The forecast for the head of the page: when, of what, and whether that is a line or the run's own budget. */
export function outlook(run) {
  const f = run.forecast;
  if (!f) return ["none", run.status === "running" ? "too young, or nothing in sight" : `the run is ${run.status}`];
  const open = f.lines.filter((one) => one.answer !== "crossed" && !one.original);
  const next = open.find((one) => one.crosses?.point) ?? open.find((one) => one.crosses?.earliest);
  if (!next) return ["no line in sight", `${f.confidence_percent} % interval, until ${day(f.until)}`];
  const { earliest, point, latest } = next.crosses;
  return [longer(point ? day(point) : "not at this rate", `${next.regime ?? "budget"}: point ${point ?? "none"}\nearliest ${earliest ?? "none"}\nlatest ${latest ?? "none"}`),
    `${next.regime ?? "declared"} ${comparison(next)} ${lineText(next.line)}: ${earliest ? day(earliest) : NONE} to ${latest ? day(latest) : "later"}`,
    next.regime ? "Next line" : "Its budget"]; // no line of the law: the list says "no line in sight" of the same run
}
