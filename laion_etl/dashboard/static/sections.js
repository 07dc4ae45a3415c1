// The tables and bars of a crawl's page.

import { airflowLink, runPath, taskPath } from "./airflow.js";
import { partitionCounts } from "./cells.js";
import { bar, byId, compact, count, draw, duration, el, untrusted, hours, moment, quantity, row, share, table } from "./dom.js";
import { again, reason } from "./panel.js";

const TASKS = { parse: "partition.parse", load: "partition.load", plan: "plan", download: "download", score: "score", publish: "publish" };
const RUNNING = ["running", "restarting", "deferred"];

const counted = (run, stage, states) => run?.of(TASKS[stage]).filter(({ state }) => states.includes(state)).length ?? 0;

export function showTiles(made, run) {
  const { queue, load } = made.status;
  const kept = made.funnel.rows.find(({ stage }) => stage === "score");
  const failed = failures(made, run);
  const tiles = [
    ["Links tried", queue.pairs ? share(queue.pairs_done, queue.pairs) : "–", queue.pairs ? `${compact(queue.pairs_done)} of ${compact(queue.pairs)}` : "no batches yet"],
    ["Links an hour", queue.pairs_per_hour ? compact(queue.pairs_per_hour) : "–", queue.workers ? `${count(queue.workers)} at work` : "no worker now"],
    ["Time left", queue.pairs_left && queue.left_s !== null ? duration(queue.left_s) : "–", queue.pairs_left ? "of downloads, at this rate" : "no downloads left"],
    ["Images", compact(queue.images), queue.pairs_done ? `${share(queue.images, queue.pairs_done)} of links` : ""],
    ["Kept", kept.units ? compact(kept.kept) : "–", kept.units ? `${share(kept.kept, kept.input)} of scored` : "nothing scored yet"],
    ["Failed", count(failed), failed ? "see Failures" : `${quantity(load.partitions, "partition")} loaded`],
  ];
  draw(byId("tiles"), tiles, () => tiles.map(([name, value, note]) => el("div", { class: name === "Failed" && failed ? "tile bad" : "tile" }, el("span", {}, name), el("strong", {}, value), el("small", {}, note || "\u00a0"))));
}

const failedTasks = (run) => (run ? [...run.tasks.values()].flatMap((tasks) => [...tasks.values()]).filter(({ state }) => state === "failed") : []);

// Current failures: those listed in the store, without tasks that have succeeded since in the run shown.
export function stillBroken(made, run) {
  const state = ({ run: id, task }) => (run && task && id === run.id ? run.named(task)?.state : undefined);
  return made.causes.flatMap((cause) => {
    const units = cause.units.map((unit) => ({ ...unit, state: state(unit) })).filter((unit) => unit.state !== "success");
    const count = cause.count - (cause.units.length - units.length);
    return units.length ? [{ ...cause, units, count, last_at: units[0].at }] : [];
  });
}

// Units with a known cause, and failed tasks of the run shown without one (their process was killed).
const isTaskOf = (run, task, unit) => unit.run === run.id && unit.task !== "" && run.named(unit.task) === task;
function failures(made, run) {
  const broken = stillBroken(made, run).filter(({ kind }) => kind === "failed");
  const known = broken.flatMap(({ units }) => units);
  const others = failedTasks(run).filter((task) => task.id !== "verdict" && !known.some((unit) => isTaskOf(run, task, unit)));
  const beyond = broken.some(({ units, count }) => count > units.length);
  return broken.reduce((all, { count }) => all + count, 0) + (beyond ? 0 : others.length);
}

