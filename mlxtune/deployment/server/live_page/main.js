/* Asks for news once a second while the page is seen, and hands them to what shows them. */

import { hideAlert, showAlert } from "/page/alert.js";
import { connectButtons, showButtons } from "/page/buttons.js";
import { showCurves } from "/page/curves.js";
import { Failure, news } from "/page/server.js";
import { showLost, showRun, showSamples } from "/page/view.js";

const EVERY = 1000; // milliseconds
const LOST = { gone: "The run's folder is gone.", broken: "The run cannot be read" };

let version = "";
let timer = null;
let asking = false;

function show(told) {
  hideAlert("server");
  showButtons(told);
  if (LOST[told.state]) {
    version = "";
    showLost(told);
    showAlert("run", told.state === "gone" ? `${LOST.gone} It was ${told.path}` : `${LOST.broken}: ${told.why}`);
    return;
  }
  hideAlert("run");
  showRun(told);
  if (told.curves) showCurves(told.curves);
  if (told.samples) showSamples(told.samples, told.samples_step);
  version = told.version;
}

function failed(failure) {
  if (failure.status === 401) showAlert("server", "The key is missing: open the address as mlxtune watch told it, with all that follows the #.");
  else if (failure.status === 0) showAlert("server", "mlxtune watch has ended; what is shown is the last that it told. The run is not touched by that.");
  else showAlert("server", `mlxtune watch cannot tell of the run: ${failure.message}`);
}

async function look() {
  clearTimeout(timer);
  if (asking) return;
  asking = true;
  let wait = EVERY;
  try {
    const told = await news(version);
    show(told);
    if (told.is_behind) wait = 0;
  } catch (failure) {
    if (!(failure instanceof Failure)) throw failure;
    failed(failure);
  } finally {
    asking = false;
    if (!document.hidden) timer = setTimeout(look, wait);
  }
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) look();
});
addEventListener("hashchange", look);
connectButtons(look);
look();
