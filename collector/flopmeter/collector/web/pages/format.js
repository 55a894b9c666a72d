// How figures and times are said. FLOP and cycles come as decimal strings and stay exact: BigInt, never a float.

export const NONE = "–";

// The collector's clock, as its answers' Date says it: a laptop whose own is wrong still says "6 min ago" rightly.
// While a history is played, it is the history's, which each answer says; `played` is what it said last.
let ahead = 0;
export const clock = {
  now: () => Date.now() + ahead,
  played: null,
  heard: (date, played = null) => {
    clock.played = played;
    const told = Date.parse(played ?? date ?? "");
    // A Date header has whole seconds; what differs by less than two is the network.
    if (!Number.isNaN(told)) ahead = Math.abs(told - Date.now()) < 2000 ? 0 : told - Date.now();
  },
};
const POWERS = "⁰¹²³⁴⁵⁶⁷⁸⁹";

// A figure in three digits, as in the terminal: "377123…" → "3.77e23"; below 10,000 whole. A lower bound is rounded down
// and an upper one up, so that neither excludes the exact number; a point to the nearest, but never up onto a power of
// ten, which is where laws draw their lines.
const nearest = (lead, rest, unit) => lead !== 999n && 2n * rest >= unit;
const down = () => false;
const up = (_, rest) => rest > 0n;
export const flop = (text) => figure(text, nearest, nearest);
export const flopDown = (text) => figure(text, down, up);
export const flopUp = (text) => figure(text, up, down);

// `rule`: whether the digits become one more, for the `rest` that they leave out of a `unit`; `below`: the same of a figure below 0.
function figure(text, rule, below) {
  if (text === null || text === undefined || text === "") return NONE;
  const parts = /^(-?)(\d+)(?:\.(\d+)|\/(\d+))?$/.exec(text);
  if (!parts) return String(text);
  const [, minus, whole, decimals = "", over = "1"] = parts;
  const one = BigInt(over) * 10n ** BigInt(decimals.length); // of what the number counts: a line may be a third of something
  const number = BigInt(whole + decimals);
  const length = String(number / one).length;
  const unit = length <= 4 ? one : one * 10n ** BigInt(length - 3);
  let lead = number / unit;
  if ((minus ? below : rule)(lead, number % unit, unit)) lead += 1n;
  const sign = minus && lead ? "−" : "";
  if (length <= 4) return sign + lead;
  const said = String(lead);
  return `${sign}${said[0]}.${said.slice(1, 3)}e${length - 4 + said.length}`;
}

// Every digit, in groups of three.
export function exact(text) {
  if (text === null || text === undefined || text === "") return NONE;
  const value = String(text);
  return value.replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f");
}

// 10²³ of an exact power of ten, else as flop() says it: what a line of the law is called.
export function line(text) {
  const value = String(text ?? "");
  if (/^10*$/.test(value)) return `10${[...String(value.length - 1)].map((d) => POWERS[d]).join("")}`;
  return flop(value);
}

// {lower, point, upper} → "3.77e23 (1.09e23 to 7.94e23)".
export function band(figure) {
  return figure ? `${flop(figure.point)} (${flopDown(figure.lower)} to ${flopUp(figure.upper)})` : NONE;
}

// log10 of a decimal string, for where a figure stands on a scale; only ever drawn. -Infinity of nothing.
export function log10(text) {
  const value = String(text ?? "0").replace(/^0+(?=\d)/, "");
  if (value === "0" || value.startsWith("-")) return -Infinity;
  return Math.log10(Number(value.slice(0, 15))) + Math.max(value.length - 15, 0);
}

// part / whole of decimal strings as a number of per cent, exact to 0.001; null where there is no whole.
export function percentOf(part, whole) {
  const all = BigInt(whole ?? 0);
  return all > 0n ? Number((BigInt(part ?? 0) * 100000n) / all) / 1000 : null;
}

