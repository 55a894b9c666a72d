// Scales, ticks and zoom of the plots. Pure: numbers in, numbers and texts out; no document, no clock.
//
// Figures come as decimal strings; floating point is for where a thing is drawn, and only for that: what is read (hover,
// tables) is always the string itself.

/** A scale from [d0, d1] to [r0, r1], with its inverse. A domain without extent is drawn in the middle. */
export function linear(d0, d1, r0, r1) {
  const flat = d1 === d0;
  const at = (value) => (flat ? (r0 + r1) / 2 : r0 + ((value - d0) / (d1 - d0)) * (r1 - r0));
  at.invert = (pixel) => (flat || r1 === r0 ? d0 : d0 + ((pixel - r0) / (r1 - r0)) * (d1 - d0));
  at.domain = [d0, d1];
  return at;
}

/** A logarithmic scale of positive numbers; what is not above its foot is drawn at the foot. */
export function log(d0, d1, r0, r1) {
  const inner = linear(Math.log10(d0), Math.log10(d1), r0, r1);
  const foot = Math.min(d0, d1);
  const at = (value) => inner(Math.log10(value > foot ? value : foot));
  at.invert = (pixel) => 10 ** inner.invert(pixel);
  at.domain = [d0, d1];
  return at;
}

const SUPERSCRIPT = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

/** 10²⁵; 3·10²⁵ for three of them. */
export function powerText(exponent, times = 1) {
  const power = "10" + [...String(exponent)].map((c) => SUPERSCRIPT[c]).join("");
  return times === 1 ? power : `${times}·${power}`;
}

/** Ticks of a logarithmic axis: whole decades, thinned to about `want`; within two decades also 2 and 5 of each. */
export function logTicks(low, high, want = 6) {
  const first = Math.floor(Math.log10(low));
  const last = Math.ceil(Math.log10(high));
  const step = Math.max(1, Math.ceil((last - first) / want));
  const steps = last - first <= 2 ? [1, 2, 5] : [1];
  const ticks = [];
  for (let exponent = Math.ceil(first / step) * step; exponent <= last; exponent += step) {
    for (const times of steps) {
      const value = times * 10 ** exponent;
      if (value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9)) {
        ticks.push({ value, text: powerText(exponent, times) });
      }
    }
  }
  return ticks;
}

/** The round number (1, 2 or 5 of a decade) at or above `rough`. */
export function niceStep(rough) {
  if (!(rough > 0) || !Number.isFinite(rough)) return 1;
  const decade = 10 ** Math.floor(Math.log10(rough));
  for (const times of [1, 2, 5]) if (times * decade >= rough * (1 - 1e-9)) return times * decade;
  return 10 * decade;
}

/** Ticks of a linear axis from `low` to `high`; each in units of the axis' own power of ten, so that labels stay short. */
export function linearTicks(low, high, want = 5) {
  if (!(high > low)) return [];
  const step = niceStep((high - low) / want);
  const exponent = Math.floor(Math.log10(Math.max(Math.abs(low), Math.abs(high))) + 1e-9);
  const unit = 10 ** exponent;
  const digits = Math.max(0, exponent - Math.floor(Math.log10(step) + 1e-9));
  const ticks = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high * (1 + 1e-12) + step * 1e-9; n += 1) {
    const value = n * step;
    const small = exponent >= -2 && exponent <= 3;
    const said = small
      ? value.toFixed(Math.max(0, -Math.floor(Math.log10(step) + 1e-9)))
      : `${(value / unit).toFixed(digits)}·${powerText(exponent)}`;
    ticks.push({ value, text: n === 0 ? "0" : said });
  }
  return ticks;
}

/** `value` is rounded up to where an axis may end. */
export function niceTop(value, want = 5) {
  if (!(value > 0)) return 1;
  const step = niceStep(value / want);
  return Math.ceil(value / step - 1e-9) * step;
}

// ---- time: milliseconds since 1970, UTC ------------------------------------------------------------

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const STEPS = [
  SECOND, 5 * SECOND, 15 * SECOND, 30 * SECOND, MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE,
  HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY, 14 * DAY,
];
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const two = (n) => String(n).padStart(2, "0");

