// The page: its URL holds the query, so that back, reload and sharing work.

import * as filters from "./filters.js";
import { quantity } from "./quantities.js";
import { moveFocus, openResult, resultAt, showResults, stepDetails } from "./results.js";

const PAGE = 48;
const byId = (id) => document.getElementById(id);
const form = byId("search");
let maxBytes = 0;
let maxCount = 240;
let waiting = null;

async function start() {
  listen();
  try {
    const facts = await ask("api/facts");
    maxBytes = facts.max_bytes;
    maxCount = facts.max_results;
    byId("name").textContent = facts.dataset;
    document.title = `${facts.dataset}: explore`;
    byId("facts").textContent = `${facts.version} · ${quantity(facts.rows, "image")} · ${facts.model}`;
    filters.offer(facts);
    await run();
  } catch (error) {
    say(error.message, true);
  }
}

// Opens another query and adds it to the history.
function go(query) {
  const problem = filters.problem();
  if (problem) {
    say(problem, true);
    return Promise.resolve();
  }
  const parameters = new URLSearchParams(query);
  for (const [name, value] of filters.chosen()) parameters.set(name, value);
  history.pushState(null, "", parameters.size ? `?${parameters}` : "./");
  return run();
}

// Searches for the query in the URL.
async function run() {
  const parameters = new URLSearchParams(location.search);
  filters.show(parameters);
  byId("q").value = parameters.get("q") ?? "";
  showGiven(parameters);
  const count = Math.min(Number(parameters.get("count")) || PAGE, maxCount);
  parameters.set("count", count);
  waiting?.abort();
  const mine = (waiting = new AbortController());
  document.body.classList.add("busy");
  try {
    const { results } = await ask(`api/search?${parameters}`, { signal: mine.signal });
    showResults(results);
    say(summary(results.length, parameters));
    byId("more").hidden = results.length < count || count >= maxCount;
  } catch (error) {
    if (error.name === "AbortError") return;
    showResults([]);
    byId("more").hidden = true;
    say(error.message, true);
  }
  if (mine === waiting) document.body.classList.remove("busy");
}

function summary(count, parameters) {
  if (!count) return "Nothing passes these filters.";
  const what = quantity(count, "image");
  const asked = ["q", "image", "like"].some((name) => parameters.get(name));
  if (count >= maxCount) return `The ${asked ? "nearest" : "first"} ${what}: the page shows no more. Other words or filters find others.`;
  return asked ? `${what}, nearest first` : `${what} from the whole dataset. Search, or open one to find similar images.`;
}

function showGiven(parameters) {
  const image = parameters.get("image");
  const like = parameters.get("like");
  byId("given").hidden = !image && !like;
  if (image) byId("given-image").src = `query/${encodeURIComponent(image)}`;
  const unsafe = parameters.get("unsafe") === "true";
  if (like) byId("given-image").src = `thumbnail/${encodeURIComponent(like)}${unsafe ? "?unsafe=true" : ""}`;
  byId("given-image").classList.toggle("veiled", Boolean(like) && unsafe);
  byId("given-name").textContent = like ? `like ${like}` : "your image";
}

async function searchByImage(file) {
  if (!file) return;
  if (file.size > maxBytes) {
    say(`${file.name} is too large: at most ${(maxBytes / 1e6).toFixed(0)} MB`, true);
    return;
  }
  document.body.classList.add("busy");
  try {
    const { image } = await ask("api/image", { method: "POST", body: file });
    await go({ image });
  } catch (error) {
    document.body.classList.remove("busy");
    say(error.message, true);
  }
}

async function ask(address, options) {
  const response = await fetch(address, options);
  const isJson = response.headers.get("content-type")?.startsWith("application/json");
  const answer = isJson ? await response.json() : { error: await response.text() };
  if (response.ok) return answer;
  const first = Array.isArray(answer.detail) ? answer.detail[0] : null;
  throw new Error(answer.error ?? (first ? `${first.loc.at(-1)}: ${first.msg}` : response.statusText));
}

function say(text, isError = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("error", isError);
}

function moreLike(result) {
  byId("details").close();
  window.scrollTo(0, 0);
  return go({ like: result.id });
}

// What is searched for now, without the filters.
function query() {
  const parameters = new URLSearchParams(location.search);
  const kept = ["q", "image", "like"].filter((name) => parameters.get(name));
  return Object.fromEntries(kept.map((name) => [name, parameters.get(name)]));
}

function listen() {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const q = byId("q").value.trim();
    const { image, like } = query();
    go(q ? { q } : image ? { image } : like ? { like } : {});
  });
  byId("filters").addEventListener("change", () => go(query()));
  byId("filters-clear").addEventListener("click", () => {
    filters.clear();
    go(query());
  });
  byId("given-clear").addEventListener("click", () => go({}));
  byId("file").addEventListener("change", (event) => {
    searchByImage(event.target.files[0]);
    event.target.value = "";
  });
  byId("more").addEventListener("click", () => {
    const count = Number(new URLSearchParams(location.search).get("count")) || PAGE;
    go({ ...query(), count: Math.min(count + PAGE, maxCount) });
  });
  byId("details-like").addEventListener("click", () => moreLike(openResult()));
  byId("details-close").addEventListener("click", () => byId("details").close());
  byId("details").addEventListener("click", (event) => {
    if (event.target === byId("details")) byId("details").close();
  });
  window.addEventListener("popstate", run);
  listenToImages();
  document.addEventListener("keydown", onKey);
}

function listenToImages() {
  document.addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
    if (file) searchByImage(file);
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    byId("drop").hidden = !event.dataTransfer.types.includes("Files");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) byId("drop").hidden = true;
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    byId("drop").hidden = true;
    searchByImage(event.dataTransfer.files[0]);
  });
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input, select, textarea");
  if (openResult()) {
    if (event.key === "ArrowRight") stepDetails(1);
    else if (event.key === "ArrowLeft") stepDetails(-1);
    else if (event.key === "m") moreLike(openResult());
    return;
  }
  if (typing) {
    if (event.key === "ArrowDown" && event.target === byId("q") && moveFocus("ArrowDown")) event.preventDefault();
    return;
  }
  if (event.key === "/") byId("q").focus();
  else if (event.key === "m" && resultAt(event.target)) moreLike(resultAt(event.target));
  else if (event.key.startsWith("Arrow") && moveFocus(event.key)) event.preventDefault();
  else return;
  event.preventDefault();
}

start();
