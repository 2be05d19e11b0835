// The dashboard: which view is shown, when to ask the API again, and what the buttons do.

import { Problem, Unreachable, forget, poll, send } from "./api.js";
import { copy, fill, h, setText } from "./dom.js";
import { plural } from "./format.js";
import { Detail } from "./detail.js";
import { refreshAges } from "./parts.js";
import { TABS, Table, matches } from "./table.js";

const JOBS = "/jobs?limit=200";
const POLL_MS = 2000; // people look no faster, and a worker reports no oftener
const WORKERS_MS = 10000;
const MOST_EVENTS = 200; // more than anybody reads
const $ = (id) => document.getElementById(id);

const state = {
  jobs: [],
  workers: null,
  session: null, // who the service takes us for
  loaded: false,
  tab: "all",
  text: "",
  selected: null, // the number or uuid in the address
  version: null, // of the job whose events are shown
};

const table = new Table($("rows"));
const detail = new Detail($("detail"), { act, say });

// --- Asking the API --------------------------------------------------------------------------

let timer = 0;
let workersDue = 0;
let asking = false;

/** Ask for everything that is on the screen, then again after a while, unless nobody looks. */
async function refresh() {
  clearTimeout(timer);
  if (asking) return;
  asking = true;
  try {
    await refreshSession();
    const answer = await poll(JOBS);
    if (answer) state.jobs = answer.jobs;
    state.loaded = true;
    await refreshDetail();
    await refreshWorkers();
    connected();
    showPage();
  } catch (error) {
    failed(error);
  } finally {
    asking = false;
    refreshAges();
    if (!document.hidden && $("login").hidden) timer = setTimeout(refresh, POLL_MS);
  }
}

async function refreshSession() {
  if (state.session) return;
  forget("/session");
  state.session = await poll("/session");
  detail.mayChange = ["jobs:write", "admin"].some((one) => state.session.scopes.includes(one));
  $("sign-out").hidden = !state.session.loginNeeded;
}

async function refreshDetail() {
  const reference = state.selected;
  if (reference === null) return;
  const path = `/jobs/${encodeURIComponent(reference)}`;
  let job;
  try {
    job = await poll(path);
  } catch (error) {
    if (!(error instanceof Problem) || ![400, 404, 422].includes(error.status)) throw error;
    detail.missing(reference);
    return;
  }
  if (reference !== state.selected || job === null) return;
  let events = null;
  if (state.version !== job.version) {
    events = await readEvents(path);
    if (reference !== state.selected) return;
    state.version = job.version;
  }
  detail.show(job, events);
}

/** The events of a job from its first one on; a page of large ones has few. */
async function readEvents(path) {
  const events = [];
  for (let after = 0; after !== null && events.length < MOST_EVENTS;) {
    const page = await send("GET", `${path}/events?after=${after}`);
    events.push(...page.events);
    after = page.nextAfter;
  }
  return events;
}

async function refreshWorkers() {
  if (Date.now() < workersDue) return;
  workersDue = Date.now() + WORKERS_MS;
  try {
    const answer = await poll("/workers");
    if (answer) state.workers = answer.workers ?? answer;
  } catch (error) {
    // A key without the right to see workers still shows jobs.
    if (!(error instanceof Problem) || error.status === 401) throw error;
    state.workers = null;
  }
}

function connected() {
  $("banner").hidden = true;
  document.body.dataset.connection = "live";
}

function failed(error) {
  if (error instanceof Problem && error.status === 401) {
    showLogin();
    return;
  }
  document.body.dataset.connection = "lost";
  setText($("banner"), error instanceof Unreachable
    ? "The connection to the server is lost. What you see is as it was; trying again."
    : `The server has a problem: ${error.message} Trying again.`);
  $("banner").hidden = false;
  showPage();
}

// --- Showing ---------------------------------------------------------------------------------

function showPage() {
  $("login").hidden = true;
  $("page").hidden = false;
  const jobs = state.jobs.filter((job) => matches(job, state.text));
  const tab = TABS.find((one) => one.key === state.tab);
  const shown = jobs.filter(tab.has);
  table.show(shown, state.selected);
  showTabs(jobs);
  showHealth();
  $("table").hidden = shown.length === 0;
  $("empty").hidden = shown.length !== 0;
  if (shown.length === 0) showEmpty();
}

