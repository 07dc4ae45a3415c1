// The side panel: the details of one partition or batch, and how to retry it.

import { airflowLink, taskPath } from "./airflow.js";
import { bar, byId, count, duration, el, untrusted, moment, quantity, share, words } from "./dom.js";
import { get } from "./page.js";
import { Grid } from "./grid.js";
import { batchCells, range } from "./cells.js";

const ORDER = [
  "parse", "load", "plan", "plan_range", "workers", "score_workers", "download", "shards", "score", "publish", "publish_hashes",
  "publish_compare", "publish_range", "publish_finish", "digest", "verdict",
];

const node = byId("panel");
let opener = null;
let turn = 0;

// Opens with a title and then shows the result of `fill`, unless another panel was opened in the meantime.
export async function openPanel(title, from, fill) {
  opener = from ?? opener;
  const mine = ++turn;
  const body = el("div", { class: "panel-body" }, el("p", { class: "fine" }, "reading …"));
  const close = el("button", { type: "button", class: "plain close", "aria-label": "Close", onclick: closePanel }, "✕");
  node.replaceChildren(el("div", { class: "panel-head" }, el("h2", { tabindex: "-1" }, title), close), body);
  node.hidden = false;
  node.querySelector("h2").focus();
  let parts;
  try {
    parts = await fill();
  } catch (error) {
    parts = [el("p", { class: "notice" }, String(error.message))];
  }
  if (mine === turn) body.replaceChildren(...parts.flat().filter(Boolean));
}

export function closePanel() {
  turn++;
  node.hidden = true;
  opener?.focus();
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !node.hidden) closePanel();
});

// Airflow may answer later than the store: the tasks, and with them the retry, are shown once `running` has the run.
export function openPartition(crawl, cell, from, running, troubles) {
  return openPanel(`Partition ${cell.number}`, from, async () => {
    const { document: content } = await get(`/api/crawl/${encodeURIComponent(crawl)}/partition/${cell.number}`);
    const mine = troubles.filter(({ unit }) => unit === `partition ${cell.number}` && cell.kind !== "done");
    const place = el("div");
    running.then((run) => place.replaceChildren(...tasks(run, run?.ofPartition(cell.number) ?? []).filter(Boolean)));
    return [state(cell), place, ...lastError(mine), ...unit(content, cell)];
  });
}

export function openBatch(crawl, cell, from) {
  return openPanel(`Batch ${cell.number}`, from, async () => {
    const { document: content } = await get(`/api/crawl/${encodeURIComponent(crawl)}/batch/${cell.number}`);
    return [state(cell), ...unit(content, cell)];
  });
}

export function openThousand(crawl, cell, from) {
  return openPanel(`Batches ${range(cell)}`, from, async () => {
    const { document: content } = await get(`/api/crawl/${encodeURIComponent(crawl)}/thousand/${cell.thousand}`);
    const place = el("div");
    new Grid(place, "batch", { half: "downloaded", done: "scored" }, (member, button) => openBatch(crawl, member, button)).show(batchCells(content), "They are gone: the crawl was forgotten.");
    return [el("p", { class: "fine" }, cell.text), place];
  });
}

const state = (cell) =>
  el("p", { class: "state" }, el("span", { class: `key cell k-${cell.kind}`, "data-depth": cell.depth }), el("strong", {}, cell.text), cell.seconds ? ` in ${duration(cell.seconds)}` : "");

function lastError(troubles) {
  if (!troubles.length) return [];
  const [last] = troubles;
  return [el("h3", {}, last.kind === "late" ? "Late" : "Last error"), el("pre", { class: "error" }, untrusted(last.reason)), el("p", { class: "fine" }, [last.stage, last.attempt && `try ${last.attempt}`, last.at && moment(last.at), last.run].filter(Boolean).join(" · "))];
}

function unit(content, cell) {
  const parts = content.stages.flatMap((stage) => [
    el("h3", {}, words(stage.stage), el("small", {}, `${count(stage.kept)} of ${count(stage.input)} kept, ${share(stage.kept, stage.input)}`)),
    el("ul", { class: "reasons" }, Object.entries(stage.dropped).sort(([, one], [, other]) => other - one).map(([name, number]) => reason(name, number, stage.input, stage.meanings[name]))),
  ]);
  if (!parts.length) parts.push(el("p", { class: "fine" }, "No stage has finished this unit yet."));
  if (content.facts.length) parts.push(el("h3", {}, "Facts"), el("dl", { class: "facts" }, content.facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, untrusted(typeof value === "number" ? count(value) : value))])));
  // A manual command alongside a running task would do the same work twice.
  if (cell.kind !== "running" && cell.kind !== "retry") parts.push(el("h3", {}, "By hand"), ...content.commands.map(byHand));
  return parts;
}

// A line ends between words and never within an option, where a browser would end it at a hyphen.
const byHand = (command) => el("pre", { class: "command" }, command.split(" ").flatMap((word) => [el("span", {}, word), " "]).slice(0, -1));

export const reason = (name, number, all, meaning) =>
  el("li", {}, el("span", { class: "reason", title: meaning || "" }, words(name)), bar([["lost", number / all]], `${share(number, all)}`), el("span", { class: "number" }, count(number)), el("span", { class: "part" }, share(number, all)));

// Airflow tasks: state, log and retry.
function tasks(run, found) {
  if (!found.length) return [];
  const rows = found.map((task) =>
    el("li", {}, el("span", {}, task.id.split(".").at(-1)), el("span", { class: `chip ${task.state ?? "waiting"}` }, words(task.state ?? "waiting")), el("span", { class: "fine" }, [task.tries > 1 && `try ${task.tries}`, task.duration && duration(task.duration)].filter(Boolean).join(", ")), airflowLink(taskPath(run, task), "log and task")),
  );
  const failed = found.find(({ state: now }) => now === "failed") ?? found.find(({ state: now }) => now === "upstream_failed");
  return [el("h3", {}, "Tasks"), el("ul", { class: "tasks" }, rows), failed ? again(run, failed) : null];
}

// First asks Airflow which tasks would be cleared and shows them; clears only after confirmation.
export function again(run, task) {
  const place = el("div", { class: "again" });
  const say = (text, kind = "fine") => el("p", { class: kind, role: "status" }, text);
  const first = el("button", { type: "button", class: "button", onclick: ask }, "Retry …");
  place.append(first);

  async function ask() {
    first.disabled = true;
    try {
      const affected = await run.clear(task, true);
      const found = new Set(affected.map(({ task_id: id }) => id.split(".").at(-1)));
      const names = ORDER.filter((name) => found.has(name)).join(", ");
      const sure = el("button", { type: "button", class: "button primary", onclick: go }, `Clear ${quantity(affected.length, "task")}`);
      const no = el("button", { type: "button", class: "button", onclick: () => place.replaceChildren(first) }, "Cancel");
      place.replaceChildren(say(`Runs again: ${names}. Finished work is recognised and skipped.`), el("p", {}, sure, " ", no));
      sure.focus();
    } catch (error) {
      refused(error);
    }
    first.disabled = false;
  }

  async function go(event) {
    event.target.disabled = true;
    try {
      const cleared = await run.clear(task, false);
      place.replaceChildren(say(`Cleared: ${quantity(cleared.length, "task")}, to be run again.`));
    } catch (error) {
      refused(error);
    }
  }

  function refused(error) {
    place.replaceChildren(say(`${error.message}.`, "notice"), say("While later tasks run, wait for them, or clear the task on its own page."), first);
  }

  return place;
}
