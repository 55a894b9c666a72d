// Where the reader is: real paths, and a query that holds what they chose, so that an address can be sent on.

let follow = () => {};

export function onNavigate(fn) {
  follow = fn;
}

// One segment of a path: a run's name may hold a slash.
export const segment = (name) => encodeURIComponent(name);
export const runHref = (name) => `/runs/${segment(name)}`;
export const nodeHref = (name) => `/fleet/${segment(name)}`;
export const eventHref = (id) => `/events/${segment(id)}`;
export const deadlineHref = (id) => `/deadlines/${segment(id)}`;

export function navigate(href) {
  history.pushState(null, "", href);
  follow({ moved: true });
}

// The present address with other choices: null takes one away. An entry of the history only when `push`.
export function queryHref(changes) {
  const url = new URL(location.href);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === undefined || value === "") url.searchParams.delete(name);
    else url.searchParams.set(name, value);
  }
  return url.pathname + url.search;
}

export function setQuery(changes, { push = false, draw = true } = {}) {
  const href = queryHref(changes);
  if (href === location.pathname + location.search) return;
  history[push ? "pushState" : "replaceState"](null, "", href);
  if (draw) follow({ moved: false });
}

export const query = () => Object.fromEntries(new URLSearchParams(location.search));
