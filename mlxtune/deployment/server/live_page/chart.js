/* A chart of one or two curves over the steps, as SVG. Points are [step, mean, lowest, highest]. */

import { element } from "/page/elements.js";
import { count } from "/page/numbers.js";

const WIDTH = 400, HEIGHT = 220, LEFT = 52, RIGHT = 10, TOP = 22, BOTTOM = 26;
const STEEP = 100; // highest to lowest, beyond which the axis is logarithmic

function drawn(name, attributes, ...inside) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...inside);
  return made;
}

/** Round numbers from `low` to `high`, about `about` of them. */
export function ticks(low, high, about) {
  const rough = (high - low) / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * power).find((one) => one >= rough) ?? rough;
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => (first + i) * step);
}

/** Which values the axis shows, and where each is, from 0 (at the bottom) to 1. */
function scaleOf(curves, fromZero) {
  const means = curves.flatMap((curve) => curve.points.map((point) => point[1]));
  let low = Math.min(...means), high = Math.max(...means);
  if (!fromZero && low > 0 && high / low > STEEP) {
    const [from, to] = [Math.log10(low), Math.log10(high)];
    const powers = Array.from({ length: Math.ceil(to) - Math.floor(from) + 1 }, (_, i) => 10 ** (Math.floor(from) + i));
    return { at: (value) => (Math.log10(Math.max(value, low / 10)) - from) / (to - from), marks: powers.filter((one) => one >= low && one <= high) };
  }
  if (fromZero) [low, high] = [0, high * 1.08 || 1];
  else {
    const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
    [low, high] = [low - room, high + room];
  }
  return { at: (value) => (value - low) / (high - low), marks: ticks(low, high, 4) };
}

/** One chart that is drawn again as its curves grow; above them stands what is under the pointer. */
export class Chart {
  #svg = drawn("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  #reading = drawn("text", { class: "reading", x: WIDTH - RIGHT, y: 12, "text-anchor": "end" });
  #legend = element("span", { className: "legend" });
  #curves = [];
  #pointer = null; // x, from 0 to 1 of the drawing

  /** `tick` and `value` write a value, at the axis and in a reading. */
  constructor(title, { tick, value = tick, fromZero = false }) {
    this.title = title;
    this.tick = tick;
    this.value = value;
    this.fromZero = fromZero;
    const caption = element("figcaption", {}, title, this.#legend);
    this.figure = element("figure", {}, caption, this.#svg);
    this.#svg.addEventListener("pointermove", (event) => this.#point(event));
    this.#svg.addEventListener("pointerdown", (event) => this.#point(event));
    this.#svg.addEventListener("pointerleave", () => { this.#pointer = null; this.#draw(); });
  }

  /** `curves`: {points, name, role ("accent" or "quiet-line"), dots}; those without points are left out. */
  show(curves) {
    this.#curves = curves.filter((curve) => curve.points.length > 0);
    this.figure.hidden = this.#curves.length === 0;
    if (!this.figure.hidden) this.#draw();
  }

  #point(event) {
    const box = this.#svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * WIDTH;
    this.#pointer = Math.min(1, Math.max(0, (x - LEFT) / (WIDTH - LEFT - RIGHT)));
    this.#draw();
  }

  #draw() {
    const ends = this.#curves.flatMap((curve) => [curve.points[0][0], curve.points.at(-1)[0]]);
    const first = Math.min(...ends), last = Math.max(...ends);
    const scale = scaleOf(this.#curves, this.fromZero);
    const x = (step) => LEFT + (last > first ? (step - first) / (last - first) : 0.5) * (WIDTH - LEFT - RIGHT);
    const y = (value) => TOP + (1 - Math.min(1.02, Math.max(-0.02, scale.at(value)))) * (HEIGHT - TOP - BOTTOM);
    const marks = scale.marks.flatMap((value) => [
      drawn("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }),
      drawn("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, this.tick(value)),
    ]);
    const steps = last > first ? ticks(first, last, 4).filter(Number.isInteger) : [last];
    const under = steps.map((step) => drawn("text", { x: x(step), y: HEIGHT - 8, "text-anchor": x(step) > WIDTH - 30 ? "end" : "middle" }, count(step)));
    under.push(drawn("text", { x: LEFT - 6, y: HEIGHT - 8, "text-anchor": "end" }, "step"));
    this.#svg.replaceChildren(...marks, ...under, ...this.#curves.flatMap((curve) => drawCurve(curve, x, y)), ...this.#read(first, last, x), this.#reading);
    this.#svg.setAttribute("aria-label", this.#label());
    const named = this.#curves.filter((curve) => curve.name);
    this.#legend.replaceChildren(...named.map((curve) => element("span", { className: curve.role }, curve.name)));
  }

  /** The line under the pointer, and what it crosses. */
  #read(first, last, x) {
    if (this.#pointer === null) {
      this.#reading.textContent = "";
      return [];
    }
    const step = first + this.#pointer * (last - first);
    const near = this.#curves.map((curve) => curve.points.reduce((best, point) => (Math.abs(point[0] - step) < Math.abs(best[0] - step) ? point : best)));
    this.#reading.textContent = `step ${count(near[0][0])}: ${near.map((point) => this.value(point[1])).join(", ")}`;
    return [drawn("line", { class: "hair", x1: x(near[0][0]), x2: x(near[0][0]), y1: TOP, y2: HEIGHT - BOTTOM })];
  }

  #label() {
    return this.#curves.map(({ name, points }) => {
      const [from, to] = [points[0], points.at(-1)];
      return `${this.title}${name ? `, ${name}` : ""}: ${this.value(from[1])} at step ${count(from[0])}, ${this.value(to[1])} at step ${count(to[0])}`;
    }).join("; ");
  }
}

function drawCurve({ points, role, dots }, x, y) {
  const path = points.map((point) => `${x(point[0]).toFixed(1)},${y(point[1]).toFixed(1)}`).join(" ");
  const parts = [];
  if (points.some((point) => point[2] < point[3])) {
    const edge = [...points.map((point) => [point[0], point[3]]), ...points.toReversed().map((point) => [point[0], point[2]])];
    const around = edge.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
    parts.push(drawn("polygon", { class: `band fill ${role}`, points: around }));
  }
  parts.push(drawn("polyline", { class: `line ${role}`, points: path }));
  if (dots || points.length === 1) {
    parts.push(...points.map((point) => drawn("circle", { class: `fill ${role}`, cx: x(point[0]), cy: y(point[1]), r: 3 })));
  }
  return parts;
}
