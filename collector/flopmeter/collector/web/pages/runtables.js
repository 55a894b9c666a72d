// What a run's figure is made of: by class, pipe, precision, device model, purpose, job; coverage, energy, utilisation.

import { h } from "./dom.js";
import { NONE, count, deviceTime, flop, flopDown, flopUp, percent, percentUp, silentSince, time } from "./format.js";
import { bandFigure, figure, longer } from "./figures.js";
import { command, mark } from "./parts.js";

const CLASSES = {
  A1: "the driver's own cycle counters", A2: "percentages of pipe activity times elapsed cycles", A3: "as A1 or A2, on a GPU whose rates nobody has confirmed",
  B1: "DCGM before Hopper, with HMMA and IMMA", B2: "DCGM, any tensor pipe only", C: "utilisation and energy: an upper bound only",
  D: "declared, by formula: an upper bound only", gap: "nothing usable: from 0 to the most",
};

function table(key, title, columns, rows, note) {
  if (rows.length === 0) return null;
  return h("section", { class: "card", "data-key": key }, h("h2", null, title),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, h("table", null,
      h("thead", null, h("tr", null, columns.map((c, i) => h("th", { scope: "col", class: side(c, i) }, c)))),
      h("tbody", null, rows.map((cells) => h("tr", null, cells.map((c, i) => (i === 0 ? h("th", { scope: "row" }, c) : h("td", { class: side(columns[i], i) }, c)))))))),
    note && h("p", { class: "dim under-table" }, note));
}

const WORDS = new Set(["When (UTC)", "Looks like", "Here by", "Pipe"]);
const side = (column, i) => (i === 0 || WORDS.has(column) ? null : "num");

const three = (band, unit = "FLOP") => [figure(band.point, unit), figure(band.lower, unit, flopDown), figure(band.upper, unit, flopUp)];
const share = (part) => longer(percent(part), percent(part, 4));

export function breakdowns(run) {
  const parts = (found) => Object.entries(found).sort((a, b) => b[1].device_seconds - a[1].device_seconds);
  const part = ([name, p], said) => [[name, said && h("div", { class: "under" }, said)], ...three(p.flop), deviceTime(p.device_seconds), share(p.device_time_share)];
  const pipes = Object.entries(run.by_pipe).filter(([, p]) => p.sm_cycles !== "0" || (p.flop ?? p.integer_ops).upper !== "0");
  const heads = ["Point FLOP", "Lower", "Upper", "Device time", "Share"];
  return [
    table("classes", "By evidence class", ["Class", ...heads], parts(run.by_evidence_class).map((one) => part(one, CLASSES[one[0]]))),
    table("pipes", "By pipe", ["Pipe", "Point", "Lower", "Upper", "SM-cycles"],
      pipes.map(([name, p]) => [[name, p.integer_ops && h("div", { class: "under" }, "integer operations")], ...three(p.flop ?? p.integer_ops, p.flop ? "FLOP" : "integer operations"), figure(p.sm_cycles, "SM-cycles")]),
      "SM-cycles are the raw count. The bounds of a tensor pipe are wide because its counter does not tell the precision."),
    precision(run),
    table("models", "By device model", ["Model", ...heads], parts(run.by_model).map((one) => part(one)), run.no_w_table.length > 0 && `Metered in cycles only, without a table of FLOP per cycle: ${run.no_w_table.join(", ")}.`),
  ];
}

const PIPES = { gap: "none: a gap", unread: "any that nobody read" };
const FORMATS = { unknown: "not known", vector: "of the vector pipe" };

