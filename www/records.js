// A list of records, of which one is chosen: by the pointer, or by the arrow keys.

import { element, find } from "./dom.js";
import { count, describe, hex, size, textOf } from "./text.js";

/** @typedef {import("./frame.js").LogRecord} LogRecord */

/** So many records are in the page at most. */
const ROWS_MAX = 100;
/** Bytes of a value that are shown of it where it is no text. */
const HEX_BYTES_MAX = 16;
/** From so many on bytes are rounded: there is room for no more. */
const COUNTED_BYTES_MAX = 100_000;

export class RecordList {
  #scrolled;
  #body;
  #none;
  /** @type {LogRecord[]} */
  #records = [];
  /** @type {bigint | undefined} */
  #chosen;

  /** What is called with a record that was chosen. @type {(record: LogRecord) => void} */
  onChoose = () => {};
  /** What is called where the arrow keys lead past the last row, or before the first. @type {(offset: bigint) => void} */
  onBeyond = () => {};

  /**
   * @param {HTMLElement} root
   * @param {string} caption
   */
  constructor(root, caption) {
    this.#scrolled = root;
    this.#body = find(root, "tbody");
    this.#none = find(root, ".none");
    find(root, "caption").textContent = caption;
    this.#body.addEventListener("click", ({ target }) => {
      const row = target instanceof Element ? target.closest("tr") : null;
      const record = row && this.#records[[...this.#body.children].indexOf(row)];
      if (record) this.#choose(record, true);
    });
    this.#body.addEventListener("keydown", (event) => this.#press(event));
  }

  get first() {
    return this.#records[0];
  }

  get last() {
    return this.#records.at(-1);
  }

  clear() {
    this.show([]);
  }

  /** Shows these and no others. @param {LogRecord[]} records */
  show(records) {
    this.#records = [];
    this.#body.replaceChildren();
    this.add(records.slice(0, ROWS_MAX));
    this.#scrolled.scrollTop = 0;
  }

  /** Adds records at the end, and drops as many from the beginning as are too many. @param {LogRecord[]} records */
  add(records) {
    const added = records.slice(-ROWS_MAX);
    this.#records.push(...added);
    const dropped = this.#records.splice(0, Math.max(this.#records.length - ROWS_MAX, 0));
    const hadFocus = this.#body.contains(document.activeElement);
    for (const _ of dropped) this.#body.firstElementChild?.remove();
    this.#body.append(...added.slice(-this.#records.length).map(rowOf));
    this.#none.hidden = this.#records.length > 0;
    this.#mark(hadFocus && !this.#body.contains(document.activeElement));
  }

  toEnd() {
    this.#scrolled.scrollTop = this.#scrolled.scrollHeight;
  }

  /** Marks the record of an offset as the chosen one, if it is in the list. @param {bigint | undefined} offset */
  mark(offset) {
    this.#chosen = offset;
    this.#mark(false);
  }

  /**
   * @param {LogRecord} record
   * @param {boolean} hasFocus
   */
  #choose(record, hasFocus) {
    this.#chosen = record.offset;
    this.#mark(hasFocus);
    this.onChoose(record);
  }

  /** @param {boolean} focuses whether the chosen one, or else the last one, gets the focus */
  #mark(focuses) {
    let at = this.#records.findIndex(({ offset }) => offset === this.#chosen);
    [...this.#body.children].forEach((row, index) => row.classList.toggle("chosen", index === at));
    if (at < 0) at = this.#records.length - 1;
    // One row takes part in the tab order: who passes by need not pass them all.
    [...this.#body.querySelectorAll("button")].forEach((button, index) => {
      button.tabIndex = index === at ? 0 : -1;
      button.setAttribute("aria-pressed", `${this.#records[index]?.offset === this.#chosen}`);
      if (index === at && focuses) button.focus();
    });
  }

  /** @param {KeyboardEvent} event */
  #press(event) {
    const rows = [...this.#body.querySelectorAll("button")];
    const at = rows.indexOf(/** @type {HTMLButtonElement} */ (event.target));
    if (at < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
    const page = 8;
    const to = {
      ArrowUp: at - 1,
      ArrowDown: at + 1,
      PageUp: Math.max(at - page, 0),
      PageDown: Math.min(at + page, rows.length - 1),
      Home: 0,
      End: rows.length - 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const record = this.#records[to];
    if (record) this.#choose(record, true);
    else if (to < 0 && this.first && this.first.offset > 0n) this.onBeyond(this.first.offset - 1n);
    else if (to > 0 && this.last) this.onBeyond(this.last.offset + 1n);
  }
}

/** @param {LogRecord} record */
function rowOf({ offset, timestampMs, key, value, frame }) {
  const time = timestampMs === undefined ? "" : new Date(timestampMs);
  return element(
    "tr",
    {},
    element("td", { class: "number" }, element("button", { type: "button" }, `${offset}`)),
    element("td", { class: "time" }, time instanceof Date && !Number.isNaN(time.getTime()) ? time.toISOString().slice(11, 23) : ""),
    element("td", { class: "text" }, key ? (textOf(key) ?? hex(key)) : ""),
    element("td", { class: "text" }, shown(value)),
    element("td", { class: "number" }, frame.length < COUNTED_BYTES_MAX ? count(frame.length) : size(frame.length)),
  );
}

/** @param {Uint8Array} value */
function shown(value) {
  if (value.length === 0) return element("i", {}, "empty");
  if (textOf(value) !== undefined) return describe(value).content;
  const digits = hex(value.subarray(0, HEX_BYTES_MAX)).replace(/..(?=.)/g, "$& ");
  return value.length > HEX_BYTES_MAX ? `${digits} …` : digits;
}
