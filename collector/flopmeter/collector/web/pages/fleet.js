// Every node and GPU: whether it is metered, how well, and what is missing.

import { ApiError, get } from "./api.js";
import { CODES, tally } from "./codes.js";
import { h, render } from "./dom.js";
import { fleetMap } from "./fleetmap.js";
import { chosen, counted, gpusText, MARKS, sorted, SORTS, STATUS, unpack } from "./fleetrows.js";
import { band, count, deviceTime, duration, many, offset, percent, time } from "./format.js";
import { CLOCK_MATTERS, nodePanel, noSuchNode } from "./node.js";
import { announce, choice, command, empty, fact, facts, instant, mark } from "./parts.js";
import { follow } from "./pace.js";
import { navigate, nodeHref, query as queryNow, setQuery } from "./route.js";

const LISTED = 200; // rows of the list before it is asked for more
const FILTERS = ["q", "show", "status", "version", "model", "cluster", "mark"];
const unpacked = new WeakMap(); // an answer → its nodes: the same answer is unpacked once
let map = null; // one canvas, wherever the view is drawn

export async function show(root, { path: [name], query, signal }) {
  let listed = LISTED;
  map ??= fleetMap({ onpick: (picked) => navigate(nodeHref(picked) + location.search) });
  async function draw() {
    const [fleet, node] = await Promise.all([get("/fleet", { signal }), name ? theNode(name, signal) : null]);
    if (signal.aborted) return;
    if (!fleet.nodes_total) return render(root, h("h1", null, "Fleet"), missing(fleet), nobody());
    const nodes = nodesOf(fleet);
    const found = sorted(chosen(nodes, query), query.sort);
    const filtered = FILTERS.some((f) => query[f]);
    render(root,
      h("div", { class: "head" }, h("h1", null, "Fleet"), h("span", { class: "dim" }, `as of ${time(fleet.as_of)}`)),
      summary(fleet, nodes),
      missing(fleet),
      h("div", { class: name ? "fleet with-node" : "fleet" },
        h("section", { class: "card", "aria-labelledby": "map-title" },
          h("div", { class: "head" }, h("h2", { id: "map-title" }, "Map"), legendNote(filtered, found, nodes), grouping(query)),
          legend(nodes, query), h("div", { "data-key": "map-slot", "data-keep": "" })),
        name && (node ? nodePanel(node, nodes) : noSuchNode(name))),
      list(found, query, filtered, nodes, listed, () => { listed += 1000; return draw(); }),
      oddities(fleet, nodes));
    const slot = root.querySelector("[data-key=map-slot]");
    if (map.element.parentNode !== slot) slot.replaceChildren(map.element);
    map.draw(groups(nodes, query.group), { chosen: filtered ? new Set(found) : null, selected: name, said: mapSaid(fleet, nodes) });
  }
  follow(draw, signal);
  await draw();
}

async function theNode(name, signal) {
  try {
    return (await get(`/fleet/nodes/${encodeURIComponent(name)}`, { signal })).items;
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return null;
    throw error;
  }
}

function nodesOf(fleet) {
  if (!unpacked.has(fleet)) unpacked.set(fleet, unpack(fleet.rows));
  return unpacked.get(fleet);
}

function nobody() {
  return empty("No agent has reported yet",
    "Each GPU node runs an agent, as any user or root, without a capability and without a change to any job. On the collector's machine, make a join token for the nodes; on a node, see what can be metered there, then start.",
    "flopmeter collector token create --nodes 'gpu-*' --uses 100 --expires 2h",
    "flopmeter agent doctor",
    "flopmeter agent run --collector COLLECTOR:9840 --join-file /etc/flopmeter/join --cluster c1",
    h("p", { class: "dim" }, "To see the whole of it without a GPU: flopmeter demo. Kubernetes and Slurm: docs/deploy.md. This page fills itself when the first record comes."));
}

