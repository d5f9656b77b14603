// A log on the page: a form that appends, one that reads, and its records as they come.

import { describeIn, element, find } from "./dom.js";
import { toBytes } from "./frame.js";
import { RecordList } from "./records.js";
import { count, counted, duration, fromHex, reason, size } from "./text.js";

/**
 * The log that a panel speaks to.
 *
 * @typedef {object} Subject
 * @property {string} title
 * @property {string} about
 * @property {(record: NewRecord) => Promise<bigint>} append
 * @property {(records: NewRecord[]) => Promise<bigint>} appendEach gives the first one's offset
 * @property {(from: bigint, bytesMax: number, options?: { waits?: boolean }) => Promise<LogRecord[]>} readBatch
 * @property {() => Promise<Offsets>} offsets
 * @property {() => string | undefined} [whereOpen]
 * @property {(record: LogRecord) => void} onChoose
 * @property {(value: string) => void} [onDurability] where a page can choose it
 * @property {(value: Uint8Array, key: Uint8Array) => string} [appendCommand] the same append in a shell
 * @property {(offset: bigint) => string} [readCommand] the same read in a shell
 */

/** @typedef {import("./frame.js").LogRecord} LogRecord */
/** @typedef {import("./frame.js").NewRecord} NewRecord */
/** @typedef {{ lowestOffset: bigint, nextOffset: bigint, durableOffset: bigint }} Offsets */

/** What stands in the form at first, so that one click shows something. */
const FIRST_VALUE = "hello world";
/** The greatest that an offset's 64 bits hold. */
const OFFSET_MAX = 2n ** 64n - 1n;
/** How many records there are of which the last are shown at first. */
const SHOWN_AT_FIRST = 100n;
const LISTED_BYTES = 64 << 10;
const SCANNED_BYTES = 1 << 20;
/** Characters of a command that are shown: a longer one is of no use to copy. */
const COMMAND_CHARACTERS_MAX = 160;
const RETRY_MS = 1000;
/** How long what came is let gather before the list is drawn again: drawing takes time from those who append. */
const DRAWN_MS = 100;
/** How often it is looked at whether the files are open elsewhere. */
const WHERE_MS = 500;

/** One log on the page. */
export class Panel {
  #subject;
  #section;
  #append;
  #read;
  #list;
  /** Settles when the action before has: what one shows, the next one does not overtake. */
  #last = Promise.resolve();
  /** What is said of the log that cannot be followed. @type {string | undefined} */
  #why;
  /** Counts the times that the log was followed from its end anew. */
  #following = 0;

