// A run's plot: cumulative figures with their band, the forecast's cone, the lines of the law; what it was for, jobs and
// restarts, gaps; and the rate below, on the same time axis.

import { heights, lanes, linesOf, stretchesOf } from "./curve.js";
import { svg } from "./dom.js";
import { flop, flopDown, flopUp, line as lineText } from "./format.js";
import { hatch, textWidth } from "./marks.js";
import { bandPath, linePath, rectOf, stepBandPath, stepPath } from "./paths.js";
import { named, yAxis } from "./plot.js";
import { apart, linear, linearTicks, log, logTicks, niceTop } from "./scales.js";

const LANE = 16;
const JOB = 20;
const LEAST_GAP = 3; // pixels: a thousandth of the devices is seen too
const ms = (iso) => Date.parse(iso);
const clip = (value, [low, high]) => Math.min(Math.max(value, low), high);

/** The panels of a run's plot, for plot.js. `chosen`: { range, scale, whole }. */
export function panelsOf(curve, made, chosen, tall) {
  const cone = coneOf(curve.forecast);
  const gapFill = hatch();
  const parts = [cumulative(curve, made, cone, chosen, gapFill, tall)];
  const spans = purposeSpans(curve, chosen.range);
  if (spans.length > 0) parts.push(purposes(spans));
  if (curve.jobs.length > 0) parts.push(jobs(curve, chosen.range));
  if (made.gaps.length > 0 || curve.silent) parts.push(gapLane(curve, made, gapFill));
  parts.push(rate(made, chosen, gapFill, unitWord(curve)));
  return parts;
}

/** [[ms, lower, point, upper], …] of the forecast; empty: there is none. */
export function coneOf(forecast) {
  if (!forecast?.now || !forecast.projected) return [];
  const at = (time, f) => [ms(time), Number(f.lower), Number(f.point), Number(f.upper)];
  return [at(forecast.time, forecast.now), at(forecast.until, forecast.projected)];
}

// ---- cumulative ----------------------------------------------------------------------------------------

function cumulative(curve, made, cone, { range, scale, whole }, gapFill, tall) {
  const lines = linesOf(curve);
  const thresholds = lines.map((one) => Number(one.threshold_flop));
  const [low, high] = heights(made.points, cone.length > 0 ? sampled(cone) : [], thresholds, range, scale, whole);
  let y = null;
  const draw = (group, box) => {
    y = (scale === "log" ? log : linear)(low, high, box.bottom, box.top);
    const ticks = scale === "log" ? logTicks(low, high, Math.floor((box.bottom - box.top) / 36)) : linearTicks(low, high, Math.floor((box.bottom - box.top) / 48));
    yAxis(group, y, ticks, box);
    const inner = clipped(group, box);
    gapsInto(inner, made.gaps, box, gapFill);
    const at = ([time, ...figures]) => [box.x(time), ...figures.map(y)];
    for (const stretch of stretchesOf(made.points, made.gaps)) {
      const pixels = stretch.map(at);
      inner.append(svg("path", { class: "curve-band", d: bandPath(pixels.map(([x, l, , u]) => [x, l, u])) }));
      inner.append(svg("path", { class: "curve-edge", d: linePath(pixels.map(([x, l]) => [x, l])) + linePath(pixels.map(([x, , , u]) => [x, u])) }));
      inner.append(svg("path", { class: "curve-point", d: linePath(pixels.map(([x, , p]) => [x, p])) }));
    }
    if (cone.length > 0) {
      const pixels = sampled(cone).map(at); // straight in FLOP, so bent where the axis is logarithmic
      inner.append(svg("path", { class: "cone-band", d: bandPath(pixels.map(([x, l, , u]) => [x, l, u])) }));
      inner.append(svg("path", { class: "cone-point", d: linePath(pixels.map(([x, , p]) => [x, p])) }));
      const now = box.x(cone[0][0]);
      if (now > box.left && now < box.right) {
        inner.append(svg("line", { class: "cone-start", x1: now, x2: now, y1: box.top, y2: box.bottom }));
        const room = box.right - now > 60;
        inner.append(svg("text", { class: "halo dim", x: now + (room ? 4 : -4), y: box.bottom - 6, "text-anchor": room ? "start" : "end" }, "forecast"));
      }
    }
    linesInto(group, lines, y, [low, high], box);
    named(group, box, `${unitWord(curve)} so far`);
  };
  return {
    height: tall,
    draw,
    marks: (i) => {
      const [, lower, point, upper] = made.points[i];
      return [lower, point, upper].filter((value) => value >= low && value <= high).map((value) => y(value));
    },
  };
}

function sampled([start, end], steps = 48) {
  return Array.from({ length: steps + 1 }, (_, k) => start.map((from, i) => from + ((end[i] - from) * k) / steps));
}

