// What the figures can be held against: the log and its head, witnesses, the last check, attestations; and a file, verified here.

import { get } from "./api.js";
import { h, outside, render } from "./dom.js";
import { clock, count, duration, exact, many, short } from "./format.js";
import { command, empty, fact, facts, instant, mark } from "./parts.js";
import { follow } from "./pace.js";
import { runHref } from "./route.js";
import { verifying } from "./verify.js";

const HEAD_OLD_S = 600; // a head is signed every 30 s where anything is new
const FSCK_OLD_S = 691_200; // eight days: once a week is usual, and a day late is no alarm
const forms = new WeakMap(); // a root → its form: what was verified stays while the rest is drawn again

export async function show(root, { signal }) {
  let redraw = () => {};
  if (!forms.has(root)) forms.set(root, verifying(() => redraw()));
  const form = forms.get(root);
  async function draw() {
    const evidence = await get("/evidence", { signal });
    if (signal.aborted) return;
    redraw = () => render(root, ...whole(evidence, form));
    redraw();
  }
  follow(draw, signal);
  await draw();
}

function whole(e, form) {
  return [
    h("div", { class: "head" }, h("h1", null, "Evidence"), h("span", { class: "dim" }, "what was recorded, and that it was not changed since")),
    h("section", { class: "card", "aria-label": "Summary" }, facts(
      fact("Evidence log", `${count(e.log?.size ?? 0)} leaves`, Object.entries(e.log?.leaves ?? {}).map(([kind, n]) => `${kind} ${count(n)}`).join(", ")),
      headFact(e.log),
      witnessFact(e.witnesses),
      fsckFact(e.fsck),
      fact("Attestations", count(e.attestations_total), e.attestations?.length ? h("span", null, "the last ", instant(e.attestations[0].time)) : "none issued"))),
    form(),
    h("div", { class: "columns" }, headCard(e.log), fsckCard(e.fsck)),
    witnessCard(e.witnesses, e.timestamps),
    attestationCard(e),
    limits(),
  ];
}

// Old is a head that leaves something out: where nothing new is there, none is signed.
function uncovered(log) {
  return (log?.size ?? 0) - (log?.checkpoint?.size ?? 0);
}

function headFact(log) {
  const head = log?.checkpoint;
  if (!head) return fact("Head", mark("warn", "◆", "none yet"), "the first is signed with the first records");
  const age = Math.max(0, (clock.now() - Date.parse(head.time)) / 1000);
  const late = uncovered(log) > 0 && age > HEAD_OLD_S;
  return fact("Head", late ? mark("bad", "▲", `${duration(age)} old`) : `${duration(age)} old`,
    uncovered(log) > 0 ? `${many(uncovered(log), "leaf", "leaves")} not under it${late ? ": is the collector running?" : " yet"}` : "covers everything");
}

function witnessFact(witnesses) {
  if (!witnesses?.length) return fact("Witnesses", mark("warn", "◆", "none"), "nobody outside holds the log to its word");
  const bad = witnesses.filter((w) => w.error).length;
  return fact("Witnesses", bad ? mark("bad", "▲", `${count(bad)} of ${count(witnesses.length)} fail`) : mark("good", "✓", `${count(witnesses.length)} cosign`),
    "each remembers the heads that it saw");
}

function fsckFact(fsck) {
  if (!fsck) return fact("Last fsck", mark("warn", "◆", "never"), "nothing has derived the books again");
  const age = (clock.now() - Date.parse(fsck.time)) / 1000;
  if (fsck.outcome !== "ok") return fact("Last fsck", mark("bad", "▲", "differs"), instant(fsck.time));
  return fact("Last fsck", age > FSCK_OLD_S ? mark("warn", "◆", "ok, old") : mark("good", "✓", "ok"), instant(fsck.time));
}

function headCard(log) {
  const head = log?.checkpoint;
  return h("section", { class: "card", "aria-labelledby": "head-title" },
    h("h2", { id: "head-title" }, "The log's head"),
    head ? [
      h("dl", { class: "pairs" },
        pair("Number", count(head.number)), pair("Leaves under it", exact(head.size)),
        pair("Root", h("span", { class: "mono" }, head.root)), pair("Signed", instant(head.time)),
        pair("Cosigned by", head.cosigned_by?.length ? head.cosigned_by.join(", ") : "nobody"),
        Object.keys(log.waiting ?? {}).length > 0 && pair("Waiting", Object.entries(log.waiting).map(([k, n]) => `${count(n)} ${k}`).join(", "))),
      h("p", null, "Keep this note: whoever has it can tell later whether the log still holds what it held now."),
      command(head.note),
      h("p", { class: "buttons" }, h("a", { class: "button", href: "/api/v1/log/checkpoint", download: "checkpoint.txt" }, "Save the note"))]
      : h("p", null, "No head was signed yet: the collector signs one within 30 s of the first records."),
    h("h3", null, "Keys"),
    h("dl", { class: "pairs" }, pair("Log", h("span", { class: "mono" }, log?.vkey ?? "–"))),
    h("p", { class: "dim" }, "The attestation key's public half, to be handed over on a way of its own:"),
    command("flopmeter collector keys show"));
}

