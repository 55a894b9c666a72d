// Where the boxes of a lineage stand. Run by test_page_modules.py.
import assert from "node:assert/strict";
import { test } from "node:test";

import { layers } from "./pages/lineage.js";

const node = (name, distance) => ({ name, distance, kind: "run", flop: null });
const edge = (from, to) => ({ from, to, relation: "continues" });

test("what a run stands on is at its left, what stands on it at its right", () => {
  const { places } = layers([node("b", 0), node("a", -1), node("c", 1)], [edge("b", "a"), edge("c", "b")]);
  assert.ok(places.get("a").x < places.get("b").x && places.get("b").x < places.get("c").x);
  assert.equal(places.get("a").y, places.get("b").y);
});

test("no box lies over another, and all lie within the drawing, in trees, diamonds and circles of any size", () => {
  let seed = 3;
  const random = (n) => ((seed = (seed * 1103515245 + 12345) % 2147483648) % n);
  for (let round = 0; round < 60; round += 1) {
    const nodes = [node("run-0", 0)];
    const edges = [];
    for (let i = 1; i < 1 + random(60); i += 1) {
      const other = nodes[random(nodes.length)];
      const away = random(2) === 0 ? -1 : 1;
      nodes.push(node(`run-${i}`, other.distance + away));
      edges.push(away < 0 ? edge(other.name, `run-${i}`) : edge(`run-${i}`, other.name));
      if (random(4) === 0) edges.push(edge(`run-${i}`, nodes[random(nodes.length)].name));
    }
    const { places, width, height } = layers(nodes, edges);
    const seen = [...places.values()];
    assert.equal(seen.length, nodes.length);
    seen.forEach((a, i) => {
      assert.ok(a.x >= 0 && a.x + 190 <= width + 1e-9 && a.y >= 0 && a.y + 44 <= height + 1e-9, "outside the drawing");
      for (const b of seen.slice(i + 1)) assert.ok(Math.abs(a.x - b.x) >= 190 || Math.abs(a.y - b.y) >= 44, "over another");
    });
  }
});

test("names are no keys of anything: a run may be called like what every object has", () => {
  const { places } = layers([node("__proto__", 0), node("constructor", -1)], [edge("__proto__", "constructor")]);
  assert.equal(places.size, 2);
});
