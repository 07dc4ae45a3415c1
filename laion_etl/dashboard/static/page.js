// Code shared by all pages: polling of documents, the theme, and notices.

import { byId, count, duration, el, quantity } from "./dom.js";

export const BASE = document.body.dataset.base;
export const AIRFLOW = document.body.dataset.airflow;
export const embedded = window.parent !== window;

const FASTEST_S = 4;
const SLOWEST_S = 60;
const CALM_S = 20;

const ADVICE = {
  database: "Postgres does not answer; numbers of the queue are missing.",
  store: "The store does not answer; funnel and units are missing.",
  schema: "Postgres does not have the tables yet: the first load creates them, or laion-etl db migrate.",
  settings: "A setting is invalid.",
  stats: "A stats file cannot be read and is left out.",
  session: "You are signed out. Sign in to Airflow again, then reload this page.",
  access: "You may not read this crawl's DAG.",
  server: "The dashboard does not answer; retrying. Its log has the cause.",
};

// Polls a document until the page is closed: often after a change, less often while nothing changes, with
// back-off while it fails, and not while the page is hidden.
export function follow(path, show, { once = false } = {}) {
  let etag = "";
  let wait = FASTEST_S;
  let seen = 0;
  let timer = 0;
  let asking = false;

  async function ask() {
    const answer = await fetch(`${BASE}${path}`, { headers: etag ? { "If-None-Match": etag } : {}, credentials: "same-origin" });
    if (answer.status === 202) {
      reading((await answer.json()).reading);
      return 0.5;
    }
    if (answer.status === 401 || answer.status === 403) {
      notices([{ what: answer.status === 401 ? "session" : "access", message: "" }]);
      byId("wait").hidden = true;
      return null;
    }
    if (!answer.ok && answer.status !== 304) throw new Error((await problem(answer)) || noAnswer(answer.status));
    seen = Date.now() - 1000 * Number(answer.headers.get("X-Age") ?? 0);
    if (answer.status === 304) {
      wait = Math.min(CALM_S, wait * 1.3);
    } else {
      etag = answer.headers.get("ETag") ?? "";
      const made = await answer.json();
      notices(made.problems ?? []);
      show(made);
      byId("main").classList.remove("waiting");
      wait = FASTEST_S;
    }
    return once ? null : wait;
  }

  async function turn() {
    if (document.hidden || asking) return;
    clearTimeout(timer);
    asking = true;
    let next;
    try {
      next = await ask();
    } catch (error) {
      notices([{ what: "server", message: error.message }]);
      wait = next = Math.min(SLOWEST_S, wait * 2);
    }
    asking = false;
    if (next !== null) timer = setTimeout(turn, 1000 * next);
  }

  if (!once) {
    document.addEventListener("visibilitychange", turn);
    setInterval(() => seen && fresh(seen), 1000);
  }
  turn();
}

export async function get(path) {
  const answer = await fetch(`${BASE}${path}`, { credentials: "same-origin" });
  if (answer.status === 401) throw new Error(ADVICE.session);
  if (!answer.ok) throw new Error((await problem(answer)) || noAnswer(answer.status));
  return { status: answer.status, document: await answer.json() };
}

const noAnswer = (status) =>
  status >= 500 ? `the dashboard has an internal error (${status}); see the log of Airflow's API server` : `this page asked for something that is not there (${status}); reload it`;

async function problem(answer) {
  try {
    const content = await answer.json();
    const found = [content.problem, content.detail].find((text) => typeof text === "string");
    return found ?? "";
  } catch {
    return "";
  }
}

function fresh(seen) {
  const age = Math.max(0, (Date.now() - seen) / 1000);
  const node = byId("fresh");
  const text = age < 45 ? "live" : `as of ${duration(age)} ago`;
  if (node.textContent !== text) node.textContent = text;
  node.classList.toggle("stale", age >= 90);
}

function reading({ read, of }) {
  if (of) byId("wait").textContent = `reading ${count(read)} of ${quantity(of, "stats file")}; later only new ones`;
}

function notices(problems) {
  const key = JSON.stringify(problems);
  const node = byId("notices");
  if (node.dataset.shown === key) return;
  node.dataset.shown = key;
  node.replaceChildren(
    ...problems.map(({ what, message }) =>
      el("div", { class: "notice", role: "alert" }, el("strong", {}, ADVICE[what] ?? "Something is wrong."), message && el("p", { class: "fine" }, message)),
    ),
  );
}

// Theme: that of the parent page or the system, until the user chooses one.

const CHOICES = ["auto", "light", "dark"];

function around() {
  try {
    const classes = embedded ? window.parent.document.documentElement.classList : null;
    if (classes?.contains("dark")) return "dark";
    if (classes?.contains("light")) return "light";
  } catch {
    // A frame of another origin keeps its theme to itself.
  }
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

function themed() {
  const choice = localStorage.getItem("laion-theme") ?? "auto";
  document.documentElement.dataset.theme = choice === "auto" ? around() : choice;
  byId("theme").textContent = { auto: "◐ auto", light: "☀ light", dark: "☾ dark" }[choice];
}

function theming() {
  themed();
  byId("theme").addEventListener("click", () => {
    const choice = localStorage.getItem("laion-theme") ?? "auto";
    localStorage.setItem("laion-theme", CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length]);
    themed();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", themed);
  try {
    if (embedded) new MutationObserver(themed).observe(window.parent.document.documentElement, { attributeFilter: ["class"] });
  } catch {
    // As above.
  }
}

theming();
