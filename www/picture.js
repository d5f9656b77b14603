// The picture of a log's files: its segments, and of one the index and the store, entry by entry and frame by frame.

import { element, find, svg } from "./dom.js";
import { ENTRY_BYTES } from "./dump.js";
import { count, size } from "./text.js";

/** @typedef {import("./src/report.js").SegmentSummary} SegmentSummary */

/**
 * The files that are drawn.
 *
 * @typedef {object} Drawn
 * @property {() => Promise<SegmentSummary[]>} segments
 * @property {(offset: bigint) => Promise<{ segment: bigint, position: bigint }>} locate
 * @property {(name: string, position: number, bytes: number) => Promise<Uint8Array>} readFile
 */

/** A record's place in the picture. @typedef {{ offset: bigint, position: number, bytes: number, isIndexed: boolean }} Frame */

/** The width of an index entry in the picture, at least; as many records are drawn as there is room for. */
const ENTRY_WIDTH = 18;
const FRAMES_MAX = 64;
const INDEX = { y: 24, height: 18 };
const STORE = { y: 92, height: 30 };
const HEIGHT = STORE.y + STORE.height + 22;

export class Picture {
  #root;
  #segments;
  #lanes;
  #files;
  /** @type {bigint | undefined} */
  #chosen;
  /** @type {Frame[]} */
  #frames = [];
  /** Counts what is drawn, so that what is out of date is not. */
  #drawing = 0;

  /** What is called with the record under the pointer; with none once there is none. @type {(offset: bigint | undefined) => void} */
  onPoint = () => {};
  /** What is called with the record that is to be drawn; by keys it may lie beyond the log's. @type {(offset: bigint) => void} */
  onChoose = () => {};

