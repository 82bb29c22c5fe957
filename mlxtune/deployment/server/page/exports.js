/* The conversation as a file: JSON with everything that was asked and answered, Markdown to read.
 *
 * Neither holds the key. In Markdown each text stands in a fence, so that what a model wrote stays text in every reader.
 */

import { systemOf } from "/page/requests.js";

/** JSON: the settings, and each exchange with its answers, token probabilities included where they were asked for. */
export function asJson(state, settings) {
  const { model, compare, other, sampling, exchanges } = state;
  const models = compare ? [model, other] : [model];
  const told = exchanges.map(({ prompt, answers }) => ({
    prompt,
    answers: answers.map(({ model: by, text, status, finish, usage, seconds, tokens, error }) => ({
      model: by, text, status, finish_reason: finish, usage, seconds,
      ...(error ? { error: error.message } : {}),
      ...(tokens ? { tokens: tokens.map(({ text: token, logprob, top }) => ({ token, logprob, top })) } : {}),
    })),
  }));
  return `${JSON.stringify({ models, system: systemOf(state, settings), sampling, exchanges: told }, null, 2)}\n`;
}

function fenced(text) {
  const longest = Math.max(2, ...(text.match(/`+/g) ?? []).map((run) => run.length));
  const fence = "`".repeat(longest + 1);
  return `${fence}text\n${text}\n${fence}`;
}

const STATUS = { stopped: " (stopped)", failed: " (failed)", streaming: " (not finished)" };

/** Markdown: who said what, in order. */
export function asMarkdown(state, settings) {
  const system = systemOf(state, settings);
  const parts = [`# Chat with ${state.model}`];
  if (system) parts.push("## System", fenced(system));
  for (const { prompt, answers } of state.exchanges) {
    parts.push("## You", fenced(prompt));
    for (const answer of answers) parts.push(`## ${answer.model}${STATUS[answer.status] ?? ""}`, fenced(answer.text));
  }
  return `${parts.join("\n\n")}\n`;
}

/** Has the browser save `text` as a file. */
export function saveFile(name, type, text) {
  saveBlob(name, new Blob([text], { type }));
}

export function saveBlob(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // a download may begin after the click
}