  /** @param {Subject} subject */
  constructor(subject) {
    this.#subject = subject;
    const template = /** @type {HTMLTemplateElement} */ (document.getElementById("log"));
    const made = /** @type {DocumentFragment} */ (template.content.cloneNode(true));
    this.#section = /** @type {HTMLElement} */ (made.firstElementChild);
    const heading = find(this.#section, "h2");
    heading.textContent = subject.title;
    heading.id = subject.title.toLowerCase().replaceAll(" ", "-");
    this.#section.setAttribute("aria-labelledby", heading.id);
    find(this.#section, ".about").textContent = subject.about;
    this.#append = /** @type {HTMLFormElement} */ (find(this.#section, "form.append"));
    this.#read = /** @type {HTMLFormElement} */ (find(this.#section, "form.read"));
    if (!subject.onDurability) find(this.#append, ".durability").remove();
    this.#input("value").value = FIRST_VALUE;
    this.#list = new RecordList(find(this.#section, ".records"), `Records: ${subject.title}`);
    this.#listen();
    find(document, ".logs").append(made);
    if (subject.whereOpen) setInterval(() => this.#showWhere(), WHERE_MS);
  }

  /** Shows the log from its end on, and what comes. */
  follow() {
    this.#list.clear();
    this.#input("follow").checked = true;
    void this.#follow(++this.#following);
  }

  /** Shows what may have changed elsewhere. */
  look() {
    this.#run(async () => {});
  }

  /** Marks the record that is shown elsewhere. @param {bigint | undefined} offset */
  mark(offset) {
    this.#list.mark(offset);
    if (offset !== undefined) this.#input("offset").value = `${offset}`;
  }

  /** @param {"opening" | "open" | "ended" | "failed"} state @param {string} [why] */
  showState(state, why) {
    const shown = find(this.#section, ".state");
    const where = state === "open" ? this.#subject.whereOpen?.() : undefined;
    shown.textContent = where ?? state;
    shown.dataset["state"] = state;
    if (why) this.#say(why, true);
    // What was said of it is true no more.
    else if (this.#why && find(this.#section, ".status").textContent === this.#why) this.#say("");
    this.#why = why;
  }

  /** The files are open elsewhere once another tab has taken over, which nothing else tells. */
  #showWhere() {
    const shown = find(this.#section, ".state");
    const where = this.#subject.whereOpen?.();
    if (shown.dataset["state"] === "open" && where && shown.textContent !== where) shown.textContent = where;
  }

  #listen() {
    this.#append.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#run(() => this.#appendValue());
    });
    this.#append.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.#append.requestSubmit();
    });
    this.#append.addEventListener("change", () => this.#subject.onDurability?.(this.#input("durability").value));
    this.#input("hundred").addEventListener("click", () => this.#run(() => this.#appendHundred()));
    this.#read.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#run(() => this.#readFrom(this.#offset, true));
    });
    this.#input("scan").addEventListener("click", () => this.#run(() => this.#scan()));
    this.#input("follow").addEventListener("change", () => {
      if (this.#input("follow").checked) this.follow();
    });
    this.#list.onChoose = (record) => this.#choose(record);
    this.#list.onBeyond = (offset) => this.#run(() => this.#readFrom(offset, false));
  }

  /** @param {() => Promise<void>} action */
  #run(action) {
    this.#last = this.#last.then(async () => {
      try {
        await action();
      } catch (error) {
        this.#say(reason(error), true);
      }
      await this.#showOffsets().catch(() => {});
    });
  }

  async #appendValue() {
    const { value, key } = this.#entered();
    const offset = await this.#subject.append({ value, key });
    await this.#showOne(offset);
    this.#say(`Appended record ${offset}.`, false, this.#subject.appendCommand?.(value, key));
  }

  async #appendHundred() {
    const { value, key } = this.#entered();
    const began = performance.now();
    const first = await this.#subject.appendEach(Array.from({ length: 100 }, () => ({ value, key })));
    const ms = performance.now() - began;
    await this.#showOne(first + 99n);
    this.#say(`Appended 100 records from ${first} on, together in ${duration(ms)}.`);
  }

  #entered() {
    const text = this.#input("value").value;
    const value = this.#input("notation").value === "hex" ? fromHex(text) : toBytes(text);
    return { value, key: toBytes(this.#input("key").value) };
  }

  /**
   * @param {bigint} offset
   * @param {boolean} says
   */
  async #readFrom(offset, says) {
    const records = await this.#subject.readBatch(offset, LISTED_BYTES);
    const [record] = records;
    if (!record) throw new RangeError(`There is no record ${offset} yet`);
    // What is looked at is not to be scrolled away.
    this.#input("follow").checked = false;
    this.#list.show(records);
    this.#choose(record);
    this.#list.mark(record.offset);
    if (says) this.#say(`Read record ${record.offset}.`, false, this.#subject.readCommand?.(record.offset));
  }

  async #scan() {
    const { lowestOffset, nextOffset } = await this.#subject.offsets();
    const began = performance.now();
    let [records, bytes] = [0, 0];
    for (let from = lowestOffset; from < nextOffset; ) {
      const batch = await this.#subject.readBatch(from, SCANNED_BYTES);
      const last = batch.at(-1);
      if (!last) break;
      records += batch.length;
      for (const { frame } of batch) bytes += frame.length;
      from = last.offset + 1n;
    }
    const ms = performance.now() - began;
    const speed = records ? `: ${count((records * 1000) / Math.max(ms, 0.1))} a second` : "";
    this.#say(`Scanned ${counted(records, "record")}, ${size(bytes)}, in ${duration(ms)}${speed}.`);
  }

  /** @param {bigint} offset */
  async #showOne(offset) {
    const [record] = await this.#subject.readBatch(offset, 1);
    if (record) this.#choose(record);
  }

  /** @param {LogRecord} record */
  #choose(record) {
    this.#input("offset").value = `${record.offset}`;
    this.#list.mark(record.offset);
    this.#subject.onChoose(record);
  }

  /**
   * Shows how far the log is, and adds records to the list as they come, unless what is in it is to stay; until the log is
   * followed anew.
   *
   * @param {number} following
   */
  async #follow(following) {
    /** @type {bigint | undefined} */
    let next;
    while (following === this.#following) {
      try {
        const { lowestOffset, nextOffset } = await this.#showOffsets();
        let isAnew = false;
        if (!this.#input("follow").checked) {
          next = nextOffset;
        } else if (next === undefined || next > nextOffset) {
          next = nextOffset - lowestOffset > SHOWN_AT_FIRST ? nextOffset - SHOWN_AT_FIRST : lowestOffset;
          isAnew = true;
        }
        // What has records is not shown open and empty.
        if (next === nextOffset) {
          if (isAnew) this.#list.clear();
          this.showState("open");
        }
        /** @type {LogRecord[]} */
        const records = await this.#subject.readBatch(next, LISTED_BYTES, { waits: true });
        if (following !== this.#following) return;
        if (this.#input("follow").checked) {
          if (isAnew) this.#list.clear();
          this.#list.add(records);
          this.#list.toEnd();
        }
        this.showState("open");
        next = (records.at(-1)?.offset ?? next - 1n) + 1n;
        await pause(DRAWN_MS);
      } catch (error) {
        if (following !== this.#following) return;
        next = undefined;
        this.showState("failed", reason(error));
        await pause(RETRY_MS);
      }
    }
  }

  get #offset() {
    const text = this.#input("offset").value.trim();
    const offset = /^\d+$/.test(text) ? BigInt(text) : undefined;
    if (offset === undefined || offset > OFFSET_MAX) throw new RangeError(`An offset is a whole number from 0 to ${OFFSET_MAX}`);
    return offset;
  }

  async #showOffsets() {
    const offsets = await this.#subject.offsets();
    const { lowestOffset, nextOffset, durableOffset } = offsets;
    describeIn(find(this.#section, ".offsets"), [
      ["lowest", `${lowestOffset}`],
      ["next", `${nextOffset}`],
      ["durable", `${durableOffset}`],
    ]);
    this.#showWhere();
    return offsets;
  }

  /**
   * @param {string} message
   * @param {boolean} [isFailure]
   * @param {string} [command]
   */
  #say(message, isFailure = false, command) {
    const status = find(this.#section, ".status");
    status.classList.toggle("failed", isFailure);
    status.replaceChildren(message);
    if (command && command.length <= COMMAND_CHARACTERS_MAX) {
      status.append(" The same in a shell: ", element("code", {}, command));
    }
  }

  /**
   * @param {string} name
   * @returns {HTMLInputElement} or a button, or a group of radio buttons
   */
  #input(name) {
    const input = this.#append.elements.namedItem(name) ?? this.#read.elements.namedItem(name);
    return /** @type {HTMLInputElement} */ (input);
  }
}

/** @param {number} ms */
function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
