// A grid of buttons, one per cell. One of them is in the tab order; arrow keys move between cells.

import { el } from "./dom.js";
import { KINDS, edgeText, range, tally, withinCrawl } from "./cells.js";

export class Grid {
  #what;
  #names;
  #onOpen;
  #buttons = new Map();
  #grid;
  #legend = el("p", { class: "legend" });
  #empty = el("p", { class: "empty fine" });

  // what: the word for a cell; names: the legend's names of the kinds.
  constructor(node, what, names, onOpen) {
    this.#what = what;
    this.#names = { ...KINDS, ...names };
    this.#onOpen = onOpen;
    this.#grid = el("div", { class: "grid", role: "group", "aria-label": `${what}s; arrow keys move, Enter opens`, onkeydown: (event) => this.#move(event) });
    node.replaceChildren(this.#grid, this.#empty, this.#legend);
  }

  show(cells, nothing) {
    this.#empty.textContent = cells.length ? "" : nothing;
    this.#empty.hidden = cells.length > 0;
    const size = cells.some((cell) => cell.thousand !== undefined) ? "groups" : cells.length <= 64 ? "large" : cells.length <= 300 ? "medium" : "small";
    this.#grid.className = `grid ${size}`;
    const keys = new Set(cells.map(({ number }) => number));
    for (const [number, button] of this.#buttons) {
      if (keys.has(number)) continue;
      button.remove();
      this.#buttons.delete(number);
    }
    cells.forEach((cell, place) => this.#showCell(cell, place));
    if (!this.#grid.querySelector('[tabindex="0"]')) this.#grid.firstElementChild?.setAttribute("tabindex", "0");
    this.#showLegend(cells);
  }

  button(number) {
    return this.#buttons.get(number);
  }

  #showCell(cell, place) {
    let button = this.#buttons.get(cell.number);
    if (!button) {
      button = el("button", { type: "button", tabindex: "-1", onclick: () => this.#onOpen(button.cell, button) });
      this.#buttons.set(cell.number, button);
    }
    if (this.#grid.children[place] !== button) this.#grid.insertBefore(button, this.#grid.children[place] ?? null);
    button.cell = cell;
    const label = `${this.#what} ${range(cell)}: ${cell.text}`;
    if (button.title === label && button.dataset.kind === cell.kind && button.dataset.depth === cell.depth) return;
    button.title = label;
    button.setAttribute("aria-label", label);
    button.className = `cell k-${cell.kind}`;
    button.dataset.kind = cell.kind;
    button.dataset.depth = cell.depth;
    button.dataset.number = withinCrawl(cell.number);
    if (cell.level !== undefined) button.style.setProperty("--level", `${100 * cell.level}%`);
  }

  #showLegend(cells) {
    const keys = tally(cells).map(([kind, number]) => [el("span", { class: `key cell k-${kind}`, "data-depth": "-" }), `${number.toLocaleString("en")} ${this.#names[kind]}`]);
    const nodes = keys.map((pair) => el("span", { class: "legend-item" }, pair));
    const took = edgeText(cells.edges);
    if (took && cells.some(({ depth }) => depth !== "-")) {
      const ramp = [0, 1, 2, 3, 4].map((depth) => el("span", { class: "key cell k-done", "data-depth": depth }));
      nodes.push(el("span", { class: "legend-item ramp" }, ramp, ` fast to slow: ${took}`));
    }
    this.#legend.replaceChildren(...nodes);
  }

  #move(event) {
    const buttons = [...this.#grid.children];
    const place = buttons.indexOf(document.activeElement);
    if (place < 0) return;
    const columns = Math.max(1, buttons.findIndex((button) => button.offsetTop !== buttons[0].offsetTop));
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -place, End: buttons.length - 1 - place };
    const step = steps[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const target = buttons[Math.max(0, Math.min(buttons.length - 1, place + step))];
    buttons.forEach((button) => button.setAttribute("tabindex", button === target ? "0" : "-1"));
    target.focus();
  }
}
