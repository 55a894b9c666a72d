import { h, render } from "./dom.js";

export async function show(root) {
  render(root, h("h1", null, "…"));
}