function summary(fleet, nodes) {
  const codes = Object.fromEntries(counted(nodes).codes);
  const { metered, total: devices } = tally(codes);
  const total = devices - (codes.x ?? 0); // as in the header: what has no meter is told by itself
  const by = fleet.nodes_by_status;
  const c = fleet.coverage;
  return h("section", { "aria-label": "Summary", class: "card" }, facts(
    fact("Nodes live", `${count(by.live ?? 0)} of ${count(fleet.nodes_total)}`,
      ["silent", "never", "stopped"].filter((s) => by[s]).map((s) => `${count(by[s])} ${s === "never" ? "never reported" : s}`).join(", ") || "none is silent"),
    fact("GPUs metered", `${count(metered)} of ${count(total)}`, metered === total ? "all of them" : `${count(total - metered)} are not`),
    c && fact("Coverage", c.expected_device_seconds > 0 ? percent(c.observed_device_seconds / c.expected_device_seconds) : "–", `of ${deviceTime(c.expected_device_seconds)} expected`),
    c?.gaps && fact("Gaps", deviceTime(c.gap_device_seconds ?? total_of(c.gaps)), Object.entries(c.gaps).sort((a, b) => b[1] - a[1]).slice(0, 3).map(([why, s]) => `${why} ${deviceTime(s)}`).join(", ") || "none"),
    fact("Unattributed", percent(fleet.unattributed_share), `${deviceTime(fleet.unattributed_device_seconds)}, in no run: ${band(fleet.unattributed?.flop)} FLOP`),
    fact("Idle", deviceTime(fleet.idle_device_seconds), `of ${deviceTime(fleet.device_seconds)} metered`),
    fleet.clocks && clocks(fleet.clocks),
    fleet.uncovered_devices > 0 && fact("Without a meter", many(fleet.uncovered_devices, "device"), "counted, and in no total")));
}

function clocks({ known, off, largest_seconds: largest }) {
  if (!known) return fact("Clocks off", "not known", "agents of an older version do not tell");
  const over = off.find((step) => step.over_seconds === 10)?.nodes ?? 0;
  return fact("Clocks off", `${count(over)} of ${count(known)}`, largest >= 1 ? `by more than 10 s; the furthest is off by ${duration(largest)} at least` : "by more than 10 s; none surely by a second");
}

const total_of = (gaps) => Object.values(gaps).reduce((a, b) => a + b, 0);

// What is known to exist and does not report: the first thing to mend.
function missing({ not_reporting: rows, not_reporting_total: total }) {
  if (!rows?.length) return null;
  return h("section", { class: "stacked", "aria-labelledby": "missing-title" },
    h("div", { class: "head" }, h("h2", { id: "missing-title" }, "Known to exist and not reporting"),
      h("span", { class: "dim" }, rows.length < total ? `${count(rows.length)} of ${count(total)}` : count(total))),
    h("div", { class: "scroll short", tabindex: "0", role: "group", "aria-labelledby": "missing-title" }, h("table", { class: "stackable" },
      h("thead", null, h("tr", null, ["Node", "Cause", "GPUs", "Since", "Missing", "What"].map((t) => h("th", { scope: "col" }, t)))),
      h("tbody", null, rows.map((r) => h("tr", { "data-key": `${r.node} ${r.cause}` },
        h("th", { scope: "row" }, h("a", { href: nodeHref(r.node), class: "name" }, r.node)),
        h("td", { "data-label": "Cause" }, mark("bad", "✕", r.cause)),
        h("td", { "data-label": "GPUs" }, count(r.gpus)),
        h("td", { "data-label": "Since" }, instant(r.since)),
        h("td", { "data-label": "Missing" }, deviceTime(r.missing_device_seconds)),
        h("td", { "data-label": "What" }, r.what)))))));
}

function legend(nodes, query) {
  const counts = counted(nodes).codes;
  const on = new Set(query.show ?? "");
  return h("div", { class: "legend", role: "group", "aria-label": "Show only nodes with such GPUs" },
    CODES.filter((c) => counts.get(c.code) || on.has(c.code)).map((c) =>
      h("button", {
        type: "button", "data-key": c.code, "aria-pressed": on.has(c.code) ? "true" : "false", title: c.said,
        onclick: () => {
          if (!on.delete(c.code)) on.add(c.code);
          setQuery({ show: [...on].join("") });
        },
      }, h("span", { class: `swatch ${c.kind} code-${c.code === "?" ? "unknown" : c.code}`, "aria-hidden": "true" }, c.sign),
      c.name, h("b", null, count(counts.get(c.code) ?? 0)))));
}

