// How a GPU's last window was metered: the letters of /fleet, their words, marks and colours.

export const CODES = [
  { code: "A", name: "A1, A2", kind: "good", sign: "A", metered: true, said: "metered by the driver's own pipe counters" },
  { code: "3", name: "A3", kind: "good", sign: "3", metered: true, said: "metered by pipe counters of coarser kinds" },
  { code: "B", name: "B1, B2", kind: "good", sign: "B", metered: true, said: "metered through the node's DCGM exporter" },
  { code: "C", name: "C", kind: "weak", sign: "C", metered: true, said: "only an upper bound: utilisation and energy" },
  { code: "D", name: "D", kind: "weak", sign: "D", metered: true, said: "only an upper bound: the time that it was held" },
  { code: "i", name: "idle", kind: "idle", sign: "·", metered: true, said: "metered, and held by nobody" },
  { code: "u", name: "unattributed", kind: "warn", sign: "u", metered: true, said: "busy, and no job owned it: in no run" },
  { code: "g", name: "gap", kind: "warn", sign: "g", said: "a recorded gap, priced from nothing to the upper bound" },
  { code: "s", name: "silent", kind: "bad", sign: "s", said: "its agent has fallen silent" },
  { code: "x", name: "no meter", kind: "bad", sign: "×", said: "unsupported or not covered: counted, and not metered" },
  { code: "?", name: "unknown", kind: "dim", sign: "?", said: "no window of it has come yet" },
];
export const BY_CODE = new Map(CODES.map((c) => [c.code, c]));

// Of {code: count}: how many are metered, how many there are.
export function tally(counts) {
  let metered = 0;
  let total = 0;
  for (const [code, n] of Object.entries(counts ?? {})) {
    total += n;
    if (BY_CODE.get(code)?.metered) metered += n;
  }
  return { metered, total };
}
