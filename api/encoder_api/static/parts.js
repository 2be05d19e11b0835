// Small pieces that the table and the detail view share.

import { now } from "./api.js";
import { age, moment, runtime, span } from "./format.js";
import { h, setText } from "./dom.js";

export const FINAL = new Set(["completed", "failed", "canceled"]);
export const ACTIVE = new Set(["starting", "running", "canceling"]);

/** A dot and a word. The word alone says it too, for who cannot see the colour. */
export function statusChip(status) {
  const chip = h("span", { class: "chip" });
  setStatus(chip, status);
  return chip;
}

export function setStatus(chip, status) {
  chip.dataset.status = status;
  setText(chip, status);
}

/** A moment as an age that stays right: see `refreshAges`. */
export function ago(text) {
  const element = h("time", { datetime: text, title: moment(text), "data-ago": true });
  refreshAge(element);
  return element;
}

export function setAgo(element, text) {
  if (element.dateTime !== text) {
    element.dateTime = text;
    element.title = moment(text);
  }
  refreshAge(element);
}

function refreshAge(element) {
  setText(element, age((now() - new Date(element.dateTime)) / 1000));
}

export function refreshAges() {
  for (const element of document.querySelectorAll("time[data-ago]")) refreshAge(element);
}

/** A progress bar with its numbers; `update` takes the job's progress document or null. */
export class Meter {
  constructor() {
    this.fill = h("span", { class: "fill" });
    this.bar = h("span", {
      class: "meter",
      role: "progressbar",
      "aria-valuemin": 0,
      "aria-valuemax": 100,
      "aria-label": "Progress",
    }, this.fill);
    this.percent = h("span", { class: "percent" });
    this.note = h("span", { class: "note" });
    this.element = h("div", { class: "progress" }, this.bar, this.percent, this.note);
  }

  update(progress) {
    const percent = progress ? Math.floor(progress.percent) : 0;
    // Through the object model: a style attribute would be against the content security policy.
    this.fill.style.width = `${percent}%`;
    this.bar.setAttribute("aria-valuenow", percent);
    setText(this.percent, `${percent}\u00a0%`);
    setText(this.note, progressNote(progress));
  }
}

function progressNote(progress) {
  if (!progress) return "starting";
  return [
    progress.phase,
    progress.speed ? `${progress.speed.toFixed(1)}×` : null,
    progress.etaS ? `${span(Math.ceil(progress.etaS))} left` : null,
  ].filter(Boolean).join(" · ");
}

export function mediaLength(seconds) {
  return seconds ? `${runtime(seconds)}` : "";
}
