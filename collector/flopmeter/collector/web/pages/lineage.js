// What a run stands on, and what stands on it: a layered drawing, each run a link, with the same as a list.

import { h, svg } from "./dom.js";
import { flop } from "./format.js";
import { textWidth } from "./marks.js";
import { navigate, runHref } from "./route.js";

const BOX = { width: 190, height: 44, across: 104, down: 14 };
const KINDS = { external: "external", unknown: "not known here", hidden: "another tenant's" };
const MOST = 60; // boxes that are drawn: more is a list only

/**
 * Where each box stands: a column a distance (what it stands on at the left), in each column next to what it is linked
 * with. Pure. { places: Map(name → {x, y}), width, height }
 */
export function layers(nodes, edges) {
  const columns = [...new Set(nodes.map((n) => n.distance))].sort((a, b) => a - b);
  const rows = new Map(); // name → row
  const neighbours = (name) => edges.filter((e) => e.from === name || e.to === name).map((e) => (e.from === name ? e.to : e.from));
  const fromCentre = [...columns].sort((a, b) => Math.abs(a) - Math.abs(b) || a - b);
  const sizes = columns.map((c) => nodes.filter((n) => n.distance === c).length);
  const most = Math.max(...sizes, 1);
  for (const column of fromCentre) {
    const here = nodes.filter((n) => n.distance === column).map((n) => {
      const known = neighbours(n.name).filter((m) => rows.has(m)).map((m) => rows.get(m));
      return { name: n.name, wish: known.length ? known.reduce((a, b) => a + b, 0) / known.length : most / 2 };
    });
    here.sort((a, b) => a.wish - b.wish || (a.name < b.name ? -1 : 1));
    const first = (most - here.length) / 2;
    here.forEach((one, i) => rows.set(one.name, first + i));
  }
  const places = new Map(nodes.map((n) => [n.name, {
    x: columns.indexOf(n.distance) * (BOX.width + BOX.across), y: rows.get(n.name) * (BOX.height + BOX.down),
  }]));
  return { places, width: columns.length * (BOX.width + BOX.across) - BOX.across, height: most * (BOX.height + BOX.down) - BOX.down };
}

/** The lineage's card; null of a run that stands alone. */
export function lineageCard(found, name) {
  if (found.edges.length === 0) return null;
  return h("section", { class: "card", "data-key": "lineage", "aria-labelledby": "lineage-title" },
    h("h2", { id: "lineage-title" }, "Lineage"),
    found.nodes.length <= MOST ? h("div", { class: "lineage-scroll", tabindex: "0", role: "region", "aria-label": "Lineage, drawn" }, drawing(found, name)) : null,
    found.nodes.length > MOST && h("p", { class: "dim" }, `${found.nodes.length} runs: too many to draw.`),
    found.more && h("p", { class: "dim" }, "There are more than are shown."),
    h("details", { "data-key": "links", open: found.nodes.length > MOST }, h("summary", null, `Its links as a list (${found.edges.length})`),
      h("ul", { class: "links" }, found.edges.map((edge) => h("li", null, named(found, edge.from), ` ${edge.relation} `, named(found, edge.to))))));
}

function named(found, name) {
  const node = found.nodes.find((n) => n.name === name);
  const said = h("bdi", null, name);
  return node?.kind === "run" ? h("a", { href: runHref(name) }, said) : [said, node && h("span", { class: "dim" }, ` (${KINDS[node.kind] ?? node.kind})`)];
}

function drawing(found, name) {
  const { places, width, height } = layers(found.nodes, found.edges);
  const drawn = found.edges.filter((e) => places.has(e.from) && places.has(e.to));
  return svg("svg", { class: "lineage", width: width + 4, height: height + 4, viewBox: `-2 -2 ${width + 4} ${height + 4}`, role: "group", "aria-label": "Runs and what they stand on" },
    drawn.map((edge) => arrow(edge, places)),
    found.nodes.map((node) => box(node, places.get(node.name), node.name === name)));
}

/** From what stands to what it stands on: leftwards, the arrow at the foundation. */
function arrow(edge, places) {
  const [a, b] = [places.get(edge.from), places.get(edge.to)];
  const middle = BOX.height / 2;
  const left = b.x < a.x;
  const start = { x: left ? a.x : a.x + BOX.width, y: a.y + middle };
  const end = { x: left ? b.x + BOX.width : b.x, y: b.y + middle };
  const bend = (start.x + end.x) / 2;
  const way = left ? 1 : -1;
  return svg("g", { class: "edge" },
    svg("path", { d: `M${start.x} ${start.y}C${bend} ${start.y} ${bend} ${end.y} ${end.x + 6 * way} ${end.y}` }),
    svg("path", { class: "tip", d: `M${end.x} ${end.y}l${7 * way} -4v8Z` }),
    svg("text", { class: "halo", x: bend, y: (start.y + end.y) / 2 - 5, "text-anchor": "middle" }, fitted(edge.relation, BOX.across + 24, 10)));
}

function box(node, { x, y }, here) {
  const parts = [
    svg("rect", { x, y, width: BOX.width, height: BOX.height, rx: 5 }),
    svg("text", { class: "box-name", x: x + 10, y: y + 18 }, fitted(node.name, BOX.width - 20, 12)),
    svg("text", { class: "box-flop", x: x + 10, y: y + 34 }, [node.flop && `${flop(node.flop.point)} FLOP`, KINDS[node.kind]].filter(Boolean).join(" · ") || "no figure"),
    svg("title", null, node.name + (node.flop ? `\nlower ${node.flop.lower}\npoint ${node.flop.point}\nupper ${node.flop.upper} FLOP` : "")),
  ];
  const shape = `box ${node.kind}${here ? " here" : ""}`;
  if (node.kind !== "run" || here) return svg("g", { class: shape }, parts);
  return svg("a", { class: shape, href: runHref(node.name), onclick: followed }, parts);
}

// A link in a drawing is no HTML link, which the page's own follower knows.
function followed(event) {
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey || event.button !== 0) return;
  event.preventDefault();
  navigate(event.currentTarget.getAttribute("href"));
}

function fitted(text, width, size) {
  if (textWidth(text, size) <= width) return text;
  let kept = text.slice(0, 200);
  while (kept.length > 1 && textWidth(`${kept}…`, size) > width) kept = kept.slice(0, -1);
  return `${kept}…`;
}
