/* What is told of the run, in words. All of it goes in as text: names, rows and answers are anybody's. */

import { byId, element } from "/page/elements.js";
import { count, duration, figure, memory, moment } from "/page/numbers.js";

const STATES = {
  training: "training", paused: "paused", scoring: "scoring", scored: "finished and scored", trained: "trained",
  stopped: "stopped", gone: "gone", broken: "cannot be read",
};
const ENDS = {
  epochs: "all epochs are done", max_steps: "all steps are done", max_minutes: "its minutes are over",
  early_stopping: "the validation loss got no better",
};

let said = null;

/** Puts `inside` into the element `id`, unless it says the same already: what a reader has marked stays marked. */
function put(id, inside) {
  const made = element("div", {}, ...inside);
  if (made.textContent !== byId(id).textContent) byId(id).replaceChildren(...made.childNodes);
}

/** The state, beside the name, and once to a screen reader when it changes. */
function showState(news) {
  const state = STATES[news.state] ?? news.state;
  const badge = byId("state");
  badge.hidden = false;
  badge.className = `badge ${news.state}`;
  badge.textContent = state;
  if (said !== null && said !== state) byId("said").textContent = `The run is ${state}.`;
  said = state;
  document.title = [share(news), state, news.name].filter(Boolean).join(" · ");
}

const share = (news) => (news.share === null || news.share === undefined || news.state === "scored" ? "" : `${Math.floor(news.share * 100)} %`);

function progressOf(news) {
  const of = news.total_steps === null ? "" : ` of ${count(news.total_steps)}`;
  const steps = news.step === null ? "No step is made yet" : `Step ${count(news.step)}${of}`;
  const ends = ENDS[news.ended_by] ? `: ${ENDS[news.ended_by]}` : "";
  switch (news.state) {
    case "training": return news.seconds_left === null ? steps : `${steps}, about ${duration(news.seconds_left)} left`;
    case "paused": {
      const since = moment(news.paused_since);
      const why = news.paused_why ? `: ${news.paused_why}` : "";
      const left = news.seconds_left === null ? "" : `; about ${duration(news.seconds_left)} of training left`;
      return `Paused after step ${count(news.paused_after)}${since ? ` since ${since}` : ""}, and saved${why}${left}`;
    }
    case "scoring": return `${steps}${ends}. Base and tuned model are being scored.`;
    case "stopped": return `${steps}. No process is at work in this run.`;
    default: return `${steps}${ends}.`;
  }
}

function pair(name, value) {
  return element("div", {}, element("dt", {}, name), element("dd", {}, value));
}

function figuresOf(news) {
  const { latest, best } = news;
  const has = (name) => latest[name] !== undefined;
  return [
    has("loss") && pair("loss", figure(latest.loss)),
    best && pair(`best on validation rows, step ${count(best.step)}`, figure(best.valid_loss)),
    has("learning_rate") && pair("learning rate", figure(latest.learning_rate)),
    has("tokens_per_s") && pair("tokens a second", count(latest.tokens_per_s)),
    has("peak_memory_bytes") && pair("peak memory", memory(latest.peak_memory_bytes)),
    news.step !== null && pair("time in steps", duration(news.seconds)),
    news.tokens > 0 && pair("tokens", count(news.tokens)),
  ].filter(Boolean);
}

/** What the run's own lines say, beside what was found in them. */
function notesOf(news) {
  const notes = [];
  if (news.skipped) notes.push(`${count(news.skipped)} ${news.skipped === 1 ? "update was" : "updates were"} left out: loss or gradient was no finite number.`);
  if (news.was_short_of_memory) notes.push("Memory was short at least once: batches are read in smaller parts since.");
  if (news.note) notes.push(`${news.note}.`);
  return notes;
}

function findingOf({ severity, sentence, key, remedy }) {
  return element("div", { className: `finding ${severity === "problem" ? "problem" : ""}` },
    element("div", { className: "severity" }, severity ?? ""),
    element("div", {}, sentence ?? ""),
    element("div", { className: "quiet" }, [key, remedy].filter(Boolean).join(": ")));
}

/** Line ends get a sign, and what else cannot be seen is spelled out: an answer of nothing else is not empty. */
const spelled = (text) => text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (character) =>
  (character === "\n" ? "↵\n" : character === "\t" ? "⇥\t" : `\\u{${character.codePointAt(0).toString(16)}}`));

function field(name, text) {
  const shown = text ? spelled(text) : "an empty answer";
  return element("div", { className: "field" },
    element("div", { className: "field-name" }, name),
    element("div", { className: text ? "text" : "text none", tabIndex: 0, role: "group", ariaLabel: name }, shown));
}

/** One row: what it asks and wants, and what came; `step` is null where base and tuned model were scored. */
function sampleOf(sample, step) {
  const above = [sample.prompt && field("asked", sample.prompt), sample.reference !== null && field("wanted", sample.reference)];
  const answers = step === null ? [field("base", sample.base), field("tuned", sample.tuned)] : [field("answered", sample.tuned)];
  return element("article", { className: "sample" }, ...above.filter(Boolean), element("div", { className: "beside" }, ...answers));
}

let answers = null; // that are shown, as one text

/** Shows answers, unless they are there already: steps come every second, and nobody reads that fast. */
export function showSamples(samples, step) {
  const told = JSON.stringify([samples, step]);
  if (told === answers) return;
  answers = told;
  const none = element("p", { className: "quiet" }, "None yet. Some are written after each look at the loss on data.valid, where there is one and evaluation.samples is not 0; those of base and tuned model when the run is scored.");
  const scored = samples.length ? "Answers of base and tuned model, as scored" : "Answers";
  byId("samples-title").textContent = step === null ? scored : `Answers after step ${count(step)}, on rows of the validation split`;
  byId("samples").replaceChildren(...(samples.length ? samples.map((sample) => sampleOf(sample, step)) : [none]));
}

function factsOf(news) {
  const { headline } = news;
  const verdict = headline?.verdict ? `, ${headline.verdict}` : "";
  return [
    headline && [headline.metric, `${figure(headline.base)} → ${figure(headline.tuned)}${verdict}`],
    ["model", news.model],
    ["device", news.device],
    ["started", moment(news.started)],
    ["folder", news.path],
    ["report", news.report],
    ["to go on", news.state === "stopped" ? news.resume : null],
  ].filter((fact) => fact && fact[1]).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]);
}

/** Shows all but curves and samples. */
export function showRun(news) {
  showState(news);
  byId("empty").hidden = true;
  byId("run").hidden = false;
  byId("name").textContent = news.name;
  const bar = byId("bar");
  if (news.share === null) bar.removeAttribute("value");
  else bar.value = news.share;
  bar.hidden = news.share === null && news.state !== "training";
  put("progress", [progressOf(news)]);
  put("figures", figuresOf(news));
  const notes = notesOf(news).map((note) => element("p", { className: "finding" }, note));
  const found = [...news.findings.map(findingOf), ...notes];
  put("findings", found.length ? found : [element("p", { className: "quiet" }, "Nothing so far.")]);
  put("facts", factsOf(news));
}

/** A run that cannot be read any more: what was shown last stays. */
export function showLost(news) {
  showState({ ...news, name: byId("name").textContent, share: null });
  byId("empty").hidden = true;
}
