/* The conversation as it runs: sending, streaming, stopping, asking again.
 *
 * Holds the answers that are under way; the state itself is plain data that others read and keep. Nothing that was said
 * is thrown away before something takes its place: a retry that fails leaves the answer that was there.
 */

import { askedModels, requestFor, streamed } from "/page/requests.js";
import { ask } from "/page/server.js";

function newAnswer(model) {
  return { model, text: "", tokens: null, status: "streaming", finish: null, error: null, usage: null, seconds: null };
}

export class Chat {
  #running = new Map(); // answer -> the controller that ends its request

  /**
   * state: what `store.js` keeps. settings: of the server.
   * on: `changed(i)` (an exchange is to be drawn anew; null: all), `text(i, side)` (an answer grew), `ended(answer)`,
   * and `key()`, which gives the key.
   */
  constructor(state, settings, on) {
    this.state = state;
    this.settings = settings;
    this.on = on;
  }

  get busy() {
    return this.#running.size > 0;
  }

  get last() {
    return this.state.exchanges.length - 1;
  }

  /** Asks the chosen models; `prompt` is not empty and nothing is under way. */
  async send(prompt) {
    const answers = askedModels(this.state).map(newAnswer);
    this.state.exchanges.push({ prompt, answers });
    this.on.changed(null);
    await Promise.all(answers.map((_, side) => this.#run(this.last, side, null)));
  }

  /** Asks the last prompt, in other words, as the conversation stands now. */
  async resend(prompt) {
    this.state.exchanges.pop();
    await this.send(prompt);
  }

  /** Asks one model its last prompt again. */
  async retry(model) {
    const { answers } = this.state.exchanges[this.last];
    const side = answers.findIndex((answer) => answer.model === model);
    const before = answers[side];
    answers[side] = newAnswer(model);
    this.on.changed(this.last);
    await this.#run(this.last, side, before);
  }

  /** Asks all models again whose last answer failed. */
  async retryFailed() {
    const failed = this.state.exchanges.at(-1)?.answers.filter((answer) => answer.status === "failed" || answer.error) ?? [];
    await Promise.all(failed.map((answer) => this.retry(answer.model)));
  }

  /** Ends what is under way; what has come stays. */
  stop() {
    for (const controller of this.#running.values()) controller.abort();
  }

  clear() {
    this.stop();
    this.#running.clear();
    this.state.exchanges = [];
    this.on.changed(null);
  }

  async #run(i, side, before) {
    const { prompt, answers } = this.state.exchanges[i];
    const answer = answers[side];
    const controller = new AbortController();
    this.#running.set(answer, controller);
    this.on.changed(i);
    const request = requestFor(this.state, this.settings, answer.model, prompt, this.state.exchanges.slice(0, i));
    const began = performance.now();
    try {
      const { finish, usage } = await ask(streamed(request, this.state.probabilities), {
        key: this.on.key(),
        signal: controller.signal,
        onPart: ({ text, tokens }) => {
          if (!this.#running.has(answer)) return; // cleared, and the end has not reached the stream yet
          answer.text += text;
          if (tokens.length) (answer.tokens ??= []).push(...tokens);
          this.on.text(i, side);
        },
      });
      Object.assign(answer, { status: "done", finish, usage, seconds: (performance.now() - began) / 1000 });
    } catch (error) {
      if (error.name === "AbortError") answer.status = "stopped";
      else Object.assign(answer, { status: "failed", error: { kind: error.kind ?? "refused", message: error.message } });
      const inVain = answer.status === "failed" || answer.text === "";
      if (inVain && before?.text) Object.assign(answer, before, { error: answer.error });
    }
    if (!this.#running.delete(answer)) return; // the chat was cleared meanwhile
    this.on.changed(i);
    this.on.ended(answer);
  }
}
