// A run's curve: never a line through a gap, and rates that are the API's differences. Run by test_page_modules.py.
import assert from "node:assert/strict";
import { test } from "node:test";

import * as curves from "./pages/curve.js";

const H = 3_600_000;
const T0 = Date.parse("2026-11-01T00:00:00Z");
const iso = (hour) => new Date(T0 + hour * H).toISOString();

/** Hour by hour from `hours`, with cumulative points; lower half of it, upper the double. */
function curve(hours, points, gaps = [], more = {}) {
  const text = (times) => points.map((p) => String((BigInt(p) * BigInt(times)) / 2n));
  return {
    first: iso(0), last: iso(hours.at(-1) ?? 0), times: hours.map(iso),
    cumulative: { lower: text(1), point: text(2), upper: text(4) },
    gaps: gaps.map(([from, to, kind]) => ({ from: iso(from), to: iso(to), kind, device_seconds: 0, reasons: {} })), forecast: null, ...more,
  };
}

test("without gaps it is one stretch", () => {
  const { points, gaps } = curves.course(curve([1, 2, 3], [10, 20, 30]));
  assert.equal(curves.stretchesOf(points, gaps).length, 1);
});

test("hours without a record cut the curve, at their very ends", () => {
  const { points, gaps } = curves.course(curve([1, 2, 6, 7], [100, 200, 300, 400], [[2, 5, "nothing"]]));
  const found = curves.stretchesOf(points, gaps);
  assert.deepEqual(found.map((s) => s.map(([t]) => (t - T0) / H)), [[1, 2], [5, 6, 7]]);
  assert.equal(found[1][0][2], 200); // what was added came after the gap, not in it
});

test("a gap within one step of the plot is cut out of it too, and what was added lies in the rest", () => {
  const { points, gaps } = curves.course(curve([0, 10], [0, 800], [[2, 4, "nothing"]]));
  const found = curves.stretchesOf(points, gaps);
  assert.deepEqual(found.map((s) => s.map(([t, , p]) => [(t - T0) / H, p])), [[[0, 0], [2, 200]], [[4, 200], [10, 800]]]);
});

test("no stretch crosses a broken gap, wherever gaps lie", () => {
  let seed = 7;
  const random = (n) => ((seed = (seed * 1103515245 + 12345) % 2147483648) % n);
  for (let round = 0; round < 200; round += 1) {
    const hours = [...new Set(Array.from({ length: 2 + random(12) }, () => random(60)))].sort((a, b) => a - b);
    let sum = 0;
    const gaps = Array.from({ length: random(6) }, () => {
      const from = random(58);
      return [from, from + 1 + random(8), ["nothing", "bridge"][random(2)]];
    });
    const made = curves.course(curve(hours, hours.map(() => (sum += random(1000))), gaps));
    for (const stretch of curves.stretchesOf(made.points, made.gaps)) {
      for (let i = 1; i < stretch.length; i += 1) {
        assert.ok(stretch[i][0] >= stretch[i - 1][0] && stretch[i][2] >= stretch[i - 1][2]);
        for (const gap of made.gaps) {
          assert.ok(Math.min(stretch[i][0], gap.to) <= Math.max(stretch[i - 1][0], gap.from), "a line goes through a gap");
        }
      }
    }
  }
});

test("a gap of some devices cuts only where nothing at all was measured", () => {
  const part = curves.course(curve([1, 2, 3, 4], [10, 20, 30, 40], [[2, 3, "gap"]]));
  assert.equal(part.gaps[0].broken, false);
  assert.equal(curves.stretchesOf(part.points, part.gaps).length, 1);
  const whole = curves.course(curve([1, 2, 3, 4], [10, 20, 20, 40], [[2, 3, "gap"]]));
  assert.equal(whole.gaps[0].broken, true);
  assert.equal(curves.stretchesOf(whole.points, whole.gaps).length, 2);
});

test("rates are differences over the time that is no gap, exact", () => {
  const big = "377015992666030080000000";
  const made = curves.course(curve([0, 1, 4], ["0", big, String(BigInt(big) * 2n)], [[2, 3, "nothing"]]));
  assert.equal(made.rates[0].texts.point, String(BigInt(big) / 3600n));
  assert.equal(made.rates[1].texts.point, String(BigInt(big) / 7200n));
  assert.deepEqual(made.rates[1].parts.map(([a, b]) => [(a - T0) / H, (b - T0) / H]), [[1, 2], [3, 4]]);
  assert.equal(made.rates[0].texts.upper, String((BigInt(big) * 2n) / 3600n));
});

