// Scales, ticks, zoom: what a reader relies on without seeing it. Run by test_page_modules.py.
import assert from "node:assert/strict";
import { test } from "node:test";

import * as scales from "./pages/scales.js";

const DAY = 86_400_000;
const at = (text) => Date.parse(text);

test("a scale and its inverse agree, and an empty domain stays drawable", () => {
  const x = scales.linear(10, 20, 100, 300);
  assert.deepEqual([x(10), x(20), x(15)], [100, 300, 200]);
  assert.equal(x.invert(150), 12.5);
  const flat = scales.linear(5, 5, 0, 100);
  assert.equal(flat(5), 50);
  assert.equal(flat.invert(99), 5);
  const y = scales.log(1e20, 1e26, 600, 0);
  assert.equal(y(1e23), 300);
  assert.ok(Math.abs(y.invert(300) / 1e23 - 1) < 1e-9);
});

test("zero and what lies below the foot are drawn at the foot, never at a NaN", () => {
  const y = scales.log(1e20, 1e26, 600, 0);
  assert.equal(y(0), 600);
  assert.equal(y(1), 600);
  assert.equal(y(-Infinity), 600);
});

test("log ticks are whole decades, thinned; within two decades 2 and 5 too", () => {
  assert.deepEqual(scales.logTicks(1e20, 1e26).map((t) => t.text), ["10²⁰", "10²¹", "10²²", "10²³", "10²⁴", "10²⁵", "10²⁶"]);
  assert.ok(scales.logTicks(1, 1e30, 6).length <= 7);
  assert.deepEqual(scales.logTicks(1e23, 2e24).map((t) => t.text), ["10²³", "2·10²³", "5·10²³", "10²⁴", "2·10²⁴"]);
  for (const { value } of scales.logTicks(3e21, 7e25)) assert.ok(value >= 3e21 && value <= 7e25);
});

test("linear ticks are round, ascending, inside, and say one unit", () => {
  assert.deepEqual(scales.linearTicks(0, 100).map((t) => t.text), ["0", "20", "40", "60", "80", "100"]);
  assert.deepEqual(scales.linearTicks(0, 8e23, 4).map((t) => t.text), ["0", "2·10²³", "4·10²³", "6·10²³", "8·10²³"]);
  assert.deepEqual(scales.linearTicks(0, 1.2e15, 4).map((t) => t.text), ["0", "0.5·10¹⁵", "1.0·10¹⁵"]);
  assert.deepEqual(scales.linearTicks(5, 5), []);
  for (const top of [3, 17, 999, 1e15, 7.7e23, 4.2e-3]) {
    const ticks = scales.linearTicks(0, top);
    assert.ok(ticks.length >= 2 && ticks.length <= 12, `${top}: ${ticks.length}`);
    ticks.forEach(({ value }, i) => assert.ok(value <= top * 1.0001 && (i === 0 || value > ticks[i - 1].value)));
    assert.equal(new Set(ticks.map((t) => t.text)).size, ticks.length, `labels of ${top} repeat`);
  }
  assert.equal(scales.niceTop(7.9e23), 8e23);
  assert.equal(scales.niceTop(0), 1);
});

test("time ticks stand at round instants of UTC, whatever the zone of this machine", () => {
  const texts = (from, to, want) => scales.timeTicks(at(from), at(to), want).map((t) => t.text);
  assert.deepEqual(texts("2026-10-30T22:00:00Z", "2026-11-01T02:00:00Z", 5), ["31 Oct", "06:00", "12:00", "18:00", "1 Nov"]);
  assert.deepEqual(texts("2026-11-22T09:58:00Z", "2026-11-22T10:31:00Z", 4), ["22 Nov 10:00", "10:15", "10:30"]);
  assert.deepEqual(texts("2025-11-10T00:00:00Z", "2026-03-02T00:00:00Z", 6), ["Dec", "2026", "Feb", "Mar"]);
  assert.deepEqual(texts("2020-01-01T00:00:00Z", "2027-01-01T00:00:00Z", 4).every((t) => /^20\d\d$/.test(t)), true);
  for (const tick of scales.timeTicks(at("2026-01-01T00:00:00Z"), at("2026-03-01T00:00:00Z"), 10)) {
    assert.equal(new Date(tick.ms).getUTCDay(), 1); // weeks by Mondays
  }
  assert.deepEqual(scales.timeTicks(5, 5), []);
});

test("a tick of every length of time is few, ascending and inside", () => {
  for (let length = 2_000; length < 20 * 365 * DAY; length *= 1.7) {
    const from = at("2026-02-27T23:11:07Z");
    const ticks = scales.timeTicks(from, from + length, 7);
    assert.ok(ticks.length <= 9, `${length} ms: ${ticks.length} ticks`);
    ticks.forEach((t, i) => assert.ok(t.ms >= from && t.ms <= from + length && (i === 0 || t.ms > ticks[i - 1].ms)));
  }
});

test("labels that would touch are left out", () => {
  const ticks = [0, 10, 20, 30, 100].map((ms) => ({ ms, text: "abc" }));
  const kept = scales.spaced(ticks, (t) => t.ms, (text) => text.length * 6, 4);
  assert.deepEqual(kept.map((t) => t.ms), [0, 30, 100]);
});

test("the nearest of ascending times", () => {
  const times = [0, 10, 20, 40];
  assert.deepEqual([-5, 4, 5, 6, 29, 31, 1e9].map((ms) => scales.nearest(times, ms)), [0, 0, 0, 1, 2, 3, 3]);
  assert.equal(scales.nearest([], 3), -1);
});

test("zoom keeps what is pointed at in its place, and stays within the whole", () => {
  const limits = [0, 100 * DAY];
  const [from, to] = scales.zoomed(limits, 0.5, 25 * DAY, limits);
  assert.equal(to - from, 50 * DAY);
  assert.equal((25 * DAY - from) / (to - from), 0.25);
  assert.deepEqual(scales.zoomed([10 * DAY, 20 * DAY], 100, 15 * DAY, limits), limits);
  const least = scales.zoomed([0, DAY], 1e-9, 1000, limits);
  assert.equal(least[1] - least[0], 60_000);
  assert.deepEqual(scales.panned([0, 10], -1, [0, 100]), [0, 10]);
  assert.deepEqual(scales.panned([80, 100], 0.5, [0, 100]), [80, 100]);
  assert.deepEqual(scales.panned([10, 20], 0.5, [0, 100]), [15, 25]);
});

test("labels that want one place stand one below the other, inside", () => {
  const placed = scales.apart([50, 50, 51, 5], 12, 0, 60);
  const sorted = [...placed].sort((a, b) => a - b);
  sorted.forEach((y, i) => assert.ok(y >= 0 && y <= 60 && (i === 0 || y - sorted[i - 1] >= 12 - 1e-9)));
  assert.deepEqual(scales.apart([10, 40], 12, 0, 60), [10, 40]);
});
