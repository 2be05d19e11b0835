// Turn the API's values into what people read. Pure.

const SPACE = "\u00a0"; // a number and its unit stay on one line
const UNITS = ["B", "kB", "MB", "GB", "TB"];

export function bytes(count) {
  if (count === null || count === undefined) return "";
  let value = count;
  let unit = 0;
  while (value >= 1000 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)}${SPACE}${UNITS[unit]}`;
}

export function bitrate(bitsPerSecond) {
  if (!bitsPerSecond) return "";
  return bitsPerSecond >= 1e6
    ? `${(bitsPerSecond / 1e6).toFixed(1)}${SPACE}Mb/s`
    : `${Math.round(bitsPerSecond / 1e3)}${SPACE}kb/s`;
}

/** One unit, for columns: 4 s, 12 m, 3 h, 8 d. */
export function age(seconds) {
  const s = Math.max(0, seconds);
  if (s < 60) return `${Math.floor(s)}${SPACE}s`;
  if (s < 3600) return `${Math.floor(s / 60)}${SPACE}m`;
  if (s < 86400) return `${Math.floor(s / 3600)}${SPACE}h`;
  return `${Math.floor(s / 86400)}${SPACE}d`;
}

/** Two units, for sentences: 850 ms, 4.2 s, 1 m 12 s, 2 h 5 m. */
export function span(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 1) return `${Math.round(seconds * 1000)}${SPACE}ms`;
  if (seconds < 10) return `${Number(seconds.toFixed(1))}${SPACE}s`;
  const s = Math.round(seconds);
  if (s < 60) return `${s}${SPACE}s`;
  if (s < 3600) return `${Math.floor(s / 60)}${SPACE}m ${s % 60}${SPACE}s`;
  return `${Math.floor(s / 3600)}${SPACE}h ${Math.floor((s % 3600) / 60)}${SPACE}m`;
}

/** The running time of a film: 0:07, 12:34, 1:02:03. */
export function runtime(seconds) {
  if (seconds === null || seconds === undefined) return "";
  const s = Math.round(seconds);
  const pad = (n) => String(n).padStart(2, "0");
  const [hours, minutes] = [Math.floor(s / 3600), Math.floor((s % 3600) / 60)];
  return hours ? `${hours}:${pad(minutes)}:${pad(s % 60)}` : `${minutes}:${pad(s % 60)}`;
}

export function moment(text) {
  return new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

export function between(from, to) {
  return from && to ? (new Date(to) - new Date(from)) / 1000 : null;
}

export function plural(count, word) {
  return `${count} ${word}${count === 1 ? "" : "s"}`;
}

/** Where a source or a destination is: a name to recognise it by, and the place it is in. */
export function location(spec) {
  switch (spec.kind) {
    case "s3":
      return parts(spec.path, `s3://${spec.bucket}`);
    case "http":
    case "https":
      return ofUrl(spec.url);
    case "ftp":
      return spec.url ? ofUrl(spec.url) : parts(spec.path, `ftp://${spec.host}`);
    case "file":
      return parts(spec.path, "file");
    case "inline":
      return { name: "inline", place: spec.sizeBytes ? bytes(spec.sizeBytes) : "in the request" };
    default:
      return { name: String(spec.kind), place: "" };
  }
}

function ofUrl(text) {
  let url;
  try {
    url = new URL(text);
  } catch {
    return { name: text, place: "" };
  }
  let path = url.pathname;
  try {
    path = decodeURIComponent(path);
  } catch {
    // Shown as it is: not every server's paths are UTF-8.
  }
  return parts(path === "/" ? url.host : path, url.host);
}

function parts(path, root) {
  const steps = String(path ?? "").split("/").filter(Boolean);
  const name = steps.pop() ?? "";
  return { name, place: [root, ...steps].join("/") };
}

/** What an output is in a few words, as it was asked for: 1280 × 720 · libx264 · 2500k. */
export function wanted(spec) {
  const size = spec.width || spec.height
    ? `${spec.width ?? "auto"} × ${spec.height ?? "auto"}`
    : null;
  return [size, spec.videoCodec, spec.videoBitrate, spec.audioCodec, spec.audioBitrate]
    .filter(Boolean)
    .join(" · ");
}

/** The same as it turned out. */
export function measured(result) {
  const size = result.width && result.height ? `${result.width} × ${result.height}` : null;
  const rate = result.frameRate ? `${Number(result.frameRate.toFixed(2))}${SPACE}fps` : null;
  return [size, result.videoCodec, rate, bitrate(result.videoBitrate), result.audioCodec]
    .filter(Boolean)
    .join(" · ");
}
