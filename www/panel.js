// One side of the page: a form that appends, a form that reads, and what came of it.

import { element, timeOf } from "./dump.js";
import { toBytes } from "./frame.js";
import { LogError } from "./log.js";
import { ServerError } from "./server.js";
import { describe, fromHex, hex, textOf } from "./text.js";

/**
 * The log that a panel speaks to.
 *
 * @typedef {object} Subject
 * @property {string} title
 * @property {string} about
 * @property {() => Promise<void>} start
 * @property {(value: Uint8Array, key: Uint8Array) => Promise<bigint>} append
 * @property {(offset: bigint) => Promise<Shown>} read
 * @property {() => Promise<Offsets>} offsets
 * @property {(value: Uint8Array, key: Uint8Array) => string} [appendCommand] the same append in a shell
 * @property {(offset: bigint) => string} [readCommand] the same read in a shell
 */

/** @typedef {{ lowestOffset: bigint, nextOffset: bigint, durableOffset: bigint }} Offsets */

/**
 * A record as a panel shows it.
 *
 * @typedef {object} Shown
 * @property {bigint} offset
 * @property {Uint8Array} value
 * @property {Uint8Array | undefined} key
 * @property {number | undefined} timestampMs
 */

/** What stands in the form at first, so that one click shows something. */
const FIRST_VALUE = "hello world";
/** Characters of a text, or bytes of another value, that are shown of it. */
const SHOWN_MAX = 4096;
/** Characters of a command that are shown: a longer one is of no use to copy. */
const COMMAND_CHARACTERS_MAX = 200;

/** One side of the page. */
export class Panel {
  #subject;
  #section;
  #append;
  #read;
  /** Settles when the action before has: what one shows, the next one does not overtake. */
  #last = Promise.resolve();

  /** @param {Subject} subject */
  constructor(subject) {
    this.#subject = subject;
    const template = /** @type {HTMLTemplateElement} */ (document.getElementById("panel"));
    const made = /** @type {DocumentFragment} */ (template.content.cloneNode(true));
    this.#section = /** @type {HTMLElement} */ (made.firstElementChild);
    const heading = this.#find("h2");
    heading.textContent = subject.title;
    heading.id = subject.title.toLowerCase().replaceAll(" ", "-");
    this.#section.setAttribute("aria-labelledby", heading.id);
    this.#find(".about").textContent = subject.about;
    this.#append = /** @type {HTMLFormElement} */ (this.#find("form.append"));
    this.#read = /** @type {HTMLFormElement} */ (this.#find("form.read"));
    this.#input("value").value = FIRST_VALUE;
    this.#listen();
    document.querySelector(".panels")?.append(made);
  }

  /** Makes the log ready and shows its offsets. */
  start() {
    this.#run(() => this.#subject.start());
  }

  #listen() {
    this.#append.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#run(() => this.#appendValue());
    });
    this.#append.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.#append.requestSubmit();
    });
    this.#read.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#run(() => this.#readOffset(this.#offset));
    });
    for (const [name, step] of /** @type {const} */ ([["previous", -1n], ["next", 1n]])) {
      this.#input(name).addEventListener("click", () => {
        this.#run(() => this.#readOffset(this.#offset + step));
      });
    }
  }

  /** @param {() => Promise<void>} action */
  #run(action) {
    this.#last = this.#last.then(async () => {
      let failure;
      try {
        await action();
      } catch (error) {
        failure = error;
      }
      try {
        this.#showOffsets(await this.#subject.offsets());
        this.#showState("ready");
      } catch (error) {
        this.#showState("failed");
        failure ??= error;
      }
      if (failure) this.#fail(failure);
    });
  }

  async #appendValue() {
    const text = this.#input("value").value;
    const value = this.#input("notation").value === "hex" ? fromHex(text) : toBytes(text);
    const key = toBytes(this.#input("key").value);
    const offset = await this.#subject.append(value, key);
    this.#showRecord(await this.#subject.read(offset));
    this.#say(`Appended record ${offset}.`, this.#subject.appendCommand?.(value, key));
  }

  /** @param {bigint} offset */
  async #readOffset(offset) {
    if (offset < 0n) throw new RangeError("Offsets start at 0");
    this.#input("offset").value = `${offset}`;
    this.#showRecord(await this.#subject.read(offset));
    this.#say(`Read record ${offset}.`, this.#subject.readCommand?.(offset));
  }

  get #offset() {
    const text = this.#input("offset").value.trim();
    if (!/^\d+$/.test(text)) throw new SyntaxError("An offset is a whole number, from 0 up");
    return BigInt(text);
  }

  /** @param {Shown} record */
  #showRecord({ offset, value, key, timestampMs }) {
    this.#input("offset").value = `${offset}`;
    const facts = [`Record ${offset}`];
    if (key) facts.push(`key ${textOf(key) ?? hex(key)}`);
    if (timestampMs !== undefined) facts.push(timeOf(timestampMs));
    facts.push(describe(value).size);
    this.#find(".record header").replaceChildren(...facts.map((fact) => element("span", {}, fact)));
    const text = textOf(value);
    const shown = text?.slice(0, SHOWN_MAX) ?? spaced(hex(value.subarray(0, SHOWN_MAX)));
    const isCut = (text ?? value).length > SHOWN_MAX;
    this.#find("pre").textContent = isCut ? `${shown} … and more` : shown;
    this.#find(".record").hidden = false;
  }

  /** @param {Offsets} offsets */
  #showOffsets({ lowestOffset, nextOffset, durableOffset }) {
    const named = { "lowest offset": lowestOffset, "next offset": nextOffset, "durable offset": durableOffset };
    this.#find(".offsets").replaceChildren(
      ...Object.entries(named).map(([name, offset]) =>
        element("div", {}, element("dt", {}, name), element("dd", {}, `${offset}`)),
      ),
    );
  }

  /** @param {"ready" | "failed"} state */
  #showState(state) {
    const shown = this.#find(".state");
    shown.textContent = state;
    shown.dataset["state"] = state;
  }

  /** @param {unknown} error */
  #fail(error) {
    let kind = "";
    if (error instanceof LogError) kind = `${error.kind}: `;
    if (error instanceof ServerError && error.status) kind = `${error.status}: `;
    this.#say(kind + (error instanceof Error ? error.message : `${error}`));
    this.#find(".record").hidden = true;
    this.#find(".status").classList.add("failed");
  }

  /**
   * @param {string} message
   * @param {string} [command]
   */
  #say(message, command) {
    const status = this.#find(".status");
    status.classList.remove("failed");
    status.replaceChildren(message);
    if (command && command.length <= COMMAND_CHARACTERS_MAX) {
      status.append(" The same in a shell: ", element("code", {}, command));
    }
  }

  /**
   * @param {string} selector
   * @returns {HTMLElement}
   */
  #find(selector) {
    return /** @type {HTMLElement} */ (this.#section.querySelector(selector));
  }

  /**
   * @param {string} name
   * @returns {{ value: string } & EventTarget} an input, a button, or a group of radio buttons
   */
  #input(name) {
    const input = this.#append.elements.namedItem(name) ?? this.#read.elements.namedItem(name);
    return /** @type {HTMLInputElement} */ (input);
  }
}

/** @param {string} digits in pairs */
function spaced(digits) {
  return digits.replace(/..(?=.)/g, "$& ");
}
