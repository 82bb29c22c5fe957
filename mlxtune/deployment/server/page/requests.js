/* What is sent to the server for one answer: the path and the body, from the conversation and the settings.
 *
 * Knows nothing of the page or the network, so that what is copied as curl is what is sent. A setting that has no
 * effect is left out. A model whose training used no chat template is asked for a continuation of the prompt alone.
 */

export const TOP_LOGPROBS = 5;

/** The settings of sampling as the page starts with them: greedy, as answers are scored. null is the server's choice. */
export function defaultSampling() {
  return {
    temperature: 0, max_tokens: null, top_p: 1, top_k: 0, min_p: 0,
    presence_penalty: 0, frequency_penalty: 0, seed: null, stop: [],
  };
}

/** The system prompt in force: the user's own, or the one that the chosen model was trained with; "" is none. */
export function systemOf(state, settings) {
  return state.system ?? modelOf(settings, state.model)?.system ?? "";
}

export function modelOf(settings, id) {
  return settings.models.find((model) => model.id === id);
}

/** Which models answer the next prompt. */
export function askedModels(state) {
  return state.compare && state.other !== state.model ? [state.model, state.other] : [state.model];
}

/** The answer that a later request quotes for an exchange: the model's own, else another's; undefined if none said anything. */
function answerFor(exchange, model) {
  const said = exchange.answers.filter((answer) => answer.text !== "");
  return said.find((answer) => answer.model === model) ?? said[0];
}

/** Prompt and answers before the last prompt. Exchanges without an answer are left out: chat templates want turns to alternate. */
function turns(exchanges, model) {
  return exchanges.flatMap((exchange) => {
    const answer = answerFor(exchange, model);
    if (!answer) return [];
    return [{ role: "user", content: exchange.prompt }, { role: "assistant", content: answer.text }];
  });
}

function samplingFields(sampling) {
  const fields = { temperature: sampling.temperature };
  for (const name of ["max_tokens", "seed"]) if (sampling[name] !== null) fields[name] = sampling[name];
  if (sampling.top_p !== 1) fields.top_p = sampling.top_p;
  for (const name of ["top_k", "min_p", "presence_penalty", "frequency_penalty"]) {
    if (sampling[name] !== 0) fields[name] = sampling[name];
  }
  if (sampling.stop.length) fields.stop = sampling.stop;
  return fields;
}

/** `{path, body}` that ask `model` for its answer to `prompt` after `before`, the exchanges so far; not streamed. */
export function requestFor(state, settings, model, prompt, before) {
  const sampling = samplingFields(state.sampling);
  if (modelOf(settings, model)?.raw) {
    return { path: "/v1/completions", body: { model, prompt, ...sampling } };
  }
  const system = systemOf(state, settings);
  // A request without a system message gets the training's: none at all has to be said.
  const said = system !== "" || modelOf(settings, model)?.system;
  const messages = [
    ...(said ? [{ role: "system", content: system }] : []),
    ...turns(before, model),
    { role: "user", content: prompt },
  ];
  return { path: "/v1/chat/completions", body: { model, messages, ...sampling } };
}

/** The same request as the page sends it: streamed, with the count of tokens and, if asked, their probabilities. */
export function streamed({ path, body }, probabilities) {
  const asked = { ...body, stream: true, stream_options: { include_usage: true } };
  if (probabilities) Object.assign(asked, path.includes("chat") ? { logprobs: true, top_logprobs: TOP_LOGPROBS } : { logprobs: TOP_LOGPROBS });
  return { path, body: asked };
}
