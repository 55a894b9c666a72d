// Figures as they stand on the page: short, and exact to the last digit when pointed at or focused.

import { h } from "./dom.js";
import { NONE, exact, flop, flopDown, flopUp } from "./format.js";

/** One number: "3.77e23"; `unit` is said with the exact one. `said`: flopDown of a lower bound, flopUp of an upper one. */
export function figure(text, unit = "FLOP", said = flop) {
  if (text === null || text === undefined) return h("span", { class: "dim" }, NONE);
  return h("data", { class: "figure", value: text, tabindex: "0", "data-exact": `${exact(text)} ${unit}` }, said(text));
}

/** A band: the point, and beside it from what to what. All three are exact when pointed at. */
export function bandFigure(band, unit = "FLOP", { range = true } = {}) {
  if (!band) return h("span", { class: "dim" }, NONE);
  const said = `lower ${exact(band.lower)}\npoint ${exact(band.point)}\nupper ${exact(band.upper)} ${unit}`;
  return h("span", { class: "band-figure", tabindex: "0", "data-exact": said },
    h("data", { class: "figure", value: band.point }, flop(band.point)),
    range && h("span", { class: "range" },
      h("data", { value: band.lower }, flopDown(band.lower)), " to ", h("data", { value: band.upper }, flopUp(band.upper))));
}

/** Anything else that has a longer form: a share, a time. */
export function longer(short, whole, properties = {}) {
  return h("span", { tabindex: "0", "data-exact": whole, ...properties }, short);
}

// ---- the one tip of the document: near what is pointed at or focused, gone with Escape ---------------

const tip = h("div", { id: "exact-tip", role: "tooltip", class: "exact-tip", hidden: true });
let over = null;

function show(target) {
  if (over === target) return;
  hide();
  over = target;
  tip.textContent = target.dataset.exact;
  tip.hidden = false;
  target.setAttribute("aria-describedby", tip.id);
  const at = target.getBoundingClientRect();
  const mine = tip.getBoundingClientRect();
  const below = at.bottom + 6 + mine.height <= innerHeight;
  tip.style.left = `${Math.max(8, Math.min(at.left, innerWidth - mine.width - 8))}px`;
  tip.style.top = `${below ? at.bottom + 6 : Math.max(8, at.top - mine.height - 6)}px`;
}

function hide() {
  over?.removeAttribute("aria-describedby");
  over = null;
  tip.hidden = true;
}

const told = (event) => event.target.closest?.("[data-exact]");
document.body.append(tip);
document.addEventListener("pointerover", (event) => {
  const target = told(event);
  if (target) show(target);
  else if (over !== document.activeElement && !tip.contains(event.target)) hide();
});
document.addEventListener("focusin", (event) => (told(event) ? show(told(event)) : hide()));
document.addEventListener("focusout", hide);
document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
addEventListener("scroll", hide, { passive: true, capture: true });
