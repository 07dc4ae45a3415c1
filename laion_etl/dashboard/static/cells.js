// Partitions and batches as cells, combined from the document and a run of Airflow.

import { duration } from "./dom.js";

const BATCHES_PER_CRAWL = 1_000_000; // of a batch number, the digits before these are those of the crawl

// Kinds, worst first; a thousand batches are shown as their worst. half: the first of two steps is done.
export const KINDS = {
  failed: "failed",
  silent: "worker silent",
  retry: "to be tried again",
  running: "at work",
  waiting: "waiting",
  half: "half done",
  done: "done",
};

const PARTITION = { f: ["failed", "failed"], p: ["half", "parsed"], g: ["running", "being loaded"], l: ["done", "loaded"], b: ["done", "loaded, cut into batches"] };
const BATCH = {
  ".": ["waiting", "waiting"], r: ["running", "being downloaded"], x: ["silent", "its worker is silent"],
  f: ["failed", "failed"], d: ["half", "downloaded"], c: ["running", "being scored"], s: ["done", "scored"],
};

function* numbers(runs) {
  for (const [first, length] of runs) for (let number = first; number < first + length; number++) yield number;
}

export function partitionCells(grid, run) {
  const found = new Map();
  for (const number of run?.partitions ?? []) found.set(number, "");
  [...numbers(grid.numbers)].forEach((number, place) => found.set(number, grid.states[place]));
  const cells = [...found].map(([number, letter]) => partitionCell(number, letter, run?.ofPartition(number) ?? []));
  depths(cells);
  return cells.sort((one, other) => one.number - other.number);
}

function partitionCell(number, letter, tasks) {
  let [kind, text] = PARTITION[letter] ?? ["waiting", "waiting"];
  const having = (...states) => tasks.find((task) => states.includes(task.state));
  const stage = (task) => task.id.split(".").at(-1);
  let task = having("failed", "upstream_failed");
  if (task) [kind, text] = ["failed", `${stage(having("failed") ?? task)} failed`];
  else if (letter === "f" && tasks.length && tasks.every(({ state }) => state === "success")) [kind, text] = PARTITION.l;
  else if ((task = having("up_for_retry"))) [kind, text] = ["retry", `${stage(task)} is to be tried again`];
  else if ((task = having("running", "restarting", "deferred"))) [kind, text] = ["running", `${stage(task)} at work`];
  const seconds = tasks.reduce((sum, { duration: took }) => sum + took, 0);
  return { number, kind, text, seconds: kind === "done" && seconds ? seconds : null, depth: "-" };
}

const RUNNING = ["running", "restarting", "deferred"];
const DONE = { parse: "pglb", load: "lb" };

// Partitions of parse or load, each counted once by its current state: running, failed or done.
export function partitionCounts(made, run, stage) {
  const letters = new Map();
  [...numbers(made.partitions.numbers)].forEach((number, place) => letters.set(number, made.partitions.states[place]));
  const failed = new Set(numbers(made.failed[stage] ?? []));
  const failedBefore = new Set(stage === "load" ? numbers(made.failed.parse ?? []) : []);
  const counts = { done: 0, running: 0, failed: 0 };
  for (const number of new Set([...letters.keys(), ...(run?.partitions ?? [])])) {
    const state = run?.task(`partition.${stage}`, run.partitions?.indexOf(number) ?? -1)?.state;
    const letter = letters.get(number) ?? "";
    if (RUNNING.includes(state) || (!state && stage === "load" && letter === "g")) counts.running++;
    else if (state === "failed" || (state !== "success" && failed.has(number))) counts.failed++;
    else if (state === "success" || (DONE[stage].includes(letter) && letter && !failedBefore.has(number))) counts.done++;
    else if (letter === "f" && stage === "parse" && !failed.has(number)) counts.done++; // only its load has failed
  }
  return counts;
}

// The shade of a cell: five equal steps from the fastest to the slowest, without outliers.
function depths(cells) {
  const ordered = cells.map(({ seconds }) => seconds).filter(Boolean).sort((one, other) => one - other);
  if (!ordered.length) return;
  const [low, high] = [0.02, 0.98].map((part) => ordered[Math.min(ordered.length - 1, Math.floor(part * ordered.length))]);
  for (const cell of cells) {
    if (cell.seconds) cell.depth = high > low ? String(Math.max(0, Math.min(4, Math.floor((5 * (cell.seconds - low)) / (high - low))))) : "1";
  }
  cells.edges = [1, 2, 3, 4].map((step) => low + ((high - low) * step) / 5);
}

export function batchCells(grid) {
  const cells = [...numbers(grid.numbers)].map((number, place) => {
    const [kind, text] = BATCH[grid.states[place]] ?? BATCH["."];
    return { number, kind, text, depth: grid.depths[place] ?? "-" };
  });
  cells.edges = grid.edges;
  return cells;
}

// In a crawl with many batches a cell stands for a thousand of them, of which the dashboard only has counts. Downloads fill
// its lower half and scoring the upper one, as in the cell of a batch.
export function thousandCells(thousands) {
  return thousands.map(({ thousand, first, last, batches, done, failed, held, silent, scored }) => {
    const kinds = [["failed", failed], ["silent", silent], ["running", held]];
    const [kind, bad] = kinds.find(([, number]) => number) ?? [done < batches ? "waiting" : scored < batches ? "half" : "done", 0];
    const text = [`${done} of ${batches} downloaded`, scored && `${scored} scored`, bad && `${bad} ${KINDS[kind]}`].filter(Boolean).join(", ");
    return { number: first, last, thousand, kind, text, level: (done + scored) / (2 * batches), depth: "-" };
  });
}

export const tally = (cells) =>
  Object.keys(KINDS).map((kind) => [kind, cells.filter((cell) => cell.kind === kind).length]).filter(([, number]) => number);

// From the end of the fastest step to the start of the slowest; empty if both look the same.
export function edgeText(edges) {
  if (!edges?.length) return "";
  const [quick, slow] = [duration(edges[0]), duration(edges.at(-1))];
  return quick === slow ? "" : `${quick} … ${slow}`;
}
// What fits into a cell.
export const withinCrawl = (number) => number % BATCHES_PER_CRAWL;

export const range = ({ number, last }) => (last === undefined || last === number ? `${number}` : `${number}–${last}`);
