// One run: what it comes to, how it got there, against which lines, on what evidence.

import { ApiError, download, get } from "./api.js";
import { h, render } from "./dom.js";
import { inContext } from "./curve.js";
import { bandFigure, longer } from "./figures.js";
import { count, deviceTime, flopDown, flopUp, many, percent, time } from "./format.js";
import { lineageCard } from "./lineage.js";
import { follow } from "./pace.js";
import { announce, command, fact, facts, mark, severity } from "./parts.js";
import { segment } from "./route.js";
import { curveCard } from "./runcurve.js";
import { lawCard, outlook, planCard } from "./runlaw.js";
import { breakdowns, coverageCard, energyCard, energyText, jobsCard, purposeCard, quoted, utilisationCard } from "./runtables.js";
import { madeCard, saidCard } from "./runwords.js";
import { status } from "./runs.js";

const POINTS = 600;
const UNITS = new Set(["floating-point", "integer-or-floating-point"]); // another in an address is the usual one
const ENTRIES = 100;
const curves = new WeakMap(); // root → its curve's card, which outlives redraws
const AUDITORS = new Set(["admin", "operator", "auditor"]);
const OPERATORS = new Set(["admin", "operator"]);
const PROFILES = [
  ["aiOffice", "European Commission, AI Office"], ["nationalAuthority", "a national authority"], ["auditor", "an auditor"], ["downstream", "a downstream provider"],
];

export async function show(root, { path, query, signal, user }) {
  const name = path.join("/");
  const base = `/runs/${segment(name)}`;
  const may = { read: AUDITORS.has(user.role), attest: OPERATORS.has(user.role) && !user.tenant, pages: !user.tenant };
  const entries = Math.min(1000, Math.max(ENTRIES, Number(query.entries) || ENTRIES));
  const draw = async () => {
    let found;
    try {
      found = await ask(base, query, may, entries, signal);
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 404) throw error;
      const report = await get(`${base}/report`, { signal }).catch(() => null);
      if (!signal.aborted) render(root, report ? notBegun(name, report) : notFound(name, error));
      return;
    }
    if (signal.aborted) return;
    render(root, view(name, base, found, may, entries));
    if (!curves.has(root)) curves.set(root, curveCard(name));
    const card = curves.get(root);
    const slot = root.querySelector("[data-key=curve-slot]");
    if (card.element.parentNode !== slot) slot.replaceChildren(card.element);
    card.update(found.curve, query);
  };
  follow(draw, signal);
  await draw();
}

async function ask(base, query, may, entries, signal) {
  // Of what an address asks for that lies outside the run, the API shows nothing: the plot holds it to its limits.
  const whole = !query.from || !query.to;
  const parameters = { points: POINTS, unit: UNITS.has(query.unit) ? query.unit : undefined };
  const all = get(`${base}/curve`, { parameters, signal });
  const near = whole ? all : get(`${base}/curve`, { parameters: { ...parameters, from: query.from, to: query.to }, signal });
  const [run, curve, report, lineage, said] = await Promise.all([
    get(base, { signal }),
    Promise.all([all, near.catch((error) => {
      if (error.status !== 400) throw error;
      return all; // an address that was mistyped
    })]).then(([every, some]) => inContext(some, every)),
    get(`${base}/report`, { signal }),
    get(`${base}/lineage`, { signal }),
    may.read ? get(`${base}/entries`, { parameters: { limit: entries }, signal }) : null,
  ]);
  return { run, curve, report, lineage, said };
}

function view(name, base, { run, report, lineage, said }, may, entries) {
  return [
    head(name, base, run, may),
    figures(run),
    h("div", { "data-keep": "", "data-key": "curve-slot" }),
    lawCard(run),
    h("div", { class: "columns run-columns", "data-key": "columns-a" }, planCard(report), coverageCard(run), utilisationCard(run), energyCard(run)),
    lineageCard(lineage, name),
    h("div", { class: "columns wide", "data-key": "columns-b" }, breakdowns(run)),
    purposeCard(run, report),
    jobsCard(report, run),
    madeCard(run, report),
    saidCard(said, { may: may.read, shown: entries }),
  ];
}

function head(name, base, run, may) {
  const query = encodeURIComponent(name);
  const formerly = run.names.map((one) => (typeof one === "string" ? one : one.name ?? "")).filter(Boolean);
  return h("header", { class: "head run-head", "data-key": "head" },
    h("h1", null, h("bdi", { class: "run-title" }, name)), status(run.status),
    h("span", { class: "dim" }, `${Object.keys(run.by_model).join(", ") || "no GPU"} · ${time(run.first_seen)} to ${time(run.last_seen)} · ${many(run.job_count, "job")}, named by ${run.rules.join(" and ") || "an entry"}`),
    formerly.length > 0 && h("span", { class: "dim" }, `also known as ${formerly.join(", ")}`),
    events(run, query),
    h("div", { class: "buttons" },
      reportMenu(name, base, may),
      may.read && h("a", { class: "button", href: `/api/v1/exports/usage?format=csv&run=${query}`, download: `${fileName(name)}-usage.csv` }, "CSV"),
      may.attest && attestation(name, base)));
}