function monthTicks(from, to, want) {
  const months = (to - from) / (30.4 * DAY);
  const step = [1, 2, 3, 6, 12, 24, 60, 120].find((m) => months / m <= want) ?? 1200;
  const first = new Date(from);
  const ticks = [];
  let number = Math.ceil((first.getUTCFullYear() * 12 + first.getUTCMonth()) / step) * step;
  for (;;) {
    const ms = Date.UTC(Math.floor(number / 12), number % 12, 1);
    if (ms > to) return ticks;
    const year = Math.floor(number / 12);
    if (ms >= from) ticks.push({ ms, text: number % 12 === 0 || step >= 12 ? String(year) : MONTHS[number % 12] });
    number += step;
  }
}

function dayText(date) {
  return `${date.getUTCDate()} ${MONTHS[date.getUTCMonth()]}`;
}

/** Ticks of a time axis, at round instants of UTC. The first, and the first of each day or year, name the larger unit. */
export function timeTicks(from, to, want = 6) {
  if (!(to > from)) return [];
  const step = STEPS.find((s) => (to - from) / s <= want);
  if (step === undefined) return monthTicks(from, to, want);
  const origin = step >= 7 * DAY ? 4 * DAY : 0; // weeks begin on Mondays: the 5th of January 1970 was one
  const ticks = [];
  let day = null;
  for (let ms = Math.ceil((from - origin) / step) * step + origin; ms <= to; ms += step) {
    const date = new Date(ms);
    const today = dayText(date);
    const clock = `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}`;
    const fine = step < MINUTE ? `${clock}:${two(date.getUTCSeconds())}` : clock;
    ticks.push({ ms, text: step >= DAY ? today : today === day ? fine : ms % DAY === 0 ? today : `${today} ${fine}` });
    day = today;
  }
  return ticks;
}

/** What is kept of `ticks` when each takes `width(text)` pixels at `at(tick)`: none runs into the one before. */
export function spaced(ticks, at, width, between = 8) {
  const kept = [];
  let end = -Infinity;
  for (const tick of ticks) {
    const half = width(tick.text) / 2;
    const middle = at(tick);
    if (middle - half < end + between) continue;
    kept.push(tick);
    end = middle + half;
  }
  return kept;
}

// ---- what is looked at -------------------------------------------------------------------------------

/** The number of the element of ascending `times` nearest to `ms`; -1 of none. */
export function nearest(times, ms) {
  if (times.length === 0) return -1;
  let low = 0;
  let high = times.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] < ms) low = middle + 1;
    else high = middle;
  }
  return low > 0 && ms - times[low - 1] <= times[low] - ms ? low - 1 : low;
}

/** `range` [from, to], `factor` times as long around `at`, within `limits`, and never shorter than `least`. */
export function zoomed(range, factor, at, limits, least = MINUTE) {
  const whole = limits[1] - limits[0];
  const length = Math.min(whole, Math.max(Math.min(least, whole), (range[1] - range[0]) * factor));
  const share = range[1] > range[0] ? (at - range[0]) / (range[1] - range[0]) : 0.5;
  return within([at - share * length, at - share * length + length], limits);
}

/** `range`, moved by `share` of its length, within `limits`. */
export function panned(range, share, limits) {
  const by = (range[1] - range[0]) * share;
  return within([range[0] + by, range[1] + by], limits);
}

/** `range` pushed into `limits`, as long as it was if they allow it. */
export function within(range, limits) {
  const length = Math.min(range[1] - range[0], limits[1] - limits[0]);
  const from = Math.min(Math.max(range[0], limits[0]), limits[1] - length);
  return [Math.round(from), Math.round(from + length)];
}

/** Places of labels that want to stand at `wanted` (pixels) and are `height` high, without one over another. */
export function apart(wanted, height, low, high) {
  const order = wanted.map((_, i) => i).sort((a, b) => wanted[a] - wanted[b] || a - b);
  const placed = new Array(wanted.length);
  let last = low - height;
  for (const i of order) {
    placed[i] = Math.max(wanted[i], last + height);
    last = placed[i];
  }
  let next = high + height;
  for (const i of order.reverse()) {
    placed[i] = Math.min(placed[i], next - height);
    next = placed[i];
  }
  return placed;
}