export function showStages(made, run, parts) {
  const rows = made.status.stages.map((stage) => {
    if (stage.stage === "parse" || stage.stage === "load") return { ...stage, ...partitionCounts(made, run, stage.stage), of: parts.length || stage.of || null };
    const queued = stage.stage === "download";
    const running = queued ? stage.running : counted(run, stage.stage, RUNNING);
    const failed = queued ? stage.failed : counted(run, stage.stage, ["failed"]);
    return { ...stage, of: stage.of || stage.done || null, running, failed, tasks: !queued };
  });
  // A task of these stages processes many or all shards, so it does not count as one unit.
  const amount = (stage, number) => (number ? (stage.tasks ? quantity(number, "task") : count(number)) : "–");
  const line = (stage) => {
    const all = stage.of || 0;
    const unit = stage.tasks ? "tasks" : stage.unit;
    const pieces = all ? [["done", stage.done / all], ...(stage.tasks ? [] : [["running", Math.min(stage.running, all - stage.done) / all], ["failed", stage.failed / all]])] : [];
    const label = `${stage.done} of ${all} ${stage.unit} done, ${stage.running} ${unit} running, ${stage.failed} ${unit} failed`;
    return row(stage.stage, bar(pieces, label), el("span", {}, `${count(stage.done)} / ${all ? count(all) : "?"} `, el("span", { class: "soft what" }, stage.unit)), amount(stage, stage.running), stage.failed ? el("strong", { class: "bad" }, amount(stage, stage.failed)) : "–", stage.per_hour || "–", stage.left_s !== null ? duration(stage.left_s) : "–");
  };
  const lease = made.status.oldest_leases[0];
  draw(byId("stages"), [rows, lease], () => [
    table(["stage", "", "done", "running", "failed", "per hour", "left"], rows.map(line), "stages"),
    lease ? el("p", { class: lease.left_s < 0 ? "fine bad" : "fine" }, `Oldest lease: batch ${lease.batch}, attempt ${lease.attempts}, held for ${duration(lease.held_s)} by `, untrusted(lease.owner), lease.left_s < 0 ? `, silent for ${duration(-lease.left_s)} too long` : "") : null,
  ]);
}

const opened = new Set();

export function showFunnel(funnel) {
  const rows = [funnel.records, ...funnel.rows].filter(({ units }) => units);
  draw(byId("funnel"), [rows, funnel.problems], () => {
    if (!rows.length) return el("p", { class: "empty fine" }, "No stage has finished a unit yet.");
    const stages = rows.map((stage) => {
      const reasons = Object.entries(stage.dropped);
      const head = [el("span", { class: "name" }, stage.stage), bar([["done", stage.kept / stage.input], ["lost", 1 - stage.kept / stage.input]], `${share(stage.kept, stage.input)} kept`), el("span", { class: "number" }, compact(stage.kept), el("span", { class: "soft" }, ` of ${compact(stage.input)}`)), el("span", { class: "part" }, share(stage.kept, stage.input))];
      if (!reasons.length) return el("div", { class: "stage plain-stage" }, head);
      const details = el("details", { class: "stage", open: opened.has(stage.stage) }, el("summary", {}, head), el("ul", { class: "reasons" }, reasons.map(([name, number]) => reason(name, number, stage.input, funnel.meanings[stage.stage][name]))));
      details.addEventListener("toggle", () => (details.open ? opened.add(stage.stage) : opened.delete(stage.stage)));
      return details;
    });
    const notes = funnel.problems.map((text) => el("li", {}, text));
    return [...stages, el("p", { class: "fine" }, "Open a stage to see every reason. “records” counts WAT records on their way to pages, the others count links."), notes.length ? el("ul", { class: "fine notes" }, notes) : null];
  });
}

export function showFailures(made, run, openUnit) {
  const broken = stillBroken(made, run);
  const tasks = failedTasks(run).filter(({ id }) => id !== "verdict");
  draw(byId("failures"), [broken, tasks, run?.id, run?.state], () => {
    if (!broken.length && !tasks.length) return el("p", { class: "empty fine" }, "There are no failures now.");
    const causes = broken.map((cause) => row(el("span", {}, cause.stage, " ", el("span", { class: `chip ${cause.kind}` }, cause.kind)), el("span", { class: "cause" }, untrusted(cause.reason || "unknown cause; see the task's log")), whenAndWhere(cause, run), count(cause.count), units(cause, openUnit)));
    const lines = tasks.slice(0, 20).map((task) => el("li", {}, el("strong", {}, task.id.split(".").at(-1)), el("span", {}, untrusted(task.label ?? (task.index >= 0 ? `[${task.index}]` : ""))), el("span", { class: "fine" }, `try ${task.tries}`), airflowLink(taskPath(run, task), "log and task"), again(run, task)));
    return [
      causes.length ? el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Table of causes" }, table(["stage", "cause", "last seen", "count", "units"], causes, "causes")) : null,
      lines.length ? el("h3", {}, "Failed tasks of this run", el("small", {}, lines.length < tasks.length ? `${lines.length} of ${tasks.length}` : "")) : null,
      lines.length ? el("ul", { class: "tasks wide" }, lines) : null,
    ];
  });
}