function fsckCard(fsck) {
  return h("section", { class: "card", "aria-labelledby": "fsck-title" },
    h("h2", { id: "fsck-title" }, "Last fsck"),
    fsck ? h("dl", { class: "pairs" },
      pair("Outcome", fsck.outcome === "ok" ? mark("good", "✓", "every figure follows from the signed records") : mark("bad", "▲", "the books differ from the signed records")),
      fsck.difference && pair("First difference", h("span", { class: "mono" }, String(fsck.difference))),
      pair("When", instant(fsck.time)), pair("Up to position", exact(fsck.position)), pair("By version", fsck.version))
      : h("p", null, "None has written its outcome beside this store yet."),
    h("p", null, "It derives every total, hour, head, loss and event again from the stored bytes, and names the first difference. It only reads; run it beside a running collector, once a week:"),
    command("flopmeter collector fsck"));
}

function witnessCard(witnesses, timestamps) {
  return h("section", { class: "card", "aria-labelledby": "witness-title" },
    h("h2", { id: "witness-title" }, "Witnesses and timestamps"),
    witnesses?.length ? h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Witnesses" }, h("table", { class: "stackable" },
      h("thead", null, h("tr", null, ["Witness", "Cosigned", "Leaves", "Last asked", "Last error"].map((t) => h("th", { scope: "col" }, t)))),
      h("tbody", null, witnesses.map((w) => h("tr", { "data-key": w.vkey },
        h("th", { scope: "row", title: w.vkey }, w.name),
        h("td", { "data-label": "Cosigned" }, instant(w.cosigned)),
        h("td", { "data-label": "Leaves" }, count(w.cosigned_size)),
        h("td", { "data-label": "Last asked" }, instant(w.asked)),
        h("td", { "data-label": "Last error" }, w.error ? mark("bad", "▲", h("span", { class: "wrap" }, w.error)) : mark("good", "✓", "none")))))))
      : h("div", null,
        h("p", null, "No witness cosigns this log. Without one, a log that was set back, or shown in two versions, is found only by those who keep and compare its heads."),
        h("p", { class: "dim" }, "Anybody outside can run one, and the collector asks those that its policy names (docs/witness.md):"),
        command("flopmeter witness serve --help")),
    timestamps?.length > 0 && h("dl", { class: "pairs stamps" }, timestamps.map((t) => pair(instant(t.time), h("span", null, `head ${t.checkpoint}, dated by `, outside(t.tsa))))));
}

function attestationCard({ attestations, attestations_total: total }) {
  if (!total) {
    return empty("No attestation was issued yet", "An attestation is one signed file about one run, for one recipient, that is checked without trusting anybody. From a run's page, or on the collector's machine:",
      "flopmeter attest create RUN --profile auditor -o run.fma");
  }
  return h("section", { class: "stacked", "aria-labelledby": "attested-title" },
    h("div", { class: "head" }, h("h2", { id: "attested-title" }, "Attestations issued"), h("span", { class: "dim" }, attestations.length < total ? `the newest ${attestations.length} of ${count(total)}` : count(total))),
    h("div", { class: "scroll", tabindex: "0", role: "group", "aria-labelledby": "attested-title" }, h("table", { class: "stackable" },
      h("thead", null, h("tr", null, ["Issued", "Run", "For", "By, and why", "Statement", "Stands"].map((t) => h("th", { scope: "col" }, t)))),
      h("tbody", null, attestations.map((a) => h("tr", { "data-key": a.attestation },
        h("th", { scope: "row" }, instant(a.time)),
        h("td", { "data-label": "Run", class: "name" }, a.run ? h("a", { href: runHref(a.run) }, a.run) : "–"),
        h("td", { "data-label": "For" }, `${a.recipient}${a.recipient === a.profile ? "" : ` (${a.profile})`}`),
        h("td", { "data-label": "By, and why" }, h("span", { class: "name" }, a.who), a.why ? `: ${a.why}` : ""),
        h("td", { "data-label": "Statement", class: "mono", title: `${a.attestation} sha256 ${a.statement_sha256}` }, short(a.statement_sha256)),
        h("td", { "data-label": "Stands" }, a.superseded_by ? mark("warn", "◆", `superseded by ${short(a.superseded_by, 8)}`) : mark("good", "✓", "stands"))))))));
}

function limits() {
  return h("section", { class: "panel", "aria-labelledby": "limits-title" },
    h("h2", { id: "limits-title" }, "What all of this does and does not prove"),
    h("div", { class: "columns" },
      h("ul", null,
        h("li", null, "That what was recorded has not been changed since: records are signed by the node, chained, and lie under a signed head."),
        h("li", null, "That every figure of this page follows from those records: fsck derives all of it again."),
        h("li", null, "With witnesses: that everybody was shown the same log, and that it was never set back.")),
      h("ul", null,
        h("li", null, "Not that it was recorded truthfully: whoever controls a node's driver and its agent from the first reading on can make readings up consistently."),
        h("li", null, "Not that nothing was left out: hardware that nobody metered is in no total, and what work was for is the operator's word."),
        h("li", null, "Compute is a trigger for scrutiny, not a measure of risk."))));
}

const pair = (name, value) => [h("dt", null, name), h("dd", null, value)];
