// The fleet's compact rows: unpacked to what they were packed from, counted to the last GPU, chosen by every quality.
import assert from "node:assert/strict";
import test from "node:test";

import { chosen, counted, gpusText, sorted, unpack } from "./pages/fleetrows.js";

const ROWS = {
  count: 4,
  names: [0, "node-01", 6, "2", 5, "10", 0, "x"],
  status: "LLSN",
  gpus: { values: ["AAAAAAAA", "AAgAAAAu", "ssss", ""], of: [0, 1, 2, 3] },
  cluster: { values: ["a", "b"], of: [0, 0, 1, 1] },
  version: { values: ["0.1.0", "0.10.0", "0.2.0"], of: [0, 1, 2, 0] },
  model: { values: ["H100"], of: [0, 0, 0, 0] },
  marks: { values: ["", "cl"], of: [0, 1, 0, 0] },
  newest: "2026-11-22T18:55:46Z",
  behind: [0, 3, 518_400, null],
  delay: [0, -400, 1, null],
  clock: "a!e-",
  offset: [[1, -41_203, 3]],
};
const nodes = unpack(ROWS);
const names = (found) => found.map((n) => n.name);

test("names are whole again, and every column is at its node", () => {
  assert.deepEqual(names(nodes), ["node-01", "node-02", "node-10", "x"]);
  assert.deepEqual(nodes[1], {
    name: "node-02", status: "L", gpus: "AAgAAAAu", cluster: "a", version: "0.10.0", model: "H100", marks: "cl", behind: 3, delay: -400, offset: -41_203, within: 3,
  });
});

test("front coding, back and forth, of names of any kind", () => {
  const many = Array.from({ length: 500 }, (_, i) => `${"ab".repeat(i % 5)}${(i * 7919) % 1000}é\u202e`);
  const packed = [];
  let last = "";
  for (const name of many) {
    let same = 0;
    while (same < Math.min(name.length, last.length) && name[same] === last[same]) same++;
    packed.push(same, name.slice(same));
    last = name;
  }
  const column = { values: [""], of: many.map(() => 0) };
  const found = unpack({ ...ROWS, count: many.length, names: packed, gpus: column, cluster: column, version: column, model: column, marks: column });
  assert.deepEqual(names(found), many);
});

test("every GPU is counted once", () => {
  const { codes, status } = counted(nodes);
  assert.deepEqual(Object.fromEntries(codes), { A: 14, g: 1, u: 1, s: 4 });
  assert.equal([...codes.values()].reduce((a, b) => a + b), nodes.reduce((n, node) => n + node.gpus.length, 0));
  assert.deepEqual(Object.fromEntries(status), { L: 2, S: 1, N: 1 });
});

test("what is asked for is chosen, and nothing else", () => {
  assert.deepEqual(names(chosen(nodes, {})), names(nodes));
  assert.deepEqual(names(chosen(nodes, { show: "gs" })), ["node-02", "node-10"]);
  assert.deepEqual(names(chosen(nodes, { q: "NODE-0" })), ["node-01", "node-02"]);
  assert.deepEqual(names(chosen(nodes, { status: "L", cluster: "b" })), []);
  assert.deepEqual(names(chosen(nodes, { mark: "l" })), ["node-02"]);
  assert.deepEqual(names(chosen(nodes, { version: "0.1.0" })), ["node-01", "x"]);
});

test("the worst come first; what never reported is the longest behind", () => {
  assert.deepEqual(names(sorted(nodes, "worst")), ["node-10", "node-02", "node-01", "x"]);
  assert.deepEqual(names(sorted(nodes, "behind")), ["x", "node-10", "node-02", "node-01"]);
  assert.deepEqual(names(sorted(nodes, "delay"))[0], "node-02");
  assert.deepEqual(names(sorted(nodes, "clock")), ["node-02", "node-10", "node-01", "x"]);
  assert.deepEqual(names(sorted(nodes, "version")), ["node-01", "x", "node-10", "node-02"]);
  assert.deepEqual(names(sorted(nodes, "no such")), names(nodes));
});

test("a node's GPUs in words", () => {
  assert.equal(gpusText("AAgAAAAu"), "6 A1, A2 · 1 gap · 1 unattributed");
});

test("a clock that is about right is told by how near it surely is", () => {
  assert.deepEqual(nodes.map((n) => [n.offset, n.within]), [[0, 1], [-41_203, 3], [0, 20], [null, null]]);
});

test("an older collector's rows say nothing of clocks", () => {
  const { clock, offset, ...old } = ROWS;
  assert.deepEqual(unpack(old).map((n) => [n.offset, n.within]), Array(4).fill([null, null]));
});
