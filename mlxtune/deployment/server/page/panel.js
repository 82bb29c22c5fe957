/* The panel of settings: system prompt, sampling, what is shown, the key.
 *
 * A value out of its range is marked and not taken; the one before it stays in force. The panel lies beside the
 * conversation where there is room, and over it where there is not.
 */

import { byId } from "/page/elements.js";
import { defaultSampling, modelOf, systemOf } from "/page/requests.js";

const NUMBERS = ["temperature", "max_tokens", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "seed"];
const SWITCHES = ["probabilities", "differences"];
const WIDE = matchMedia("(min-width: 60rem)");

/** Wires the panel; `changed()` is called after each change of the state. Returns a function that shows the state. */
export function wirePanel(state, settings, changed) {
  const show = () => showState(state, settings);
  byId("max_tokens").max = settings.max_tokens;
  const together = settings.context_length ? ` Prompt and answer together: at most ${settings.context_length}.` : "";
  byId("max_tokens-hint").textContent = `At most ${settings.max_tokens}. Empty: the server's choice.${together}`;
  for (const name of NUMBERS) {
    const field = byId(name);
    field.addEventListener("input", () => {
      const taken = field.checkValidity();
      field.ariaInvalid = String(!taken);
      if (!taken) return;
      state.sampling[name] = field.value === "" ? null : field.valueAsNumber;
      changed();
    });
  }
  byId("stop").addEventListener("input", () => {
    state.sampling.stop = byId("stop").value.split("\n").filter((line) => line !== "");
    changed();
  });
  for (const name of SWITCHES) {
    byId(name).addEventListener("change", () => {
      state[name] = byId(name).checked;
      changed(true);
    });
  }
  byId("system").addEventListener("input", () => {
    state.system = byId("system").value;
    showHint(state, settings);
    changed();
  });
  const system = (value) => () => {
    state.system = value;
    show();
    changed();
  };
  byId("system-default").addEventListener("click", system(null));
  byId("system-none").addEventListener("click", system(""));
  byId("sampling-default").addEventListener("click", () => {
    state.sampling = defaultSampling();
    show();
    changed();
  });
  wireOpening();
  return show;
}

function showState(state, settings) {
  for (const name of NUMBERS) {
    byId(name).value = state.sampling[name] ?? "";
    byId(name).ariaInvalid = "false";
  }
  byId("stop").value = state.sampling.stop.join("\n");
  for (const name of SWITCHES) byId(name).checked = state[name];
  byId("system").value = systemOf(state, settings);
  showHint(state, settings);
}

function showHint(state, settings) {
  const { raw, system: trained } = modelOf(settings, state.model);
  const now = systemOf(state, settings);
  byId("system-fields").disabled = raw;
  byId("system-default").hidden = !trained;
  byId("system-hint").textContent = raw
    ? `${state.model} goes on with a plain text: it has no system prompt, and each message stands alone.`
    : now === (trained ?? "")
      ? (trained ? `As ${state.model} was trained.` : `${state.model} was trained without one.`)
      : "Your own. It holds for all that is sent from here on.";
}

function wireOpening() {
  const panel = byId("settings");
  const opener = byId("settings-button");
  const open = () => {
    if (WIDE.matches) panel.show();
    else panel.showModal();
    opener.ariaExpanded = "true";
  };
  opener.addEventListener("click", () => (panel.open ? panel.close() : open()));
  byId("settings-close").addEventListener("click", () => panel.close());
  panel.addEventListener("close", () => {
    opener.ariaExpanded = "false";
    opener.focus();
  });
  panel.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !WIDE.matches) return; // over the conversation the browser closes it
    event.stopPropagation();
    panel.close();
  });
  byId("settings-form").addEventListener("submit", (event) => event.preventDefault());
  WIDE.addEventListener("change", () => panel.close());
}