// The time in the reader's time zone, and the run it happened in.
function whenAndWhere({ units: [latest] }, run) {
  const path = run && latest.run ? runPath({ dag: run.dag, id: latest.run }) : "";
  const name = latest.run === run?.id ? "this run" : latest.run;
  const parts = [el("time", { datetime: latest.at, title: latest.at }, moment(latest.at))];
  if (latest.run) parts.push(el("br"), path ? airflowLink(path, untrusted(name)) : untrusted(name));
  if (["running", "deferred", "queued", "scheduled", "restarting", "up_for_retry", null].includes(latest.state)) parts.push(el("br"), el("span", { class: "chip running" }, "tried again now"));
  return el("span", { class: "when" }, parts);
}

function units(cause, openUnit) {
  const buttons = cause.units.filter(({ unit }) => unit).map(({ unit }) => el("button", { type: "button", class: "plain unit", onclick: (event) => openUnit(unit, event.target) }, untrusted(unit)));
  if (cause.count > cause.units.length) buttons.push(el("span", { class: "soft" }, "…"));
  return el("span", { class: "units" }, buttons);
}

const money = (amount) => amount.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

const gigabytes = (bytes) => (bytes / 1e9).toLocaleString("en", { maximumFractionDigits: 2 });

// What the processes of the crawl used, and what that costs at the configured prices. The cost comes first: the last
// columns are out of sight on a phone until the table is scrolled.
function billTable(bill) {
  const most = Math.max(...bill.stages.map((one) => one.cost.total), Number.MIN_VALUE);
  const line = (one) => row(one.stage, bar([["done", one.cost.total / most]], share(one.cost.total, bill.cost.total)), money(one.cost.total), money(one.per_hour), count(one.running), hours(one.usage.pod_s), hours(one.usage.cpu_s), hours(one.usage.gpu_s), gigabytes(one.usage.web_bytes), count(one.usage.store_writes + one.usage.store_reads));
  const all = row(el("strong", {}, "total"), "", el("strong", {}, money(bill.cost.total)), el("strong", {}, money(bill.per_hour)), "", "", "", "", "", "");
  return el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Table of costs" }, table(["stage", "", "USD", "USD/h now", "running", "pod hours", "CPU hours", "GPU hours", "web GB", "store requests"], [...bill.stages.map(line), all], "hours bill"));
}

export function showHours(made, run) {
  const known = run ? Object.entries(TASKS).map(([stage, id]) => [stage, run.of(id).map((task) => task.duration).filter(Boolean)]).filter(([, took]) => took.length) : [];
  const sum = (took) => took.reduce((all, one) => all + one, 0);
  const total = sum(known.map(([, took]) => sum(took)));
  const most = Math.max(...known.map(([, took]) => sum(took)), 1);
  const line = ([stage, took]) => row(stage, bar([["done", sum(took) / most]], share(sum(took), total)), count(took.length), hours(sum(took)));
  const all = row(el("strong", {}, "total"), "", count(sum(known.map(([, took]) => took.length))), el("strong", {}, hours(total)));
  draw(byId("hours"), [known, made.download_hours, made.bill], () => [
    made.bill?.stages.length ? billTable(made.bill) : null,
    made.bill?.stages.length ? el("p", { class: "fine" }, `US dollars at LAION_ETL_PRICES_*: pods, store requests${made.bill.cost.nat ? ` and ${money(made.bill.cost.nat)} for a NAT gateway` : ""}. Processes report every minute; database, Airflow and storage are not included.`) : null,
    known.length ? table(["stage", "", "tasks", "task hours"], [...known.map(line), all], "hours") : null,
    el("p", { class: "fine" }, `Batches were held by download workers for ${hours(3600 * made.download_hours)} in all.`),
    el("p", { class: "fine" }, known.length ? "Task hours are those of the last try of each task in the run shown." : "Task hours are only shown with Airflow."),
  ]);
}