function linesInto(group, lines, y, [low, high], box) {
  const groups = new Map();
  for (const one of lines) groups.set(one.threshold_flop, [...(groups.get(one.threshold_flop) ?? []), one]);
  const inside = [...groups].filter(([text]) => Number(text) >= low && Number(text) <= high);
  const places = apart(inside.map(([text]) => y(Number(text)) - 5), 13, box.top + 10, box.bottom - 2);
  inside.forEach(([text, of], i) => {
    const at = y(Number(text));
    const crossed = of.some((one) => one.verdict === "crossed");
    group.append(svg("line", { class: `law-line${crossed ? " crossed" : ""}`, x1: box.left, x2: box.right, y1: at, y2: at }));
    const names = of.map((one) => one.regime);
    const room = box.right - box.left - 16;
    const sign = `${of[0].comparison === ">=" ? "≥" : ">"} ${lineText(text)}`;
    let said = `${sign} ${names.join(", ")}`;
    for (let shown = names.length - 1; shown > 0 && textWidth(said) > room; shown -= 1) {
      said = `${sign} ${names.slice(0, shown).join(", ")} +${names.length - shown}`;
    }
    group.append(svg("text", { class: "halo law-name", x: box.right - 4, y: places[i], "text-anchor": "end" }, said));
  });
}

// ---- gaps -----------------------------------------------------------------------------------------------

function gapsInto(group, gaps, box, { definition, fill }) {
  group.append(definition);
  for (const gap of gaps) {
    const [from, to] = [gap.from, gap.to].map((time) => box.x(time));
    if (to < box.left || from > box.right) continue;
    // Where other devices were measured, the hatching is as high as the share of the device time that was not.
    const top = gap.broken ? box.top : box.bottom - Math.max(LEAST_GAP, (gap.share ?? 0) * (box.bottom - box.top));
    const shown = rectOf(from, to, top, box.bottom, 1.5);
    if (gap.broken) group.append(svg("rect", { class: "gap-back", ...shown }));
    group.append(svg("rect", { class: gap.broken ? "gap-hatch" : "gap-hatch part", fill, ...shown }));
  }
}

/** All gaps, those of some devices too, and what silent agents have not told. */
function gapLane(curve, made, gapFill) {
  const spans = made.gaps.map((gap) => [gap.from, gap.to]);
  if (curve.silent?.since) spans.push([ms(curve.silent.since), ms(curve.last)]);
  const draw = (group, box) => {
    const inner = clipped(group, box);
    for (const [from, to] of spans) inner.append(svg("rect", { class: "gap-hatch lane", fill: gapFill.fill, ...rectOf(box.x(from), box.x(to), box.top, box.bottom, 2) }));
    group.append(svg("text", { x: box.left - 6, y: box.top + 10, "text-anchor": "end" }, "gaps"));
  };
  return { height: 12, draw };
}

let clips = 0;

function clipped(group, { left, right, top, bottom }) {
  clips += 1;
  const id = `clip-${clips}`;
  const inner = svg("g", { "clip-path": `url(#${id})` });
  group.append(svg("defs", null, svg("clipPath", { id }, svg("rect", { x: left, y: top - 2, width: Math.max(0, right - left), height: bottom - top + 4 }))), inner);
  return inner;
}

// ---- what it was for -------------------------------------------------------------------------------------

function purposeSpans(curve, range) {
  const spans = curve.purposes.map((one) => ({ ...one, from: one.from ? ms(one.from) : ms(curve.first), to: one.to ? ms(one.to) : ms(curve.last) }));
  return spans.filter((one) => one.to > one.from && one.to > range[0] && one.from < range[1]);
}

function purposes(spans) {
  const rows = lanes(spans, 4);
  const count = Math.max(...rows) + 1;
  const draw = (group, box) => {
    const inner = clipped(group, box);
    spans.forEach((span, i) => {
      if (rows[i] < 0) return;
      const ends = [span.from, span.to].map((time) => clip(box.x(time), [box.left, box.right]));
      const top = box.top + rows[i] * (LANE + 2);
      inner.append(svg("rect", { class: `purpose purpose-${span.purpose}`, rx: 2, ...rectOf(ends[0], ends[1], top, top + LANE, 2) }));
      const said = span.job ? `${span.purpose}: ${span.job}` : span.purpose;
      const room = ends[1] - ends[0];
      const shown = textWidth(said) + 8 <= room ? said : room >= 14 ? said[0] : "";
      if (shown) inner.append(svg("text", { class: "purpose-name", x: ends[0] + 4, y: top + 12 }, shown));
    });
    group.append(svg("text", { x: box.left - 6, y: box.top + 12, "text-anchor": "end" }, "for"));
  };
  return { height: count * (LANE + 2), draw };
}

// ---- jobs and restarts -------------------------------------------------------------------------------------

