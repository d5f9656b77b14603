// A record's frame on the page: its bytes in rows, those of its index entry, and a table of its fields that marks them.

import { element, find } from "./dom.js";
import { count, describe, hex, timeOf } from "./text.js";

/** @typedef {import("./frame.js").LogRecord} LogRecord */
/** @typedef {import("./frame.js").Part} Part */

/**
 * Where a record stands in the files of its log, and its entry in the index, which may not be there yet.
 *
 * @typedef {{ segment: bigint, position: bigint, entry: Uint8Array }} Place
 */

/** Of a frame with more rows than this, only the first and the last rows are shown. */
const ROWS_MAX = 12;
const LAST_ROWS = 3;
/** An index entry: the offset less the segment's base, and the position. */
export const ENTRY_BYTES = 12;
const ENTRY_PARTS = [
  { field: "relative", start: 0, content: 0, end: 4 },
  { field: "position", start: 4, content: 4, end: ENTRY_BYTES },
];

const narrow = matchMedia("(max-width: 44rem)");

/** The part of the page that shows one frame. */
export class Dump {
  #about;
  #frame;
  #title;
  #bytes;
  #index;
  #fields;
  /** @type {{ record: LogRecord, place: Place | undefined } | undefined} */
  #shown;

  /** @param {Element} section the section of index.html */
  constructor(section) {
    this.#about = find(section, ".about");
    this.#frame = find(section, ".frame");
    this.#title = find(section, ".of-store h3");
    this.#bytes = find(section, ".of-store .dump");
    this.#index = find(section, ".of-index");
    this.#fields = find(section, "tbody");
    narrow.addEventListener("change", () => this.#showBytes());
    this.#frame.addEventListener("pointerover", ({ target }) => this.#mark(partOf(target) ?? this.#pressed()));
    this.#frame.addEventListener("pointerleave", () => this.#mark(this.#pressed()));
    this.#fields.addEventListener("click", ({ target }) => this.#press(target));
  }

  /** Shows none. */
  clear() {
    this.#shown = undefined;
    this.#frame.hidden = true;
    this.#about.textContent =
      "Append to a log or choose a record of one, and its bytes stand here as they do in its store.";
  }

  /**
   * @param {string} of whose it is
   * @param {LogRecord} record
   * @param {Place} [place] where it is known
   */
  show(of, record, place) {
    const pressed = this.#pressed();
    this.#shown = { record, place };
    const bytes = count(record.frame.length);
    this.#about.textContent = place
      ? `${of}, record ${record.offset}: ${bytes} bytes of ${place.segment}.store from position ${count(place.position)} on, read from the file.`
      : `${of}, record ${record.offset}: ${bytes} bytes, as they came from its store. Over REST the server tells no position.`;
    this.#frame.hidden = false;
    this.#showFields(record, place);
    this.#showBytes();
    // What was marked in one record is in the next.
    this.#fields.querySelector(`[data-field="${pressed}"] button`)?.setAttribute("aria-pressed", "true");
    this.#mark(this.#pressed());
  }

  #showBytes() {
    if (!this.#shown) return;
    const { record, place } = this.#shown;
    const columns = narrow.matches ? 8 : 16;
    const start = place?.position ?? 0n;
    this.#title.textContent = place ? `${place.segment}.store` : "The frame";
    this.#bytes.replaceChildren(...rowsOf(record.frame, record.parts, start, columns));
    this.#index.hidden = !place;
    if (place) {
      find(this.#index, "h3").textContent = `${place.segment}.index`;
      const at = (record.offset - place.segment) * BigInt(ENTRY_BYTES);
      const rows = place.entry.length
        ? rowsOf(place.entry, ENTRY_PARTS, at, columns)
        : ["Not written yet: an index may lag, for it is derived from the store."];
      find(this.#index, ".dump").replaceChildren(...rows);
    }
    this.#mark(this.#pressed());
  }

  /**
   * @param {LogRecord} record
   * @param {Place | undefined} place
   */
  #showFields(record, place) {
    const rows = record.parts.map((part) => rowFor(part.field, rangeOf(part), holds(record, part)));
    if (!record.parts.some(({ field }) => field === "offset")) {
      // A field that holds its type's default takes no bytes: say so, or it looks forgotten.
      rows.push(element("tr", { class: "absent" },
        element("th", { scope: "row" }, "offset"), element("td", { class: "range" }, "none"),
        element("td", {}, "0, which takes no bytes")));
    }
    if (place?.entry.length) {
      const view = new DataView(place.entry.buffer, place.entry.byteOffset, ENTRY_BYTES);
      const told = [`${place.segment} + ${view.getUint32(0)}`, `${count(view.getBigUint64(4))} in ${place.segment}.store`];
      const names = ["index: offset", "index: position"];
      ENTRY_PARTS.forEach((part, n) => rows.push(rowFor(part.field, rangeOf(part), told[n] ?? "", names[n])));
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

  /** @param {string | undefined} field */
  #mark(field) {
    this.#frame.classList.toggle("marking", field !== undefined);
    for (const marked of this.#frame.querySelectorAll("[data-field]")) {
      marked.classList.toggle("marked", marked.getAttribute("data-field") === field);
    }
  }
}

/**
 * Bytes in rows; where there are too many, the first and the last.
 *
 * @param {Uint8Array} bytes
 * @param {{ field: string, content: number, end: number }[]} parts
 * @param {bigint} position of the bytes in their file
 * @param {number} columns
 */
function rowsOf(bytes, parts, position, columns) {
  const rows = Math.ceil(bytes.length / columns);
  const elements = [];
  for (let row = 0; row < rows; row++) {
    if (rows > ROWS_MAX && row === ROWS_MAX - LAST_ROWS) {
      const skipped = rows - ROWS_MAX;
      row += skipped;
      elements.push(element("div", { class: "skipped" }, `${count(skipped * columns)} bytes not shown`));
    }
    elements.push(rowOf(bytes, parts, position, row * columns, columns));
  }
  return elements;
}

/**
 * @param {Uint8Array} bytes
 * @param {{ field: string, content: number, end: number }[]} parts
 * @param {bigint} position
 * @param {number} start of the row in the bytes
 * @param {number} columns
 */
function rowOf(bytes, parts, position, start, columns) {
  const digits = [];
  const characters = [];
  for (let at = start; at < Math.min(start + columns, bytes.length); at++) {
    const byte = bytes[at] ?? 0;
    const part = parts.find(({ end }) => at < end);
    const attributes = {
      "data-field": part?.field ?? "other",
      class: part && at < part.content ? "tag" : "content",
    };
    digits.push(element("span", attributes, hex(Uint8Array.of(byte))));
    const printable = byte >= 0x20 && byte < 0x7f;
    characters.push(element("span", attributes, printable ? String.fromCharCode(byte) : "·"));
  }
  return element("div", { class: "row" },
    element("span", { class: "position" }, (position + BigInt(start)).toString(16).padStart(6, "0")),
    element("span", { class: "digits" }, ...digits),
    element("span", { class: "characters", "aria-hidden": "true" }, ...characters));
}

/**
 * @param {string} field
 * @param {string} range
 * @param {string} held
 * @param {string} [name]
 */
function rowFor(field, range, held, name = field) {
  return element("tr", { "data-field": field },
    element("th", { scope: "row" }, element("button", { type: "button", "aria-pressed": "false" }, name)),
    element("td", { class: "range" }, range),
    element("td", {}, held));
}

/** @param {{ start: number, end: number }} part */
function rangeOf({ start, end }) {
  return start === end - 1 ? `${start}` : `${start}–${end - 1}`;
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
      return `${count(record.frame.length - end)} bytes of record follow`;
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
      return textOr(bytes);
    case "producer_sequence":
      return `${record.producer?.sequence}`;
    case "checksum":
      return `XXH3-64 ${record.checksum?.toString(16).padStart(16, "0")}, least byte first`;
    default:
      return `${bytes.length} bytes of a later version`;
  }
}

/** @param {Uint8Array} bytes */
function textOr(bytes) {
  const { content } = describe(bytes);
  return content === "not text" ? hex(bytes) : content;
}

/** @param {EventTarget | null} target */
function partOf(target) {
  return target instanceof Element
    ? (target.closest("[data-field]")?.getAttribute("data-field") ?? undefined)
    : undefined;
}