/** The same report as a file, on paper, and from the terminal. */
function reportMenu(name, base, may) {
  const file = (said, path, ending) => h("a", { class: "button", href: `/api/v1${base}/${path}`, download: `${fileName(name)}-report.${ending}` }, said);
  return h("details", { class: "menu offer", "data-key": "report" },
    h("summary", { class: "button" }, "Report"),
    h("div", { class: "sheet" },
      h("p", { class: "buttons" },
        // Made by the command, which knows no tenants.
        may.pages && [file("As HTML", "report.html", "html"), file("As Markdown", "report.md", "md")],
        file("As JSON", "report", "json"),
        h("button", { type: "button", onclick: () => print() }, "Print this page")),
      h("p", { class: "dim" }, may.pages ? "HTML and Markdown are one page with the same plots, as this writes them:" : "As one page of HTML or Markdown, with the same plots, by whoever runs the collector:"),
      command(`flopmeter runs report ${quoted(name)} --html -o report.html`)));
}

const fileName = (name) => name.replaceAll(/[^\w.-]+/g, "_").slice(0, 80);

function events(run, query) {
  const kinds = Object.entries(run.open_events ?? {}).filter(([, number]) => number > 0);
  if (kinds.length === 0) return null;
  return h("a", { class: "open-events", href: `/events?run=${query}` }, kinds.map(([kind, number]) => [severity(kind), h("span", { class: "dim" }, ` ${count(number)} `)]), "open");
}

// ---- an attestation: for whom, then a file ---------------------------------------------------------------

function attestation(name, base) {
  const make = async (event) => {
    event.preventDefault();
    const form = event.currentTarget;
    const button = form.querySelector("button");
    const told = form.querySelector("[role=status]");
    button.disabled = true;
    told.textContent = "Made, logged and verified: this can take a minute…";
    try {
      const file = await download(`${base}/attestations`, { profile: form.elements.profile.value });
      told.textContent = `${file} was made, and stands in the evidence log.`;
    } catch (error) {
      if (error.name === "AbortError") return;
      told.textContent = [error.title, error.detail, error.hint].filter(Boolean).join(" ") || "It was not made.";
    } finally {
      button.disabled = false;
      announce(told.textContent);
    }
  };
  return h("details", { class: "menu offer attest", "data-key": "attest" },
    h("summary", { class: "button" }, "Attestation"),
    h("form", { class: "sheet", onsubmit: make },
      h("p", null, "A signed statement of this run as it stands now, for one recipient. It is written to the evidence log before you get it."),
      h("label", { class: "choice" }, h("span", null, "For"), h("select", { name: "profile", "data-key": "profile" }, PROFILES.map(([value, said]) => h("option", { value }, said)))),
      h("button", { type: "submit", class: "primary" }, "Make it"),
      h("p", { role: "status", class: "dim" })));
}

// ---- figures at a glance -----------------------------------------------------------------------------------

function figures(run) {
  const { coverage: c } = run;
  const nearest = run.thresholds.find((t) => t.verdict !== "below") ?? run.thresholds[0];
  const [when, note, what] = outlook(run);
  const a = run.accuracy;
  return h("section", { class: "panel run-facts", "data-key": "figures", "aria-label": "Figures" }, facts(
    fact("Executed", bandFigure(run.executed.flop, "FLOP", { range: false }), `FLOP, between ${flopDown(run.executed.flop.lower)} and ${flopUp(run.executed.flop.upper)}`),
    nearest && fact(`Countable, ${nearest.regime}`, bandFigure(run.countable[nearest.regime]?.flop, "operations", { range: false }),
      `${percent(nearest.fraction)} of its line: ${nearest.verdict}`),
    fact(`${what ?? "Next line"}, by forecast`, when, note),
    fact("Observed", longer(percent(c.expected_device_seconds ? c.observed_device_seconds / c.expected_device_seconds : null), `${c.observed_device_seconds} of ${c.expected_device_seconds} device-seconds`), `of ${deviceTime(c.expected_device_seconds)}`),
    a && fact(`Within ±${a.limit_percent} %?`, mark(a.within ? "good" : a.if_declared?.within ? "accent" : "warn", a.within ? "✓" : "✕", a.within ? "yes" : a.if_declared?.within ? "if as declared" : "no"), `−${a.below_percent} % / +${a.above_percent} % by counters alone`),
    fact("Energy", energyText(run.energy_joules), run.energy_unmeasured_device_seconds > 0 ? "of part of the time" : "by the GPUs' counters")));
}

// ---- nothing here ----------------------------------------------------------------------------------------------

function notFound(name, error) {
  return h("section", { class: "empty card", role: "alert", "data-key": "not-found" }, h("h1", null, "No run of that name"),
    h("p", null, "Looked for ", h("bdi", { class: "mono" }, name.length > 200 ? `${name.slice(0, 200)}…` : name), "."),
    h("p", null, "It may have been given another name, its work may have been assigned to another run, or no record of it has arrived yet. A token of a tenant sees that tenant's runs only."),
    error.detail && h("p", { class: "detail" }, error.detail.slice(0, 600)),
    h("p", { class: "buttons" }, h("a", { class: "button primary", href: "/runs" }, "All runs"),
      h("a", { class: "button", href: `/runs?q=${encodeURIComponent(name.slice(0, 60))}` }, "Runs that are named like it")));
}

function notBegun(name, report) {
  return [
    h("header", { class: "head", "data-key": "head" }, h("h1", null, h("bdi", { class: "run-title" }, name)), status("not begun"),
      h("a", { href: `/events?run=${encodeURIComponent(name)}` }, "Events of its plan")),
    h("section", { class: "empty card", "data-key": "empty" }, h("h2", null, "Nothing metered yet"),
      h("p", null, "This run was declared, and no agent has shipped a record of it. It begins with the first job that carries its name:"),
      command(`FLOPMETER_RUN=${quoted(name)} srun …`),
      h("p", { class: "dim" }, "or a label flopmeter.dev/run on the pod; a job that already runs is moved here by flopmeter runs assign.")),
    planCard(report),
  ];
}