function jobs(curve, range) {
  const attempts = curve.jobs.flatMap((job) => job.attempts.map((one, i) => ({
    from: ms(one.first_seen), to: Math.max(ms(one.last_seen), ms(one.first_seen) + 1), first: i === 0 && one.restart === 0, restart: one.restart, job: job.job,
  }))).filter((one) => one.to > range[0] && one.from < range[1]);
  const rows = lanes(attempts, 4);
  const count = Math.max(1, Math.max(-1, ...rows) + 1);
  const draw = (group, box) => {
    const inner = clipped(group, box);
    attempts.forEach((one, i) => {
      const ends = [one.from, one.to].map((time) => clip(box.x(time), [box.left, box.right]));
      const top = box.top + Math.max(0, rows[i]) * JOB;
      if (rows[i] >= 0) {
        inner.append(svg("rect", { class: "job", ...rectOf(ends[0], ends[1], top + 13, top + 17, 1) }));
        if (one.first && textWidth(one.job) + 14 <= ends[1] - ends[0]) inner.append(svg("text", { class: "halo job-name", x: ends[0] + 6, y: top + 10 }, one.job));
      }
      const x = box.x(one.from);
      if (x < box.left || x > box.right) return;
      inner.append(one.first
        ? svg("line", { class: "job-start", x1: x, x2: x, y1: top + 2, y2: top + 18 })
        : svg("path", { class: "job-restart", d: `M${x - 5} ${top + 4}H${x + 5}L${x} ${top + 13}Z` }));
    });
    group.append(svg("text", { x: box.left - 6, y: box.top + 12, "text-anchor": "end" }, "jobs"));
  };
  return { height: count * JOB, draw };
}

// ---- rate ----------------------------------------------------------------------------------------------------

function rate(made, { range }, gapFill, unit) {
  const slots = made.rates.filter((slot) => slot.point !== null);
  const seen = slots.filter((slot) => slot.to > range[0] && slot.from < range[1]);
  const top = niceTop(Math.max(...seen.map((slot) => slot.upper), 1), 4);
  let y = null;
  const draw = (group, box) => {
    y = linear(0, top, box.bottom, box.top);
    yAxis(group, y, seen.length > 0 ? linearTicks(0, top, 3) : [], box);
    const inner = clipped(group, box);
    gapsInto(inner, made.gaps, box, gapFill);
    const pieces = seen.flatMap((slot) => slot.parts.map(([from, to]) => [box.x(from), box.x(to), slot]));
    inner.append(svg("path", { class: "curve-band", d: stepBandPath(pieces.map(([a, b, s]) => [a, b, y(s.lower), y(s.upper)])) }));
    inner.append(svg("path", { class: "curve-point", d: stepPath(pieces.map(([a, b, s]) => [a, b, y(s.point)])) }));
    named(group, box, `${unit}/s`);
  };
  return {
    height: 110,
    draw,
    marks: (i) => {
      const slot = made.rates[i - 1];
      return slot?.point === null || slot === undefined || slot.point > top ? [] : [y(slot.point)];
    },
  };
}

// ---- in words ---------------------------------------------------------------------------------------------------

/** What one of the curve's figures counts. */
export const unitWord = (curve) => (curve.unit === "floating-point" ? "FLOP" : "operations");

const GAPS = { gap: "gap", nothing: "no record", bridge: "one record over all of it" };
export const gapWord = (kind) => GAPS[kind] ?? kind;

/** What holds at point `i`: { time, figures, rate, purposes, gap }. */
export function readingAt(curve, made, i) {
  const time = made.times[i];
  const slot = made.rates[i - 1];
  const spans = purposeSpans(curve, [time - 1, time]).filter((one) => one.from < time && one.to >= time);
  const gap = made.gaps.find((one) => one.from < time && one.to >= (slot?.from ?? time));
  return {
    time: curve.times[i],
    figures: made.texts[i],
    rate: slot?.texts ?? null,
    purposes: [...new Set(spans.map((one) => one.purpose))],
    gap: gap ? gapWord(gap.kind) + (Object.keys(gap.reasons ?? {}).length ? ` (${Object.keys(gap.reasons).join(", ")})` : "") : "",
  };
}

/** The same for a screen reader, in one breath. */
export function readingText(reading, unit) {
  const { lower, point, upper } = reading.figures;
  const parts = [`${reading.time.slice(0, 16).replace("T", " ")} UTC: ${flop(point)} ${unit}, between ${flopDown(lower)} and ${flopUp(upper)}`];
  if (reading.rate) parts.push(`${flop(reading.rate.point)} ${unit} a second`);
  if (reading.purposes.length) parts.push(reading.purposes.join(", "));
  if (reading.gap) parts.push(reading.gap);
  return parts.join("; ");
}
