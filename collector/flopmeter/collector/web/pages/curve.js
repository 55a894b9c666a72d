// A run's curve as the API gives it, made ready to draw: cut at its gaps, with its rates. Pure.
//
// Numbers here are for where a thing is drawn; `texts` keeps the exact figures for whoever reads them.

const NAMES = ["lower", "point", "upper"];
const ms = (iso) => Date.parse(iso);

/** { times, points: [[ms, lower, point, upper]], texts: [{lower, point, upper}], gaps, rates } */
export function course(curve) {
  const times = curve.times.map(ms);
  const texts = times.map((_, i) => Object.fromEntries(NAMES.map((name) => [name, curve.cumulative[name][i]])));
  const points = times.map((time, i) => [time, ...NAMES.map((name) => Number(curve.cumulative[name][i]))]);
  const gaps = curve.gaps.map((gap) => ({ ...gap, from: ms(gap.from), to: ms(gap.to) }));
  for (const gap of gaps) gap.broken = gap.kind === "nothing" || (gap.kind === "bridge" ? alone(times, gap) : stands(times, texts, gap));
  return { times, points, texts, gaps, rates: rates(times, texts, gaps) };
}

/** Whether no other record stands in a bridge's hours: those of other nodes are drawn as ever. */
function alone(times, bridge) {
  return !times.some((time) => time > bridge.from && time < bridge.to);
}

/** Whether nothing was measured over all of a gap: the point figure is the same behind it as before. */
function stands(times, texts, gap) {
  const before = times.findLastIndex((time) => time <= gap.from);
  const after = times.findIndex((time) => time >= gap.to);
  return before >= 0 && after > before && texts[before].point === texts[after].point;
}

/** Broken gaps that lie between two instants, clipped to them, in order and without overlap. */
function between(gaps, from, to) {
  const found = [];
  for (const gap of gaps) {
    if (!gap.broken || gap.to <= from || gap.from >= to) continue;
    const start = Math.max(gap.from, from, found.at(-1)?.[1] ?? -Infinity);
    const end = Math.min(gap.to, to);
    if (end > start) found.push([start, end]);
  }
  return found;
}

/**
 * The curve in stretches [[ms, lower, point, upper], …], none of which goes through a broken gap. Where one point stands
 * for hours with a gap among them, what was added is laid evenly over the rest of these hours.
 */
export function stretchesOf(points, gaps) {
  const sorted = [...gaps].sort((a, b) => a.from - b.from);
  const found = [];
  let open = [];
  const close = () => {
    if (open.length > 0) found.push(open);
    open = [];
  };
  points.forEach((here, i) => {
    open.push(here);
    const next = points[i + 1];
    if (next === undefined) return;
    const holes = between(sorted, here[0], next[0]);
    if (holes.length === 0) return;
    const known = next[0] - here[0] - holes.reduce((sum, [from, to]) => sum + to - from, 0);
    let gone = 0;
    let at = here[0];
    const value = () => here.slice(1).map((from, k) => (known > 0 ? from + (next[k + 1] - from) * (gone / known) : from));
    for (const [from, to] of holes) {
      gone += from - at;
      if (from > at) open.push([from, ...value()]);
      close();
      at = to;
      if (to < next[0]) open.push([to, ...value()]);
    }
  });
  close();
  return found;
}

/**
 * Operations a second between neighbouring points: { from, to, parts, lower, point, upper, texts }. `parts`: the time in
 * it that is no gap; null figures where a bridge does not tell in which hours the work was, or all is gap.
 */
export function rates(times, texts, gaps) {
  const sorted = [...gaps].sort((a, b) => a.from - b.from);
  const found = [];
  for (let i = 1; i < times.length; i += 1) {
    const [from, to] = [times[i - 1], times[i]];
    const holes = between(sorted, from, to);
    const bridged = sorted.some((gap) => gap.kind === "bridge" && gap.from < to && gap.to > from);
    const parts = rest(from, to, holes);
    const seconds = parts.reduce((sum, [a, b]) => sum + b - a, 0) / 1000;
    const known = seconds >= 1 && !bridged;
    const slot = { from, to, parts, lower: null, point: null, upper: null, texts: null };
    if (known) {
      slot.texts = {};
      for (const name of NAMES) {
        const added = BigInt(texts[i][name]) - BigInt(texts[i - 1][name]);
        slot.texts[name] = String(added / BigInt(Math.round(seconds)));
        slot[name] = Number(slot.texts[name]);
      }
    }
    found.push(slot);
  }
  return found;
}

