// The states of a run's tasks, and clearing them, through Airflow's public REST API with the user's own session.
//
// Why here and not on the server from the metadata database: the REST API is Airflow's contract, its tables are
// not; it answers with what this user may see and do, and notes in its audit log who cleared what; and a page
// without Airflow is the same page. Reading a run of two thousand tasks takes some twenty requests, once: after
// that only what has changed is asked for. A foreign site can do none of it: the session's cookie is SameSite,
// and a JSON body is never sent across origins unasked.

import { AIRFLOW, embedded } from "./page.js";
import { el } from "./dom.js";

const PAGE = 100;
const MAX_PAGES = 80;
const MARGIN_S = 20;

const api = (dag) => `${AIRFLOW}api/v2/dags/${encodeURIComponent(dag)}`;

async function call(url, body) {
  const options = body
    ? { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }
    : {};
  const answer = await fetch(url, { credentials: "same-origin", ...options });
  const told = await answer.json().catch(() => ({}));
  if (answer.ok) return { told, at: answer.headers.get("Date") };
  throw new Error(refusal(answer.status, answer.statusText, told.detail));
}

const REFUSALS = {
  400: "Airflow cannot do this with the run as it is; reload the page and look at the run",
  401: "you are signed out of Airflow; sign in again, then reload the page",
  403: "you may not do this in Airflow; ask an administrator for the right to edit the DAG's runs",
  404: "Airflow does not know this run any more; reload the page",
  409: "tasks of this run are at work that would have to run again; wait until they have ended",
  422: "Airflow does not understand the request; dashboard and Airflow may be of versions that do not match",
};

// A sentence for every refusal: Airflow's own detail where it is one, and not just the name of the status.
function refusal(status, name, detail) {
  const own = typeof detail === "string" ? detail.trim() : "";
  const sentence = REFUSALS[status] ?? (status >= 500 ? `Airflow has an internal error (${status}); the log of its API server says which` : `Airflow answers ${status}`);
  return own.includes(" ") && own !== name && !/^(bad request|not found|internal server error)$/i.test(own) ? `${sentence} (${own})` : sentence;
}

// Runs in the order in which a page shows them: at work, then queued, then by when they really started (a
// backfill's run_after lies in the past, so it says nothing).
const RANK = { running: 0, queued: 1 };
const began = (run) => Date.parse(run.start_date ?? run.queued_at ?? "") || 0;
export const byInterest = (runs) =>
  [...new Map(runs.map((run) => [`${run.dag_id} ${run.dag_run_id}`, run])).values()].sort(
    (one, other) => (RANK[one.state] ?? 2) - (RANK[other.state] ?? 2) || began(other) - began(one),
  );

// The active runs and the latest others. Two questions: a long history would hide a run that is still queued.
async function runsOf(path) {
  const ask = async (filter) => (await call(`${AIRFLOW}api/v2/${path}order_by=-start_date&${filter}`)).told.dag_runs;
  const [active, latest] = await Promise.all([ask("state=running&state=queued&limit=100"), ask("limit=100")]);
  return byInterest([...active, ...latest]);
}

// The run that matters of every crawl's DAG, by the crawl.
export async function currentRuns() {
  const found = new Map();
  for (const run of await runsOf("dags/~/dagRuns?dag_id_prefix_pattern=crawl_&")) {
    const crawl = run.dag_id.replace(/^crawl_/, "");
    if (crawl !== run.dag_id && !found.has(crawl)) found.set(crawl, run);
  }
  return found;
}

export class Dag {
  constructor(crawl) {
    this.dag = `crawl_${crawl}`;
  }

  async runs() {
    return (await runsOf(`dags/${encodeURIComponent(this.dag)}/dagRuns?`)).slice(0, 40);
  }

  run(id) {
    return new Run(this.dag, id);
  }
}

export class Run {
  constructor(dag, id) {
    Object.assign(this, { dag, id, tasks: new Map(), partitions: null, since: "" });
  }

  get url() {
    return `${api(this.dag)}/dagRuns/${encodeURIComponent(this.id)}`;
  }