function precision(run) {
  if (run.by_precision?.length) {
    const size = (p) => BigInt(p.flop.point) * 10n ** 40n + BigInt(p.flop.upper);
    const sorted = [...run.by_precision].sort((a, b) => (size(a) < size(b) ? 1 : -1));
    return table("precision", "By precision", ["Precision", "Pipe", "Point FLOP", "Lower", "Upper"], sorted.map((p) => [FORMATS[p.format] ?? p.format, PIPES[p.pipe] ?? p.pipe, ...three(p.flop)]),
      "A tensor pipe's precision is that which the jobs declare; the bounds allow for any other.");
  }
  const said = run.declared_dtypes;
  return h("section", { class: "card", "data-key": "precision" }, h("h2", null, "By precision"),
    said.length > 0
      ? h("p", null, "Tensor work is priced at the declared ", h("b", null, said.join(" and ")), "; the bounds allow for any precision that the pipe can do. No counter tells it.")
      : [h("p", null, "No job declares its precision, so that the point takes the pipe's usual rate. Declaring it narrows nothing by itself, and lets the page say what would hold if it is true:"), command(`flopmeter runs declare ${quoted(run.run)} --dtype bf16`)]);
}

/** A name as a shell takes it whole. */
export const quoted = (name) => (/^[\w:./@-]+$/.test(name) ? name : `'${name.replaceAll("'", "'\\''")}'`);

// ---- purposes and jobs ----------------------------------------------------------------------------------

export function purposeCard(run, report) {
  const seen = (report?.purposes ?? run.purposes);
  const merged = new Map();
  for (const p of seen) {
    const old = merged.get(p.purpose) ?? { point: 0n, lower: 0n, upper: 0n, spans: [], guesses: new Set() };
    for (const name of ["point", "lower", "upper"]) old[name] += BigInt(p.flop[name]);
    old.spans.push(...(p.spans ?? []));
    if (p.looks_like?.confidence) old.guesses.add(`${p.looks_like.guess} (${p.looks_like.confidence} confidence)`);
    else old.why ??= p.looks_like?.why_not;
    merged.set(p.purpose, old);
  }
  const rows = [...merged].map(([name, p]) => [
    h("span", { class: "nowrap" }, h("span", { class: `purpose-key purpose-${name}`, "aria-hidden": "true" }), name),
    ...three({ point: String(p.point), lower: String(p.lower), upper: String(p.upper) }),
    p.spans.length > 0 ? spansText(p.spans) : NONE, [...p.guesses].join(", ") || h("span", { class: "dim", title: p.why || null }, "cannot be told"),
  ]);
  return table("purposes", "What it was for", ["Purpose", "Point FLOP", "Lower", "Upper", "When (UTC)", "Looks like"], rows,
    "Purposes are the lab's word; untagged time counts. What it looks like is guessed from counters, and is in no total.");
}

function spansText(spans) {
  const said = spans.slice(0, 3).map(([from, to]) => `${time(from)} to ${time(to)}`).join(", ");
  return spans.length > 3 ? `${said} and ${spans.length - 3} more` : said;
}

export function jobsCard(report, run) {
  const jobs = report?.jobs ?? [];
  const rows = jobs.map((j) => [[h("bdi", null, j.job), j.user && h("div", { class: "under" }, j.user)], bandFigure(j.flop, "FLOP", { range: false }), deviceTime(j.device_seconds), count(j.restarts), time(j.first_seen), time(j.last_seen),
    j.rules.join(", ") || `entry ${j.assigned_by.join(", ")}`]);
  const more = run.job_count > jobs.length && `The largest ${jobs.length} of ${count(run.job_count)}.`;
  return table("jobs", "Jobs", ["Job", "Point FLOP", "Device time", "Restarts", "First seen (UTC)", "Last seen (UTC)", "Here by"], rows, more);
}

// ---- coverage, energy, utilisation ------------------------------------------------------------------------