function rest(from, to, holes) {
  const parts = [];
  let at = from;
  for (const [start, end] of holes) {
    if (start > at) parts.push([at, start]);
    at = end;
  }
  if (to > at) parts.push([at, to]);
  return parts;
}

/** Spans laid into rows so that none lies over another: the number of each one's row, at most `rows`; else -1. */
export function lanes(spans, rows = Infinity) {
  const ends = [];
  const order = spans.map((_, i) => i).sort((a, b) => spans[a].from - spans[b].from || spans[b].to - spans[a].to);
  const placed = new Array(spans.length).fill(-1);
  for (const i of order) {
    let row = ends.findIndex((end) => end <= spans[i].from);
    if (row < 0 && ends.length < rows) row = ends.push(-Infinity) - 1;
    if (row < 0) continue;
    ends[row] = spans[i].to;
    placed[i] = row;
  }
  return placed;
}

/**
 * A part of a curve with what leads into it and out of it: the whole curve's neighbouring points, and its gaps, so that a
 * part that lies in the middle of a gap is drawn as one.
 */
export function inContext(near, whole) {
  if (near === whole) return whole;
  const [from, to] = near.times.length > 0 ? [near.times[0], near.times.at(-1)] : [near.from, near.from];
  const before = whole.times.findLastIndex((time) => ms(time) < ms(from));
  const after = whole.times.findIndex((time) => ms(time) > ms(to));
  const around = (list, inner) => [...(before >= 0 ? [list[before]] : []), ...inner, ...(after >= 0 ? [list[after]] : [])];
  const cumulative = Object.fromEntries(NAMES.map((name) => [name, around(whole.cumulative[name], near.cumulative[name])]));
  return { ...near, times: around(whole.times, near.times), cumulative, gaps: whole.gaps };
}

/** Lines of the law in the curve's own unit: one of another would cross it at a place that means nothing. */
export function linesOf(curve) {
  return curve.lines.filter((one) => one.unit === curve.unit);
}

/** What is looked at: all of the run, and of a forecast as much as there is past. */
export function limitsOf(curve) {
  const [first, last] = [ms(curve.first), ms(curve.last)];
  const end = Math.max(last, first + 3_600_000);
  const until = curve.forecast?.until ? ms(curve.forecast.until) : end;
  return [first, Math.max(end, Math.min(until, end + (end - first)))];
}

/** A range as the address has it, within the limits; null: all of it. */
export function rangeOf(query, limits) {
  const [from, to] = [ms(query.from ?? ""), ms(query.to ?? "")];
  if (Number.isNaN(from) || Number.isNaN(to) || to - from < 1000) return null;
  const range = [Math.max(from, limits[0]), Math.min(to, limits[1])];
  return range[1] - range[0] < 1000 ? null : range;
}

/** Lowest and highest figure of the y axis over `range`. `lines`: thresholds, drawn when they are near enough. */
export function heights(points, cone, lines, range, scale, whole) {
  const seen = points.filter(([time]) => time >= range[0] && time <= range[1]);
  const before = points.findLast(([time]) => time < range[0]);
  if (before) seen.push(before);
  const ahead = cone.filter(([time]) => time >= range[0] && time <= range[1]);
  const all = [...seen, ...ahead];
  const top = Math.max(...all.map((p) => p[3]), 1);
  if (scale === "log") {
    const positive = all.flatMap((p) => p.slice(1)).filter((value) => value > 0);
    const least = Math.max(Math.min(...positive, top), top / 1e9);
    const ends = [10 ** Math.floor(Math.log10(least)), Math.max(top * 1.6, ...lines.filter((l) => l <= top * 2e3).map((l) => l * 4))];
    return ends[1] / ends[0] < 10 ? [ends[0], ends[0] * 10] : ends;
  }
  const near = lines.filter((line) => line <= top * 1.5);
  const low = whole ? 0 : Math.min(...all.map((p) => p[1]));
  return [low, Math.max(top, ...near) * 1.06];
}