function legendNote(filtered, found, nodes) {
  return h("span", { class: "dim", role: "status" }, filtered ? `${count(found.length)} of ${many(nodes.length, "node")} match` : many(nodes.length, "node"));
}

function grouping(query) {
  return h("div", { class: "push" }, choice("group", "Group by", query.group ?? "cluster",
    [["cluster", "cluster"], ["model", "GPU model"], ["version", "agent version"], ["none", "nothing"]], (v) => setQuery({ group: v === "cluster" ? null : v })));
}

function groups(nodes, by = "cluster") {
  if (by === "none") return [{ name: null, nodes }];
  const found = new Map();
  for (const node of nodes) {
    const key = node[by] ?? "";
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(node);
  }
  const made = [...found].sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true })).map(([name, of]) => ({ name, nodes: of }));
  return made;
}

function mapSaid(fleet, nodes) {
  const counts = counted(nodes).codes;
  return `Map of ${many(nodes.length, "node")}: ${CODES.filter((c) => counts.get(c.code)).map((c) => `${count(counts.get(c.code))} GPUs ${c.name}`).join(", ")}. The list below says the same node by node.`;
}

function list(found, query, filtered, nodes, listed, more) {
  const shown = found.slice(0, listed);
  const all = counted(nodes);
  const options = (map, name) => [["", "any"], ...[...map.keys()].sort().map((k) => [k, `${name?.(k) ?? (k || "unknown")} (${count(map.get(k))})`])];
  const set = (name) => (value) => setQuery({ [name]: value });
  return h("section", { class: "stacked", "aria-labelledby": "list-title" },
    h("div", { class: "head" }, h("h2", { id: "list-title" }, "Nodes"),
      h("span", { class: "dim", role: "status" }, found.length > shown.length ? `${count(shown.length)} of ${count(found.length)} shown` : count(found.length))),
    h("form", { class: "filters", role: "search", "aria-label": "Filter nodes", onsubmit: (e) => e.preventDefault() },
      h("label", { class: "choice" }, h("span", null, "Name"),
        h("input", { type: "search", name: "q", size: 16, value: query.q ?? "", placeholder: "part of it", spellcheck: "false", autocomplete: "off", oninput: search })),
      choice("status", "Status", query.status, options(all.status, (s) => STATUS[s]?.[0]), set("status")),
      all.cluster.size > 1 && choice("cluster", "Cluster", query.cluster, options(all.cluster), set("cluster")),
      all.model.size > 1 && choice("model", "Model", query.model, options(all.model), set("model")),
      all.version.size > 1 && choice("version", "Agent", query.version, options(all.version), set("version")),
      all.marks.size > 0 && [...all.marks.keys()].some(Boolean) && choice("mark", "Oddity", query.mark, options(all.marks, (m) => MARKS[m]?.[0] ?? m), set("mark")),
      choice("sort", "Sort", query.sort ?? "name", SORTS.map((s) => [s, { worst: "worst first", behind: "longest behind", delay: "largest delay", clock: "clock furthest off" }[s] ?? s]), (v) => setQuery({ sort: v === "name" ? null : v })),
      filtered && h("button", { type: "button", onclick: () => setQuery(Object.fromEntries(FILTERS.map((f) => [f, null]))) }, "Clear filters")),
    found.length ? h("div", { class: "scroll tall", tabindex: "0", role: "group", "aria-labelledby": "list-title" }, h("table", { class: "stackable" },
      h("thead", null, h("tr", null, ["Node", "Status", "GPUs", "Model", "Cluster", "Agent"].map((t) => h("th", { scope: "col" }, t)),
        h("th", { scope: "col", class: "num", title: "how far its last window lies behind the newest of all" }, "Behind"),
        h("th", { scope: "col", class: "num", title: "from its window's end by its own clock to the arrival by the collector's: way and clock offset together" }, "Delay"),
        h("th", { scope: "col", class: "num", title: "how far its clock is ahead of the collector's, measured within the last hour; sure to the distance behind ±" }, "Clock"),
        h("th", { scope: "col" }, "To look at"))),
      h("tbody", null, shown.map(row)))) : h("p", { class: "panel" }, "No node matches these filters."),
    found.length > shown.length && h("p", { class: "buttons" }, h("button", { type: "button", onclick: more }, "Show 1,000 more")));
}

