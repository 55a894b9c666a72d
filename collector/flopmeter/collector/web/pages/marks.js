// What plots have in common beside scales: the hatch of a gap, the marks of a figure and its band, widths of texts.

import { svg } from "./dom.js";
import { rectOf } from "./paths.js";

let hatches = 0;

/** A hatch pattern for what is a gap, and the `url(#…)` to fill with it. Ids are the document's: each is its own. */
export function hatch() {
  hatches += 1;
  const id = `hatch-${hatches}`;
  const pattern = svg(
    "pattern",
    { id, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
    svg("line", { class: "hatch-line", x1: 0, y1: 0, x2: 0, y2: 6 }),
  );
  return { definition: svg("defs", null, pattern), fill: `url(#${id})` };
}

/** About how wide a text of `size` pixels is: for choosing labels, where measuring each would lay the page out anew. */
export function textWidth(text, size = 11) {
  let width = 0;
  for (const c of text) {
    if (/[\u1100-\uffff]/.test(c) && !/[⁰-⁹]/.test(c)) width += 1;
    else if (/[il1.,·:;|' ⁰-⁹¹²³]/.test(c)) width += 0.4;
    else width += /[A-ZMmWw—]/.test(c) ? 0.72 : 0.58;
  }
  return width * size;
}

/** A figure on a scale of x: its band as a bar, its point as a diamond. `of` names it for the stylesheet. */
export function bandMark(x, y, { lower, point, upper }, of, height = 6) {
  const { x: left, width } = rectOf(x(lower), x(upper), 0, 1, 2);
  const at = x(point);
  const half = height / 2 + 2;
  return svg(
    "g",
    { class: `band-mark ${of}` },
    svg("rect", { x: left, y: y - height / 2, width, height, rx: 1 }),
    svg("path", { d: `M${at} ${y - half}L${at + half} ${y}L${at} ${y + half}L${at - half} ${y}Z` }),
  );
}
