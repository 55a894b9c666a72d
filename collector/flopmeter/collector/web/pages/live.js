// Live updates: the collector says when its books have changed; whoever shows something then asks again.

const RETRY_MS = [1_000, 2_000, 5_000, 10_000, 30_000];
const APART_MS = 1_000; // at most one redraw a second, however fast the books change

let source = null;
let tries = 0;
let timer = 0;
let due = 0;
let last = 0;
let numbers = null;
let standing = "off"; // off | joining | live | lost | refused
const changed = new Set();
const stood = new Set();

// Calls fn(numbers) after the books changed, until the view's signal ends it.
export function onChange(fn, signal) {
  changed.add(fn);
  signal?.addEventListener("abort", () => changed.delete(fn), { once: true });
}

// Calls fn(standing) now and whenever the connection comes or goes.
export function onStanding(fn) {
  stood.add(fn);
  fn(standing);
}

export const state = () => numbers;

export function start() {
  stop();
  open();
}

export function stop() {
  clearTimeout(timer);
  clearTimeout(due);
  due = 0;
  source?.close();
  source = null;
  tries = 0;
  say("off");
}

function open() {
  if (standing !== "lost") say("joining");
  source = new EventSource("/api/v1/stream");
  source.onopen = () => {
    if (tries > 0) soon(); // something may have changed while nobody listened
    tries = 0;
    say("live");
  };
  source.addEventListener("changed", (event) => {
    try {
      numbers = JSON.parse(event.data);
    } catch {
      numbers = null; // whatever it was, it says that something changed
    }
    say("live");
    soon();
  });
  source.onerror = () => {
    // The browser's own retry is fixed and never gives up nor tells; ours waits longer each time and says so.
    source?.close();
    source = null;
    // A stream that ends once is a collector that starts again, or an hour that is over: not yet a loss.
    say(tries === 0 && standing === "live" ? "joining" : "lost");
    timer = setTimeout(open, RETRY_MS[Math.min(tries++, RETRY_MS.length - 1)]);
  };
}

function soon() {
  if (due) return;
  due = setTimeout(() => {
    due = 0;
    last = performance.now();
    for (const fn of [...changed]) fn(numbers);
  }, Math.max(50, last + APART_MS - performance.now()));
}

function say(now) {
  if (now === standing) return;
  standing = now;
  for (const fn of [...stood]) fn(standing);
}

// A laptop that slept: its connection may look open and be none.
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && standing === "lost") {
    clearTimeout(timer);
    source?.close();
    open();
  }
});
addEventListener("online", () => {
  if (standing === "lost" || standing === "joining") {
    clearTimeout(timer);
    source?.close();
    open();
  }
});
