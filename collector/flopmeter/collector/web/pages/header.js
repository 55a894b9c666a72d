// What stands above every view: the fleet at a glance, where to go, who is here, and whether the figures are fresh.

import { get } from "./api.js";
import { BY_CODE, tally } from "./codes.js";
import { h, render } from "./dom.js";
import { again } from "./faults.js";
import { clock, count, duration, many, percent, relative, time } from "./format.js";
import * as live from "./live.js";
import { mark } from "./parts.js";

const OLD_S = 180; // of an answer: lines are made again at least every minute while somebody looks
const HEAD_OLD_S = 600; // of a log's head that does not cover everything: one is signed every 30 s
const NAV = [["runs", "Runs"], ["events", "Events"], ["fleet", "Fleet"], ["evidence", "Evidence"]];
const THEMES = { auto: ["◐", "like the system's"], light: ["☀", "light"], dark: ["☾", "dark"] };

const root = document.getElementById("header");
const notice = document.getElementById("notice");
const footer = document.getElementById("footer");
let signedOut = () => {};
let user = null;
let at = "";
let seen = null; // the last overview
let trouble = null; // why the last question failed
let standing = "off";
let lostAt = 0;
let ending = new AbortController();

export function begin(options) {
  signedOut = options.signedOut;
  live.onStanding((now) => {
    if (now === "lost" && standing !== "lost") lostAt = clock.now();
    standing = now;
    draw();
  });
  setInterval(draw, 15_000); // what says "3 min ago" goes on
  draw();
}

export function show(who) {
  ending.abort();
  ending = new AbortController();
  user = who;
  seen = null;
  if (user) {
    live.onChange(refresh, ending.signal);
    refresh();
  }
  draw();
}

export function place(name) {
  at = name;
  draw();
}

// A live update failed: what stands below is of before.
export function stale(error) {
  trouble = error;
  draw();
}

async function refresh() {
  if (!user) return;
  try {
    seen = await get("/overview", { signal: ending.signal });
    trouble = null;
  } catch (error) {
    if (error.name === "AbortError") return;
    trouble = error;
    const seconds = again(error);
    if (seconds) setTimeout(refresh, seconds * 1000);
  }
  draw();
}

function draw() {
  render(root,
    h("div", { class: "bar" },
      h("a", { href: "/runs", class: "brand" }, h("span", { class: "dial", "aria-hidden": "true" }), "flopmeter"),
      user && h("nav", { "aria-label": "Views" }, NAV.map(([name, said]) =>
        h("a", { href: `/${name}`, "data-key": name, "aria-current": (at === "deadlines" ? "events" : at) === name ? "page" : null }, said, badge(name)))),
      h("div", { class: "who" },
        user && connection(),
        themeButton(),
        user && h("details", { class: "menu", "data-key": "menu" },
          h("summary", { "aria-label": `Signed in as ${user.who}` }, h("span", { class: "name" }, user.who)),
          h("div", { class: "sheet" },
            h("p", null, h("strong", null, user.who)),
            h("p", { class: "dim" }, `Role: ${user.role}${user.tenant ? `, of tenant ${user.tenant}` : ""}`),
            h("button", { type: "button", onclick: signedOut }, "Sign out"))))),
    user && seen && glance(seen));
  render(notice, user && (unsure() ?? old()));
  render(footer,
    h("p", null, "Compute is a trigger for scrutiny, not a measure of risk. All times are UTC."),
    seen && h("p", { class: "dim" }, `flopmeter ${seen.version}`, seen.as_of && ` · figures as of ${time(seen.as_of)}`,
      " · ", h("a", { href: "/api/v1/openapi.json", target: "_blank", rel: "noopener" }, "API")));
}

function badge(name) {
  const by = seen?.events?.by_severity;
  const grave = name === "events" && by ? (by.critical ?? 0) + (by.warning ?? 0) : 0;
  return grave > 0 && h("span", { class: "count", title: `${many(grave, "open warning")}` }, count(grave));
}

function connection() {
  if (standing === "live") return h("span", { class: "live mark good", title: "Live: this page follows the books" }, h("span", { class: "sign", "aria-hidden": "true" }, "●"), "live");
  if (standing === "lost") return mark("bad", "✕", "not live", { title: "Live updates stopped" });
  return mark("dim", "○", "joining");
}

function themeButton() {
  const now = document.documentElement.dataset.theme ?? "auto";
  const [sign, said] = THEMES[now];
  return h("button", { type: "button", class: "quiet theme", "aria-label": `Colours: ${said}. Change`, title: `Colours: ${said}`, onclick: turn }, sign);
}

function turn() {
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(document.documentElement.dataset.theme ?? "auto") + 1) % names.length];
  if (next === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  try {
    if (next === "auto") localStorage.removeItem("flopmeter-theme");
    else localStorage.setItem("flopmeter-theme", next);
  } catch {
    // Storage may be forbidden: then it holds until the page is left.
  }
  dispatchEvent(new Event("flopmeter-theme")); // what is drawn on a canvas is drawn again
  draw();
}

