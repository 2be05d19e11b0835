// One job on its own: what was asked for, what became of it, and what can be done about it.

import { now } from "./api.js";
import {
  between, bitrate, bytes, location, measured, moment, plural, runtime, span, wanted,
} from "./format.js";
import { copy, fill, h, linkTo } from "./dom.js";
import { FINAL, Meter, ago, statusChip } from "./parts.js";

export class Detail {
  /** `act(name, job)` carries out cancel, retry or delete; `say(text)` tells the user. */
  constructor(element, { act, say }) {
    this.element = element;
    this.act = act;
    this.say = say;
    this.mayChange = true;
    this.job = null;
    this.events = null;
    this.meter = new Meter();
    this.sections = new Map();
    this.frame = h("div", { class: "frame" });
  }

  loading(reference) {
    this.job = this.events = null;
    this.sections.clear();
    fill(this.element, h("div", { class: "frame" }, this.head(`Job ${reference}`),
      h("p", { class: "hush" }, "Loading …")));
  }

  missing(reference) {
    this.job = this.events = null;
    this.sections.clear();
    fill(this.element, h("div", { class: "frame" }, this.head(`Job ${reference}`),
      h("p", { class: "hush" }, "There is no such job. It may have been deleted, or have gone with ",
        "the retention time.")));
  }

  show(job, events) {
    if (this.job?.id !== job.id) {
      this.sections.clear();
      this.frame = h("div", { class: "frame" });
      fill(this.element, this.frame);
      this.element.scrollTop = 0;
    }
    this.job = job;
    this.events = events ?? this.events;
    this.put("head", [job.id, job.status, job.uuid, this.mayChange], () => this.title(job));
    this.put("progress", [job.status], () => this.progress(job));
    if (job.status === "running" || job.status === "starting") this.meter.update(job.progress);
    this.put("failure", [job.failure], () => failureNote(job.failure));
    this.put("facts", [job.version, job.dueAt, job.waiting, job.position], () => facts(job));
    this.put("warnings", [job.warnings], () => warnings(job.warnings));
    this.put("outputs", [job.outputs], () => outputs(job.outputs));
    this.put("source", [job.source, job.sourceInfo], () => source(job));
    this.put("attempts", [job.attempts], () => attempts(job.attempts ?? []));
    this.put("events", [this.events?.map((event) => event.id)], () => timeline(this.events));
    this.put("request", [job.uuid], () => this.request(job));
  }

  /** Rebuild a section only when what it shows has changed: selections and folds stay. */
  put(name, shown, build) {
    const key = JSON.stringify(shown);
    const before = this.sections.get(name);
    if (before?.key === key) return;
    const element = build() ?? document.createComment(name);
    if (before) before.element.replaceWith(element);
    else this.frame.append(element);
    this.sections.set(name, { key, element });
  }

  head(title, ...rest) {
    return h("header", { class: "head" },
      h("h2", { tabindex: -1 }, title),
      ...rest,
      h("a", { class: "close", href: "#/", "aria-label": "Close", title: "Close (Esc)" }, "×"));
  }

  title(job) {
    const copyId = async () => {
      await copy(job.uuid);
      this.say("The job's uuid is in the clipboard.");
    };
    return h("div", { class: "top" },
      this.head(`Job ${job.id}`, statusChip(job.status)),
      h("p", { class: "uuid" },
        h("code", {}, job.uuid),
        h("button", { class: "quiet", type: "button", onclick: copyId }, "Copy")),
      h("div", { class: "actions" }, ...this.actions(job)));
  }

  actions(job) {
    if (!this.mayChange) return [];
    const button = (name, label, kind = "") =>
      h("button", { type: "button", class: kind, onclick: () => this.act(name, this.job) }, label);
    const all = [];
    if (!FINAL.has(job.status) && job.status !== "canceling") all.push(button("cancel", "Cancel"));
    if (job.status === "failed" || job.status === "canceled") all.push(button("retry", "Retry", "primary"));
    all.push(button("delete", "Delete", "danger"));
    return all;
  }

