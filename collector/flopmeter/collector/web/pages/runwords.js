// How a run's figure was made, in words: what it rests on, why its band is so wide, what it does not prove; and what
// people have said of the run.

import { h } from "./dom.js";
import { deviceTime, flopUp, percent, percentOf } from "./format.js";
import { longer } from "./figures.js";
import { instant } from "./parts.js";
import { queryHref } from "./route.js";

export function madeCard(run, report) {
  const whole = run.width.reduce((sum, one) => sum + BigInt(one.flop), 0n);
  const best = Object.entries(run.by_evidence_class).sort((a, b) => b[1].device_seconds - a[1].device_seconds)[0];
  return h("section", { class: "card", "data-key": "made", "aria-labelledby": "made-title" },
    h("h2", { id: "made-title" }, "How this figure was made"),
    h("p", null, `Agents read how many cycles each pipe of each GPU was active; ${best ? `${percent(best[1].device_time_share)} of the device time is of class ${best[0]}. ` : ""}`,
      `These SM-cycles are whole numbers and were added up as such. Table ${run.w_table} says how many operations a cycle of each pipe can do on each model; cycles times that is FLOP. `,
      "Where more than one number can be true the band has all of them: lower and upper hold what the counter cannot tell, the point takes what is declared or usual."),
    run.nominal_sparse_flop && h("p", { class: "dim" }, "Had all tensor work been 2:4 sparse, its nominal figure would be up to ",
      longer(`${flopUp(run.nominal_sparse_flop)} FLOP`, `${run.nominal_sparse_flop} FLOP`), "; dense work is what is counted."),
    run.apportioned_device_seconds > 0 && h("p", { class: "dim" }, `${deviceTime(run.apportioned_device_seconds)} are this run's share of GPUs that several held: apportioned, not measured.`),
    run.width.length > 0 && [
      h("h3", null, "Why the band is as wide as it is"),
      h("ol", { class: "width" }, run.width.map((one) => h("li", null, share(one.flop, whole), " ", one.text))),
    ],
    h("h3", null, "What it does not prove"),
    h("ul", { class: "unsaid" }, (report?.unsaid ?? [run.note]).map((text) => h("li", null, text)),
      h("li", null, "Signatures and the evidence log prove that records were not changed since they were made; nothing here proves that they were made truthfully, or that none was left out.")));
}

function share(part, whole) {
  const value = percentOf(part, String(whole)) ?? 0;
  return h("span", { class: "width-bar" },
    h("span", { class: "width-fill", "aria-hidden": "true", style: { width: `${Math.max(1, value).toFixed(1)}%` } }),
    longer(value < 1 ? "< 1 %" : `${Math.floor(value)} %`, `${part} FLOP of ${whole}`, { class: "width-share" }));
}

// ---- what was said -----------------------------------------------------------------------------------------

export function saidCard(found, { may, shown }) {
  if (!may) {
    return h("section", { class: "card", "data-key": "said" }, h("h2", null, "What people said of it"),
      h("p", { class: "dim" }, "Entries of the run registry are shown to auditors, operators and admins."));
  }
  if (!found || found.items.length === 0) {
    return h("section", { class: "card", "data-key": "said" }, h("h2", null, "What people said of it"),
      h("p", null, "Nothing yet: no plan, no tag, no link, no correction. Time that nobody tagged counts under every regime."),
      h("p", { class: "dim" }, "flopmeter runs declare, tag and link say it, by whom and why."));
  }
  return h("section", { class: "card", "data-key": "said" }, h("h2", null, "What people said of it"),
    h("ol", { class: "said-list" }, found.items.map((e) => h("li", { "data-key": String(e.number), class: e.retracted_by ? "retracted" : null },
      h("div", null, h("span", { class: "tag" }, `entry ${e.number}`), " ", e.says, e.retracted_by && h("span", { class: "dim" }, ` (taken back by entry ${e.retracted_by})`)),
      h("div", { class: "under" }, instant(e.time), ", ", h("bdi", null, e.who), ": ", e.why)))),
    found.next && h("p", null, h("a", { class: "button", href: queryHref({ entries: shown * 2 }) }, `More of ${found.total} entries`)));
}
