// How often a view that is dear to make follows the books: people's words at once, new records every few seconds.

import { onChange } from "./live.js";

const RECORDS_MS = 10_000;

/** Calls `draw` after the books changed: at once for an event, an answer or an entry, else at most every ten seconds. */
export function follow(draw, signal) {
  let timer = 0;
  let last = performance.now();
  let said = null;
  const now = () => {
    clearTimeout(timer);
    timer = 0;
    last = performance.now();
    return draw();
  };
  onChange((numbers) => {
    const words = numbers && JSON.stringify([numbers.event, numbers.answer, numbers.entry]);
    const spoken = words === null || words !== said;
    said = words;
    const wait = last + RECORDS_MS - performance.now();
    if (spoken || wait <= 0) return now();
    timer ||= setTimeout(now, wait);
    return null;
  }, signal);
  signal.addEventListener("abort", () => clearTimeout(timer), { once: true });
}
