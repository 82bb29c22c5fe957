/* Which model answers, and which one beside it; and the way to the report of its run. */

import { byId, element } from "/page/elements.js";
import { saveBlob } from "/page/exports.js";
import { currentKey } from "/page/key.js";
import { askedModels, modelOf, systemOf } from "/page/requests.js";
import { getFile } from "/page/server.js";

/** Shows the choice as it stands, and what an empty page says about it. */
export function showChoice(state, settings) {
  const { report, raw } = modelOf(settings, state.model);
  byId("model").value = state.model;
  byId("other").value = state.other;
  byId("compare").checked = state.compare;
  byId("compare-fields").hidden = settings.models.length < 2;
  byId("other-field").hidden = !state.compare;
  byId("report").hidden = !report;
  if (report) byId("report").href = report;
  const goesAlong = raw
    ? "It goes on with what you write."
    : systemOf(state, settings) ? "The system prompt of the settings goes along." : "No system prompt goes along.";
  byId("empty-lead").textContent = `Write to ${askedModels(state).join(" and ")}.`;
  byId("empty-more").textContent = `${goesAlong} Nothing leaves the machine that serves it.`;
}

/** Wires the fields; `changed()` is called after each change of the state. */
export function wireChoice(state, settings, changed) {
  for (const id of ["model", "other"]) {
    byId(id).replaceChildren(...settings.models.map((model) => element("option", { value: model.id }, model.id)));
  }
  const another = (id) => settings.models.find((model) => model.id !== id)?.id ?? id;
  byId("model").addEventListener("change", () => {
    if (byId("model").value === state.other) state.other = state.model; // they change places
    state.model = byId("model").value;
    changed();
  });
  byId("other").addEventListener("change", () => {
    if (byId("other").value === state.model) state.model = state.other;
    state.other = byId("other").value;
    changed();
  });
  byId("compare").addEventListener("change", () => {
    state.compare = byId("compare").checked;
    if (state.other === state.model) state.other = another(state.model);
    changed();
  });
  if (settings.key_needed) byId("report").addEventListener("click", (event) => saveReport(event, state));
}

/** A link cannot carry the key: the report is fetched with it, and saved. */
async function saveReport(event, state) {
  event.preventDefault();
  try {
    saveBlob(`${state.model.replace(/[^\w.-]+/g, "_")}-report.html`, await getFile(byId("report").href, currentKey()));
  } catch (error) {
    byId("status").textContent = error.message;
  }
}
