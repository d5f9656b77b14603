// What appends took, by what they promise: figures, and a chart of the last ones.

import { element, find, svg } from "./dom.js";
import { count, duration, reason } from "./text.js";

/** @typedef {import("./src/index.js").Durability} Durability */
/** @typedef {{ durability: Durability, ms: number }} Taken */

const DURABILITIES = /** @type {const} */ (["synced", "written", "buffered"]);
/** So many of each durability count, the last ones. */
const KEPT = 500;
/** So many are drawn, of all. */
const DRAWN = 200;
const MEASURED = 200;
const VALUE_BYTES = 100;
/** How often it is drawn at most: that takes time from those who append. */
const DRAWN_MS = 250;
const DEFAULT_RANGE_MS = /** @type {const} */ ([0.1, 10]);

const HEIGHT = 150;
const LABEL_HEIGHT = 13;
const MARGIN = { left: 44, right: 32, top: 8, bottom: 8 };

export class Latency {
  #section;
  #chart;
  #status;
  /** @type {Record<Durability, number[]>} */
  #kept = { synced: [], written: [], buffered: [] };
  /** @type {Taken[]} */
  #last = [];
  #isDue = false;

  /**
   * @param {HTMLElement} section
   * @param {(value: Uint8Array) => Promise<unknown>} append
   */
  constructor(section, append) {
    this.#section = section;
    this.#chart = find(section, ".chart");
    this.#status = find(section, ".status");
    const button = /** @type {HTMLButtonElement} */ (find(section, "[name=measure]"));
    button.addEventListener("click", () => this.#measure(button, append));
    new ResizeObserver(() => this.#drawSoon()).observe(this.#chart);
    this.#draw();
  }

  /**
   * @param {Durability} durability
   * @param {number} ms
   */
  add(durability, ms) {
    const kept = this.#kept[durability];
    kept.push(ms);
    if (kept.length > KEPT) kept.shift();
    this.#last.push({ durability, ms });
    if (this.#last.length > DRAWN) this.#last.shift();
    this.#drawSoon();
  }

  /**
   * @param {HTMLButtonElement} button
   * @param {(value: Uint8Array) => Promise<unknown>} append
   */
  async #measure(button, append) {
    button.disabled = true;
    this.#status.classList.remove("failed");
    this.#status.textContent = "Appending …";
    try {
      const value = crypto.getRandomValues(new Uint8Array(VALUE_BYTES));
      const began = performance.now();
      for (let n = 0; n < MEASURED; n++) await append(value);
      const ms = performance.now() - began;
      const speed = count((MEASURED * 1000) / ms);
      this.#status.textContent = `${MEASURED} records of ${VALUE_BYTES} bytes in ${duration(ms)}: ${speed} a second.`;
    } catch (error) {
      this.#status.classList.add("failed");
      this.#status.textContent = reason(error);
    }
    button.disabled = false;
    button.focus();
  }

  #drawSoon() {
    if (this.#isDue) return;
    this.#isDue = true;
    setTimeout(() => {
      this.#isDue = false;
      this.#draw();
    }, DRAWN_MS);
  }

  #draw() {
    const figures = DURABILITIES.map((durability) => {
      const sorted = [...this.#kept[durability]].sort((a, b) => a - b);
      return { durability, taken: sorted.length, p50: at(sorted, 0.5), p99: at(sorted, 0.99) };
    });
    find(this.#section, ".figures tbody").replaceChildren(
      ...figures.map(({ durability, taken, p50, p99 }) =>
        element("tr", {},
          element("th", { scope: "row" }, mark(durability), durability),
          ...[count(taken), p50 === undefined ? "–" : duration(p50), p99 === undefined ? "–" : duration(p99)]
            .map((figure) => element("td", {}, figure)))),
    );
    this.#chart.replaceChildren(this.#points(figures.find(({ durability }) => durability === "synced")));
  }

  /** @param {{ p50: number | undefined, p99: number | undefined } | undefined} synced */
  #points(synced) {
    const width = Math.max(this.#chart.clientWidth, 200);
    const taken = this.#last.map(({ ms }) => ms);
    const min = decade(Math.min(...taken, DEFAULT_RANGE_MS[0]), Math.floor);
    const max = decade(Math.max(...taken, DEFAULT_RANGE_MS[1]), Math.ceil);
    const inner = { width: width - MARGIN.left - MARGIN.right, height: HEIGHT - MARGIN.top - MARGIN.bottom };
    const y = (/** @type {number} */ ms) =>
      MARGIN.top + inner.height * (1 - Math.log(Math.max(ms, min) / min) / Math.log(max / min));
    const x = (/** @type {number} */ n) => MARGIN.left + (inner.width * (n + 0.5)) / DRAWN;
    const lines = [];
    for (let ms = min; ms <= max * 1.001; ms *= 10) {
      lines.push(
        svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(ms), y2: y(ms) }),
        svg("text", { x: MARGIN.left - 8, y: y(ms) + 4, "text-anchor": "end" }, ms < 1 ? `${+ms.toPrecision(1)}` : `${count(ms)}${ms === 1 ? " ms" : ""}`),
      );
    }
    let lowest = Infinity;
    for (const name of /** @type {const} */ (["p50", "p99"])) {
      const ms = synced?.[name];
      if (ms === undefined) continue;
      // The greater stands above: its label is not written over the other's, which leaves it room in the chart.
      const highest = MARGIN.top + (name === "p50" ? LABEL_HEIGHT : 0);
      lowest = Math.min(Math.max(y(ms), highest), lowest - LABEL_HEIGHT);
      lines.push(
        svg("line", { class: name, x1: MARGIN.left, x2: width - MARGIN.right, y1: y(ms), y2: y(ms) }),
        svg("text", { x: width, y: lowest + 4, "text-anchor": "end" }, name),
      );
    }
    const told = taken.length
      ? `The last ${taken.length} appends, in milliseconds on a logarithmic scale: the table has the figures`
      : "No appends yet";
    return svg("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": told },
      ...lines,
      ...this.#last.map(({ durability, ms }, n) => point(durability, x(n), y(ms))));
  }
}

/** How a durability is drawn, beside its name. @param {Durability} durability */
function mark(durability) {
  return svg("svg", { width: 12, height: 10, viewBox: "0 0 12 10", "aria-hidden": "true" }, point(durability, 4, 5));
}

/**
 * @param {Durability} durability
 * @param {number} x
 * @param {number} y
 */
function point(durability, x, y) {
  return durability === "buffered"
    ? svg("line", { class: "point buffered", x1: x - 2.5, x2: x + 2.5, y1: y, y2: y })
    : svg("circle", { class: `point ${durability}`, cx: x, cy: y, r: 2 });
}

/**
 * @param {number} ms
 * @param {(power: number) => number} round
 */
function decade(ms, round) {
  return 10 ** round(Math.log10(Math.max(ms, 0.01)));
}

/**
 * The value below which such a part of the others is.
 *
 * @param {number[]} sorted
 * @param {number} part
 */
function at(sorted, part) {
  return sorted[Math.max(Math.ceil(sorted.length * part) - 1, 0)];
}
