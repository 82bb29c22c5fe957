/* The conversation as elements: an exchange is a prompt and its answers beside each other.
 *
 * Knows the state and draws it; what buttons do comes in as `actions`. While an answer streams, its text alone grows;
 * all else of an exchange is drawn anew when something other than text changes.
 */

import { differences } from "/page/difference.js";
import { byId, button, element } from "/page/elements.js";
import { closeTip, tellTokens } from "/page/tip.js";
import { doubt, tokenRanges } from "/page/tokens.js";

const ENDS = {
  length: "cut off at the longest answer",
  tool_calls: "called a tool",
};

/** The text between `start` and `end` into `into`, what lies in `marks` marked. */
function addText(into, text, start, end, marks) {
  let at = start;
  for (const mark of marks) {
    if (mark.end <= at || mark.start >= end) continue;
    into.append(text.slice(at, Math.max(at, mark.start)));
    at = Math.min(end, mark.end);
    into.append(element("mark", {}, text.slice(Math.max(start, mark.start), at)));
  }
  into.append(text.slice(at, end));
}

function answerText(answer, marks, probabilities) {
  const box = element("div", { className: "text", dir: "auto" });
  const ranges = probabilities && answer.status !== "streaming" ? tokenRanges(answer.text, answer.tokens) : null;
  if (ranges === null) {
    addText(box, answer.text, 0, answer.text.length, marks);
    return box;
  }
  const known = new Map();
  for (const { start, end, token } of ranges) {
    if (start === end) continue;
    const span = element("span", { className: `token doubt-${doubt(token.logprob)}` });
    addText(span, answer.text, start, end, marks);
    known.set(span, token);
    box.append(span);
  }
  tellTokens(box, known);
  return box;
}

function facts(answer) {
  const told = [];
  if (answer.status === "stopped") told.push("stopped");
  if (ENDS[answer.finish]) told.push(ENDS[answer.finish]);
  if (answer.usage) told.push(`${answer.usage.completion_tokens} tokens, prompt ${answer.usage.prompt_tokens}`);
  if (answer.seconds !== null && answer.status === "done") told.push(`${answer.seconds.toFixed(1)} s`);
  return told.join(" · ");
}

function answerElement(answer, marks, last, state, actions) {
  const box = element("div", { className: `answer ${answer.status}`, role: "group", ariaLabel: `Answer of ${answer.model}` });
  box.append(element("h3", {}, answer.model));
  if (answer.text !== "" || answer.status === "streaming") box.append(answerText(answer, marks, state.probabilities));
  else if (answer.status !== "failed") box.append(element("p", { className: "quiet" }, "(no text)"));
  if (answer.error) box.append(element("p", { className: "note" }, answer.error.message));
  const foot = element("div", { className: "bar foot" });
  if (facts(answer)) foot.append(element("span", { className: "quiet" }, facts(answer)));
  if (answer.status !== "streaming") {
    if (answer.text !== "") foot.append(button("Copy", () => actions.copy(answer.text), `Copy the answer of ${answer.model}`));
    if (last) foot.append(button("Retry", () => actions.retry(answer.model), `Retry with ${answer.model}`));
  }
  box.append(foot);
  return box;
}

function promptElement(exchange, last, editing, actions) {
  const box = element("div", { className: "prompt" }, element("h2", {}, "You"));
  if (editing) {
    const again = button("Send again", () => actions.resend(field.value));
    again.className = "main";
    const field = element("textarea", { className: "edit", value: editing.text, rows: 3, ariaLabel: "Edit the message" });
    field.addEventListener("input", () => { editing.text = field.value; });
    field.addEventListener("keydown", (event) => actions.editKey(event, field));
    box.append(field, element("div", { className: "bar foot" },
      element("span", { className: "quiet" }, "Its answers are replaced."),
      button("Cancel", actions.cancelEdit), again));
    return box;
  }
  box.append(element("div", { className: "text", dir: "auto" }, exchange.prompt));
  if (last) box.append(element("div", { className: "bar foot" }, button("Edit", actions.edit, "Edit this message")));
  return box;
}

function exchangeElement(state, i, editing, actions) {
  const exchange = state.exchanges[i];
  const last = i === state.exchanges.length - 1;
  const streaming = exchange.answers.some((answer) => answer.status === "streaming");
  const [one, two] = exchange.answers;
  const compared = two && !streaming && exchange.answers.every((answer) => answer.status !== "failed" && answer.text !== "");
  const marks = compared && state.differences ? differences(one.text, two.text) : [[], []];
  const box = element("article", { className: "exchange", ariaLabel: `Exchange ${i + 1}` });
  box.append(promptElement(exchange, last && !streaming, last ? editing : null, actions));
  const answers = element("div", { className: two ? "answers two" : "answers" });
  exchange.answers.forEach((answer, side) => answers.append(answerElement(answer, marks[side], last && !streaming, state, actions)));
  box.append(answers);
  if (compared) box.append(element("p", { className: "quiet verdict" }, verdict(one, two, marks, state)));
  return box;
}

function verdict(one, two, marks, state) {
  if (one.text === two.text) return "Both gave the same answer.";
  if (!state.differences) return "The answers differ.";
  const only = marks[0].length + marks[1].length;
  return only === 0 ? "The answers differ in white space alone." : "Marked is what the other answer does not say.";
}

/** Draws the whole conversation; `editing` is null, or holds the text into which the last prompt is being changed. */
export function drawAll(state, editing, actions) {
  closeTip();
  byId("conversation").replaceChildren(...state.exchanges.map((_, i) => exchangeElement(state, i, editing, actions)));
  byId("empty").hidden = state.exchanges.length > 0;
}

/** Draws one exchange anew. */
export function drawExchange(state, i, editing, actions) {
  closeTip();
  byId("conversation").children[i].replaceWith(exchangeElement(state, i, editing, actions));
}

/** Brings the text of a streaming answer up to date. */
export function drawText(state, i, side) {
  const box = byId("conversation").children[i].querySelectorAll(".answer")[side].querySelector(".text");
  const shown = box.textContent.length;
  const { text } = state.exchanges[i].answers[side];
  if (text.length > shown) box.append(text.slice(shown));
}
