/* Pause, go on, stop: which of them can be pressed, and what they tell the run. */

import { hideAlert, showAlert } from "/page/alert.js";
import { byId } from "/page/elements.js";
import { Failure, tell } from "/page/server.js";

let resuming = false; // whether the first button lets the run go on

const WISHES = {
  pause: "It pauses after this step.",
  stop: "It stops after this step, and is saved.",
};

/** Makes the buttons work; `look` is called when the run was told something. */
export function connectButtons(look) {
  async function say(wish) {
    try {
      await tell(wish);
      hideAlert("button");
    } catch (failure) {
      if (!(failure instanceof Failure)) throw failure;
      showAlert("button", failure.status === 0 ? "mlxtune watch does not answer, so the run was told nothing." : `The run was told nothing: ${failure.message}.`);
    }
    look();
  }
  byId("pause").addEventListener("click", () => say(resuming ? "go_on" : "pause"));
  byId("stop").addEventListener("click", () => byId("confirm").showModal());
  byId("keep").addEventListener("click", () => byId("confirm").close());
  byId("really").addEventListener("click", () => {
    byId("confirm").close();
    say("stop");
  });
}

/** Shows what can be asked of the run as it is. */
export function showButtons(news) {
  const atWork = news.state === "training" || news.state === "paused";
  byId("buttons").hidden = !atWork;
  if (!atWork && byId("confirm").open) byId("confirm").close();
  if (!atWork) {
    byId("wish").hidden = true;
    return;
  }
  resuming = (news.state === "paused" && !news.paused_why) || news.wish === "pause";
  byId("pause").textContent = resuming ? "Go on" : "Pause";
  byId("pause").disabled = byId("stop").disabled = news.wish === "stop";
  byId("resume").textContent = news.resume;
  const isMet = news.state === "paused" && news.wish === "pause";
  const waits = news.paused_why ? "It goes on by itself when that is over." : "It goes on in a moment.";
  const goesOn = news.state === "paused" && news.wish === null ? waits : "";
  byId("wish").textContent = isMet ? "" : WISHES[news.wish] ?? goesOn;
  byId("wish").hidden = byId("wish").textContent === "";
}
