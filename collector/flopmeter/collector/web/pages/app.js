// The page: who is here, where they are, and the view that shows it.
//
// A view is a module with `async function show(root, {path, query, signal, user})`: `path` the decoded parts of the
// address behind the first ("/runs/a%2Fb" → ["a/b"]), `query` its parameters, `signal` ends when another view or other
// parameters are asked for. Called again with the same `root` whenever the query changes; draws with dom.js `render`,
// listens to live.js `onChange(fn, signal)` for live updates, and lets ApiErrors out: they are shown here.

import { ApiError, forget } from "./api.js";
import { h, render } from "./dom.js";
import { again, fault } from "./faults.js";
import * as header from "./header.js";
import * as live from "./live.js";
import * as login from "./login.js";
import { announce } from "./parts.js";
import * as route from "./route.js";

// `whole`: the part of the address behind it chooses something within the same view, which stays where it is.
const VIEWS = {
  runs: { title: "Runs", load: (path) => import(path.length ? "./run.js" : "./runs.js") },
  events: { title: "Events and deadlines", ids: true, load: (path) => import(path.length ? "./event.js" : "./events.js") },
  deadlines: { title: "Events and deadlines", ids: true, load: (path) => import(path.length ? "./deadline.js" : "./events.js") },
  fleet: { title: "Fleet", whole: true, load: () => import("./fleet.js") },
  evidence: { title: "Evidence", load: () => import("./evidence.js") },
};
const SLOW_MS = 200; // before it is said that something is being loaded

const main = document.getElementById("main");
let user = null;
let running = new AbortController();
let shown = { key: "", root: null };

async function begin() {
  route.onNavigate(go);
  addEventListener("popstate", () => go({ moved: false }));
  document.addEventListener("click", follow);
  header.begin({ signedOut: leave });
  const token = login.takeToken();
  let why = "";
  if (token) {
    try {
      user = await login.signIn(token);
    } catch (error) {
      why = `The link's token was not taken. ${login.refused(error)}`;
    }
  }
  await enter(why);
}

// Until somebody is known: ask who, and let them in where they wanted to go.
async function enter(why = "") {
  for (;;) {
    try {
      user ??= await login.whoami();
      break;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.status === 401) {
        live.stop();
        header.show(null);
        document.title = "Sign in · flopmeter";
        user = await login.show(fresh("login"), { why });
        break;
      }
      await waited(fresh("fault"), error);
    }
  }
  header.show(user);
  live.start();
  await go({ moved: false });
}

async function leave() {
  live.stop();
  try {
    await login.signOut();
  } catch (error) {
    if (!(error instanceof ApiError && error.status === 401)) announce("Signing out failed: close the browser");
  }
  running.abort();
  forget();
  user = null;
  await enter();
}

function place() {
  const [first, ...path] = location.pathname.split("/").filter(Boolean).map(decoded);
  return { name: first ?? "runs", path };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

// A new place to draw in, so that nothing of the view before is left.
function fresh(key) {
  const root = h("div", { class: `view ${key}` });
  main.replaceChildren(root);
  shown = { key, root };
  return root;
}

async function go({ moved }) {
  if (!user) return;
  running.abort();
  const mine = (running = new AbortController());
  const { name, path } = place();
  const view = VIEWS[name];
  const key = `${name}/${path.length && !view?.whole ? JSON.stringify(path) : ""}`;
  const same = shown.key === key;
  const root = same ? shown.root : fresh(key);
  header.place(name);
  if (!view) {
    document.title = "Not found · flopmeter";
    render(root, fault(new ApiError(404, { detail: `This page has no ${location.pathname}.` }), null, user));
    return;
  }
  // An id says nothing to a person: the heading that is found by it does, as soon as it is there.
  const titled = (what) => (document.title = `${what ? `${shortened(what)} · ` : ""}${view.title} · flopmeter`);
  titled(view.ids ? "" : path.at(-1));
  if (moved && !same) {
    scrollTo(0, 0);
    main.focus({ preventScroll: true });
    announce(document.title);
  }
  const slow = setTimeout(() => {
    main.setAttribute("aria-busy", "true");
    if (!root.firstChild) render(root, h("p", { class: "loading", role: "status" }, "Reading the books…"));
  }, SLOW_MS);
  try {
    const { show } = await view.load(path);
    if (!mine.signal.aborted) await show(root, { path, query: route.query(), signal: mine.signal, user });
    if (view.ids && path.length && !mine.signal.aborted) {
      titled(root.querySelector("h1")?.textContent);
      if (moved && !same) announce(document.title);
    }
  } catch (error) {
    if (error.name !== "AbortError" && !mine.signal.aborted) await failed(root, error, mine);
  } finally {
    clearTimeout(slow);
    if (!mine.signal.aborted) main.removeAttribute("aria-busy");
  }
}

async function failed(root, error, mine) {
  if (!(error instanceof ApiError)) console.error(error);
  if (error.status === 401) {
    user = null;
    await enter("Your session has ended. Sign in again: you come back to where you were.");
    return;
  }
  await waited(root, error, mine.signal);
  if (!mine.signal.aborted) await go({ moved: false });
}

// Shows what went wrong until it is worth another try: soon, of what passes by itself; else when a person says so.
function waited(root, error, signal) {
  const seconds = again(error);
  return new Promise((resolve) => {
    main.removeAttribute("aria-busy");
    render(root, fault(error, resolve, user));
    if (seconds) setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", resolve, { once: true });
  });
}

const shortened = (text) => (text.length > 60 ? `${text.slice(0, 60)}…` : text);

// Links within the page are followed without loading it again; every other click is the browser's.
function follow(event) {
  const link = event.target.closest?.("a[href]");
  if (!link || event.defaultPrevented || event.button !== 0) return;
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const url = new URL(link.href);
  if (url.origin !== location.origin || link.target || link.hasAttribute("download")) return;
  if (url.pathname.startsWith("/api/") || link.getAttribute("href").startsWith("#")) return;
  event.preventDefault();
  const moved = url.pathname !== location.pathname;
  history.pushState(null, "", url.href);
  go({ moved });
}

// What a view let fall after it was drawn (a live update): the figures that stand stay, and are said to be old.
addEventListener("unhandledrejection", (event) => {
  const error = event.reason;
  if (error?.name === "AbortError") event.preventDefault();
  else if (error instanceof ApiError) {
    event.preventDefault();
    if (error.status === 401) failed(shown.root, error, running);
    else header.stale(error);
  }
});

await begin();
