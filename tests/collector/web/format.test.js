// How figures and times are said: exact from decimal strings, never by way of a float.
import assert from "node:assert/strict";
import test from "node:test";

import { bytes, clock, deviceTime, duration, exact, flop, line, log10, many, offset, percent, percentOf, relative, silentSince, time } from "./pages/format.js";

test("FLOP are rounded down as in the terminal, so that no line shows as reached before it is", () => {
  assert.equal(flop("9999999999999999999999999"), "9.99e24"); // below 10²⁵, by one
  assert.equal(flop("794870124316091110471963"), "7.94e23");
  assert.equal(flop("377015992666030080000000"), "3.77e23");
  assert.equal(flop("99949"), "9.99e4");
  assert.equal(flop("99950"), "9.99e4");
  assert.equal(flop("0"), "0");
  assert.equal(flop("9999"), "9999");
  assert.equal(flop("-377015992666030080000000"), "−3.77e23");
  assert.equal(flop("1" + "0".repeat(400)), "1.00e400");
  assert.equal(flop("000123456"), "1.23e5");
  assert.equal(flop(null), "–");
  assert.equal(flop("123456", 4), "1.234e5");
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
  clock.heard(new Date().toUTCString());
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
