// The fleet's compact rows, unpacked and chosen from. Pure: no document.

import { BY_CODE } from "./codes.js";

export const STATUS = { L: ["live", "good", "●"], S: ["silent", "bad", "✕"], P: ["stopped", "dim", "■"], N: ["never reported", "warn", "◆"] };
export const MARKS = {
  f: ["last record cannot be read", "bad"],
  c: ["conflicting records", "bad"],
  l: ["lost records", "warn"],
  d: ["library differs from others'", "warn"],
  p: ["persistence mode off", "warn"],
  r: ["records refused", "warn"],
  k: ["clock off by more than 10 s", "warn"],
  o: ["usage lost by its own word", "warn"],
};

// How near the collector's a clock surely is, in milliseconds, by its letter; further ones are told in numbers.
const WITHIN = { a: 1, b: 2, c: 5, d: 10, e: 20, f: 50, g: 100, h: 200, i: 500, j: 1000 };
const clockOf = (code) => (code in WITHIN ? { offset: 0, within: WITHIN[code] } : { offset: null, within: null });

// Front-coded names, columns of (values, of) → one object a node, with its place in the collector's order.
export function unpack(rows) {
  const found = [];
  const column = (name) => {
    const { values, of } = rows[name] ?? { values: [""], of: null };
    return (i) => values[of ? of[i] : 0];
  };
  const [gpus, cluster, version, model, marks] = ["gpus", "cluster", "version", "model", "marks"].map(column);
  for (let i = 0, last = ""; i < rows.count; i++) {
    last = last.slice(0, rows.names[2 * i]) + rows.names[2 * i + 1];
    found.push({
      name: last, status: rows.status[i], gpus: gpus(i), cluster: cluster(i), version: version(i), model: model(i), marks: marks(i),
      behind: rows.behind[i], delay: rows.delay[i], ...clockOf(rows.clock?.[i]),
    });
  }
  for (const [i, offset, within] of rows.offset ?? []) Object.assign(found[i], { offset, within });
  return found;
}

const counts = new WeakMap(); // nodes → what was counted of them: once for all that is shown of an answer

// Nodes and GPUs by each of their qualities: what the legend counts.
export function counted(nodes) {
  if (!counts.has(nodes)) counts.set(nodes, count(nodes));
  return counts.get(nodes);
}

function count(nodes) {
  const codes = new Map();
  const found = { codes, status: new Map(), version: new Map(), model: new Map(), cluster: new Map(), marks: new Map() };
  const tick = (map, key, n = 1) => map.set(key, (map.get(key) ?? 0) + n);
  for (const node of nodes) {
    for (const code of node.gpus) tick(codes, code);
    for (const mark of node.marks) tick(found.marks, mark);
    for (const quality of ["status", "version", "model", "cluster"]) tick(found[quality], node[quality]);
  }
  return found;
}

// The nodes that an address's query asks for. `show`: letters, of which a node's GPUs must have one.
export function chosen(nodes, query) {
  const text = (query.q ?? "").trim().toLowerCase();
  const letters = [...(query.show ?? "")];
  const same = ["status", "version", "model", "cluster"].filter((name) => query[name]);
  return nodes.filter((n) =>
    (!text || n.name.toLowerCase().includes(text)) &&
    (!letters.length || letters.some((letter) => n.gpus.includes(letter))) &&
    (!query.mark || n.marks.includes(query.mark)) &&
    same.every((name) => n[name] === query[name]));
}

const GRAVITY = "sxg?uDCi3BA"; // the worst first
export const gravest = (node) => Math.min(...[...node.gpus].map((code) => GRAVITY.indexOf(code)).filter((i) => i >= 0), GRAVITY.length);
const furthest = (node) => (node.offset === null ? -1 : Math.abs(node.offset) + node.within); // what is not known comes last
const by = {
  name: () => 0,
  worst: (a, b) => gravest(a) - gravest(b),
  behind: (a, b) => (b.behind ?? Infinity) - (a.behind ?? Infinity),
  delay: (a, b) => Math.abs(b.delay ?? 0) - Math.abs(a.delay ?? 0),
  clock: (a, b) => furthest(b) - furthest(a),
  version: (a, b) => a.version.localeCompare(b.version, "en", { numeric: true }),
};
export const SORTS = Object.keys(by);
// Stable, so that nodes that are alike stay in the order of their names.
export const sorted = (nodes, sort) => (by[sort] && sort !== "name" ? nodes.toSorted(by[sort]) : nodes);

// "AAAAAAAg" → "7 A1, A2 · 1 gap".
export function gpusText(gpus) {
  const counts = new Map();
  for (const code of gpus) counts.set(code, (counts.get(code) ?? 0) + 1);
  return [...counts].map(([code, n]) => `${n} ${BY_CODE.get(code)?.name ?? code}`).join(" · ");
}