// Live updates that stopped, or a question that failed.
function unsure() {
  if (standing === "lost") {
    const ago = (clock.now() - lostAt) / 1000;
    return h("p", { class: "notice bad" },
      mark("bad", "✕", `Live updates stopped${ago >= 5 ? ` ${duration(ago)} ago` : ""}.`),
      " What stands here may be old. It is tried again by itself. ",
      h("button", { type: "button", onclick: () => location.reload() }, "Reload now"));
  }
  if (trouble && seen && ![401, 403].includes(trouble.status)) {
    return h("p", { class: "notice warn" },
      mark("warn", "◆", "The last update failed."), ` ${[trouble.title, trouble.detail].filter(Boolean).join(": ")}. What stands here is of before. `,
      h("button", { type: "button", onclick: refresh }, "Try again"));
  }
  return null;
}

function old() {
  if (clock.played) {
    return h("p", { class: "notice played" },
      mark("accent", "▶", "A history is being played."), ` It has come to ${time(clock.played)}: what stands here is as of then. Live readings begin when it reaches the present.`);
  }
  const age = (clock.now() - Date.parse(seen?.as_of ?? "")) / 1000;
  if (age > OLD_S) {
    return h("p", { class: "notice warn" },
      mark("warn", "◆", `These figures are ${duration(age)} old.`), ` They stand as of ${time(seen.as_of)}. `,
      h("button", { type: "button", onclick: refresh }, "Ask again"));
  }
  const nodes = seen?.nodes;
  if (nodes?.total > 0 && !nodes.by_status.live) {
    return h("p", { class: "notice bad" },
      mark("bad", "✕", "No agent reports."), ` All ${many(nodes.total, "node")} are silent or stopped: no total grows. `,
      h("a", { href: "/fleet" }, "See since when"));
  }
  return null;
}

// In ten seconds: is everything metered, and what is missing?
function glance(o) {
  return h("ul", { class: "glance", "aria-label": "At a glance" },
    o.nodes && nodesLine(o.nodes),
    o.gpus && gpusLine(o.gpus),
    o.coverage?.expected_device_seconds > 0 && coverageLine(o.coverage),
    !o.nodes && o.runs && item("runs", "/runs", h("b", null, count(o.runs.total)), o.runs.total === 1 ? " run" : " runs"),
    o.events && eventsLine(o.events),
    o.deadlines && deadlineLine(o),
    o.log && !clock.played && logLine(o.log)); // heads are signed by the clock of the wall
}

const item = (key, href, ...what) => h("li", { "data-key": key }, href ? h("a", { href }, what) : h("span", null, what));

function nodesLine({ total, by_status: by }) {
  if (!total) return item("nodes", "/fleet", mark("dim", "○", "no agents yet"));
  const all = by.live === total;
  return [
    item("nodes", "/fleet", mark(all ? "good" : "dim", all ? "✓" : "○", [h("b", null, count(by.live ?? 0)), ` of ${many(total, "node")} live`])),
    by.silent > 0 && item("silent", "/fleet?show=s", mark("bad", "✕", `${count(by.silent)} silent`)),
    by.never > 0 && item("never", "/fleet?status=N", mark("warn", "◆", `${count(by.never)} never reported`)),
  ];
}

function gpusLine({ total, by_code: by }) {
  if (!total) return null;
  const { metered } = tally(by);
  const all = metered === total;
  return [
    item("gpus", "/fleet", mark(all ? "good" : "dim", all ? "✓" : "○", [h("b", null, count(metered)), ` of ${many(total, "GPU")} metered`])),
    ["u", "g", "x"].map((code) => by[code] > 0 && item(`code-${code}`, `/fleet?show=${code}`,
      mark(BY_CODE.get(code).kind, BY_CODE.get(code).sign, `${count(by[code])} ${BY_CODE.get(code).name}`))),
  ];
}

function coverageLine({ expected_device_seconds: expected, observed_device_seconds: observed }) {
  const share = observed / expected;
  return item("coverage", "/fleet", mark(share >= 0.99 ? "good" : "warn", share >= 0.99 ? "✓" : "◆", [h("b", null, percent(share)), " covered"]));
}

function eventsLine({ by_severity: by }) {
  const worst = by.critical > 0 ? ["bad", "▲", by.critical, "critical"] : by.warning > 0 ? ["warn", "◆", by.warning, "warning"] : null;
  if (worst) return item("events", `/events?severity=${worst[3]}&state=open`, mark(worst[0], worst[1], [h("b", null, count(worst[2])), ` open ${worst[3]}${worst[3] === "warning" && worst[2] !== 1 ? "s" : ""}`]));
  return item("events", "/events", mark("good", "✓", "no open warning"));
}

function deadlineLine({ deadlines, next_deadline: next }) {
  if (deadlines.overdue > 0) return item("due", "/events", mark("bad", "▲", `${many(deadlines.overdue, "deadline")} overdue`));
  if (next) return item("due", `/deadlines/${encodeURIComponent(next.id)}`, mark("warn", "◆", `next due ${relative(next.due)}`));
  return item("due", "/events", mark("dim", "○", "nothing due"));
}

function logLine({ covered, size, checkpoint }) {
  if (!checkpoint) return item("log", "/evidence", mark(size > 0 ? "warn" : "dim", size > 0 ? "◆" : "○", "log not signed yet"));
  const age = Math.max(0, (clock.now() - Date.parse(checkpoint)) / 1000);
  const stale = size > covered && age > HEAD_OLD_S;
  return item("log", "/evidence", mark(stale ? "bad" : "dim", stale ? "▲" : "○", [`log head ${duration(age)} old`]));
}
