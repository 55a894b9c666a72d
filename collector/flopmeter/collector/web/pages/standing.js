// Where a figure stands against the lines of the law: one logarithmic scale, a strip a figure, a letter a line.

import { h, svg } from "./dom.js";
import { line as lineText, log10 } from "./format.js";
import { bandMark, textWidth } from "./marks.js";
import { mark } from "./parts.js";
import { linear, logTicks, spaced } from "./scales.js";

const VERDICTS = { crossed: ["bad", "▲"], undetermined: ["warn", "◆"], below: ["good", "○"] };
const WIDTH = 176; // so that the list of runs, and the lines beside what follows of them, stand whole at 1280
const EDGE = 10;

export const verdict = (name) => mark(...(VERDICTS[name] ?? ["dim", "·"]), name);

/** The regimes' lines in groups of one height, each with its letter: A the lowest. */
export function lettered(lines) {
  const groups = new Map();
  for (const one of lines) {
    if (!groups.has(one.threshold_flop)) groups.set(one.threshold_flop, []);
    groups.get(one.threshold_flop).push(one);
  }
  const sorted = [...groups].sort(([a], [b]) => log10(a) - log10(b));
  return sorted.map(([threshold, of], i) => ({ threshold, letter: String.fromCharCode(65 + (i % 26)), of }));
}

/** A scale from log10 of FLOP to pixels that has room for all bands and all lines. */
export function scaleOf(bands, groups, width = WIDTH) {
  const logs = bands.flatMap((b) => (b ? [log10(b.lower), log10(b.point), log10(b.upper)] : [])).filter(Number.isFinite);
  logs.push(...groups.map((g) => log10(g.threshold)));
  if (logs.length === 0) logs.push(20, 26);
  const low = Math.floor(Math.min(...logs) - 0.2);
  const x = linear(low, Math.max(low + 2, Math.ceil(Math.max(...logs) + 0.2)), EDGE, width - EDGE);
  return { x: (text) => x(Math.max(log10(text), x.domain[0])), domain: x.domain, width };
}

/** The scale itself, to stand above its strips: decades, and the letters of the lines. */
export function scaleHead(scale, groups) {
  const [low, high] = scale.domain;
  const ticks = logTicks(10 ** low, 10 ** high, 5);
  const at = (tick) => EDGE + ((Math.log10(tick.value) - low) / (high - low)) * (scale.width - 2 * EDGE);
  const inside = (tick) => at(tick) - textWidth(tick.text) / 2 >= 0 && at(tick) + textWidth(tick.text) / 2 <= scale.width;
  return svg("svg", { class: "strip strip-head", width: scale.width, height: 34, viewBox: `0 0 ${scale.width} 34`, "aria-hidden": "true" },
    spaced(ticks.filter(inside), at, textWidth).map((t) => svg("text", { x: at(t), y: 12, "text-anchor": "middle" }, t.text)),
    groups.map((g) => svg("text", { class: "letter", x: scale.x(g.threshold), y: 29, "text-anchor": "middle" }, g.letter)));
}

/** One run's strip: what was executed, and under it what the nearest law counts of it, against all lines. */
export function strip(scale, groups, executed, countable) {
  const height = 30;
  const lines = groups.map((g) => svg("line", { class: "law-line", x1: scale.x(g.threshold), x2: scale.x(g.threshold), y1: 0, y2: height }));
  const drawable = (band) => band && log10(band.upper) > -Infinity;
  return svg("svg", { class: "strip", width: scale.width, height, viewBox: `0 0 ${scale.width} ${height}`, "aria-hidden": "true" },
    svg("line", { class: "strip-base", x1: 0, x2: scale.width, y1: height / 2, y2: height / 2 }),
    lines,
    groups.map((g) => svg("text", { class: "letter on-card", x: scale.x(g.threshold), y: height + 10, "text-anchor": "middle" }, g.letter)),
    drawable(executed) && bandMark(scale.x, 10, executed, "executed", 7),
    drawable(countable) && bandMark(scale.x, 22, countable, "countable", 4));
}

/** "≥" or ">", as the law has it. */
export const comparison = (line) => (line.comparison === ">=" ? "≥" : line.comparison);

/** A regime's letter, as a chip; its name stands in the legend. */
export function letterOf(regime, groups) {
  const group = groups.find((g) => g.of.some((one) => one.regime === regime));
  return group ? h("span", { class: "letter", title: regime }, group.letter) : regime;
}

/** Which letter is which line, in words. */
export function legend(groups) {
  return h("ul", { class: "law-legend", "aria-label": "Lines of the law" },
    groups.map((g) => h("li", { "data-key": g.letter },
      h("span", { class: "letter" }, g.letter), " ", `${comparison(g.of[0])} ${lineText(g.threshold)} `,
      g.of.map((one, i) => [i > 0 && ", ", h("span", { title: `${one.title}: ${comparison(one)} ${lineText(one.threshold_flop)} FLOP, ${one.act}` }, one.regime)]))));
}