test("in a bridge nobody knows the rate, and where all is gap there is none", () => {
  const made = curves.course(curve([0, 5, 9], [0, 500, 500], [[1, 5, "bridge"], [5, 9, "nothing"]]));
  assert.deepEqual(made.rates.map((r) => r.point), [null, null]);
});

test("a bridge cuts the curve where nothing else stands in its hours, and not where other nodes went on", () => {
  const bridge = [[2, 6, "bridge"]];
  const alone = curves.course(curve([1, 2, 6, 7], [100, 200, 300, 400], bridge));
  assert.deepEqual([alone.gaps[0].broken, curves.stretchesOf(alone.points, alone.gaps).length], [true, 2]);
  const among = curves.course(curve([1, 2, 4, 6, 7], [100, 200, 250, 300, 400], bridge));
  assert.deepEqual([among.gaps[0].broken, curves.stretchesOf(among.points, among.gaps).length], [false, 1]);
  assert.deepEqual(among.rates.map((r) => r.point === null), [false, true, true, false]);
});

test("lines are drawn in their own unit", () => {
  const lines = [{ regime: "a", unit: "floating-point" }, { regime: "b", unit: "integer-or-floating-point" }];
  assert.deepEqual(curves.linesOf({ unit: lines[1].unit, lines }), [lines[1]]);
});

test("spans over one another go into rows; what has no room is left out, not drawn over", () => {
  const spans = [{ from: 0, to: 10 }, { from: 5, to: 7 }, { from: 10, to: 12 }, { from: 6, to: 8 }];
  assert.deepEqual(curves.lanes(spans), [0, 1, 0, 2]);
  assert.deepEqual(curves.lanes(spans, 2), [0, 1, 0, -1]);
});

test("what is looked at: as much ahead as there is past; ranges of the address are held to it", () => {
  const limits = curves.limitsOf(curve([10], [1], [], { forecast: { until: iso(1000) } }));
  assert.deepEqual(limits, [T0, T0 + 20 * H]);
  assert.deepEqual(curves.limitsOf(curve([10], [1], [], { forecast: { until: iso(15) } })), [T0, T0 + 15 * H]);
  assert.deepEqual(curves.rangeOf({ from: iso(-5), to: iso(3) }, limits), [T0, T0 + 3 * H]);
  for (const query of [{}, { from: "x", to: iso(3) }, { from: iso(3), to: iso(2) }, { from: iso(500), to: iso(600) }]) {
    assert.equal(curves.rangeOf(query, limits), null);
  }
});

test("the y axis holds the band; lines far above it do not flatten it", () => {
  const { points } = curves.course(curve([1, 2], ["1000", "2000"]));
  const range = [T0, T0 + 2 * H];
  const [low, high] = curves.heights(points, [], [5000, 1e6], range, "linear", true);
  assert.equal(low, 0);
  assert.ok(high >= 5000 && high < 6000);
  const [foot, top] = curves.heights(points, [], [5000, 1e6, 1e12], range, "log", true);
  assert.ok(foot === 100 && top > 1e6 && top < 1e12);
  const nothing = curves.heights([[T0, 0, 0, 0]], [], [], range, "log", true);
  assert.ok(nothing[0] > 0 && nothing[1] > nothing[0]);
});

test("a part of a curve has its neighbours and all gaps, so that within a gap there is the gap", () => {
  const whole = curve([1, 2, 6, 7], [100, 200, 300, 400], [[2, 5, "nothing"]]);
  const near = { ...curve([6], [300]), from: iso(5) };
  assert.deepEqual(curves.inContext(near, whole).times, [iso(2), iso(6), iso(7)]);
  assert.deepEqual(curves.inContext(near, whole).cumulative.point, ["200", "300", "400"]);
  const inside = { ...curve([], []), from: iso(3) };
  const made = curves.course(curves.inContext(inside, whole));
  assert.deepEqual(made.times.map((t) => (t - T0) / H), [2, 6]);
  assert.equal(made.gaps.length, 1);
  assert.equal(curves.inContext(whole, whole), whole);
});
