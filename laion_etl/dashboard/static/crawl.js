// The page of a crawl.

import { Dag, airflowLink, runPath } from "./airflow.js";
import { batchCells, partitionCells, thousandCells } from "./cells.js";
import { byId, count, draw, el } from "./dom.js";
import { Grid } from "./grid.js";
import { AIRFLOW, follow } from "./page.js";
import { openBatch, openPartition, openThousand } from "./panel.js";
import { offerSamples } from "./samples.js";
import { showFailures, showFunnel, showHours, showStages, showTiles } from "./sections.js";

const TASKS_EVERY_S = 6;
const ENDED_EVERY_S = 30;
const MAX_PAUSE_S = 120;

const { crawl, run: wanted } = document.body.dataset;
let made = null;
let run = null;
let chosen = "";
let looked = null;
const firstLook = new Promise((done) => (looked = done));
const running = () => firstLook.then(() => run);

const partitions = new Grid(byId("partitions"), "partition", { half: "parsed", done: "loaded" }, (cell, button) =>
  openPartition(crawl, cell, button, running(), made?.troubles ?? []),
);
const batches = new Grid(byId("batches"), "batch", { half: "downloaded", done: "scored" }, (cell, button) =>
  cell.thousand === undefined ? openBatch(crawl, cell, button) : openThousand(crawl, cell, button),
);

function show() {
  if (!made) return;
  const parts = partitionCells(made.partitions, run);
  showTiles(made, run);
  showStages(made, run, parts);
  partitions.show(parts, "No partition is known yet: none is parsed, and no run has discovered any.");
  const grouped = made.thousands.length > 0;
  batches.show(grouped ? thousandCells(made.thousands) : batchCells(made.batches), "Nothing is planned yet.");
  byId("partitions-count").textContent = parts.length ? count(parts.length) : "";
  const known = made.status.queue.batches;
  byId("batches-count").textContent = known ? `${count(known)}${grouped ? ", a cell is a thousand" : ""}` : "";
  showFailures(made, run, openUnit);
  showFunnel(made.funnel);
  showHours(made, run);
  offerSamples(crawl, made.scored);
}

function openUnit(unit, button) {
  const [, what, number] = /^(partition|batch) (\d+)$/.exec(unit) ?? [];
  if (what === "partition") {
    const cell = partitionCells(made.partitions, run).find((one) => one.number === Number(number));
    openPartition(crawl, cell ?? { number: Number(number), kind: "failed", text: "failed", depth: "-" }, button, running(), made.troubles);
  } else if (what === "batch") {
    const cell = batchCells(made.batches).find((one) => one.number === Number(number));
    openBatch(crawl, cell ?? { number: Number(number), kind: "failed", text: "failed", depth: "-" }, button);
  }
}

// Runs of the crawl's DAG: the chosen or requested one, otherwise the running one, otherwise the latest.
async function followRuns() {
  const dag = new Dag(crawl);
  let pause = TASKS_EVERY_S;
  let runs = [];
  for (;;) {
    try {
      runs = await dag.runs();
      const id = chosen || wanted || runs[0]?.dag_run_id;
      if (id && run?.id !== id) run = dag.run(id);
      if (run) await run.refresh();
      showRuns(runs, "");
      show();
      pause = run?.state === "running" || run?.state === "queued" ? TASKS_EVERY_S : ENDED_EVERY_S;
    } catch (error) {
      showRuns(runs, `Airflow: ${error.message}`);
      pause = Math.min(MAX_PAUSE_S, 2 * pause);
    }
    looked();
    await pausing(pause);
  }
}

function choose(event) {
  chosen = event.target.value;
  wake();
}

let wake = () => {};
function pausing(seconds) {
  return new Promise((done) => {
    const timer = setTimeout(() => (document.hidden ? document.addEventListener("visibilitychange", done, { once: true }) : done()), 1000 * seconds);
    wake = () => {
      clearTimeout(timer);
      done();
    };
  });
}

function showRuns(runs, problem) {
  const named = (one) => `${one.state} · ${one.dag_run_id}`;
  draw(byId("run"), [runs.map(named), run?.id, run?.state, problem], () => {
    if (problem) return el("span", { class: "soft" }, problem);
    if (!run) return el("span", { class: "soft" }, "never run in Airflow");
    const options = runs.map((one) => el("option", { value: one.dag_run_id, selected: one.dag_run_id === run.id }, named(one)));
    if (!runs.some(({ dag_run_id: id }) => id === run.id)) options.unshift(el("option", { value: run.id, selected: true }, run.id));
    return [
      el("span", { class: `chip ${run.state}` }, run.state),
      el("select", { "aria-label": "Run of the DAG", onchange: choose }, options),
      airflowLink(runPath(run), "run"),
    ];
  });
}

follow(`/api/crawl/${encodeURIComponent(crawl)}`, (found) => {
  made = found;
  show();
});
if (AIRFLOW) followRuns();
else looked();
