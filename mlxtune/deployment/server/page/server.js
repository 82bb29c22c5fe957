/* What the page asks of the server, and in which ways that can fail.
 *
 * Knows the wire of OpenAI's API, chat and completions; nothing of the page. The key goes into one header and nowhere else.
 */

import { eventData } from "/page/sse.js";

/** `kind`: "gone" (nothing answers), "key" (not accepted), "busy", "broken" (ended before its end), "refused" (all else). */
export class ServerError extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

function headers(key, more = {}) {
  return key ? { ...more, Authorization: `Bearer ${key}` } : more;
}

async function reach(path, options) {
  try {
    return await fetch(path, { ...options, cache: "no-store", credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("gone", "The server does not answer.");
  }
}

async function refuse(response) {
  let told;
  try {
    told = (await response.json())?.error?.message;
  } catch {
    told = undefined; // not JSON: a proxy's page, or a body that broke off; the status has to do
  }
  const message = typeof told === "string" ? told : `The server answered ${response.status}.`;
  if (response.status === 401) throw new ServerError("key", message);
  if (response.status === 429 || response.status === 503) {
    const wait = response.headers.get("Retry-After");
    throw new ServerError("busy", /^\d+$/.test(wait ?? "") ? `${message} (in ${wait} s)` : message);
  }
  throw new ServerError("refused", message);
}

/** What the page has to know of the server. Raises ServerError. */
export async function getSettings(key) {
  const response = await reach("/page/settings", { headers: headers(key) });
  if (!response.ok) await refuse(response);
  return await response.json();
}

/** The file behind a link that wants the key; a Blob. Raises ServerError. */
export async function getFile(path, key) {
  const response = await reach(path, { headers: headers(key) });
  if (!response.ok) await refuse(response);
  return await response.blob();
}

function chatTokens(logprobs) {
  return (logprobs?.content ?? []).map((one) => ({
    text: one.token,
    bytes: one.bytes ?? null,
    logprob: one.logprob,
    top: (one.top_logprobs ?? []).map((other) => [other.token, other.logprob]),
  }));
}

function completionTokens(logprobs) {
  return (logprobs?.tokens ?? []).map((text, i) => ({
    text,
    bytes: null,
    logprob: logprobs.token_logprobs[i],
    top: Object.entries(logprobs.top_logprobs?.[i] ?? {}),
  }));
}

/** Asks, and calls `onPart({text, tokens})` as the answer comes.
 *
 * Returns `{finish, usage}` when it is whole; `usage` may be null.
 * Raises: ServerError; AbortError, when `signal` says so.
 */
export async function ask({ path, body }, { key, signal, onPart }) {
  const response = await reach(path, {
    method: "POST", body: JSON.stringify(body), signal, headers: headers(key, { "Content-Type": "application/json" }),
  });
  if (!response.ok) await refuse(response);
  let finish = null;
  let usage = null;
  try {
    for await (const data of eventData(response.body)) {
      if (data === "[DONE]") break;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ServerError("refused", chunk.error.message ?? "The server gave up on this answer.");
      if (chunk.usage) usage = chunk.usage;
      const choice = chunk.choices?.[0];
      if (!choice) continue;
      const text = choice.delta?.content ?? choice.text ?? "";
      const tokens = choice.delta ? chatTokens(choice.logprobs) : completionTokens(choice.logprobs);
      if (text || tokens.length) onPart({ text, tokens });
      if (choice.finish_reason) finish = choice.finish_reason;
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof ServerError) throw error;
    throw new ServerError("broken", "The connection broke off.");
  }
  if (finish === null) throw new ServerError("broken", "The answer broke off.");
  return { finish, usage };
}
