// Which log this is, to the servers that it is shipped to: they know its records by the id of their source and their
// offset. Where offsets are given again, by a truncation, it is another source from there on. Kept in two files beside the
// log's own, which are written in turn; an export is without them, for a copy is another log.

import { ProglogError } from "./error.js";

/** The records from an offset on, up to the next source's. @typedef {{ from: bigint, id: Uint8Array }} Source */

/**
 * @typedef {object} State
 * @property {number} generation
 * @property {Source[]} sources
 * @property {bigint | undefined} cutBelow a truncation is under way, before which this was the log's next offset
 */

const FILES = ["sources-0", "sources-1"];
const ID_BYTES = 16;
const DIGEST_DIGITS = 64;
/** Who cuts a log more often ships some of what was before again. */
const SOURCES_MAX = 1000;
const LOCKED_MS_MAX = 1000;
const LOCKED_AGAIN_MS = 20;

/** A log's sources, in order. */
export class Sources {
  #directory;
  /** @type {State | undefined} */
  #state;

  /** @param {FileSystemDirectoryHandle} directory of the log's files */
  static async open(directory) {
    const states = await Promise.all(FILES.map((file) => read(directory, file)));
    const latest = states.reduce((a, b) => ((b?.generation ?? -1) > (a?.generation ?? -1) ? b : a), undefined);
    return new Sources(directory, latest);
  }

  /**
   * Removes what an earlier log left.
   *
   * @param {FileSystemDirectoryHandle} directory
   */
  static async remove(directory) {
    await Promise.all(FILES.map((file) => directory.removeEntry(file).catch(ignoreMissing)));
  }

  /**
   * Use {@link Sources.open}.
   *
   * @param {FileSystemDirectoryHandle} directory
   * @param {State | undefined} state
   */
  constructor(directory, state) {
    this.#directory = directory;
    this.#state = state;
  }

  /** Whether the log was shipped, or was to be. */
  get isUsed() {
    return this.#state !== undefined;
  }

  /** The sources, at least one. The first has also what is below it. */
  async list() {
    if (!this.#state) await this.#write([{ from: 0n, id: newId() }], undefined);
    return /** @type {State} */ (this.#state).sources;
  }

  /**
   * Before a truncation that may remove records at the end of the log, all of which are durable.
   *
   * @param {bigint} nextOffset
   */
  async cutting(nextOffset) {
    await this.#write(await this.list(), nextOffset);
  }

  /**
   * After it, or when the log is opened: it may not have been done, or in part.
   *
   * @param {{ lowestOffset: bigint, nextOffset: bigint }} log
   */
  async settle(log) {
    const state = this.#state;
    if (state?.cutBelow === undefined) return;
    if (log.nextOffset < state.cutBelow) await this.renew(log);
    else await this.#write(state.sources, undefined);
  }

  /**
   * What is appended from now on is of another source.
   *
   * @param {{ lowestOffset: bigint, nextOffset: bigint }} log
   */
  async renew({ lowestOffset, nextOffset }) {
    const before = (await this.list()).filter(({ from }) => from < nextOffset);
    // All that is left of the log is in later ones.
    while (before[1] && (before[1].from <= lowestOffset || before.length >= SOURCES_MAX)) before.shift();
    await this.#write([...before, { from: nextOffset, id: newId() }], undefined);
  }

  /**
   * @param {Source[]} sources
   * @param {bigint | undefined} cutBelow
   */
  async #write(sources, cutBelow) {
    const state = { generation: (this.#state?.generation ?? 0) + 1, sources, cutBelow };
    const text = JSON.stringify({
      generation: state.generation,
      sources: sources.map(({ from, id }) => ({ from: `${from}`, id: toHex(id) })),
      ...(cutBelow !== undefined && { cutBelow: `${cutBelow}` }),
    });
    const bytes = new TextEncoder().encode((await digest(text)) + text);
    const name = /** @type {string} */ (FILES[state.generation % FILES.length]);
    const file = await this.#directory.getFileHandle(name, { create: true });
    const handle = await openFile(file);
    try {
      handle.truncate(0);
      if (handle.write(bytes, { at: 0 }) !== bytes.length) {
        throw new ProglogError("StorageFull", "the browser gives no more space to note where the log was cut; make room");
      }
      handle.flush();
    } finally {
      handle.close();
    }
    this.#state = state;
  }
}

/**
 * What a file says, if it is whole.
 *
 * @param {FileSystemDirectoryHandle} directory
 * @param {string} name
 * @returns {Promise<State | undefined>}
 */
async function read(directory, name) {
  const file = await directory.getFileHandle(name).catch(ignoreMissing);
  if (!file) return undefined;
  const text = await (await file.getFile()).text();
  const json = text.slice(DIGEST_DIGITS);
  if ((await digest(json)) !== text.slice(0, DIGEST_DIGITS)) return undefined;
  const { generation, sources, cutBelow } = JSON.parse(json);
  return {
    generation,
    sources: sources.map((/** @type {any} */ { from, id }) => ({ from: BigInt(from), id: fromHex(id) })),
    cutBelow: cutBelow === undefined ? undefined : BigInt(cutBelow),
  };
}

/**
 * Opens a file for writing, which a worker that was just ended may still have.
 *
 * @param {FileSystemFileHandle} file
 */
async function openFile(file) {
  const until = performance.now() + LOCKED_MS_MAX;
  for (;;) {
    try {
      return await file.createSyncAccessHandle();
    } catch (error) {
      if (performance.now() > until) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, LOCKED_AGAIN_MS));
  }
}

/** @param {string} text */
async function digest(text) {
  return toHex(new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text))));
}

function newId() {
  return crypto.getRandomValues(new Uint8Array(ID_BYTES));
}

/** @param {Uint8Array} bytes */
function toHex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {string} digits */
function fromHex(digits) {
  return Uint8Array.from(digits.match(/../g) ?? [], (byte) => parseInt(byte, 16));
}

/** @param {unknown} error */
function ignoreMissing(error) {
  if (!(error instanceof DOMException && error.name === "NotFoundError")) throw error;
  return undefined;
}
