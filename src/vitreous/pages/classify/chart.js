/** The last seconds of the camera: each class's probability as a line. */

import { element } from "./elements.js";

const SPACE = "http://www.w3.org/2000/svg";
const WINDOW = 30; // seconds
const LINES = 6; // that can be told apart
const [WIDTH, HEIGHT] = [600, 160];

/** A chart over time with its legend. */
export class Chart {
  #points = []; // {time, probabilities}
  #places = new Map(); // class to line
  #svg = document.createElementNS(SPACE, "svg");
  #legend = element("ul", { className: "legend", ariaHidden: "true" });

  constructor() {
    this.#svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.#svg.setAttribute("preserveAspectRatio", "none");
    this.#svg.setAttribute("role", "img");
    this.#svg.setAttribute("aria-label", "probabilities over time");
    const axis = element("p", { className: "axis", ariaHidden: "true" });
    axis.append(element("span", {}, `${WINDOW} s ago`), element("span", {}, "now"));
    this.element = element("div", { className: "chart" }, this.#svg, axis, this.#legend);
  }

  /** Add an answer; `time` in seconds. */
  add(time, probabilities) {
    this.#points.push({ time, probabilities });
    while (time - this.#points[0].time > WINDOW) this.#points.shift();
    this.#choose();
    this.#draw(time);
  }

  /** Those that were likeliest at some time keep their line as long as they are among them. */
  #choose() {
    const highest = new Map();
    for (const { probabilities } of this.#points) {
      for (const [name, share] of Object.entries(probabilities)) {
        if (share > (highest.get(name) ?? 0)) highest.set(name, share);
      }
    }
    const order = [...highest].sort((a, b) => b[1] - a[1]);
    const shown = new Set(order.slice(0, LINES).map(([name]) => name));
    for (const name of this.#places.keys()) if (!shown.has(name)) this.#places.delete(name);
    for (const name of shown) {
      if (this.#places.has(name)) continue;
      const taken = new Set(this.#places.values());
      this.#places.set(name, [...Array(LINES).keys()].find((place) => !taken.has(place)));
    }
  }

  #draw(now) {
    const rows = [...this.#places];
    const lines = rows.map(([name, place]) => {
      const line = document.createElementNS(SPACE, "polyline");
      const points = this.#points.map(({ time, probabilities }) => {
        const x = WIDTH * (1 - (now - time) / WINDOW);
        return `${x.toFixed(1)},${(4 + (HEIGHT - 8) * (1 - probabilities[name])).toFixed(1)}`;
      });
      line.setAttribute("points", points.join(" "));
      line.setAttribute("class", `line line-${place}`);
      return line;
    });
    this.#svg.replaceChildren(...lines);
    const items = rows.map(([name, place]) => {
      return element("li", {}, element("span", { className: `swatch line-${place}` }), name);
    });
    this.#legend.replaceChildren(...items);
  }
}
