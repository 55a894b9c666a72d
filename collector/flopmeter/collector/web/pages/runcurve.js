// The curve's card: what may be chosen (scale, zoom), the plot, the exact figures at the crosshair, and the same as a table.
// It stands in the page once and redraws itself, so that a live update takes neither focus nor crosshair.

import { course, limitsOf, linesOf, rangeOf } from "./curve.js";
import { h, render } from "./dom.js";
import { exact, flop, flopDown, flopUp, line as lineText, many, percent, silentSince, time } from "./format.js";
import { announce } from "./parts.js";
import { timePlot } from "./plot.js";
import { queryHref, setQuery } from "./route.js";
import { gapWord, panelsOf, readingAt, readingText, unitWord } from "./runplot.js";

const [FLOATING, BOTH] = ["floating-point", "integer-or-floating-point"];
const iso = (ms) => new Date(ms).toISOString();
// The upper panel, in pixels: enough to see a slope, and all of the plot on one screen.
const height = () => (innerWidth < 720 ? 220 : Math.round(Math.min(640, Math.max(280, innerHeight * 0.34))));

export function curveCard(name) {
  let curve = null;
  let made = null;
  let chosen = null; // { range, scale, whole }
  let limits = null;
  const controls = h("div", { class: "plot-controls" });
  const readout = h("div", { class: "readout" });
  const below = h("div", { class: "plot-below" });
  const plot = timePlot({
    label: `Curve of ${name.slice(0, 200)}: points in time`,
    say: (i) => readingText(readingAt(curve, made, i), unitWord(curve)),
    onPoint: (i) => render(readout, reading(i)),
    onRange: (range, how) => {
      chosen = { ...chosen, range: range ?? limits, whole: range === null };
      draw(); // at once with the points that are here; finer ones follow with the address
      setQuery({ from: range && iso(range[0]), to: range && iso(range[1]) }, { push: how === "select" });
      announce(range ? `Shown: ${time(iso(range[0]))} to ${time(iso(range[1]))}` : "All of the run is shown");
    },
  });
  const element = h("section", { class: "card plot-card", "aria-labelledby": "curve-title" }, controls, readout, plot.element, below);
  let tall = height();
  addEventListener("resize", function resized() {
    if (!element.isConnected) removeEventListener("resize", resized); // another view stands there now
    else if (tall !== height()) {
      tall = height();
      draw();
    }
  });

  function update(found, query) {
    curve = found;
    limits = limitsOf(curve);
    made = course(curve);
    const range = rangeOf(query, limits);
    chosen = { range: range ?? limits, whole: range === null, scale: query.scale === "log" ? "log" : "linear" };
    draw();
  }

  function draw() {
    if (curve === null) return;
    render(controls, controlsView());
    render(below, legend(), help(), tables());
    plot.draw({ times: made.times, limits, range: chosen.range, panels: panelsOf(curve, made, chosen, tall) });
  }

  function controlsView() {
    const scaleButton = (scale, said) => h("button", {
      type: "button", "data-key": `scale-${scale}`, "aria-pressed": String(chosen.scale === scale),
      onclick: () => setQuery({ scale: scale === "log" ? "log" : null }, { push: true }),
    }, said);
    return [
      h("h2", { id: "curve-title" }, "Curve"),
      h("p", { class: "dim shown" }, `${time(iso(chosen.range[0]))} to ${time(iso(chosen.range[1]))}`),
      h("div", { class: "buttons" },
        unitChoice(),
        h("div", { class: "pair", role: "group", "aria-label": "Scale" }, scaleButton("linear", "Linear"), scaleButton("log", "Log")),
        h("div", { class: "pair", role: "group", "aria-label": "Zoom" },
          h("button", { type: "button", "data-key": "out", "aria-label": "Zoom out", onclick: () => plot.zoom(2) }, "−"),
          h("button", { type: "button", "data-key": "in", "aria-label": "Zoom in", onclick: () => plot.zoom(0.5) }, "+"),
          h("button", { type: "button", "data-key": "reset", "aria-disabled": String(chosen.whole), onclick: () => chosen.whole || setQuery({ from: null, to: null }, { push: true }) }, "Reset"))),
    ];
  }

  // Some laws count integer operations too: where one of them binds, the curve can be in their unit, and their lines are in it.
  function unitChoice() {
    if (!curve.lines.some((one) => one.unit !== FLOATING) && curve.unit === FLOATING) return null;
    const button = (unit, said, key) => h("button", {
      type: "button", "data-key": key, "aria-pressed": String(curve.unit === unit), onclick: () => setQuery({ unit: unit === FLOATING ? null : unit }, { push: true }),
    }, said);
    return h("div", { class: "pair", role: "group", "aria-label": "What is counted" },
      button(FLOATING, "FLOP", "unit-flop"), button(BOTH, "with integer operations", "unit-both"));
  }

  function reading(i) {
    const last = made.times.findLastIndex((time) => time >= chosen.range[0] && time <= chosen.range[1]);
    if (last < 0 && i < 0) return h("p", { class: "dim" }, "No record lies in this time. ", h("a", { href: queryHref({ from: null, to: null }) }, "Show all of the run"));
    const at = readingAt(curve, made, i < 0 ? last : i);
    const pair = (said, value, more) => h("div", { class: `reading ${more ?? ""}` }, h("dt", null, said), h("dd", null, value));
    const of = (text) => h("data", { value: text }, exact(text));
    const unit = unitWord(curve);
    return h("dl", { class: "readings" },
      pair(i < 0 ? "Last point (UTC)" : "At (UTC)", h("time", { datetime: at.time }, time(at.time))),
      pair(`Point, ${unit}`, of(at.figures.point), "of-point"),
      pair("Lower", of(at.figures.lower)),
      pair("Upper", of(at.figures.upper)),
      pair(`Rate, ${unit}/s`, at.rate ? [h("data", { value: at.rate.point, title: exact(at.rate.point) }, flop(at.rate.point)), h("span", { class: "dim" }, ` (${flopDown(at.rate.lower)} to ${flopUp(at.rate.upper)})`)] : h("span", { class: "dim" }, at.gap || "first point")),
      pair("For", [at.purposes.join(", ") || h("span", { class: "dim" }, "untagged"), at.gap && h("span", { class: "gap-word" }, ` ▨ ${at.gap}`)]));
  }

  function legend() {
    const key = (shown, said) => h("li", null, h("span", { class: `key ${shown}`, "aria-hidden": "true" }), said);
    const outside = outsideLines(curve, made, chosen);
    return h("div", { class: "legends" },
      h("ul", { class: "plot-legend", "aria-label": "What is drawn" },
        key("key-point", "point"), key("key-band", "lower to upper"),
        curve.forecast?.projected && key("key-cone", `forecast of what counts, ${curve.forecast.confidence_percent} % interval`),
        key("key-line", "line of the law"), key("key-gap", "gap: not observed, nothing is drawn through it; of part of the devices, as high as their share"), key("key-restart", "restart")),
      outside && h("p", { class: "dim" }, outside),
      curve.silent && h("p", { class: "dim" }, `Drawn is what records tell. Silent agents (${curve.silent.nodes.slice(0, 5).join(", ")}${curve.silent.nodes.length > 5 ? " …" : ""}, ${silentSince(curve.silent)}) may owe up to ${flopUp(curve.silent.flop.upper)} ${unitWord(curve)} more, which is in the run's upper bound.`));
  }

  const help = () => h("p", { class: "dim plot-help" },
    "Drag over the plot to zoom, double-click for all of it. With the plot focused: arrow keys move from point to point (with Shift in larger steps), + and − zoom, 0 resets.");

  function tables() {
    return [
      h("details", { "data-key": "figures" }, h("summary", null, `Table of these figures (${made.times.length} points)`),
        h("div", { class: "scroll figures-table", tabindex: "0", role: "region", "aria-label": "Figures of the curve" }, h("table", null,
          h("thead", null, h("tr", null, ["Until (UTC)", ...["Lower", "Point", "Upper", "Rate"].map((name, i) => `${name} ${unitWord(curve)}${i === 3 ? "/s" : ""}`)].map((t, i) => h("th", { scope: "col", class: i > 0 && "num" }, t)))),
          h("tbody", null, made.times.map((_, i) => h("tr", null,
            h("th", { scope: "row", class: "nowrap" }, time(curve.times[i])),
            ["lower", "point", "upper"].map((n) => h("td", { class: "num" }, exact(made.texts[i][n]))),
            h("td", { class: "num" }, made.rates[i - 1]?.texts ? exact(made.rates[i - 1].texts.point) : "–"))))))),
      made.gaps.length > 0 && h("details", { "data-key": "gaps" }, h("summary", null, `Table of its gaps (${made.gaps.length})`),
        h("div", { class: "scroll figures-table", tabindex: "0", role: "region", "aria-label": "Gaps of the curve" }, h("table", null,
          h("thead", null, h("tr", null, ["From (UTC)", "To (UTC)", "What", "Device time", "Of all", "Why"].map((t) => h("th", { scope: "col" }, t)))),
          h("tbody", null, curve.gaps.map((gap) => h("tr", null,
            h("td", { class: "nowrap" }, time(gap.from)), h("td", { class: "nowrap" }, time(gap.to)), h("td", null, gapWord(gap.kind)),
            h("td", null, `${exact(String(Math.round(gap.device_seconds)))} s`), h("td", null, gap.share === null ? "–" : percent(gap.share)), h("td", null, Object.keys(gap.reasons ?? {}).join(", ") || "–"))))))),
    ];
  }

  return { element, update };
}

