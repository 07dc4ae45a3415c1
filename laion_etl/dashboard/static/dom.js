// Elements and formatting. Texts become text nodes, never markup, because they are untrusted.

import { count, quantity } from "./quantities.js";

export { count, quantity };

const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "dataset") Object.assign(node.dataset, value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

export const byId = (id) => document.getElementById(id);
// Untrusted text without control characters, isolated so that it cannot change the direction of other text.
const STEERING = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
export const untrusted = (text) => el("bdi", {}, String(text).replace(STEERING, ""));

// Redraws a part of the page only if its data has changed.
const drawn = new WeakMap();
export function draw(node, data, make) {
  const key = JSON.stringify(data);
  if (drawn.get(node) === key) return;
  drawn.set(node, key);
  node.replaceChildren(...[make(data)].flat().filter(Boolean));
}

export const compact = (number) => (Math.abs(number) < 100000 ? count(number) : short.format(number));
export const words = (name) => name.replaceAll("_", " ");

export function share(part, all) {
  if (!all) return "–";
  const value = part / all;
  if (value > 0 && value < 0.001) return "<0.1%";
  if (value < 1 && value > 0.999) return ">99.9%";
  return `${(100 * value).toFixed(1)}%`;
}

export function duration(seconds) {
  const all = Math.round(seconds);
  if (all < 120) return `${all} s`;
  const minutes = Math.floor(all / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

// Day and time in the reader's time zone: 28 Nov 2026, 21:14.
export function moment(iso) {
  const when = new Date(iso);
  return Number.isNaN(when.getTime()) ? String(iso) : when.toLocaleString("en-GB", { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });
}

export const hours = (seconds) => {
  const value = seconds / 3600;
  return value >= 100 ? `${count(Math.round(value))} h` : value >= 1 ? `${value.toFixed(1)} h` : duration(seconds);
};

// A bar of one or more parts: [kind, share of the whole].
export function bar(parts, label) {
  const node = el("span", { class: "bar-track", role: "img", "aria-label": label });
  for (const [kind, part] of parts) {
    if (!(part > 0)) continue;
    const piece = el("i", { class: `fill ${kind}` });
    piece.style.width = `${Math.min(100, 100 * part)}%`;
    node.append(piece);
  }
  return node;
}

export function table(headings, rows, kind = "") {
  const head = el("tr", {}, headings.map((heading) => (heading ? el("th", { scope: "col" }, heading) : el("td"))));
  return el("table", { class: kind }, el("thead", {}, head), el("tbody", {}, rows));
}

export const row = (first, ...cells) =>
  el("tr", {}, el("th", { scope: "row" }, first), cells.map((cell) => el("td", {}, cell)));
