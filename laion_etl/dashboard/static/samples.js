// The contact sheet, loaded only on request, because it reads shards.

import { byId, el, quantity, untrusted } from "./dom.js";
import { BASE, get } from "./page.js";

export function offerSamples(crawl, scored) {
  const node = byId("samples");
  if (node.dataset.asked) return;
  if (!scored) return node.replaceChildren(el("p", { class: "empty fine" }, "No batch is scored yet."));
  if (node.dataset.offered) return;
  node.dataset.offered = "yes";
  node.replaceChildren(
    el("button", { type: "button", class: "button", onclick: () => show(node, crawl) }, "Show samples"),
    el("p", { class: "fine" }, "From a few scored batches. Images not tagged as safe are never shown here."),
  );
}

async function show(node, crawl) {
  node.dataset.asked = "yes";
  node.replaceChildren(el("p", { class: "fine", role: "status" }, "reading shards …"));
  try {
    for (;;) {
      const { status, document: made } = await get(`/api/crawl/${encodeURIComponent(crawl)}/samples`);
      if (status !== 202) return node.replaceChildren(...sheets(crawl, made));
      await new Promise((wake) => setTimeout(wake, 700));
    }
  } catch (error) {
    delete node.dataset.asked;
    delete node.dataset.offered;
    node.replaceChildren(el("p", { class: "notice" }, error.message));
  }
}

function sheets(crawl, made) {
  const sheet = (title, kind, bands) => [
    el("h3", { class: "sheet-title" }, title),
    bands.map((band) => [el("h4", {}, band.title), el("ul", { class: `sheet ${kind}` }, band.samples.map((sample) => figure(crawl, sample)))]),
  ];
  return [el("p", { class: "fine" }, `From ${made.batches.length} of ${quantity(made.of, "scored batch", "scored batches")}.`), sheet("Kept", "kept", made.kept), sheet("Rejected", "rejected", made.rejected)].flat(3);
}

function figure(crawl, { key, withheld, caption, language, similarity, threshold, size }) {
  const source = `${BASE}/api/crawl/${encodeURIComponent(crawl)}/samples/${key}.webp`;
  const frame = withheld
    ? el("div", { class: "frame withheld" }, el("span", {}, "not shown", el("small", {}, withheld)))
    : el("div", { class: "frame" }, el("img", { src: source, alt: "", loading: "lazy" }));
  const score = similarity === null ? "–" : similarity.toFixed(3);
  const about = [language || "no language", size[0] && `${size[0]}×${size[1]}`].filter(Boolean).join(" · ");
  return el("li", {}, el("figure", {}, frame, el("figcaption", {}, el("p", { class: "caption" }, untrusted(caption)), el("p", { class: "meta", title: threshold === null ? "" : `threshold ${threshold.toFixed(3)}` }, el("b", {}, score), ` ${about}`))));
}
