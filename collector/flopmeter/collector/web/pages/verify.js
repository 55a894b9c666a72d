// An attestation's file, verified in place: the collector runs the numbered steps and says what each found.

import { ApiError, send } from "./api.js";
import { h } from "./dom.js";
import { band, bytes, count, exact, line, many, time } from "./format.js";
import { announce, command, mark } from "./parts.js";

const MAX_BYTES = 32 * 1024 * 1024; // as the collector takes it
// The steps, in their order, and what each is for (docs/verify.md).
const STEPS = [
  ["container", "the file is whole: its members, and nothing beside them"],
  ["signature", "the issuer's key signed the statement"],
  ["subject", "the statement speaks of exactly these members"],
  ["schema", "every field has its form; figures are integers, lower ≤ point ≤ upper"],
  ["disclosures", "what is shown belongs to what was signed; what is withheld is named"],
  ["checkpoint", "the log's head is signed, and cosigned as far as a policy asks"],
  ["consistency", "the log only grew since a head that was kept"],
  ["inclusion", "the record's entries lie in the log under that head"],
  ["sum tree", "the totals are the sum of the leaves that are committed to"],
  ["arithmetic", "thresholds, totals and coverage follow from the figures shown"],
];

// A form with its own memory: call it to draw it.
export function verifying(redraw) {
  const now = { state: "idle", file: null, answer: null, said: "", over: false };

  async function take(file) {
    if (!file) return;
    Object.assign(now, { file, answer: null, said: "", over: false });
    if (file.size > MAX_BYTES) {
      now.state = "failed";
      now.said = `${file.name} has ${bytes(file.size)}; at most ${bytes(MAX_BYTES)} are taken here. In the terminal there is no limit: flopmeter verify FILE --key PUB`;
      return redraw();
    }
    now.state = "busy";
    redraw();
    try {
      now.answer = await send("POST", "/verify", file, { kind: "application/octet-stream" });
      now.state = "done";
      announce(now.answer.verified ? "The file holds" : `The file does not hold: step ${now.answer.failed}`);
    } catch (error) {
      if (!(error instanceof ApiError) || error.status === 401) throw error;
      now.state = "failed";
      now.said = ["It was not verified.", error.detail || error.title, error.hint].filter(Boolean).join(" ");
    }
    redraw();
  }

  const dropped = (event) => {
    event.preventDefault();
    now.over = false;
    take(event.dataTransfer.files[0]);
  };
  const over = (is) => (event) => {
    event.preventDefault();
    if (now.over === is) return;
    now.over = is;
    redraw();
  };
  return () => h("section", { class: "card", "aria-labelledby": "verify-title" },
    h("h2", { id: "verify-title" }, "Verify a file"),
    h("label", { class: `drop${now.over ? " over" : ""}`, ondrop: dropped, ondragover: over(true), ondragleave: over(false) },
      h("input", { type: "file", class: "unseen", "data-key": "file", "aria-describedby": "verify-help", onchange: (e) => take(e.target.files[0]) }),
      h("span", { class: "button" }, "Choose an attestation"), h("span", { class: "dim" }, "or drop it here")),
    h("p", { id: "verify-help", class: "dim" }, "Held against this collector's own attestation key: whether this collector signed it, and whether it agrees with itself. Somebody else's file, or without trusting this collector at all: flopmeter verify FILE --key PUB on any machine."),
    h("div", { role: "status" }, now.state === "busy" && h("p", null, `Verifying ${now.file.name}…`)),
    now.state === "failed" && h("p", { class: "bad", role: "alert" }, now.said),
    now.state === "done" && result(now.file, now.answer));
}

function result(file, answer) {
  const failed = answer.verified ? -1 : STEPS.findIndex(([name]) => name === answer.failed);
  const done = answer.verified ? answer.steps ?? STEPS.map(([name]) => name) : STEPS.slice(0, Math.max(failed, 0)).map(([name]) => name);
  return h("div", { class: `result ${answer.verified ? "held" : "broken"}` },
    h("h3", null, answer.verified ? mark("good", "✓", "It holds") : mark("bad", "✕", "It does not hold"), " ", h("span", { class: "dim name" }, `${file.name}, ${bytes(file.size)}`)),
    !answer.verified && h("p", null, h("b", null, `Step ${answer.failed}: `), answer.reason),
    h("ol", { class: "steps" }, STEPS.map(([name, what], i) => {
      const passed = done.includes(name);
      const broke = i === failed;
      return h("li", { "data-key": name },
        passed ? mark("good", "✓", name) : broke ? mark("bad", "✕", name) : mark("dim", "○", name),
        h("span", { class: "dim" }, passed ? what : broke ? answer.reason : "not reached"));
    })),
    answer.verified && stated(answer),
    answer.limits?.length > 0 && h("details", { "data-key": "limits" }, h("summary", null, "What it does not prove"), h("ul", null, answer.limits.map((l) => h("li", null, l)))),
    h("details", { "data-key": "whole" }, h("summary", null, "The whole answer"), command(JSON.stringify(answer, null, 2))));
}

function stated(a) {
  return h("dl", { class: "pairs" },
    pair("Assurance", a.level),
    pair("Issued", `${time(a.issuedAt)} by ${a.issuer?.name ?? "unknown"} (${a.issuer?.role ?? "unknown"}), for ${a.profile}`),
    a.run && pair("Run", a.run.name ?? a.run.pseudonym ?? a.run.commitment),
    a.period && pair("Period", `${time(a.period.start)} to ${time(a.period.end)}${a.period.closed ? "" : ", and it goes on"}`),
    a.totals?.executedFlop && pair("Executed", h("span", { title: exact(a.totals.executedFlop.point) }, `${band(a.totals.executedFlop)} FLOP`)),
    a.thresholds?.length > 0 && pair("Lines", h("ul", { class: "plain" }, a.thresholds.map((t) =>
      h("li", null, mark(t.status === "crossed" ? "bad" : t.status === "below" ? "good" : "warn", t.status === "crossed" ? "▲" : t.status === "below" ? "✓" : "◆", t.status), ` ${t.rule} (${t.comparison} ${line(t.limit)}), ${t.known}`)))),
    a.head && pair("Under", `head of ${a.head.origin} with ${count(Number(a.head.treeSize))} leaves`),
    a.redactions?.length > 0 && pair("Not shown", `${many(a.redactions.length, "field")} rounded, withheld or under another name, each of them said`));
}

const pair = (name, value) => [h("dt", null, name), h("dd", null, value)];
