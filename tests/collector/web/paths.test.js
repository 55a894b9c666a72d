// Paths: a gap is never drawn over. Run by test_page_modules.py.
import assert from "node:assert/strict";
import { test } from "node:test";

import * as paths from "./pages/paths.js";

test("a series is cut where nothing is known", () => {
  const items = [1, 2, null, 3, null, null, 4];
  assert.deepEqual(paths.stretches(items, (i) => i !== null), [[1, 2], [3], [4]]);
  assert.deepEqual(paths.stretches([null], (i) => i !== null), []);
  assert.deepEqual(paths.stretches([], () => true), []);
});

test("lines, and one point alone is still seen", () => {
  assert.equal(paths.linePath([[0, 1], [2.04, 3.06]]), "M0 1L2 3.1");
  assert.equal(paths.linePath([[5, 6]]), "M5 6h0.1");
  assert.equal(paths.linePath([]), "");
});

test("a band is closed: up along one figure, back along the other", () => {
  assert.equal(paths.bandPath([[0, 9, 5], [10, 8, 4]]), "M0 5L10 4L10 8L0 9Z");
  assert.equal(paths.bandPath([]), "");
});

test("rectangles, whichever way round, and not thinner than can be seen", () => {
  assert.deepEqual(paths.rectOf(10, 4, 0, 20), { x: "4", y: "0", width: "6", height: "20" });
  assert.equal(paths.rectOf(10, 10.1, 0, 20, 2).width, "2");
});

test("steps join where slots touch, and are lifted where they do not", () => {
  assert.equal(paths.stepPath([[0, 10, 5], [10, 20, 3], [30, 40, 4]]), "M0 5H10V3H20M30 4H40");
  assert.equal(paths.stepBandPath([[0, 10, 9, 5]]), "M0 9H10V5H0Z");
});
