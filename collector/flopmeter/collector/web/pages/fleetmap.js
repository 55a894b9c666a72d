// The fleet as squares on a canvas: a tile a node, a square a GPU. The list beside it says the same in words.

import { BY_CODE } from "./codes.js";
import { h } from "./dom.js";
import { gpusText, STATUS } from "./fleetrows.js";

const SIZES = [22, 18, 15, 12, 10, 8, 7, 6, 5, 4, 3, 2]; // px of a GPU's square
const TALL = 640; // px that the map may take before squares get smaller; below 4 px it grows instead
const LETTERED = 10; // px from which a square has room for its letter
const HEAD = 22; // px of a group's name

// Where each node stands, for a width. Groups begin on rows of their own.
function layout(groups, width) {
  const widest = groups.reduce((most, g) => g.nodes.reduce((m, n) => Math.max(m, n.gpus.length), most), 1);
  for (const size of SIZES) {
    const gap = size >= 8 ? 2 : size >= 4 ? 1 : 0; // between squares
    const apart = size >= 8 ? 8 : size >= 4 ? 4 : 2; // between nodes
    const across = widest > 4 ? Math.ceil(widest / 2) : widest;
    const down = widest > 4 ? 2 : 1;
    const tile = { w: across * (size + gap) - gap + apart, h: down * (size + gap) - gap + apart };
    const columns = Math.max(1, Math.floor((width + apart) / tile.w));
    let y = 0;
    const placed = groups.map((g) => {
      const top = y + (g.name === null ? 0 : HEAD);
      y = top + Math.ceil(g.nodes.length / columns) * tile.h + (g.name === null ? 0 : 8);
      return { ...g, top };
    });
    if (y <= TALL || size <= 3) return { size, gap, apart, across, tile, columns, placed, height: Math.max(y, tile.h), width };
  }
  throw new Error("unreachable");
}