  progress(job) {
    if (job.status !== "running" && job.status !== "starting") return null;
    return h("section", { class: "live" }, this.meter.element);
  }

  request(job) {
    const text = JSON.stringify(requestOf(job), null, 2);
    const onclick = async () => {
      await copy(text);
      this.say("The request is in the clipboard. Credentials are not part of it.");
    };
    return h("details", { class: "fold" },
      h("summary", {}, "Request"),
      h("div", { class: "code" },
        h("button", { class: "quiet", type: "button", onclick }, "Copy"),
        h("pre", {}, text)));
  }
}

function requestOf(job) {
  const request = { source: job.source, outputs: job.outputs.map((output) => output.spec) };
  if (job.notificationUrl) request.notificationUrl = job.notificationUrl;
  if (job.pool !== "default") request.pool = job.pool;
  if (job.priority !== "normal") request.priority = job.priority;
  if (job.externalId) request.externalId = job.externalId;
  if (Object.keys(job.metadata ?? {}).length) request.metadata = job.metadata;
  return request;
}

function section(title, count, ...children) {
  return h("section", {},
    h("h3", {}, title, count === null ? null : h("span", { class: "count" }, count)),
    ...children);
}

function pairs(rows) {
  return h("dl", { class: "facts" }, rows
    .filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

function failureNote(failure) {
  if (!failure) return null;
  return h("section", { class: "failure" },
    h("p", { class: "what" }, failure.message),
    h("p", { class: "hint" }, failure.hint),
    h("p", { class: "code-name" }, h("code", {}, failure.code),
      failure.output === null || failure.output === undefined
        ? null : ` · output ${failure.output + 1}`),
    failure.detail
      ? h("details", { class: "fold" }, h("summary", {}, "What ffmpeg said"),
        h("pre", {}, failure.detail))
      : null);
}

function facts(job) {
  const waits = job.status === "queued" && job.dueAt && new Date(job.dueAt) > now();
  return pairs([
    ["Created", [ago(job.createdAt), " ago · ", moment(job.createdAt)]],
    ["Waited", job.startedAt ? span(between(job.createdAt, job.startedAt)) : null],
    ["Took", job.startedAt && job.finishedAt
      ? span(between(job.startedAt, job.finishedAt)) : null],
    ["Due", waits ? moment(job.dueAt) : null],
    ["Waits", job.waiting?.message],
    ["Position", job.status === "queued" && job.position ? position(job.position) : null],
    ["Pool", `${job.pool} · ${job.priority} priority`],
    ["Owner", job.owner],
    ["External id", job.externalId],
    ["Webhook", job.notificationUrl],
    ...Object.entries(job.metadata ?? {}),
  ]);
}

function position({ ahead, orMore, expectedStartAt }) {
  const before = ahead || orMore
    ? `${plural(ahead, "job")}${orMore ? " or more" : ""} before it`
    : "the next";
  return expectedStartAt ? `${before} · expected to start ${moment(expectedStartAt)}` : before;
}

function warnings(list) {
  if (!list?.length) return null;
  return section("Warnings", list.length, h("ul", { class: "warnings" },
    list.map((warning) => h("li", {}, warning.message, " ", h("code", {}, warning.code)))));
}

function outputs(list) {
  if (!list.length) return null;
  return section("Outputs", list.length, h("ol", { class: "outputs" }, list.map(output)));
}

function output(item) {
  const to = location(item.spec.destination ?? {});
  const result = item.result;
  return h("li", {},
    h("div", { class: "line" },
      h("span", { class: "container" }, item.spec.container ?? "mp4"),
      h("span", { class: "name", title: `${to.place}/${to.name}` }, to.name),
      statusChip(item.status)),
    h("p", { class: "hush" }, result ? measured(result) : wanted(item.spec)),
    result
      ? h("p", { class: "hush" }, [
        bytes(result.sizeBytes),
        result.durationS ? runtime(result.durationS) : null,
        result.files.length > 1 ? plural(result.files.length, "file") : null,
      ].filter(Boolean).join(" · "))
      : null,
    result?.files?.[0] ? h("p", {}, linkTo(result.files[0].url)) : null,
    item.error ? h("p", { class: "wrong" }, item.error.message, " ",
      h("code", {}, item.error.code)) : null,
    (item.warnings ?? []).map((warning) =>
      h("p", { class: "warned" }, warning.message, " ", h("code", {}, warning.code))));
}

function source(job) {
  const { name, place } = location(job.source);
  const info = job.sourceInfo;
  return section("Source", null,
    h("p", { class: "source" }, h("span", { class: "name" }, name),
      h("span", { class: "hush" }, place)),
    info ? pairs([
      ["Size", bytes(info.sizeBytes)],
      ["Duration", info.durationS ? runtime(info.durationS) : null],
      ["Container", info.container],
      ...info.streams.map((stream) => [title(stream.codec_type ?? "stream"), inWords(stream)]),
    ]) : null);
}

function title(word) {
  return String(word).charAt(0).toUpperCase() + String(word).slice(1);
}

/** A stream as ffprobe names its facts. */
function inWords(stream) {
  const [frames, seconds] = String(stream.avg_frame_rate ?? "0/0").split("/").map(Number);
  const fps = frames && seconds ? Number((frames / seconds).toFixed(2)) : null;
  return [
    stream.codec_name,
    stream.width && stream.height ? `${stream.width} × ${stream.height}` : null,
    fps ? `${fps}\u00a0fps` : null,
    stream.channel_layout ?? (stream.channels ? plural(stream.channels, "channel") : null),
    Number(stream.sample_rate) ? `${stream.sample_rate / 1000}\u00a0kHz` : null,
    bitrate(Number(stream.bit_rate)),
  ].filter(Boolean).join(" · ");
}

function attempts(list) {
  if (!list.length) return null;
  return section("Attempts", list.at(-1).number, h("ol", { class: "attempts" }, list.map((attempt) =>
    h("li", {},
      h("div", { class: "line" },
        h("span", { class: "number" }, attempt.number),
        h("span", { class: "name" }, attempt.worker ?? attempt.executor),
        h("span", { class: "took" },
          span(between(attempt.startedAt ?? attempt.createdAt, attempt.finishedAt))),
        statusChip(attempt.status)),
      attempt.failure ? h("p", { class: "wrong" }, attempt.failure.message, " ",
        h("code", {}, attempt.failure.code)) : null))));
}

function timeline(events) {
  if (!events?.length) return null;
  let before = null;
  return section("Timeline", null, h("ol", { class: "timeline" }, events.map((event) => {
    const gap = before ? between(before.timestamp, event.timestamp) : null;
    const line = h("li", { "data-type": event.type.split(".").pop() },
      h("span", { class: "word" }, wordsOf(event, before)),
      h("span", { class: "gap" }, gap === null ? "" : `+ ${span(Math.max(0, gap))}`),
      h("time", { datetime: event.timestamp, title: moment(event.timestamp) },
        new Date(event.timestamp).toLocaleTimeString()));
    before = event;
    return line;
  })));
}

function wordsOf(event, before) {
  if (event.type !== "output.uploaded") {
    const attempt = event.data?.attempt;
    const word = event.type.replace(/^job\./, "");
    return attempt > 1 && word === "starting" ? `${word} · attempt ${attempt}` : word;
  }
  const had = new Set((before?.data?.outputs ?? [])
    .filter((item) => item.status === "uploaded").map((item) => item.index));
  const fresh = (event.data?.outputs ?? [])
    .find((item) => item.status === "uploaded" && !had.has(item.index));
  return fresh ? `output ${fresh.index + 1} uploaded` : "output uploaded";
}