const tabs = new Map(TABS.map(({ key, label }) => {
  const count = h("span", { class: "count" });
  const button = h("button", { type: "button", onclick: () => choose(key) }, label, count);
  $("tabs").append(button);
  return [key, { button, count }];
}));

function choose(key) {
  state.tab = key;
  showPage();
}

function showTabs(jobs) {
  for (const { key, has } of TABS) {
    const { button, count } = tabs.get(key);
    button.setAttribute("aria-pressed", String(key === state.tab));
    setText(count, jobs.filter(has).length || "");
  }
}

function showHealth() {
  if (document.body.dataset.connection === "lost") {
    setText($("health"), "Not connected");
    return;
  }
  const workers = state.workers;
  if (!Array.isArray(workers)) {
    setText($("health"), "Live");
    return;
  }
  const sum = (field) => workers.reduce((total, worker) => total + worker[field], 0);
  const waiting = state.jobs.some((job) => job.status === "queued");
  const idle = workers.length === 0 && waiting;
  $("health").toggleAttribute("data-idle", idle);
  setText($("health"), idle
    ? "No worker is running: jobs wait"
    : workers.length
      ? `${plural(workers.length, "worker")} · ${sum("busy")} of ${sum("capacity")} busy` : "Live");
}

let emptyFor = null;

function showEmpty() {
  const why = !state.loaded ? "loading" : state.jobs.length ? "filtered" : "none";
  if (why === emptyFor && $("empty").hasChildNodes()) return;
  emptyFor = why;
  if (why === "loading") fill($("empty"));
  else if (why === "filtered") {
    fill($("empty"), h("h2", {}, "No job matches"),
      h("p", {}, `The filter looks at the latest ${plural(state.jobs.length, "job")}.`),
      h("button", { type: "button", onclick: clearFilter }, "Clear the filter"));
  } else fill($("empty"), ...firstJob());
}

function clearFilter() {
  state.tab = "all";
  state.text = $("search").value = "";
  showPage();
}

function firstJob() {
  const key = state.session?.loginNeeded ? '  -H "Authorization: Bearer $ENCODER_API_KEY" \\\n' : "";
  const command = `curl ${location.origin}/jobs \\
${key}  -H "Content-Type: application/json" \\
  -d '{
    "source": {"kind": "https", "url": "https://example.com/video.mp4"},
    "outputs": [{
      "container": "mp4", "videoCodec": "libx264", "videoBitrate": "2500k",
      "audioCodec": "aac", "width": 1280, "height": 720,
      "destination": {"kind": "https", "url": "https://example.com/upload/720p.mp4"}
    }],
    "notificationUrl": "https://example.com/webhook"
  }'`;
  const onclick = async () => {
    await copy(command);
    say("The command is in the clipboard.");
  };
  return [
    h("h2", {}, "No jobs yet"),
    h("p", {}, "Send one request; the job appears here at once."),
    h("div", { class: "code" },
      h("button", { class: "quiet", type: "button", onclick }, "Copy"),
      h("pre", {}, command)),
    h("p", {}, h("a", { href: "/docs" }, "What a request may say")),
  ];
}

let toastTimer = 0;

function say(text) {
  setText($("toast"), text);
  $("toast").hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { $("toast").hidden = true; }, 5000);
}

// --- The address says what is open -----------------------------------------------------------

function route() {
  const match = /^#\/jobs\/([0-9A-Za-z-]{1,64})$/.exec(window.location.hash);
  const selected = match ? match[1] : null;
  if (selected === state.selected && selected !== null) return;
  const before = state.selected;
  state.selected = selected;
  state.version = null;
  document.body.toggleAttribute("data-detail", selected !== null);
  $("detail").hidden = selected === null;
  if (selected === null) {
    fill($("detail"));
    document.title = "Encoder";
    // Back to where the keyboard was.
    document.querySelector(`a[href="#/jobs/${before}"]`)?.focus({ preventScroll: true });
  } else {
    forget(`/jobs/${selected}`);
    detail.loading(selected);
    document.title = `Job ${selected} · Encoder`;
  }
  if (state.loaded) {
    showPage();
    refresh();
  }
}

