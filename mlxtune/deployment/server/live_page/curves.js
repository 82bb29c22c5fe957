/* The charts of the page: which curve goes where, and how its values are written. */

import { Chart } from "/page/chart.js";
import { byId } from "/page/elements.js";
import { count, figure, memory } from "/page/numbers.js";

const short = (value) => (value === 0 ? "0" : Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5 ? value.toExponential(0) : String(Number(value.toPrecision(3))));

const CHARTS = {
  loss: new Chart("Loss", { tick: short, value: figure }),
  reward: new Chart("Mean reward of the answers that were drawn", { tick: short, value: figure }),
  learning_rate: new Chart("Learning rate", { tick: short, value: figure, fromZero: true }),
  grad_norm: new Chart("Length of the gradient, before clipping", { tick: short, value: figure }),
  tokens_per_s: new Chart("Tokens a second", { tick: count, fromZero: true }),
  peak_memory_bytes: new Chart("Peak memory", { tick: (value) => (value === 0 ? "0" : memory(value)), fromZero: true }),
};

/** `curves`: points by name. */
export function showCurves(curves) {
  const of = (name) => curves[name] ?? [];
  const validated = of("valid_loss").length > 0;
  CHARTS.loss.show([
    { points: of("loss"), name: validated ? "training batches" : "", role: validated ? "quiet-line" : "accent" },
    { points: of("valid_loss"), name: "validation rows", role: "accent", dots: of("valid_loss").length <= 60 },
  ]);
  for (const name of Object.keys(CHARTS).slice(1)) CHARTS[name].show([{ points: of(name), name: "", role: "accent" }]);
  CHARTS.reward.figure.hidden = of("reward").length === 0;
  byId("no-curves").hidden = Object.keys(curves).length > 0;
  if (!byId("charts").hasChildNodes()) byId("charts").append(...Object.values(CHARTS).map((chart) => chart.figure));
}
