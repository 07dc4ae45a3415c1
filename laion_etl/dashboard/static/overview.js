// All crawls, one row each: the progress of its data, and the state of its run in Airflow.

import { bar, byId, compact, count, draw, duration, el, untrusted, quantity, row, share, table } from "./dom.js";
import { currentRuns } from "./airflow.js";
import { AIRFLOW, BASE, follow } from "./page.js";

const HEADINGS = ["crawl", "state", "partitions", "links tried", "", "images", "links/h", "left", "failed"];

function line({ crawl, state, dataset, load, queue }) {
  const link = el("a", { href: `${BASE}/crawl/${encodeURIComponent(crawl)}` }, untrusted(crawl));
  const chip = el("span", { class: `chip ${state}`, title: dataset ? `in dataset ${dataset}` : "" }, state);
  const known = queue ?? { pairs: 0, pairs_done: 0, batches: 0, done: 0, failed: 0, score_failed: 0, images: 0, pairs_per_hour: 0, left_s: null };
  const tried = bar(
    [["done", known.done / known.batches], ["running", known.leased / known.batches], ["failed", (known.failed + known.score_failed) / known.batches]],
    `${count(known.done)} of ${quantity(known.batches, "batch", "batches")} done`,
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
    known.failed + known.score_failed ? el("strong", { class: "bad" }, count(known.failed + known.score_failed)) : "–",
  );
}

const RUNS_EVERY_S = 10;
let made = null;
let runs = new Map();
let unheard = "";

// A running run shows its stage; a failed one shows "failed", whatever stage its data has reached.
function stateOf(row, run) {
  if (!run) return row.state;
  if (run.state === "failed" || run.state === "queued") return run.state;
  return run.state === "running" ? (row.stage === "published" || !row.stage ? "running" : row.stage) : row.stage || "no data";
}

function show() {
  if (!made) return;
  const names = new Set([...made.crawls.map(({ crawl }) => crawl), ...runs.keys()]);
  const known = new Map(made.crawls.map((row) => [row.crawl, row]));
  const rows = [...names].sort().reverse().map((crawl) => {
    const row = known.get(crawl) ?? { crawl, state: "", stage: "", dataset: "", load: null, queue: null };
    return { ...row, state: stateOf(row, runs.get(crawl)) };
  });
  draw(byId("crawls"), [rows, made.problems, unheard], () => [
    rows.length
      ? table(HEADINGS, rows.map(line), "crawls")
      : el("div", { class: "empty" }, el("p", {}, made.problems.length ? "No crawl data is available right now." : "No crawl has data yet."), el("p", { class: "fine" }, "Trigger the DAG of a crawl, with 0:2 as its WAT files to try it, or run ", el("code", {}, "laion-etl run CC-MAIN-2024-38 --wat-files 0:1"), ".")),
    unheard ? el("p", { class: "fine" }, `States come from the data alone, because the runs in Airflow cannot be read: ${unheard}.`) : null,
  ]);
}

async function followRuns() {
  for (;;) {
    if (!document.hidden) {
      try {
        [runs, unheard] = [await currentRuns(), ""];
      } catch (error) {
        unheard = error.message;
      }
      show();
    }
    await new Promise((done) => setTimeout(done, 1000 * RUNS_EVERY_S));
  }
}

follow("/api/overview", (found) => {
  made = found;
  show();
});
if (AIRFLOW) followRuns();
