// Elements without markup: text is text, whatever it says, because nothing here ever parses any.

const SVG = "http://www.w3.org/2000/svg";

// h("a", {href: "/runs", class: "quiet", onclick: go}, "Runs", count): an element, its properties, what is in it.
// Children: text, numbers, elements, lists of them; null, undefined and false are left out.
export function h(tag, properties, ...children) {
  return make(document.createElement(tag), properties, children);
}

// The same for a drawing.
export function svg(tag, properties, ...children) {
  return make(document.createElementNS(SVG, tag), properties, children);
}

// What a reader changes by hand: given as properties, and only where the view gives one.
const LIVE = new Set(["value", "checked", "indeterminate"]);

function make(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) set(element, name, value);
  add(element, children);
  for (const [name, value] of Object.entries(element.given ?? {})) element[name] = value; // of a select: once it has options
  return element;
}

function set(element, name, value) {
  if (LIVE.has(name) && value === false) return void ((element.given ??= {})[name] = false);
  if (value === null || value === undefined || value === false) return;
  if (name.startsWith("on")) {
    element[name] = value;
    (element.handlers ??= {})[name] = value;
  } else if (name === "style") {
    // By the object model: an attribute would be an inline style, which the page's policy refuses.
    for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
  } else if (LIVE.has(name) && element.tagName !== "OPTION") {
    (element.given ??= {})[name] = value;
  } else if (name === "dataset") {
    Object.assign(element.dataset, value);
  } else {
    element.setAttribute(name, value === true ? "" : String(value));
  }
}

function add(element, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false || child === true) continue;
    if (Array.isArray(child)) add(element, child);
    else element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

// Makes what is in `root` equal to `children`, touching only what differs: focus, scroll, selection, an open
// <details> and half-typed text outlive a live update. Elements with the same `data-key` are the same element.
// An element with `data-keep` is left alone once it stands (a canvas, a plot that redraws itself).
export function render(root, ...children) {
  const wanted = document.createElement("div");
  add(wanted, children);
  morphChildren(root, wanted);
}

const key = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") : null);

function alike(a, b) {
  return a.nodeType === b.nodeType && a.nodeName === b.nodeName && key(a) === key(b);
}

function morphChildren(have, want) {
  const keyed = new Map();
  for (const node of have.childNodes) if (key(node) !== null) keyed.set(key(node), node);
  let at = have.firstChild;
  for (let next = want.firstChild; next; ) {
    const wanted = next;
    next = next.nextSibling;
    let same = key(wanted) === null ? at : keyed.get(key(wanted));
    // A keyed element that stands where another was: take the other away first, so that neighbours stay put.
    if (same && !alike(same, wanted)) same = null;
    if (!same) {
      have.insertBefore(wanted, at);
      continue;
    }
    if (same === at) at = at.nextSibling;
    else have.insertBefore(same, at);
    if (key(wanted) !== null) keyed.delete(key(wanted));
    morph(same, wanted);
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

function morph(have, want) {
  if (have.nodeType !== Node.ELEMENT_NODE) {
    if (have.nodeValue !== want.nodeValue) have.nodeValue = want.nodeValue;
    return;
  }
  if (have.hasAttribute("data-keep") && want.hasAttribute("data-keep")) return;
  for (const { name, value } of [...want.attributes]) {
    if (have.getAttribute(name) === value || theirs(have, name)) continue;
    if (name === "style") have.style.cssText = value; // see `h`
    else have.setAttribute(name, value);
  }
  for (const { name } of [...have.attributes]) {
    if (!want.hasAttribute(name) && !theirs(have, name)) have.removeAttribute(name);
  }
  for (const name of Object.keys(have.handlers ?? {})) if (!want.handlers?.[name]) have[name] = null;
  for (const [name, handler] of Object.entries(want.handlers ?? {})) have[name] = handler;
  have.handlers = want.handlers;
  if (have.tagName !== "TEXTAREA") morphChildren(have, want);
  for (const [name, value] of Object.entries(want.given ?? {})) {
    // Where the reader is typing, only what the view itself has changed is changed.
    const typing = have === document.activeElement && have.given?.[name] === value;
    if (!typing && have[name] !== value) have[name] = value;
  }
  have.given = want.given;
}

// What a reader did, not what we drew: whether a <details> is open.
function theirs(element, name) {
  return element.tagName === "DETAILS" && name === "open";
}

// Only http(s) addresses become links; whatever else a law file or a log names stays text.
export function outside(address, text) {
  return /^https?:\/\//.test(address ?? "")
    ? h("a", { href: address, rel: "noopener noreferrer external", target: "_blank" }, text ?? address)
    : h("span", null, text ?? address);
}
