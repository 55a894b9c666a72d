// What the collector is asked. Answers are kept with their ETag, so that what did not change is not sent again.

import { clock } from "./format.js";

const BASE = "/api/v1";
const KEPT = 60; // answers: some views' worth
const kept = new Map(); // address → {etag, data}, the least lately used first

export class ApiError extends Error {
  constructor(status, problem = {}) {
    super(problem.title ?? `HTTP ${status}`);
    this.status = status; // 0: nobody answered
    this.title = problem.title ?? "";
    this.detail = problem.detail ?? "";
    this.hint = problem.hint ?? "";
    this.problem = problem;
  }
}

export function address(path, parameters) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters ?? {})) {
    if (value !== null && value !== undefined && value !== "") query.set(name, value);
  }
  const text = query.toString();
  return BASE + path + (text ? `?${text}` : "");
}

// GET, as data. The same object again (===) when nothing changed.
export async function get(path, { parameters, signal } = {}) {
  const url = address(path, parameters);
  const before = kept.get(url);
  const headers = { Accept: "application/json" };
  if (before) headers["If-None-Match"] = before.etag;
  const response = await ask(url, { headers, signal });
  if (response.status === 304 && before) {
    keep(url, before);
    return before.data;
  }
  const data = await body(response);
  const etag = response.headers.get("ETag");
  if (etag) keep(url, { etag, data });
  return data;
}

export async function text(path, { signal } = {}) {
  return (await ask(BASE + path, { signal })).text();
}

export async function send(method, path, data, { signal, kind = "application/json", parameters } = {}) {
  const options = { method, signal, headers: { "Content-Type": kind, Accept: "application/json" } };
  if (data !== undefined) options.body = kind === "application/json" ? JSON.stringify(data) : data;
  return body(await ask(address(path, parameters), options));
}

export const post = (path, data, options) => send("POST", path, data, options);

// A file by POST, saved under the name that the collector gives it.
export async function download(path, data, { signal } = {}) {
  const response = await ask(BASE + path, {
    method: "POST", signal, headers: { "Content-Type": "application/json" }, body: JSON.stringify(data ?? {}),
  });
  const named = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") ?? "");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = named ? named[1] : "download";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  return link.download;
}

// Answers are somebody's: whoever comes next sees none of them.
export function forget() {
  kept.clear();
}

function keep(url, answer) {
  kept.delete(url);
  kept.set(url, answer);
  if (kept.size > KEPT) kept.delete(kept.keys().next().value);
}

async function ask(url, options) {
  let response;
  try {
    // no-store: the answers are kept here, not in the browser's cache, where the next user could find them.
    response = await fetch(url, { credentials: "same-origin", cache: "no-store", redirect: "error", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, {
      title: "The collector does not answer",
      detail: navigator.onLine ? String(error.message) : "This machine is offline.",
    });
  }
  clock.heard(response.headers.get("Date"), response.headers.get("Flopmeter-Clock"));
  if (response.ok || response.status === 304) return response;
  throw new ApiError(response.status, await problem(response));
}

async function problem(response) {
  try {
    return await response.json();
  } catch {
    return {}; // a proxy's own error page
  }
}

async function body(response) {
  if (response.status === 204) return null;
  try {
    return await response.json();
  } catch {
    throw new ApiError(response.status, {
      title: "The answer cannot be read",
      detail: "It is no JSON. A proxy between this page and the collector may have put its own page in its place.",
    });
  }
}
