// How figures and times are said: exact from decimal strings, never by way of a float.
import assert from "node:assert/strict";
import test from "node:test";

import { bytes, clock, deviceTime, duration, exact, flop, flopDown, flopUp, line, log10, many, offset, percent, percentOf, percentUp, relative, silentSince, time } from "./pages/format.js";

test("a figure in three digits: as in the terminal", () => {
  const cases = [ // the same as in tests/cli/test_figures.py
    ["0", "0", "0", "0"],
    ["9999", "9999", "9999", "9999"],
    ["99949", "9.99e4", "9.99e4", "1.00e5"],
    ["9999999999999999999999999", "9.99e24", "9.99e24", "1.00e25"], // below 10²⁵, by one: no point shows a line as reached
    ["1" + "0".repeat(25), "1.00e25", "1.00e25", "1.00e25"],
    ["1" + "0".repeat(24) + "1", "1.00e25", "1.00e25", "1.01e25"],
    ["794870124316091110471963", "7.94e23", "7.95e23", "7.95e23"],
    ["12350", "1.23e4", "1.24e4", "1.24e4"],
    ["12349", "1.23e4", "1.23e4", "1.24e4"],
    ["-377015992666030080000000", "−3.78e23", "−3.77e23", "−3.77e23"],
    ["1" + "0".repeat(400), "1.00e400", "1.00e400", "1.00e400"],
    ["000123456", "1.23e5", "1.23e5", "1.24e5"],
    ["7900000000000000000000/3", "2.63e21", "2.63e21", "2.64e21"], // a line that is a third of what another took
    ["13330.5", "1.33e4", "1.33e4", "1.34e4"],
    ["12.5", "12", "13", "13"],
    ["-0.4", "−1", "0", "0"],
    [null, "–", "–", "–"],
    ["not known", "not known", "not known", "not known"],
  ];
  for (const [text, ...said] of cases) assert.deepEqual([flopDown(text), flop(text), flopUp(text)], said, text);
});

test("a bound never excludes the exact number, and a point is one of its bounds", () => {
  const value = (said) => {
    const [lead, exponent] = said.split("e");
    return exponent ? BigInt(lead.replace(".", "")) * 10n ** BigInt(exponent) / 100n : BigInt(said);
  };
  let state = 20261123n; // numbers as they come, the same each time
  for (let i = 0; i < 3000; i += 1) {
    state = (state * 6364136223846793005n + 1442695040888963407n) % 2n ** 64n;
    const exact = state ** 2n % 10n ** BigInt(1 + (i % 38)) + BigInt(i % 3);
    const [low, point, high] = [flopDown, flop, flopUp].map((say) => value(say(String(exact))));
    assert.ok(low <= exact && exact <= high && (high - low) * 100n <= exact, String(exact));
    assert.ok(point === low || point === high, String(exact));
    if (low === exact) assert.equal(high, exact);
  }
});

test("every digit stays where all of them are asked for", () => {
  assert.equal(exact("37701599266603"), "37\u202f701\u202f599\u202f266\u202f603");
  assert.equal(exact("9007199254740993").replaceAll("\u202f", ""), "9007199254740993"); // no double has it
});

test("a line of the law is a power of ten where it is one", () => {
  assert.equal(line("1" + "0".repeat(25)), "10²⁵");
  assert.equal(line("3" + "0".repeat(25)), "3.00e25");
});

test("what is not all is never said to be all, nor what is something to be nothing", () => {
  assert.equal(percent(1), "100 %");
  assert.equal(percent(0.99999), "> 99.9 %");
  assert.equal(percent(0), "0 %");
  assert.equal(percent(0.00001), "< 0.1 %");
  assert.equal(percent(0.992), "99.2 %");
  assert.equal(percent(0.29, 0), "29 %"); // 0.29 * 100 is 28.999999999999996 as a float
  assert.equal(percent(0.03770538), "3.7 %"); // down, as the terminal
  assert.equal(percent(3.770538756), "377.0 %");
  assert.equal(percent(1.097226778, 3), "109.722 %");
  assert.equal(percent(null), "–");
  assert.equal(percentUp(0.03770538), "3.8 %"); // of an upper bound
  assert.equal(percentUp(0.29), "29.0 %");
  assert.equal(percentUp(1.326123), "132.7 %");
  assert.equal(percentOf("1", "3"), 33.333);
  assert.equal(percentOf("1", "0"), null);
});

test("where a figure stands on a scale", () => {
  assert.equal(log10("1" + "0".repeat(25)), 25);
  assert.ok(Math.abs(log10("377015992666030080000000") - 23.5764) < 1e-3);
  assert.equal(log10("0"), -Infinity);
});

test("times are UTC, durations are rounded down", () => {
  assert.equal(time("2026-11-22T18:55:46.431Z"), "2026-11-22 18:55");
  assert.equal(duration(59.9), "59 s");
  assert.equal(duration(3599), "59 min");
  assert.equal(duration(18_600), "5 h 10 min");
  assert.equal(duration(273_600), "3 d 4 h");
  assert.equal(duration(518_400), "6 d");
  assert.equal(relative("2026-01-02T00:00:00Z", Date.parse("2026-01-01T00:00:00Z")), "in 1 d");
  assert.equal(relative("2026-01-01T00:00:00Z", Date.parse("2026-01-07T00:00:00Z")), "6 d ago");
  assert.equal(deviceTime(493_516_800), "137,088 GPU-h");
  assert.equal(bytes(26_100), "26.1 kB");
  assert.equal(many(1, "node"), "1 node");
  assert.equal(many(12_500, "node"), "12,500 nodes");
});

test("a laptop whose clock is wrong goes by the collector's", () => {
  clock.heard(new Date(Date.now() + 3_600_000).toUTCString());
  assert.ok(Math.abs(clock.now() - Date.now() - 3_600_000) < 2_000);
  clock.heard("no date");
  assert.ok(clock.now() - Date.now() > 3_500_000);
  clock.heard(new Date().toUTCString(), "2026-01-01T00:00:00.000Z"); // a history is played
  assert.ok(Math.abs(clock.now() - Date.parse("2026-01-01T00:00:00.000Z")) < 2_000);
  assert.equal(clock.played, "2026-01-01T00:00:00.000Z");
  clock.heard(new Date().toUTCString());
  assert.equal(clock.played, null);
  assert.equal(Math.abs(clock.now() - Date.now()) < 5, true);
});

test("a clock's offset has its sign and how sure it is", () => {
  assert.equal(offset(0, 1), "± 1 ms");
  assert.equal(offset(-12, 5), "−12 ms ± 5 ms");
  assert.equal(offset(1200, 3), "+1.200 s ± 3 ms");
  assert.equal(offset(-41_203, 1500), "−41.203 s ± 1.500 s");
  assert.equal(offset(3_600_000, 200), "+1 h ± 200 ms");
  assert.equal(offset(null, null), "not known");
});

test("of several silent agents the instant is that of the first", () => {
  assert.equal(silentSince({ nodes: ["a"], since: "2026-11-16T23:00:00.000Z" }), "since 2026-11-16 23:00");
  assert.equal(silentSince({ nodes: ["a", "b"], since: "2026-11-16T23:00:00.000Z" }), "the first since 2026-11-16 23:00");
});