// A map on its own: `draw(groups, {chosen, selected})` again and again, `onpick(name)` of a click.
export function fleetMap({ onpick }) {
  const canvas = h("canvas", { class: "fleet-map", role: "img" });
  const tip = h("div", { class: "tip", hidden: true });
  const place = h("div", { class: "fleet-place" }, canvas, tip);
  const probe = h("span", { hidden: true });
  place.append(probe);
  let state = null;
  let laid = null;

  function colours() {
    const of = (name) => {
      probe.style.color = `var(--${name})`;
      return getComputedStyle(probe).color;
    };
    return Object.fromEntries(["good", "warn", "bad", "dim", "rule", "accent", "ink", "bg", "panel", "edge"].map((name) => [name, of(name)]));
  }

  function paint() {
    if (!state || !place.isConnected) return;
    const width = place.clientWidth;
    if (!width) return;
    laid = layout(state.groups, width);
    const scale = devicePixelRatio || 1;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(laid.height * scale);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${laid.height}px`;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const ink = colours();
    const font = getComputedStyle(place).fontFamily;
    pen.textBaseline = "middle";
    const squares = stamps(laid.size, ink, font, scale);
    for (const group of laid.placed) {
      if (group.name !== null) {
        pen.font = `600 12px ${font}`;
        pen.fillStyle = ink.dim;
        pen.textAlign = "left";
        pen.fillText(`${group.name || "without a name"} · ${group.nodes.length}`, 0, group.top - HEAD / 2);
      }
      group.nodes.forEach((node, i) => {
        const x = (i % laid.columns) * laid.tile.w;
        const y = group.top + Math.floor(i / laid.columns) * laid.tile.h;
        pen.globalAlpha = state.chosen && !state.chosen.has(node) ? 0.13 : 1;
        for (let k = 0; k < node.gpus.length; k++) {
          const at = k % laid.across;
          const row = Math.floor(k / laid.across);
          const stamp = squares.get(node.gpus[k]) ?? squares.get("?");
          pen.drawImage(stamp, x + at * (laid.size + laid.gap), y + row * (laid.size + laid.gap), laid.size, laid.size);
        }
        if (!node.gpus.length) {
          pen.strokeStyle = ink.dim;
          pen.strokeRect(x + 0.5, y + 0.5, laid.size - 1, laid.size - 1);
        }
        if (node.marks && laid.size >= 4) {
          pen.fillStyle = ink.bad;
          pen.fillRect(x - 2, y - 2, Math.max(3, laid.size / 3), Math.max(3, laid.size / 3));
        }
        pen.globalAlpha = 1;
        if (node.name === state.selected) {
          pen.strokeStyle = ink.accent;
          pen.lineWidth = 2;
          pen.strokeRect(x - 2, y - 2, laid.tile.w - laid.apart + 4, laid.tile.h - laid.apart + 4);
        }
      });
    }
  }

  function nodeAt(event) {
    if (!laid) return null;
    const box = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const group = laid.placed.findLast((g) => y >= g.top);
    const column = Math.floor(x / laid.tile.w);
    if (!group || column >= laid.columns || column < 0) return null;
    return group.nodes[Math.floor((y - group.top) / laid.tile.h) * laid.columns + column] ?? null;
  }

  canvas.onpointermove = (event) => {
    const node = nodeAt(event);
    canvas.style.cursor = node ? "pointer" : "";
    tip.hidden = !node;
    if (!node) return;
    tip.replaceChildren(
      h("strong", { class: "name" }, node.name), h("br"), `${STATUS[node.status]?.[0] ?? "unknown"} · ${gpusText(node.gpus) || "no GPU"}`);
    const left = event.clientX - place.getBoundingClientRect().left;
    tip.style.left = `${Math.max(0, Math.min(left + 12, place.clientWidth - tip.offsetWidth))}px`;
    tip.style.top = `${event.clientY - place.getBoundingClientRect().top + 16}px`;
  };
  canvas.onpointerleave = () => (tip.hidden = true);
  canvas.onclick = (event) => {
    const node = nodeAt(event);
    if (node) onpick(node.name);
  };
  new ResizeObserver(paint).observe(place);
  addEventListener("flopmeter-theme", paint);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);

  return {
    element: place,
    draw(groups, { chosen, selected, said }) {
      state = { groups, chosen, selected };
      canvas.setAttribute("aria-label", said);
      paint();
    },
  };
}

// A small picture of each letter, drawn once and stamped 100,000 times. Shape and letter say what colour says.
function stamps(size, ink, font, scale) {
  return new Map([...BY_CODE.values()].map((c) => [c.code, stamp(c, size, ink, font, scale)]));
}

export function stamp({ code, kind, sign }, size, ink, font, scale) {
  const made = document.createElement("canvas");
  made.width = made.height = Math.ceil(size * scale);
  const pen = made.getContext("2d");
  pen.scale(made.width / size, made.width / size);
  const colour = { good: ink.good, weak: ink.accent, idle: ink.edge, warn: ink.warn, bad: ink.bad, dim: ink.dim }[kind];
  const full = () => pen.fillRect(0, 0, size, size);
  const ring = (w) => {
    pen.lineWidth = w;
    pen.strokeStyle = colour;
    pen.strokeRect(w / 2, w / 2, size - w, size - w);
  };
  const thin = Math.max(1, size / 8);
  pen.fillStyle = colour;
  if (code === "C" || code === "D") {
    pen.globalAlpha = 0.35;
    full();
    pen.globalAlpha = 1;
    pen.fillRect(0, size / 2, size, size / 2);
  } else if (kind === "idle") {
    pen.globalAlpha = 0.35;
    full();
    pen.globalAlpha = 1;
  } else if (code === "g") {
    // Half a square, cut along the diagonal: something is missing.
    pen.beginPath();
    pen.moveTo(0, 0);
    pen.lineTo(0, size);
    pen.lineTo(size, size);
    pen.fill();
    ring(thin);
  } else if (code === "u") {
    pen.beginPath();
    pen.moveTo(size / 2, 0);
    pen.lineTo(size, size / 2);
    pen.lineTo(size / 2, size);
    pen.lineTo(0, size / 2);
    pen.fill();
  } else if (code === "s" || code === "?") {
    ring(Math.max(1, size / 6));
  } else if (code === "x") {
    pen.lineWidth = Math.max(1, size / 5);
    pen.strokeStyle = colour;
    pen.beginPath();
    pen.moveTo(0, 0);
    pen.lineTo(size, size);
    pen.moveTo(size, 0);
    pen.lineTo(0, size);
    pen.stroke();
  } else {
    full();
  }
  if (size >= LETTERED && "AB3CDs?".includes(code)) {
    pen.font = `700 ${Math.round(size * 0.66)}px ${font}`;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.fillStyle = code === "s" || code === "?" ? colour : ink.bg;
    pen.fillText(sign, size / 2, size * 0.54);
  }
  return made;
}
