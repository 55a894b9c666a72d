// One node, beside the map: its agent, its GPUs and who holds them.

import { h } from "./dom.js";
import { BY_CODE } from "./codes.js";
import { deviceTime, duration, many, offset, percent, short } from "./format.js";
import { MARKS, STATUS } from "./fleetrows.js";
import { command, instant, mark } from "./parts.js";
import { runHref } from "./route.js";

const STATES = Object.fromEntries(Object.values(STATUS).map(([name, kind, sign]) => [name, [kind, sign]]));

export const CLOCK_MATTERS = "Totals do not rest on clocks. The hours that usage stands under do, and since when a line was met, from which deadlines run: mend time synchronisation on the node (chronyc tracking), or, where it is all of them, on the collector's machine.";

export function nodePanel(items, nodes) {
  const [last] = items;
  const row = nodes.find((n) => n.name === last.node);
  return panel(last.node,
    row?.marks && h("p", null, [...row.marks].map((m) => h("span", null, mark(MARKS[m]?.[1] ?? "warn", "◆", MARKS[m]?.[0] ?? m), " "))),
    items.map((item) => agent(item, row)));
}

export function noSuchNode(name) {
  return panel(name, h("p", null, "No agent of a node of this name has ever reported. If it exists, it is not metered:"),
    command("flopmeter agent doctor"));
}

function panel(name, ...what) {
  return h("section", { class: "card node", "aria-labelledby": "node-title", "data-key": `node ${name}` },
    h("div", { class: "head" }, h("h2", { id: "node-title", class: "name" }, name),
      h("a", { href: `/fleet${location.search}`, class: "button push", "aria-label": "Close the node's panel" }, "✕")),
    what);
}

function agent(a, row) {
  const [kind, sign] = STATES[a.status] ?? STATES[a.status === "never" ? "never reported" : "stopped"];
  const window = a.last_window;
  return h("div", { class: "stacked", "data-key": a.agent },
    h("dl", { class: "pairs" },
      pair("Status", h("span", null, mark(kind, sign, a.status), a.silences ? `, silent ${many(a.silences, "time")} so far` : "")),
      pair("Last window's end", instant(a.last_window_end)),
      pair("Received", instant(a.last_received)),
      pair("Behind", a.lag_seconds === null ? "–" : duration(a.lag_seconds)),
      row?.delay !== null && row?.delay !== undefined && pair("Delay and clock", `${row.delay < 0 ? "−" : ""}${duration(row.delay)} from its clock to the collector's`),
      pair("Clock offset", clockOf(a)),
      pair("Cluster", a.cluster || "–"),
      pair("Models", Object.entries(a.models ?? {}).map(([m, n]) => `${n} × ${m}`).join(", ") || "–"),
      pair("Driver", a.driver || "–"),
      pair("Source", a.source || "–"),
      a.library?.path && pair("NVML library", h("span", null, h("span", { class: "mono" }, a.library.path), ` ${short(a.library.sha256)}`, a.library_differs ? mark("warn", "◆", "differs from others'") : "")),
      pair("Agent", h("span", { class: "mono", title: a.agent }, `${a.agent_version} · ${short(a.agent)}`)),
      pair("Admitted", a.admitted || "–"),
      a.conflicts > 0 && pair("Conflicts", mark("bad", "◆", many(a.conflicts, "record"))),
      a.lost_records > 0 && pair("Lost", mark("bad", "◆", many(a.lost_records, "record"))),
      a.refused_records > 0 && pair("Refused", mark("bad", "◆", many(a.refused_records, "record"))),
      a.persistence_off > 0 && pair("Persistence", mark("warn", "◆", `off on ${many(a.persistence_off, "GPU")}`)),
      a.uncovered?.length > 0 && pair("Without a meter", a.uncovered.map((u) => (typeof u === "string" ? u : Object.values(u).join(" "))).join(", ")),
      a.fault && pair("Fault", mark("bad", "▲", a.fault)),
      window && pair("Last window", `${deviceTime(window.device_seconds)}: ${deviceTime(window.gap_seconds)} gap, ${deviceTime(window.idle_seconds)} idle, ${deviceTime(window.unattributed_seconds)} unattributed`),
      window?.notices?.length > 0 && pair("It says", h("ul", null, window.notices.map((n) => h("li", null, typeof n === "string" ? n : n.text ?? JSON.stringify(n)))))),
    a.devices?.length > 0 && h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "GPUs of this node" }, h("table", null,
      h("thead", null, h("tr", null, ["GPU", "Class", "Held by"].map((t) => h("th", { scope: "col" }, t)))),
      h("tbody", null, a.devices.map((d) => h("tr", { "data-key": d.entity },
        h("th", { scope: "row" }, h("span", { class: "mono", title: d.entity }, short(d.entity)), d.mig && h("span", { class: "tag" }, "MIG")),
        h("td", null, device(d)),
        h("td", null, d.holders?.length ? d.holders.map((w) => h("div", null, w.run ? h("a", { href: runHref(w.run), class: "name" }, w.run) : w.kind, w.job ? ` ${w.kind} ${w.job}` : "",
          d.device_seconds > 0 && w.device_seconds < d.device_seconds ? ` ${percent(w.device_seconds / d.device_seconds)}` : "")) : "–")))))));
}

function clockOf({ clock_offset: found }) {
  if (!found) return "not known: an agent of an older version, or none that was heard since";
  const middle = Math.round(found.point_seconds * 1000);
  const within = Math.ceil(Math.max(found.upper_seconds * 1000 - middle, middle - found.lower_seconds * 1000) - 1e-6);
  const said = `${offset(middle, within)} from the collector's, measured `;
  return [found.surely_off ? mark("warn", "◆", said) : said, instant(found.measured), found.surely_off && h("p", null, CLOCK_MATTERS)];
}

function device(d) {
  const code = BY_CODE.get(d.code) ?? BY_CODE.get("?");
  return [h("span", { class: `swatch ${code.kind} code-${code.code === "?" ? "unknown" : code.code}`, "aria-hidden": "true" }, code.sign), d.class || code.name];
}

const pair = (name, value) => [h("dt", null, name), h("dd", null, value)];
