// The `d` of SVG paths, and how a series is cut where nothing is known. Pure.

const px = (value) => String(Math.round(value * 10) / 10);

/** The runs of neighbouring items for which `known` holds, each with its items; a gap is where one ends. */
export function stretches(items, known) {
  const found = [];
  let open = null;
  for (const item of items) {
    if (known(item)) {
      if (open === null) found.push((open = []));
      open.push(item);
    } else {
      open = null;
    }
  }
  return found;
}

/** A line through points [[x, y], …]; of one point a dot's length, so that it is seen. */
export function linePath(points) {
  if (points.length === 0) return "";
  const moves = points.map(([x, y], i) => `${i === 0 ? "M" : "L"}${px(x)} ${px(y)}`);
  if (points.length === 1) moves.push("h0.1");
  return moves.join("");
}

/** The area between two lines over the same x: points [[x, low, high], …]. */
export function bandPath(points) {
  if (points.length === 0) return "";
  const upper = points.map(([x, , high], i) => `${i === 0 ? "M" : "L"}${px(x)} ${px(high)}`);
  const lower = [...points].reverse().map(([x, low]) => `L${px(x)} ${px(low)}`);
  return `${upper.join("")}${lower.join("")}Z`;
}

/** A rectangle between two x and two y, in whichever order they come; at least `least` wide. */
export function rectOf(x0, x1, y0, y1, least = 0) {
  const width = Math.max(Math.abs(x1 - x0), least);
  return { x: px(Math.min(x0, x1)), y: px(Math.min(y0, y1)), width: px(width), height: px(Math.abs(y1 - y0)) };
}

/** Steps, for a rate that holds over each slot: slots [[x0, x1, y], …], neighbours that touch are joined. */
export function stepPath(slots) {
  let path = "";
  let end = null;
  for (const [x0, x1, y] of slots) {
    path += end !== null && Math.abs(end - x0) < 0.06 ? `V${px(y)}` : `M${px(x0)} ${px(y)}`;
    path += `H${px(x1)}`;
    end = x1;
  }
  return path;
}

/** The same as an area between two figures: slots [[x0, x1, low, high], …]. */
export function stepBandPath(slots) {
  return slots.map(([x0, x1, low, high]) => `M${px(x0)} ${px(low)}H${px(x1)}V${px(high)}H${px(x0)}Z`).join("");
}
