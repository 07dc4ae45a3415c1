// The states of a run's tasks, and clearing them, through Airflow's public REST API with the user's own session.
//
// This runs in the browser and does not read the metadata database on the server, because the REST API is
// Airflow's contract and its tables are not; it returns what this user may see and do, and its audit log records
// who cleared what; and the page is the same without Airflow. Reading a run of two thousand tasks takes about
// twenty requests, once: later only changes are requested. Other sites cannot do this: the session's cookie is
// SameSite, and browsers send no JSON body across origins without a preflight.

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
  const content = await answer.json().catch(() => ({}));
  if (answer.ok) return { content, at: answer.headers.get("Date") };
  throw new Error(refusal(answer.status, answer.statusText, content.detail));
}

const REFUSALS = {
  400: "Airflow cannot do this with the run as it is; reload the page and look at the run",
  401: "you are signed out of Airflow; sign in again, then reload the page",
  403: "you may not do this in Airflow; ask an administrator for the right to edit the DAG's runs",
  404: "Airflow does not know this run any more; reload the page",
  409: "tasks of this run that would have to run again are still running; wait until they have ended",
  422: "Airflow does not understand the request; the versions of dashboard and Airflow may not match",
};

// A sentence for every refusal, with Airflow's own detail unless it is just the name of the status.
function refusal(status, name, detail) {
  const own = typeof detail === "string" ? detail.trim() : "";
  const sentence = REFUSALS[status] ?? (status >= 500 ? `Airflow has an internal error (${status}); see the log of its API server` : `Airflow answers ${status}`);
  return own.includes(" ") && own !== name && !/^(bad request|not found|internal server error)$/i.test(own) ? `${sentence} (${own})` : sentence;
}

// Runs in display order: running, then queued, then by actual start (a backfill's run_after is in the past and
// cannot be used).
const RANK = { running: 0, queued: 1 };
const began = (run) => Date.parse(run.start_date ?? run.queued_at ?? "") || 0;
export const byInterest = (runs) =>
  [...new Map(runs.map((run) => [`${run.dag_id} ${run.dag_run_id}`, run])).values()].sort(
    (one, other) => (RANK[one.state] ?? 2) - (RANK[other.state] ?? 2) || began(other) - began(one),
  );

// The active runs and the latest others, in two requests: a long history would hide a run that is still queued.
async function runsOf(path) {
  const ask = async (filter) => (await call(`${AIRFLOW}api/v2/${path}order_by=-start_date&${filter}`)).content.dag_runs;
  const [active, latest] = await Promise.all([ask("state=running&state=queued&limit=100"), ask("limit=100")]);
  return byInterest([...active, ...latest]);
}

// The first run, in display order, of every crawl's DAG, by crawl.
export async function currentRuns() {
  const found = new Map();
  for (const run of await runsOf("dags/~/dagRuns?dag_id_prefix_pattern=crawl_&")) {
    const crawl = run.dag_id.replace(/^crawl_/, "");
    if (crawl !== run.dag_id && !found.has(crawl)) found.set(crawl, run);
  }
  return found;
}

// The tasks that publish a crawl, in their order; a DAG has publish_hashes and publish_compare only where it
// looks for duplicates.
const PUBLISHING = ["publish", "publish_hashes", "publish_compare", "publish_range", "publish_finish"];

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

  // Reads the changes since the last call; the first call reads everything.
  async refresh() {
    this.state = (await call(this.url)).content.state;
    const since = this.since ? `&updated_at_gte=${encodeURIComponent(this.since)}` : "";
    let begun = "";
    for (let page = 0; page < MAX_PAGES; page++) {
      const { content, at } = await call(`${this.url}/taskInstances?order_by=id&limit=${PAGE}&offset=${page * PAGE}${since}`);
      begun ||= at ? new Date(Date.parse(at) - 1000 * MARGIN_S).toISOString() : "";
      content.task_instances.forEach((task) => this.#keep(task));
      if (content.task_instances.length < PAGE) break;
    }
    this.since = begun;
    if (this.partitions === null) await this.#readPartitions();
  }

  #keep(task) {
    const index = task.map_index;
    const known = this.tasks.get(task.task_id) ?? new Map();
    if (index >= 0) known.delete(-1); // the unmapped task stood for all until they were mapped
    else if (known.size && !known.has(-1)) return;
    const { state, duration, try_number, start_date, rendered_map_index } = task;
    known.set(index, { id: task.task_id, index, state, duration: duration ?? 0, tries: try_number, started: start_date, label: rendered_map_index });
    this.tasks.set(task.task_id, known);
  }

  // The partitions of mapped tasks: the return value of the discover task, in the same order.
  async #readPartitions() {
    if (this.task("discover")?.state !== "success") return;
    const { content } = await call(`${this.url}/taskInstances/discover/xcomEntries/return_value?deserialize=true`);
    const value = typeof content.value === "string" ? JSON.parse(content.value) : content.value;
    if (Array.isArray(value)) this.partitions = value.map(Number);
  }

  task(id, index = -1) {
    return this.tasks.get(id)?.get(index);
  }

  // The task named in an alert, such as partition.parse_3.
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

  // What must run again once a task's cause is fixed: the task and everything that depends on its result. All of
  // these recognise finished work. (Airflow's "downstream, only failed" would leave a successful plan as it is,
  // and the partition would be loaded and never downloaded.)
  #again(task) {
    const afterLoad = ["plan", "plan_range", "workers", "score_workers", "download", "shards", "score"];
    const later = {
      "partition.parse": [["partition.load", task.index], ...afterLoad],
      "partition.load": afterLoad,
      plan_range: ["workers", "score_workers", "download", "shards", "score"],
      download: this.#scoring ? ["shards"] : ["shards", "score"], // score workers at work wait for what is downloaded
      score: [],
    }[task.id] ?? [];
    const publishing = PUBLISHING.slice(PUBLISHING.indexOf(task.id) + 1).filter((id) => this.tasks.has(id));
    return [task.index >= 0 ? [task.id, task.index] : task.id, ...later, ...publishing, "digest", "verdict"];
  }

  get #scoring() {
    return [...(this.tasks.get("score")?.values() ?? [])].some(({ state }) => ["running", "restarting", "deferred"].includes(state));
  }

  // Clears a task and those after it; with dryRun only returns them. Airflow refuses while one of them is running.
  async clear(task, dryRun) {
    const body = { dry_run: dryRun, dag_run_id: this.id, task_ids: this.#again(task), only_failed: false, prevent_running_task: true };
    return (await call(`${api(this.dag)}/clearTaskInstances`, body)).content.task_instances;
  }
}

export const runPath = (run) => `dags/${encodeURIComponent(run.dag)}/runs/${encodeURIComponent(run.id)}`;
export const taskPath = (run, task) =>
  `${runPath(run)}/tasks/${encodeURIComponent(task.id)}${task.index >= 0 ? `/mapped/${task.index}` : ""}`;

// A link to a page of Airflow. The frame may not navigate its parent page, so it asks the parent's router.
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