let typing = 0;
function search(event) {
  const text = event.target.value;
  clearTimeout(typing);
  typing = setTimeout(() => {
    if (text === (queryNow().q ?? "")) return;
    setQuery({ q: text });
    announce(`Filtered by ${text || "nothing"}`);
  }, 150);
}

function row(n) {
  const [status, kind, sign] = STATUS[n.status] ?? ["unknown", "dim", "?"];
  return h("tr", { "data-key": n.name },
    h("th", { scope: "row" }, h("a", { href: nodeHref(n.name) + location.search, class: "name" }, n.name)),
    h("td", { "data-label": "Status" }, mark(kind, sign, status)),
    h("td", { "data-label": "GPUs" }, gpusText(n.gpus) || "none"),
    h("td", { "data-label": "Model" }, n.model || "–"),
    h("td", { "data-label": "Cluster" }, n.cluster || "–"),
    h("td", { "data-label": "Agent" }, n.version || "–"),
    h("td", { "data-label": "Behind", class: "num" }, n.behind === null ? "–" : duration(n.behind)),
    h("td", { "data-label": "Delay", class: "num" }, n.delay === null ? "–" : `${n.delay < 0 ? "−" : ""}${duration(n.delay)}`),
    h("td", { "data-label": "Clock", class: "num" }, offset(n.offset, n.within)),
    h("td", { "data-label": "To look at" }, [...n.marks].map((m) => h("div", null, mark(MARKS[m]?.[1] ?? "warn", "◆", MARKS[m]?.[0] ?? m)))));
}

// Versions, libraries and what else is not as it is elsewhere.
function oddities(fleet, nodes) {
  const all = counted(nodes);
  const versions = [...all.version].sort((a, b) => b[1] - a[1]);
  return h("div", { class: "columns" },
    h("section", { class: "card", "aria-labelledby": "versions-title" }, h("h2", { id: "versions-title" }, "Agent versions"),
      h("dl", { class: "pairs" }, versions.map(([version, n]) => [h("dt", null, version || "unknown"), h("dd", null, h("a", { href: `/fleet?version=${encodeURIComponent(version)}` }, many(n, "node")))])),
      versions.length > 1 && h("p", { class: "dim" }, "A fleet that is being rolled over has two. Any agent speaks with any collector of the same wire version.")),
    h("section", { class: "card", "aria-labelledby": "odd-title" }, h("h2", { id: "odd-title" }, "To look at"),
      all.marks.size > 0
        ? h("ul", { class: "plain" }, [...all.marks].map(([m, n]) => h("li", null, mark(MARKS[m]?.[1] ?? "warn", "◆", h("a", { href: `/fleet?mark=${m}` }, `${MARKS[m]?.[0] ?? m}: ${many(n, "node")}`)))))
        : h("p", null, mark("good", "✓", "Nothing: no conflict, no loss, no refusal, no clock that is surely off, no library that differs.")),
      fleet.library_disagreements?.length > 0 && h("div", { class: "stacked" },
        h("p", null, "The same driver, and another NVML library:"),
        h("ul", null, fleet.library_disagreements.map((d) => h("li", null, typeof d === "string" ? d : Object.entries(d).map(([k, v]) => `${k.replaceAll("_", " ")} ${typeof v === "object" ? JSON.stringify(v) : v}`).join(", "))))),
      all.marks.get("k") > 0 && h("p", null, CLOCK_MATTERS),
      h("p", { class: "dim" }, "Hardware that nobody metered is in no total and on no map. What must exist is said in a file: ", h("code", null, "flopmeter collector serve --expect nodes.toml")),
      command("flopmeter fleet list --json")));
}
