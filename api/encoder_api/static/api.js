// Talk to the API: JSON in and out, 304 understood, problems as errors with a sentence.

export class Problem extends Error {
  constructor(status, document) {
    super(document?.detail || document?.title || `The server answered ${status}.`);
    this.status = status;
  }
}

/** The server did not answer at all. */
export class Unreachable extends Error {}

let skewMs = 0;

/** The server's time, so that ages are right on a machine whose clock is wrong. */
export function now() {
  return Date.now() + skewMs;
}

async function call(path, { method = "GET", body, headers = {} } = {}) {
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: {
        accept: "application/json",
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      credentials: "same-origin",
      signal: AbortSignal.timeout(15000),
    });
  } catch (error) {
    throw new Unreachable(error.message);
  }
  const date = Date.parse(response.headers.get("date") ?? "");
  // The header counts whole seconds: smaller differences say nothing.
  if (date && Math.abs(date - Date.now()) > 2000) skewMs = date - Date.now();
  if (response.status >= 502 && response.status <= 504) throw new Unreachable();
  return response;
}

async function documentOf(response) {
  try {
    return await response.json();
  } catch {
    return null;
  }
}

const tags = new Map();

/** The document at `path`, or null: it has not changed since the last time. */
export async function poll(path) {
  const tag = tags.get(path);
  const response = await call(path, { headers: tag ? { "if-none-match": tag } : {} });
  if (response.status === 304) return null;
  const document = await documentOf(response);
  if (!response.ok) throw new Problem(response.status, document);
  const fresh = response.headers.get("etag");
  if (fresh) tags.set(path, fresh);
  return document;
}

/** Let the next poll of `path` bring the whole document. */
export function forget(path) {
  tags.delete(path);
}

export async function send(method, path, body) {
  const response = await call(path, { method, body });
  const document = await documentOf(response);
  if (!response.ok) throw new Problem(response.status, document);
  return document;
}
