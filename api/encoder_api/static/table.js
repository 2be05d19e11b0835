// The table of jobs: one row a job, changed in place so that nothing jumps under the pointer.

import { between, bytes, location, plural, span } from "./format.js";
import { fill, h, setText } from "./dom.js";
import { ACTIVE, Meter, ago, setAgo, setStatus, statusChip } from "./parts.js";

export const TABS = [
  { key: "all", label: "All", has: () => true },
  { key: "active", label: "Active", has: (job) => ACTIVE.has(job.status) },
  { key: "queued", label: "Queued", has: (job) => job.status === "queued" },
  { key: "completed", label: "Completed", has: (job) => job.status === "completed" },
  { key: "failed", label: "Failed", has: (job) => job.status === "failed" },
  { key: "canceled", label: "Canceled", has: (job) => job.status === "canceled" },
];

export class Table {
  constructor(body) {
    this.body = body;
    this.rows = new Map();
  }

  /** Show these jobs in this order, the selected one marked. */
  show(jobs, selected) {
    const wanted = new Set(jobs.map((job) => job.id));
    for (const [id, row] of this.rows) {
      if (!wanted.has(id)) {
        row.element.remove();
        this.rows.delete(id);
      }
    }
    let after = null;
    for (const job of jobs) {
      let row = this.rows.get(job.id);
      if (!row) {
        row = new Row(job.id);
        this.rows.set(job.id, row);
      }
      row.update(job, selected);
      const next = after ? after.nextSibling : this.body.firstChild;
      if (next !== row.element) this.body.insertBefore(row.element, next);
      after = row.element;
    }
  }
}

class Row {
  constructor(id) {
    this.link = h("a", { href: `#/jobs/${id}` }, id);
    this.name = h("span", { class: "name" });
    this.place = h("span", { class: "place" });
    this.chip = statusChip("queued");
    this.activity = h("td", { class: "c-activity" });
    this.outputs = h("td", { class: "c-outputs" });
    this.age = ago(new Date(0).toISOString());
    this.meter = new Meter();
    this.element = h(
      "tr",
      { onclick: (event) => this.open(event) },
      h("th", { scope: "row", class: "c-id" }, this.link),
      h("td", { class: "c-source" }, this.name, this.place),
      h("td", { class: "c-status" }, this.chip),
      this.activity,
      this.outputs,
      h("td", { class: "c-age" }, this.age),
    );
  }

  open(event) {
    // Text of a row can be selected and links opened in a tab of their own.
    if (event.target.closest("a") || String(getSelection())) return;
    this.link.click();
  }

  update(job, selected) {
    const isSelected = [String(job.id), job.uuid].includes(selected);
    this.element.toggleAttribute("data-selected", isSelected);
    if (isSelected) this.link.setAttribute("aria-current", "true");
    else this.link.removeAttribute("aria-current");
    setAgo(this.age, job.createdAt);
    const stamp = `${job.version}/${job.progress?.updatedAt ?? ""}`;
    if (stamp === this.stamp) return;
    this.stamp = stamp;
    const { name, place } = location(job.source);
    setText(this.name, name);
    setText(this.place, place);
    this.name.title = this.place.title = "";
    this.name.parentElement.title = `${place}/${name}`;
    setStatus(this.chip, job.status);
    this.showActivity(job);
    this.showOutputs(job);
  }

  showActivity(job) {
    this.activity.title = job.failure?.message ?? "";
    if (job.status === "running" || job.status === "starting") {
      this.meter.update(job.progress);
      if (!this.activity.contains(this.meter.element)) fill(this.activity, this.meter.element);
      return;
    }
    fill(this.activity, h("span", { class: "said" }, activity(job)));
  }

  showOutputs(job) {
    const done = job.outputs.filter((output) => output.status === "uploaded").length;
    setText(this.outputs, job.outputs.length ? `${done}/${job.outputs.length}` : "probe");
    this.outputs.title = `${done} of ${plural(job.outputs.length, "output")} uploaded`;
  }
}

function activity(job) {
  switch (job.status) {
    case "queued":
      return job.attempt ? `waits for attempt ${job.attempt + 1}` : "waiting";
    case "canceling":
      return "stopping";
    case "completed": {
      const size = job.outputs.reduce((sum, output) => sum + (output.result?.sizeBytes ?? 0), 0);
      const took = between(job.startedAt ?? job.createdAt, job.finishedAt);
      return [size ? bytes(size) : null, took === null ? null : `in ${span(took)}`]
        .filter(Boolean)
        .join(" ");
    }
    case "failed":
      return job.failure?.message ?? "failed";
    default:
      return "";
  }
}

/** What the text filter looks through: whatever a person may remember of a job. */
export function matches(job, text) {
  if (!text) return true;
  const { name, place } = location(job.source);
  const haystack = [
    job.id, job.uuid, job.status, job.owner, job.pool, job.externalId, name, place,
    job.failure?.code, job.failure?.message,
    ...Object.entries(job.metadata ?? {}).flat(),
    ...job.outputs.map((output) => {
      const to = location(output.spec.destination ?? {});
      return `${output.spec.container} ${to.place}/${to.name}`;
    }),
  ].join("\n").toLowerCase();
  return text.toLowerCase().split(/\s+/).every((word) => haystack.includes(word));
}