function move(step) {
  const links = [...document.querySelectorAll("#rows .c-id a")];
  const at = links.findIndex((link) => link.hasAttribute("aria-current"));
  const next = links[at === -1 ? 0 : at + step];
  if (!next) return;
  next.click();
  next.focus();
}

addEventListener("hashchange", route);
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("ask").open) return;
  const typing = event.target.closest("input, textarea, select");
  if (event.key === "Escape") {
    if (typing) event.target.blur();
    else if (state.selected !== null) window.location.hash = "#/";
  } else if (!typing && !$("page").hidden) {
    const keys = { "/": () => $("search").focus(), j: () => move(1), k: () => move(-1) };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  }
});
$("search").addEventListener("input", (event) => {
  state.text = event.target.value.trim();
  showPage();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refresh();
});
addEventListener("online", refresh);

// --- Doing -----------------------------------------------------------------------------------

const ACTIONS = {
  cancel: {
    title: (job) => `Cancel job ${job.id}?`,
    text: "Its worker stops. Outputs that are uploaded already stay where they are.",
    yes: "Cancel the job",
    done: (job) => `Job ${job.id} is being canceled.`,
    run: (job) => send("POST", `/jobs/${job.id}/cancel`),
  },
  retry: {
    title: (job) => `Retry job ${job.id}?`,
    text: "Only the outputs that are not uploaded yet are made again.",
    yes: "Retry",
    done: (job) => `Job ${job.id} is queued again.`,
    run: (job) => send("POST", `/jobs/${job.id}/retry`, {}),
  },
  delete: {
    title: (job) => `Delete job ${job.id}?`,
    text: "The job, its outputs' records and its history are gone for good; if it runs, it is "
      + "stopped. Files that were delivered stay where they are.",
    yes: "Delete for good",
    done: (job) => `Job ${job.id} is deleted.`,
    run: (job) => send("DELETE", `/jobs/${job.id}`),
  },
};

async function act(name, job) {
  const action = ACTIONS[name];
  if (!(await confirmed(action, job))) return;
  try {
    await action.run(job);
    say(action.done(job));
    if (name === "delete") window.location.hash = "#/";
  } catch (error) {
    if (error instanceof Problem && error.status === 401) showLogin();
    else say(error instanceof Problem ? error.message : "The server could not be reached.");
  }
  state.version = null;
  refresh();
}

function confirmed({ title, text, yes }, job) {
  const ask = $("ask");
  setText($("ask-title"), title(job));
  setText($("ask-text"), text);
  setText($("ask-yes"), yes);
  ask.returnValue = "no";
  ask.showModal();
  return new Promise((resolve) => {
    ask.addEventListener("close", () => resolve(ask.returnValue === "yes"), { once: true });
  });
}

// --- Signing in ------------------------------------------------------------------------------

function showLogin() {
  clearTimeout(timer);
  $("page").hidden = true;
  $("login").hidden = false;
  $("sign-out").hidden = true;
  $("banner").hidden = true;
  setText($("health"), "");
  state.session = null;
  $("key").focus();
}

$("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await send("POST", "/session", { key: $("key").value.trim() });
  } catch (error) {
    setText($("login-error"), error instanceof Problem && error.status === 401
      ? "This key is not known, or it was revoked."
      : error instanceof Problem ? error.message : "The server could not be reached.");
    $("login-error").hidden = false;
    $("key").select();
    return;
  }
  $("key").value = "";
  $("login-error").hidden = true;
  $("login").hidden = true;
  forget(JOBS);
  refresh();
});

$("sign-out").addEventListener("click", async () => {
  try {
    await send("DELETE", "/session");
  } catch (error) {
    if (!(error instanceof Problem)) {
      say("The server could not be reached.");
      return;
    }
  }
  state.jobs = [];
  state.loaded = false;
  window.location.hash = "#/";
  showLogin();
});

route();
refresh();
