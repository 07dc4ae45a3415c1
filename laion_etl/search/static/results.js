// Results: the grid of cards and the details of one. Captions and URLs are inserted as text, never as HTML.

import { languageName, licenseName } from "./filters.js";

const grid = document.getElementById("grid");
const details = document.getElementById("details");
const revealed = new Set();
let results = [];
let current = null;

export function showResults(found) {
  results = found;
  grid.replaceChildren(...found.map(card));
}

export function resultAt(element) {
  const place = [...grid.children].indexOf(element?.closest?.(".card"));
  return place < 0 ? null : results[place];
}

export function openResult() {
  return details.open ? current : null;
}

export function openDetails(result) {
  current = result;
  document.getElementById("details-text").textContent = result.text;
  link("details-url", result.url, result.url);
  link("details-page", result.page_url);
  document.getElementById("details-facts").replaceChildren(...facts(result).flatMap(fact));
  showImage(result);
  if (!details.open) details.showModal();
  details.scrollTop = 0;
}

// The next or previous result, in the dialog.
export function stepDetails(step) {
  const next = results[results.indexOf(current) + step];
  if (next) openDetails(next);
}

// Moves the focus in the grid with the arrow keys.
export function moveFocus(key) {
  const cards = [...grid.children];
  const place = cards.indexOf(document.activeElement);
  const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[key];
  const next = cards[place < 0 ? 0 : place + step];
  next?.focus();
  return Boolean(next);
}

function card(result) {
  const made = element("button", "card");
  made.type = "button";
  const frame = element("span", "frame");
  const image = makeImage(`thumbnail/${result.id}`, result);
  image.loading = "lazy";
  frame.append(image);
  if (veiled(result)) {
    frame.classList.add("unsafe");
    frame.append(element("span", "veil", `${tag(result)}: hidden`));
  }
  if (result.score !== null) frame.append(element("span", "score", result.score.toFixed(3)));
  const words = element("span", "words", result.text);
  words.dir = "auto";
  const small = [result.language, `${result.width} × ${result.height}`, result.domain].join(" · ");
  made.append(frame, words, element("span", "small", small));
  made.setAttribute("aria-label", result.text);
  made.addEventListener("click", () => openDetails(result));
  return made;
}

function showImage(result) {
  const shown = document.getElementById("details-shown");
  const image = makeImage(veiled(result) ? `thumbnail/${result.id}` : `image/${result.id}`, result);
  shown.className = "shown";
  shown.replaceChildren(image);
  if (!veiled(result)) return;
  shown.classList.add("unsafe");
  const reveal = element("button", "", `${tag(result)}: show the image`);
  reveal.type = "button";
  reveal.addEventListener("click", () => {
    revealed.add(result.id);
    showImage(result);
    unveil(result);
  });
  shown.append(reveal);
}

function unveil(result) {
  const frame = grid.children[results.indexOf(result)]?.querySelector(".frame");
  frame?.classList.remove("unsafe");
  frame?.querySelector(".veil")?.remove();
}

function makeImage(address, result) {
  const made = new Image();
  made.alt = "";
  made.addEventListener("error", () => made.replaceWith(element("span", "none", "no image")));
  made.src = result.safe ? address : `${address}?unsafe=true`;
  return made;
}

function veiled(result) {
  return !result.safe && !revealed.has(result.id);
}

function tag(result) {
  return result.nsfw ?? "Not checked";
}

function facts(result) {
  return [
    ["Match with query", result.score?.toFixed(4)],
    ["Match with caption", result.similarity.toFixed(4)],
    ["Aesthetic", result.aesthetic?.toFixed(2)],
    ["Size", `${result.width} × ${result.height}`],
    ["Language", languageName(result.language)],
    ["Licence", licenseName(result.license)],
    ["Safety tag", tag(result), !result.safe],
    ["Unsafe", percent(result.punsafe)],
    ["Violence", percent(result.pviolence)],
    ["Watermark", percent(result.pwatermark)],
    ["Crawl", result.crawl],
    ["SAMPLE_ID", result.id],
  ].filter(([, value]) => value !== undefined && value !== null);
}

function fact([name, value, bad]) {
  return [element("dt", "", name), element("dd", bad ? "bad" : "", value)];
}

function percent(share) {
  return share === null ? null : `${(share * 100).toFixed(1)}%`;
}

// Only http(s) URLs become links: a dataset may contain any text as a URL.
function link(id, address, text) {
  const anchor = document.getElementById(id);
  if (text !== undefined) anchor.textContent = text;
  if (/^https?:\/\//i.test(address)) anchor.href = address;
  else anchor.removeAttribute("href");
}

function element(name, className = "", text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}