/** Lines that lie outside the drawn figures: said, so that nobody thinks there are none. */
function outsideLines(curve, made, { range, scale }) {
  const lines = linesOf(curve);
  const others = curve.lines.length - lines.length;
  const elsewhere = others > 0 ? ` ${many(others, "line")} ${others === 1 ? "is" : "are"} of another unit: choose ${curve.unit === FLOATING ? "“with integer operations”" : "“FLOP”"} to see ${others === 1 ? "it" : "them"}.` : "";
  if (scale === "log" || lines.length === 0) return elsewhere.trim();
  const seen = made.points.filter(([t]) => t >= range[0] && t <= range[1]).map((p) => p[3]);
  const ahead = curve.forecast?.projected && range[1] > Date.parse(curve.forecast.time) ? Number(curve.forecast.projected.upper) : 0;
  const top = Math.max(...seen, ahead, 1) * 1.5;
  const above = lines.filter((one) => Number(one.threshold_flop) > top);
  if (above.length === 0) return elsewhere.trim();
  const said = new Map();
  for (const one of above) said.set(one.threshold_flop, [...(said.get(one.threshold_flop) ?? []), one.regime]);
  return `Above what is drawn: ${[...said].map(([t, names]) => `${lineText(t)} (${names.join(", ")})`).join("; ")}. The logarithmic scale shows lines further away.${elsewhere}`;
}