  // Reads what has changed since the last time; the first time, everything.
  async refresh() {
    this.state = (await call(this.url)).told.state;
    const since = this.since ? `&updated_at_gte=${encodeURIComponent(this.since)}` : "";
    let begun = "";
    for (let page = 0; page < MAX_PAGES; page++) {
      const { told, at } = await call(`${this.url}/taskInstances?order_by=id&limit=${PAGE}&offset=${page * PAGE}${since}`);
      begun ||= at ? new Date(Date.parse(at) - 1000 * MARGIN_S).toISOString() : "";
      told.task_instances.forEach((task) => this.#keep(task));
      if (told.task_instances.length < PAGE) break;
    }
    this.since = begun;
    if (this.partitions === null) await this.#readPartitions();
  }

  #keep(task) {
    const index = task.map_index;
    const known = this.tasks.get(task.task_id) ?? new Map();
    if (index >= 0) known.delete(-1); // it stood for all until they were mapped
    else if (known.size && !known.has(-1)) return;
    const { state, duration, try_number, start_date, rendered_map_index } = task;
    known.set(index, { id: task.task_id, index, state, duration: duration ?? 0, tries: try_number, started: start_date, label: rendered_map_index });
    this.tasks.set(task.task_id, known);
  }

  // Which partition a mapped task is about: what the task discover has returned, in this order.
  async #readPartitions() {
    if (this.task("discover")?.state !== "success") return;
    const { told } = await call(`${this.url}/taskInstances/discover/xcomEntries/return_value?deserialize=true`);
    const value = typeof told.value === "string" ? JSON.parse(told.value) : told.value;
    if (Array.isArray(value)) this.partitions = value.map(Number);
  }

  task(id, index = -1) {
    return this.tasks.get(id)?.get(index);
  }

  // The task that an alert names, such as partition.parse_3.
  named(name) {
    const [, id, index] = /^(.*)_(\d+)$/.exec(name) ?? [];
    return this.task(name) ?? (id ? this.task(id, Number(index)) : undefined);
  }

  of(id) {
    return [...(this.tasks.get(id)?.values() ?? [])].filter((task) => task.index >= 0 || task.state);
  }

  // parse and load of a partition, undefined where the run has none.
  ofPartition(number) {
    const index = this.partitions?.indexOf(number) ?? -1;
    return index < 0 ? [] : [this.task("partition.parse", index), this.task("partition.load", index)].filter(Boolean);
  }

  // What is to run again once a task has been mended: itself, and what everything after it makes of it. All of it
  // recognises finished work. (Airflow's "downstream, only failed" would leave a green plan as it is, and the
  // partition would be loaded and never downloaded.)
  #again(task) {
    const later = {
      "partition.parse": [["partition.load", task.index], "plan", "download", "group", "score"],
      "partition.load": ["plan", "download", "group", "score"],
      download: ["group", "score"],
      score: [],
    }[task.id] ?? [];
    return [task.index >= 0 ? [task.id, task.index] : task.id, ...later, "publish", "digest", "verdict"];
  }

  // Clears a task and what follows; with dryRun only says what that would be. Airflow refuses when one of them runs.
  async clear(task, dryRun) {
    const body = { dry_run: dryRun, dag_run_id: this.id, task_ids: this.#again(task), only_failed: false, prevent_running_task: true };
    return (await call(`${api(this.dag)}/clearTaskInstances`, body)).told.task_instances;
  }
}

export const runPath = (run) => `dags/${encodeURIComponent(run.dag)}/runs/${encodeURIComponent(run.id)}`;
export const taskPath = (run, task) =>
  `${runPath(run)}/tasks/${encodeURIComponent(task.id)}${task.index >= 0 ? `/mapped/${task.index}` : ""}`;

// A link to a page of Airflow. Its frame may not navigate the page around it, so that page's router is told.
export function airflowLink(path, text) {
  const href = `${AIRFLOW}${path}`;
  const link = el("a", { href, class: "out" }, text);
  link.addEventListener("click", (event) => {
    if (!embedded || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    window.parent.history.pushState(null, "", href);
    window.parent.dispatchEvent(new PopStateEvent("popstate", { state: null }));
  });
  return link;
}

