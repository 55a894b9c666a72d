// A plot over time: panels one below the other on one time axis, one crosshair, one selection that zooms.
//
// What is drawn in a panel, and what the crosshair says, is its user's. Here is what all such plots share: pointer and
// keyboard, range, axis. For a screen reader the plot is a slider through the points: its value is what they say.
//
//   const plot = timePlot({ label, say, onRange, onPoint });
//   plot.draw({ times, limits, range, panels });   // as often as wanted; keeps crosshair and focus
//
// panels: [{ height, draw(group, { x, left, right, top, bottom }) }]. say(i): the text at times[i].

import { svg } from "./dom.js";
import { textWidth } from "./marks.js";
import { rectOf } from "./paths.js";
import { linear, nearest, panned, spaced, timeTicks, within, zoomed } from "./scales.js";

const AXIS = 24; // below the last panel
const BETWEEN = 10;
const LEAST_DRAG = 6; // pixels: less is a click

export function timePlot({ label, say, onRange, onPoint }) {
  const view = svg("svg", { class: "plot", "aria-hidden": "true", focusable: "false" });
  const cross = svg("g", { class: "plot-cross" });
  const brush = svg("rect", { class: "plot-brush", width: 0 });
  const frame = document.createElement("div");
  frame.className = "plot-frame";
  frame.tabIndex = 0;
  frame.setAttribute("role", "slider");
  frame.setAttribute("aria-label", label);
  frame.setAttribute("aria-orientation", "horizontal");
  frame.append(view);

  let drawn = null; // { times, limits, range, panels }
  let box = null; // { x, left, right, top, bottom }
  let point = -1;
  let drag = null; // { pixel, id }

  function draw(next = drawn) {
    if (next === null) return;
    if (point >= 0 && next !== drawn) point = nearest(next.times, drawn.times[point]); // it stays at its instant
    drawn = next;
    if (point >= 0 && !(drawn.times[point] >= drawn.range[0] && drawn.times[point] <= drawn.range[1])) point = -1; // … while that is shown
    const width = frame.clientWidth;
    if (width === 0) return; // not shown yet: the observer draws it
    const left = width < 480 ? 52 : 68;
    const right = width - 10;
    const height = drawn.panels.reduce((sum, panel) => sum + panel.height + BETWEEN, AXIS);
    const x = linear(drawn.range[0], drawn.range[1], left, right);
    box = { x, left, right, top: 0, bottom: height - AXIS };
    view.setAttribute("viewBox", `0 0 ${width} ${height}`);
    view.setAttribute("width", width);
    view.setAttribute("height", height);
    const parts = [axis(box)];
    let top = 4;
    for (const panel of drawn.panels) {
      const group = svg("g", { class: "plot-panel" });
      panel.draw(group, { x, left, right, top, bottom: top + panel.height, width });
      parts.push(group);
      top += panel.height + BETWEEN;
    }
    view.replaceChildren(...parts, brush, cross);
    frame.setAttribute("aria-valuemin", "0");
    frame.setAttribute("aria-valuemax", String(Math.max(0, drawn.times.length - 1)));
    point = Math.min(point, drawn.times.length - 1);
    show(point);
  }

  function axis({ x, left, right, bottom }) {
    const want = Math.max(2, Math.floor((right - left) / 90));
    const ticks = timeTicks(drawn.range[0], drawn.range[1], want);
    const group = svg("g", { class: "plot-axis" });
    for (const { ms } of ticks) group.append(svg("line", { class: "plot-grid", x1: x(ms), x2: x(ms), y1: 0, y2: bottom }));
    const labelled = ticks.filter((t) => x(t.ms) - textWidth(t.text) / 2 >= 0 && x(t.ms) + textWidth(t.text) / 2 <= right + 10);
    for (const { ms, text } of spaced(labelled, (t) => x(t.ms), textWidth)) {
      group.append(svg("text", { x: x(ms), y: bottom + 16, "text-anchor": "middle" }, text));
    }
    return group;
  }

  /** The crosshair on point `i`; -1: none. */
  function show(i) {
    point = i;
    const shown = i >= 0 && box !== null && drawn.times[i] >= drawn.range[0] && drawn.times[i] <= drawn.range[1];
    cross.replaceChildren();
    if (shown) {
      const at = box.x(drawn.times[i]);
      cross.append(svg("line", { x1: at, x2: at, y1: 0, y2: box.bottom }));
      for (const panel of drawn.panels) for (const y of panel.marks?.(i) ?? []) cross.append(svg("circle", { cx: at, cy: y, r: 3.5 }));
    }
    if (drawn === null) return;
    if (drawn.times.length > 0) {
      const said = i < 0 ? drawn.times.length - 1 : i;
      frame.setAttribute("aria-valuenow", String(said));
      frame.setAttribute("aria-valuetext", say(said));
    }
    onPoint(i);
  }

  const pixelOf = (event) => Math.min(Math.max(event.clientX - frame.getBoundingClientRect().left, box.left), box.right);

  function change(range, how) {
    const [from, to] = within(range, drawn.limits);
    if (from === drawn.range[0] && to === drawn.range[1]) return;
    onRange(from <= drawn.limits[0] && to >= drawn.limits[1] ? null : [from, to], how);
  }

  frame.addEventListener("pointermove", (event) => {
    if (box === null || drawn.times.length === 0) return;
    const pixel = pixelOf(event);
    show(nearest(drawn.times, box.x.invert(pixel)));
    if (drag !== null && drag.id === event.pointerId) {
      const { x, width } = rectOf(drag.pixel, pixel, 0, 1);
      for (const [name, value] of Object.entries({ x, width, y: 0, height: box.bottom })) brush.setAttribute(name, value);
    }
  });
  frame.addEventListener("pointerdown", (event) => {
    if (box === null || event.button !== 0) return;
    drag = { pixel: pixelOf(event), id: event.pointerId };
    frame.setPointerCapture(event.pointerId);
  });
  const stop = () => {
    drag = null;
    brush.setAttribute("width", 0);
  };
  frame.addEventListener("pointerup", (event) => {
    if (drag === null || drag.id !== event.pointerId) return;
    const [a, b] = [drag.pixel, pixelOf(event)].sort((p, q) => p - q);
    stop();
    if (b - a >= LEAST_DRAG) change([box.x.invert(a), box.x.invert(b)], "select");
  });
  frame.addEventListener("pointercancel", stop);
  frame.addEventListener("pointerleave", () => {
    if (drag === null && drawn !== null && document.activeElement !== frame) show(-1);
  });
  frame.addEventListener("dblclick", () => box !== null && change(drawn.limits, "select"));

  function move(to) {
    const next = Math.min(Math.max(to, 0), drawn.times.length - 1);
    if (next < 0) return;
    show(next);
    const ms = drawn.times[next];
    const [from, until] = drawn.range;
    if (ms < from || ms > until) change(panned(drawn.range, (ms - (from + until) / 2) / (until - from), drawn.limits), "step");
  }

  function step(by) {
    move(point < 0 ? nearest(drawn.times, by > 0 ? drawn.range[0] : drawn.range[1]) : point + by);
  }

  frame.addEventListener("keydown", (event) => {
    if (box === null || event.ctrlKey || event.metaKey || event.altKey) return;
    const centre = point >= 0 ? drawn.times[point] : (drawn.range[0] + drawn.range[1]) / 2;
    const far = Math.max(1, Math.round(drawn.times.length / 20));
    const keys = {
      ArrowRight: () => step(event.shiftKey ? far : 1),
      ArrowLeft: () => step(event.shiftKey ? -far : -1),
      PageUp: () => step(far),
      PageDown: () => step(-far),
      Home: () => move(0),
      End: () => move(drawn.times.length - 1),
      "+": () => change(zoomed(drawn.range, 0.5, centre, drawn.limits), "step"),
      "=": () => change(zoomed(drawn.range, 0.5, centre, drawn.limits), "step"),
      "-": () => change(zoomed(drawn.range, 2, centre, drawn.limits), "step"),
      0: () => change(drawn.limits, "step"),
      Escape: () => show(-1),
    };
    const act = keys[event.key];
    if (act === undefined) return;
    event.preventDefault();
    act();
  });

  new ResizeObserver(() => draw()).observe(frame);
  return {
    element: frame,
    draw,
    zoom: (factor) => drawn !== null && change(zoomed(drawn.range, factor, (drawn.range[0] + drawn.range[1]) / 2, drawn.limits), "step"),
  };
}

/** A panel's name, at its upper left; after what is drawn there, so that it can be read. */
export function named(group, { left, top }, name) {
  group.append(svg("text", { class: "halo plot-name", x: left + 6, y: top + 11 }, name));
}

/** A y axis at the left of a panel: its grid and its labels. */
export function yAxis(group, y, ticks, { left, right, top, bottom }) {
  for (const { value, text } of ticks) {
    const at = y(value);
    group.append(svg("line", { class: "plot-grid", x1: left, x2: right, y1: at, y2: at }));
    group.append(svg("text", { x: left - 6, y: at + 4, "text-anchor": "end" }, text));
  }
  group.append(svg("line", { class: "plot-edge", x1: left, x2: left, y1: top, y2: bottom }));
}
