// Small things that several views are made of.

import { h } from "./dom.js";
import { clock, duration, relative, time } from "./format.js";

// Said to a screen reader, and nowhere else.
export function announce(text) {
  const place = document.getElementById("said");
  if (place.textContent !== text) place.textContent = text;
}

// A state as a mark and a word, never by colour alone. `kind`: good, warn, bad, dim or accent.
export function mark(kind, sign, text, properties) {
  return h("span", { ...properties, class: `mark ${kind}` }, h("span", { class: "sign", "aria-hidden": "true" }, sign), text);
}

const SEVERITIES = { critical: ["bad", "▲"], warning: ["warn", "◆"], notice: ["accent", "●"], info: ["dim", "○"] };
export const severity = (name) => mark(...(SEVERITIES[name] ?? SEVERITIES.info), name);

// An instant: written in UTC, how long ago in words, every digit of it in the title.
export function instant(iso, { ago = true } = {}) {
  if (!iso) return h("span", { class: "dim" }, "–");
  return h("time", { datetime: iso, title: iso }, time(iso), ago && h("span", { class: "dim ago" }, ` ${relative(iso)}`));
}

// Something to type into a terminal.
export function command(text) {
  return h("div", { class: "command-line" },
    h("pre", { class: "command", tabindex: "0" }, text),
    h("button", { type: "button", class: "quiet", "aria-label": `Copy: ${text}`, onclick: (e) => copy(e.currentTarget, text) }, "Copy"),
  );
}

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    announce("Copied");
  } catch {
    // No clipboard without TLS: select it, so that one key copies it.
    getSelection().selectAllChildren(button.previousElementSibling);
    announce("Selected: copy it with your keyboard");
  }
}

// Nothing here yet: why, and what to do next.
export function empty(title, why, ...steps) {
  return h("section", { class: "empty card" },
    h("h2", null, title),
    why && h("p", null, why),
    steps.map((step) => (typeof step === "string" ? command(step) : step)),
  );
}

// A figure that stands out, with what it is.
export function fact(name, value, note) {
  return h("div", { class: "fact" }, h("dt", null, name), h("dd", null, value), note && h("dd", { class: "note" }, note));
}

export const facts = (...items) => h("dl", { class: "facts" }, items);

// What stands in an address's query, as a list to choose from.
export function choice(name, label, value, options, change) {
  return h("label", { class: "choice" }, h("span", null, label),
    h("select", { name, "data-key": `choice-${name}`, value: value ?? "", onchange: (e) => change(e.target.value) },
      options.map(([text, said]) => h("option", { value: text }, said))));
}

// How long until an instant, as words and a kind: overdue, soon (two days), later.
export function due(iso) {
  const left = (Date.parse(iso) - clock.now()) / 1000;
  if (left < 0) return mark("bad", "▲", `overdue by ${duration(-left)}`);
  return mark(left < 172_800 ? "warn" : "dim", left < 172_800 ? "◆" : "○", `${duration(left)} left`);
}
