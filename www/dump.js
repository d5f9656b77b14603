// A frame on the page: its bytes in rows, and a table of its fields that marks them.

import { describe, hex } from "./text.js";

/** @typedef {import("./frame.js").LogRecord} LogRecord */
/** @typedef {import("./frame.js").Part} Part */

/** Of a frame with more rows than this, only the first and the last rows are shown. */
const ROWS_MAX = 24;
const LAST_ROWS = 4;

const narrow = matchMedia("(max-width: 40rem)");

/** The part of the page that shows one frame. */
export class Dump {
  #about;
  #parts;
  #bytes;
  #fields;
  /** @type {{ record: LogRecord, segment: bigint, position: bigint } | undefined} */
  #shown;

  /** @param {Element} section the section of index.html */
  constructor(section) {
    const find = (/** @type {string} */ selector) =>
      /** @type {HTMLElement} */ (section.querySelector(selector));
    this.#about = find(".about");
    this.#parts = find(".frame-parts");
    this.#bytes = find(".dump");
    this.#fields = find("tbody");
    narrow.addEventListener("change", () => this.#showBytes());
    for (const of of [this.#bytes, this.#fields]) {
      of.addEventListener("pointerover", ({ target }) => this.#mark(partOf(target) ?? this.#pressed()));
      of.addEventListener("pointerleave", () => this.#mark(this.#pressed()));
    }
    this.#fields.addEventListener("click", ({ target }) => this.#press(target));
  }

  /**
   * @param {LogRecord} record
   * @param {{ segment: bigint, position: bigint }} place where it stands in the log's files
   */
  show(record, { segment, position }) {
    this.#shown = { record, segment, position };
    const last = position + BigInt(record.frame.length) - 1n;
    this.#about.textContent =
      `Record ${record.offset} is ${record.frame.length} bytes of ${segment}.store, ` +
      `from position ${position} to ${last}.`;
    this.#parts.hidden = false;
    this.#showFields(record);
    this.#showBytes();
  }

  #showBytes() {
    if (!this.#shown) return;
    const { record, position } = this.#shown;
    const columns = narrow.matches ? 8 : 16;
    const rows = Math.ceil(record.frame.length / columns);
    const elements = [];
    for (let row = 0; row < rows; row++) {
      if (rows > ROWS_MAX && row === ROWS_MAX - LAST_ROWS) {
        const skipped = rows - ROWS_MAX;
        row += skipped;
        elements.push(element("div", { class: "skipped" }, `${skipped * columns} bytes not shown`));
      }
      elements.push(rowOf(record, position, row * columns, columns));
    }
    this.#bytes.replaceChildren(...elements);
    this.#mark(this.#pressed());
  }

  /** @param {LogRecord} record */
  #showFields(record) {
    const rows = record.parts.map((part, index) => {
      const name = element("button", { type: "button", "aria-pressed": "false" }, part.field);
      return element(
        "tr",
        { "data-part": `${index}`, "data-field": part.field },
        element("th", { scope: "row" }, name),
        element("td", { class: "range" }, `${part.start}–${part.end - 1}`),
        element("td", {}, holds(record, part)),
      );
    });
    if (!record.parts.some(({ field }) => field === "offset")) {
      // A field that holds its type's default takes no bytes: say so, or it looks forgotten.
      rows.push(
        element(
          "tr",
          { class: "absent" },
          element("th", { scope: "row" }, "offset"),
          element("td", { class: "range" }, "none"),
          element("td", {}, "0, which takes no bytes"),
        ),
      );
    }
    this.#fields.replaceChildren(...rows);
  }

  /** @param {EventTarget | null} target */
  #press(target) {
    const button = target instanceof Element ? target.closest("button") : null;
    if (!button) return;
    const press = button.getAttribute("aria-pressed") !== "true";
    for (const other of this.#fields.querySelectorAll("button")) {
      other.setAttribute("aria-pressed", `${press && other === button}`);
    }
    this.#mark(this.#pressed());
  }

  #pressed() {
    return partOf(this.#fields.querySelector("[aria-pressed=true]"));
  }

  /** @param {string | undefined} part */
  #mark(part) {
    this.#bytes.classList.toggle("marking", part !== undefined);
    for (const of of [this.#bytes, this.#fields]) {
      for (const marked of of.querySelectorAll("[data-part]")) {
        marked.classList.toggle("marked", marked.getAttribute("data-part") === part);
      }
    }
  }
}

/**
 * @param {LogRecord} record
 * @param {bigint} position of the frame in its store
 * @param {number} start of the row in the frame
 * @param {number} columns
 */
function rowOf(record, position, start, columns) {
  const bytes = [];
  const characters = [];
  for (let at = start; at < Math.min(start + columns, record.frame.length); at++) {
    const byte = record.frame[at] ?? 0;
    const index = record.parts.findIndex(({ end }) => at < end);
    const part = record.parts[index];
    const attributes = {
      "data-part": `${index}`,
      "data-field": part?.field ?? "other",
      class: part && at < part.content ? "tag" : "content",
    };
    bytes.push(element("span", attributes, hex(Uint8Array.of(byte))));
    const printable = byte >= 0x20 && byte < 0x7f;
    characters.push(element("span", attributes, printable ? String.fromCharCode(byte) : "·"));
  }
  return element(
    "div",
    { class: "row" },
    element("span", { class: "position" }, (position + BigInt(start)).toString(16).padStart(6, "0")),
    element("span", { class: "bytes" }, ...bytes),
    element("span", { class: "characters", "aria-hidden": "true" }, ...characters),
  );
}

/**
 * What a field holds, for people.
 *
 * @param {LogRecord} record
 * @param {Part} part
 */
function holds(record, { field, content, end }) {
  const bytes = record.frame.subarray(content, end);
  switch (field) {
    case "length":
      return `${record.frame.length - end} bytes of record follow`;
    case "value":
    case "key": {
      const { size, content } = describe(bytes);
      return `${size}: ${content}`;
    }
    case "offset":
      return `${record.offset}`;
    case "timestamp_ms":
      return timeOf(record.timestampMs ?? 0);
    case "headers":
      return `${bytes.length} bytes of a header`;
    case "batch_remaining":
      return `${record.batchRemaining} more of the batch follow`;
    case "producer_id":
      return describe(bytes).content;
    case "producer_sequence":
      return `${record.producer?.sequence}`;
    case "checksum":
      return `XXH3-64 ${record.checksum?.toString(16).padStart(16, "0")}, least byte first`;
    default:
      return `${bytes.length} bytes of a later version`;
  }
}

/** @param {number} ms */
export function timeOf(ms) {
  const date = new Date(ms);
  // A timestamp is any u64, and a calendar ends before.
  if (Number.isNaN(date.getTime())) return `${ms} ms`;
  return date.toISOString().replace("T", " ").replace("Z", " UTC");
}

/** @param {EventTarget | null} target */
function partOf(target) {
  return target instanceof Element
    ? (target.closest("[data-part]")?.getAttribute("data-part") ?? undefined)
    : undefined;
}

/**
 * @param {string} name
 * @param {Record<string, string>} attributes
 * @param {...(Node | string)} children
 */
export function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.append(...children);
  return made;
}