// A share from 0 to 1, rounded down. What is not all is never said as 100 %, and what is not nothing never as 0 %.
export function percent(share, digits = 1) {
  if (share === null || share === undefined || Number.isNaN(share)) return NONE;
  const value = share * 100;
  const least = 10 ** -digits;
  if (value > 0 && value < least) return `< ${least} %`;
  if (value < 100 && value > 100 - least) return `> ${100 - least} %`;
  const cut = Math.floor(value / least + 1e-6) * least; // the millionth: 0.29 * 100 is 28.999999999999996
  return `${cut.toFixed(value === 0 || value === 100 ? 0 : digits)} %`;
}

// The same of an upper bound: rounded up.
export function percentUp(share, digits = 1) {
  if (share === 0) return "0 %";
  const least = 10 ** -digits;
  return `${(Math.ceil((share * 100) / least - 1e-6) * least).toFixed(digits)} %`;
}

const COUNT = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
export const count = (value) => (value === null || value === undefined ? NONE : COUNT.format(value));

// "1 node", "2 nodes".
export const many = (value, one, more = `${one}s`) => `${count(value)} ${Number(value) === 1 ? one : more}`;

export function bytes(value) {
  if (value === null || value === undefined) return NONE;
  let size = Number(value);
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (size < 1000) return `${unit === "B" ? size : size.toFixed(1)} ${unit}`;
    size /= 1000;
  }
  return `${size.toFixed(1)} TB`;
}

// 2026-11-22 18:55 (UTC, which the page says once in its header).
export function time(iso) {
  return iso ? iso.slice(0, 16).replace("T", " ") : NONE;
}

export const day = (iso) => (iso ? iso.slice(0, 10) : NONE);

// 4 s, 12 min, 5 h 10 min, 3 d 4 h: rounded down, as the terminal says it.
export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return NONE;
  const whole = Math.floor(Math.abs(seconds));
  const days = Math.floor(whole / 86400);
  const hours = Math.floor((whole % 86400) / 3600);
  const minutes = Math.floor((whole % 3600) / 60);
  if (days >= 365) return `${(days / 365.25).toFixed(1)} y`;
  if (days >= 10) return `${days} d`;
  if (days) return hours ? `${days} d ${hours} h` : `${days} d`;
  if (hours) return minutes ? `${hours} h ${minutes} min` : `${hours} h`;
  return minutes ? `${minutes} min` : `${whole} s`;
}

// Milliseconds by which a clock is ahead, and within how many that is sure: "+41.203 s ± 3 ms"; "± 5 ms" of one that is about right.
export function offset(ms, within) {
  if (ms === null || ms === undefined) return "not known";
  return `${ms ? `${ms < 0 ? "−" : "+"}${precisely(Math.abs(ms))} ` : ""}± ${precisely(within)}`;
}

function precisely(ms) {
  if (ms < 1000) return `${ms} ms`;
  return ms < 120_000 ? `${(ms / 1000).toFixed(3)} s` : duration(ms / 1000);
}

// Of silent agents: `since` is when the first of them fell silent.
export const silentSince = ({ nodes, since }) => `${nodes.length > 1 ? "the first since" : "since"} ${time(since)}`;

// "6 d ago", "in 3 h": of an instant, seen from `now` (milliseconds).
export function relative(iso, now = clock.now()) {
  if (!iso) return NONE;
  const seconds = (Date.parse(iso) - now) / 1000;
  if (Math.abs(seconds) < 1) return "now";
  return seconds < 0 ? `${duration(seconds)} ago` : `in ${duration(seconds)}`;
}

// 137,088 GPU-h; 3.5 GPU-h; 12 GPU-s.
export function deviceTime(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  const hours = Number(seconds) / 3600;
  if (hours >= 100) return `${count(hours)} GPU-h`;
  if (hours >= 0.1) return `${hours.toFixed(hours < 10 ? 2 : 1)} GPU-h`;
  return `${Number(seconds).toFixed(0)} GPU-s`;
}

// The first digits of an id or digest, enough to be told apart; the whole stands in a title.
export const short = (id, digits = 12) => String(id ?? "").slice(0, digits);