export function coverageCard(run) {
  const c = run.coverage;
  const gaps = Object.entries(c.gaps).sort((a, b) => b[1] - a[1]);
  const part = c.expected_device_seconds ? c.observed_device_seconds / c.expected_device_seconds : null;
  return h("section", { class: "card", "data-key": "coverage" }, h("h2", null, "Coverage and gaps"),
    h("p", null, longer(percent(part), `${c.observed_device_seconds} of ${c.expected_device_seconds} device-seconds`), ` of ${deviceTime(c.expected_device_seconds)} was observed.`),
    gaps.length === 0 ? h("p", { class: "dim" }, "No gap.")
      : h("dl", { class: "pairs gaps" }, gaps.map(([reason, seconds]) => [h("dt", null, h("span", { class: "gap-key", "aria-hidden": "true" }), reason), h("dd", null, longer(deviceTime(seconds), `${seconds} device-seconds`))])),
    gaps.length > 0 && h("p", { class: "dim" }, "A gap is priced from 0 to the most that its GPUs can do: it widens the band, and is never counted as idle."),
    run.unreported?.nodes?.length > 0 && h("p", null, mark("warn", "◆", "Silent: "), run.unreported.nodes.slice(0, 20).join(", "), run.unreported.nodes.length > 20 ? ` and ${run.unreported.nodes.length - 20} more` : "", `, ${silentSince(run.unreported)}.`));
}

export function energyCard(run) {
  const missing = run.energy_unmeasured_device_seconds;
  const perJoule = run.energy_joules > 0 ? BigInt(run.executed.flop.point) / BigInt(Math.round(run.energy_joules)) : null;
  return h("section", { class: "card", "data-key": "energy" }, h("h2", null, "Energy"),
    h("p", null, longer(energyText(run.energy_joules), `${run.energy_joules} J`), perJoule !== null && [", ", figure(String(perJoule), "FLOP per joule"), " FLOP per joule at the point"]),
    missing > 0 && h("p", { class: "dim" }, `Of ${deviceTime(missing)} nobody read the energy: it is not in this figure.`),
    h("p", { class: "dim" }, "By the GPUs' own energy counters: a cross-check that no FLOP figure is made of."));
}

export function energyText(joules) {
  const hours = joules / 3600;
  for (const [unit, size] of [["GWh", 1e9], ["MWh", 1e6], ["kWh", 1e3]]) if (hours >= size) return `${(hours / size).toFixed(2)} ${unit}`;
  return `${hours.toFixed(0)} Wh`;
}

export function utilisationCard(run) {
  const p = run.progress;
  if (!p) {
    return h("section", { class: "card", "data-key": "mfu" }, h("h2", null, "MFU and HFU"),
      h("p", null, "Not known: the training code says nothing of its progress. Two lines in it, and this page holds what it claims against the counters:"),
      command('from flopmeter.agent.declare import declare\ndeclare(run="…", dtype="bf16", parameters=70_000_000_000, tokens=step * tokens_per_step)'),
      h("p", { class: "dim" }, "MFU is claimed model FLOP, HFU executed FLOP, each over device time times the dense peak (docs/declare.md)."));
  }
  const kinds = { agrees: ["good", "✓"], disagrees: ["bad", "▲"] };
  return h("section", { class: "card", "data-key": "mfu" }, h("h2", null, "MFU and HFU"),
    p.mfu === null ? h("p", { class: "dim" }, "No peak is known for every device model of this run.")
      : h("p", null, "MFU ", h("b", null, percent(p.mfu)), ", HFU ", longer(percent(p.hfu.point), `${percent(p.hfu.lower, 3)} to ${percentUp(p.hfu.upper, 3)}`), ` of the dense ${p.dtype} peak, over ${deviceTime(p.device_seconds)}`),
    h("dl", { class: "pairs" }, h("dt", null, "Claimed"), h("dd", null, figure(p.declared_flop), ` at ${flop(p.tokens)} tokens`),
      h("dt", null, "Measured"), h("dd", null, bandFigure(p.measured), ` in the same ${count(p.hours)} h`),
      h("dt", null, "Together"), h("dd", null, mark(...(kinds[p.agreement] ?? ["warn", "◆"]), p.agreement), p.agreement !== "cannot tell" && ` within ${p.margin_percent} %`)),
    p.restarts_at_a_checkpoint > 0 && h("p", { class: "dim" }, `${p.restarts_at_a_checkpoint === 1 ? "Once" : `${count(p.restarts_at_a_checkpoint)} times`} back to a checkpoint: done again counts again.`));
}
