// All dumps, a row each.

import { bar, byId, compact, count, draw, duration, el, foreign, row, share, table } from "./dom.js";
import { BASE, follow } from "./page.js";

const HEADINGS = ["dump", "state", "partitions", "links tried", "", "images", "links/h", "left", "failed"];

function line({ crawl, state, dataset, load, queue }) {
  const link = el("a", { href: `${BASE}/crawl/${encodeURIComponent(crawl)}` }, foreign(crawl));
  const chip = el("span", { class: `chip ${state}`, title: dataset ? `in dataset ${dataset}` : "" }, state);
  const known = queue ?? { pairs: 0, pairs_done: 0, batches: 0, done: 0, failed: 0, images: 0, pairs_per_hour: 0, left_s: null };
  const tried = bar(
    [["done", known.done / known.batches], ["running", known.leased / known.batches], ["failed", known.failed / known.batches]],
    `${known.done} of ${known.batches} batches done`,
  );
  return row(
    link,
    chip,
    load ? count(load.partitions) : "–",
    known.batches ? share(known.pairs_done, known.pairs) : "–",
    known.batches ? tried : "",
    known.batches ? compact(known.images) : "–",
    known.pairs_per_hour ? compact(known.pairs_per_hour) : "–",
    known.pairs_left && known.left_s !== null ? duration(known.left_s) : "–",
    known.failed ? el("strong", { class: "bad" }, count(known.failed)) : "–",
  );
}

follow("/api/overview", ({ crawls, problems }) =>
  draw(byId("crawls"), [crawls, problems], () =>
    crawls.length
      ? table(HEADINGS, crawls.map(line), "crawls")
      : el("div", { class: "empty" }, el("p", {}, problems.length ? "Nothing can be told of any dump now." : "No dump has data yet."), el("p", { class: "fine" }, "Trigger the DAG of a dump, with 0:2 as its WAT files to try it, or run ", el("code", {}, "laion-etl run CC-MAIN-2024-38 --wat-files 0:1"), ".")),
  ),
);