  /**
   * @param {Element} section
   * @param {Drawn} files
   */
  constructor(section, files) {
    this.#files = files;
    this.#root = find(section, ".picture");
    this.#segments = find(this.#root, ".segments");
    this.#lanes = find(this.#root, ".lanes");
    let width = 0;
    new ResizeObserver(() => {
      if (this.#lanes.clientWidth === width) return;
      width = this.#lanes.clientWidth;
      void this.#draw();
    }).observe(this.#root);
    this.#lanes.addEventListener("pointerover", ({ target }) => this.#point(offsetOf(target)));
    this.#lanes.addEventListener("pointerleave", () => this.#point(undefined));
    this.#lanes.addEventListener("click", ({ target }) => {
      const offset = offsetOf(target);
      if (offset !== undefined) this.onChoose(offset);
    });
    this.#lanes.addEventListener("keydown", (event) => this.#press(event));
    this.#segments.addEventListener("click", ({ target }) => {
      const button = target instanceof Element ? target.closest("button") : null;
      if (button?.value) this.onChoose(BigInt(button.value));
    });
  }

  /** Shows where a record stands; none if there is none. @param {bigint | undefined} offset */
  async show(offset) {
    this.#chosen = offset;
    this.#root.hidden = offset === undefined;
    await this.#draw();
  }

  async #draw() {
    const drawing = ++this.#drawing;
    const chosen = this.#chosen;
    if (chosen === undefined) return;
    try {
      const segments = (await this.#files.segments()).filter(({ base, next }) => next > base);
      const segment = segments.find(({ base, next }) => chosen >= base && chosen < next);
      const frames = segment ? await this.#framesOf(segment, chosen) : [];
      if (drawing !== this.#drawing || !segment) return;
      this.#frames = frames;
      this.#drawSegments(segments, segment.base);
      this.#drawLanes(segment.base, segment.next - 1n);
    } catch {
      // The log was closed meanwhile, or the record removed: who did that draws anew.
    }
  }

  /**
   * The records around one, where the index says that they are; those that it does not have yet, where the log does.
   *
   * @param {SegmentSummary} segment
   * @param {bigint} chosen
   * @returns {Promise<Frame[]>}
   */
  async #framesOf({ base, next, storeBytes }, chosen) {
    const room = Math.max(Math.min(Math.floor(this.#lanes.clientWidth / ENTRY_WIDTH), FRAMES_MAX), 8);
    const records = Number(next - base);
    const at = Number(chosen - base);
    const from = Math.max(Math.min(at - Math.floor(room / 2), records - room), 0);
    const to = Math.min(from + room, records);
    const index = await this.#files.readFile(`${base}.index`, from * ENTRY_BYTES, (to - from + 1) * ENTRY_BYTES);
    const view = new DataView(index.buffer, index.byteOffset, index.byteLength);
    /** @type {{ offset: bigint, position: number, isIndexed: boolean }[]} */
    const positions = [];
    for (let entry = 0; entry <= to - from; entry++) {
      const isIndexed = (entry + 1) * ENTRY_BYTES <= index.length;
      const offset = base + BigInt(from + entry);
      const isEnd = offset === next;
      const position = isIndexed && !isEnd
        ? Number(view.getBigUint64(entry * ENTRY_BYTES + 4))
        : isEnd ? storeBytes : Number((await this.#files.locate(offset)).position);
      positions.push({ offset, position, isIndexed });
    }
    return positions.slice(0, -1).map((frame, n) => ({
      ...frame,
      bytes: Math.max((positions[n + 1]?.position ?? frame.position) - frame.position, 0),
    }));
  }

  /**
   * @param {SegmentSummary[]} segments
   * @param {bigint} open the base of the one that is drawn
   */
  #drawSegments(segments, open) {
    const focused = /** @type {HTMLButtonElement | null} */ (this.#segments.querySelector(":focus"))?.value;
    this.#segments.replaceChildren(
      ...segments.map(({ base, next, storeBytes }, n) => {
        const state = n === segments.length - 1 ? "active" : "sealed";
        const button = element(
          "button",
          { type: "button", value: `${base}`, "aria-pressed": `${base === open}`, title: `${base}.store, ${state}` },
          element("b", {}, `${base}`),
          element("span", {}, ` ${count(Number(next - base))} · ${size(storeBytes)} · ${state}`),
        );
        button.style.setProperty("flex-grow", `${storeBytes}`);
        return button;
      }),
    );
    if (focused) find(this.#segments, `[value="${focused}"]`).focus();
    this.#segments.querySelector("[aria-pressed=true]")?.scrollIntoView?.({ block: "nearest", inline: "nearest" });
  }

  /**
   * @param {bigint} base
   * @param {bigint} last offset of the segment
   */
  #drawLanes(base, last) {
    const frames = this.#frames;
    const [first] = frames;
    const end = frames.at(-1);
    if (!first || !end) return;
    const width = this.#lanes.clientWidth;
    const entryWidth = Math.min(width / frames.length, 4 * ENTRY_WIDTH);
    const bytes = end.position + end.bytes - first.position;
    // Few records are not drawn as wide as many.
    const scale = Math.min(width / Math.max(bytes, 1), 8);
    const parts = frames.map(({ offset, position, bytes, isIndexed }, n) => {
      const [x, w] = [n * entryWidth, Math.max(bytes * scale, 1)];
      const frameX = (position - first.position) * scale;
      const entryMiddle = x + entryWidth / 2;
      return svg(
        "g",
        { class: `record${isIndexed ? "" : " lags"}`, "data-offset": `${offset}` },
        svg("rect", { class: "entry", x: x + 0.5, y: INDEX.y, width: Math.max(entryWidth - 1, 1), height: INDEX.height }),
        svg("path", {
          class: "leads",
          d: `M${entryMiddle},${INDEX.y + INDEX.height} C${entryMiddle},${INDEX.y + INDEX.height + 28} ${frameX + 0.5},${STORE.y - 28} ${frameX + 0.5},${STORE.y}`,
        }),
        svg("rect", { class: "stored", x: frameX + 0.5, y: STORE.y, width: Math.max(w - 1, 1), height: STORE.height }),
      );
    });
    const label = (/** @type {number} */ x, /** @type {number} */ y, /** @type {string} */ text, anchor = "start") =>
      svg("text", { x, y, "text-anchor": anchor }, text);
    const drawn = svg(
      "svg",
      { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true", focusable: "false" },
      label(0, INDEX.y - 9, `${base}.index: an entry is ${ENTRY_BYTES} bytes`),
      ...parts,
      label(0, HEIGHT - 5, `${base}.store: ${count(first.position)}`),
      label(Math.max(Math.min(bytes * scale, width), 200), HEIGHT - 5, count(end.position + end.bytes), "end"),
    );
    this.#lanes.replaceChildren(drawn);
    this.#lanes.setAttribute("aria-valuemin", `${base}`);
    this.#lanes.setAttribute("aria-valuemax", `${last}`);
    this.#mark(this.#chosen);
  }

  /** @param {bigint | undefined} offset */
  #point(offset) {
    this.#mark(offset ?? this.#chosen);
    this.onPoint(offset);
  }

  /** @param {bigint | undefined} offset */
  #mark(offset) {
    const frame = this.#frames.find((frame) => frame.offset === offset);
    for (const record of this.#lanes.querySelectorAll(".record")) {
      record.classList.toggle("marked", offsetOf(record) === offset);
    }
    // What is marked is drawn last, over its neighbours' lines.
    const marked = this.#lanes.querySelector(".marked");
    if (marked) marked.parentElement?.insertBefore(marked, null);
    if (!frame) return;
    this.#lanes.setAttribute("aria-valuenow", `${frame.offset}`);
    this.#lanes.setAttribute(
      "aria-valuetext",
      `record ${frame.offset}, ${frame.bytes} bytes at position ${frame.position}`,
    );
  }

  /** @param {KeyboardEvent} event */
  #press(event) {
    if (this.#chosen === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    const at = this.#chosen;
    const drawn = (/** @type {string} */ name) => BigInt(this.#lanes.getAttribute(name) ?? at);
    const to = {
      ArrowLeft: at - 1n,
      ArrowDown: at - 1n,
      ArrowRight: at + 1n,
      ArrowUp: at + 1n,
      PageUp: at + 16n,
      PageDown: at - 16n,
      Home: drawn("aria-valuemin"),
      End: drawn("aria-valuemax"),
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.onChoose(to);
  }
}

/** @param {EventTarget | null} target */
function offsetOf(target) {
  const offset = target instanceof Element ? target.closest("[data-offset]")?.getAttribute("data-offset") : undefined;
  return offset ? BigInt(offset) : undefined;
}
