// An append-only log in the browser: durable, offline, and in files that the server opens.

import { decodeFrame, decodeFrames, encodeBatch, toBytes } from "../frame.js";
import { ProglogError, receiveError } from "./error.js";

export { ProglogError };

/** @typedef {import("../frame.js").LogRecord} LogRecord */
/** @typedef {import("../frame.js").NewRecord} NewRecord */
/** @typedef {import("./error.js").Kind} Kind */
/** @typedef {"synced" | "written" | "buffered"} Durability */

/**
 * @typedef {object} Options
 * @property {Durability} [durability] what an append promises: "synced" unless told
 * @property {number} [segmentBytesMax] a segment is sealed once its store holds so many bytes
 * @property {number} [indexBytesMax]
 * @property {number} [recordBytesMax]
 * @property {bigint} [initialOffset] the first offset of a new log
 * @property {boolean} [persist] asks the browser not to evict what this site keeps, which may ask the user
 * @property {string | URL} [wasmUrl] where the module is, if not beside the package's JavaScript
 * @property {() => Worker} [worker] makes the worker, where a bundler cannot find `proglog/worker` by itself
 */

/**
 * What goes with a record's value. A timestamp of 0 is none; unless told it is what time it is.
 *
 * @typedef {Partial<Omit<NewRecord, "value">> & AppendOptions} RecordOptions
 */

/**
 * How to append, where that is not as the log does. With an `expectedNextOffset` nothing is appended unless the first
 * record gets it.
 *
 * @typedef {object} AppendOptions
 * @property {Durability} [durability]
 * @property {bigint} [expectedNextOffset]
 */

/** @typedef {{ lowestOffset: bigint, nextOffset: bigint, durableOffset: bigint }} Offsets */

/**
 * @typedef {object} Waiting
 * @property {(result: any) => void} resolve
 * @property {(error: Error) => void} reject
 */

const DURABILITIES = ["synced", "written", "buffered"];
const OFFSET_MAX = 2n ** 63n - 1n;
/** So many appends go to the worker at a time; those after them wait for their answer, and go together. */
const APPENDS_SENT_MAX = 1024;
/** How much a scan reads at a time. */
const SCANNED_BYTES = 256 << 10;

/**
 * An open log, whose files a worker of its own has. Offsets are `bigint`s, for they are numbers of 64 bits, and no
 * one's records get lost for want of a few of those.
 */
export class Log {
  #calls;
  #name;
  #persisted;
  /** @type {{ call: { entries: Uint8Array, promise: number, expected: bigint }, waiting: Waiting }[]} */
  #appends = [];
  /** @type {Promise<void> | undefined} */
  #appending;

  /**
   * Opens the log of this name, made if there is none. After an unclean stop it is recovered.
   *
   * @param {string} name
   * @param {Options} [options]
   * @returns {Promise<Log>}
   * @throws {ProglogError} "Locked" if another tab or worker has it
   */
  static open(name, options = {}) {
    return openLog(name, options);
  }

  /**
   * Makes a log of an archive of a log's directory, as {@link Log.export} and `tar` make it, and opens it.
   *
   * @param {string} name of which there is no log
   * @param {Blob | BufferSource} archive
   * @param {Options} [options]
   * @returns {Promise<Log>}
   * @throws {ProglogError}
   */
  static import(name, archive, options = {}) {
    return openLog(name, options, archive instanceof Blob ? archive : new Blob([archive]));
  }

  /**
   * Deletes the log of this name, if there is one.
   *
   * @param {string} name
   * @param {Pick<Options, "worker">} [options]
   * @throws {ProglogError} "Locked" if it is open
   */
  static async delete(name, options = {}) {
    const calls = new Calls(options);
    try {
      await calls.call("delete", [name]);
    } finally {
      calls.end();
    }
  }

  /**
   * Use {@link Log.open}.
   *
   * @param {string} name
   * @param {Calls} calls
   * @param {boolean} persisted
   */
  constructor(name, calls, persisted) {
    this.#name = name;
    this.#calls = calls;
    this.#persisted = persisted;
  }

  get name() {
    return this.#name;
  }

  /** Whether the browser promised not to evict what this site keeps when the disk gets full. */
  get persisted() {
    return this.#persisted;
  }

  /** The first offset that the log held when the worker last answered. */
  get lowestOffset() {
    return this.#calls.offsets.lowestOffset;
  }

  /** The offset of the next record, as of the last answer. */
  get nextOffset() {
    return this.#calls.offsets.nextOffset;
  }

  /** All records below it are durable, as of the last answer. */
  get durableOffset() {
    return this.#calls.offsets.durableOffset;
  }

  /**
   * Appends a record, and gives its offset once it is as durable as the log promises, or this append. Appends that
   * wait at the same time share a write and a flush: so do not wait for each by itself where there are many.
   *
   * @param {Uint8Array | string} value
   * @param {RecordOptions} [options]
   * @returns {Promise<bigint>}
   * @throws {ProglogError}
   */
  async append(value, options = {}) {
    const { durability, expectedNextOffset, ...record } = options;
    return this.#append([{ ...record, value }], options);
  }

  /**
   * Appends records, all or none, and gives their offsets.
   *
   * @param {(NewRecord | Uint8Array | string)[]} records
   * @param {AppendOptions} [options]
   * @returns {Promise<bigint[]>}
   * @throws {ProglogError}
   */
  async appendBatch(records, options = {}) {
    const isValue = (/** @type {unknown} */ record) => typeof record === "string" || record instanceof Uint8Array;
    const whole = records.map((record) => /** @type {NewRecord} */ (isValue(record) ? { value: record } : record));
    const first = await this.#append(whole, options);
    return whole.map((_, n) => first + BigInt(n));
  }

  /**
   * The record of an offset; nothing past the end.
   *
   * @param {bigint} offset
   * @returns {Promise<LogRecord | undefined>}
   * @throws {ProglogError} "Corrupt", "Gap", and "OffsetOutOfRange" for one that was removed
   */
  async read(offset) {
    checkOffset(offset);
    try {
      return decodeFrame(await this.#call("read", offset));
    } catch (error) {
      const isPast = error instanceof ProglogError && error.kind === "OffsetOutOfRange" && offset >= this.nextOffset;
      if (isPast) return undefined;
      throw error;
    }
  }

  /**
   * Consecutive records from an offset on, about so many bytes of them but at least one; none at the end.
   *
   * @param {bigint} from
   * @param {number} [bytesMax]
   * @returns {Promise<LogRecord[]>}
   * @throws {ProglogError}
   */
  async readBatch(from, bytesMax = SCANNED_BYTES) {
    checkOffset(from);
    return decodeFrames(await this.#call("readBatch", from, bytesMax));
  }

  /**
   * The records from an offset on, up to one or to the end that there is by then.
   *
   * @param {{ from?: bigint, to?: bigint }} [range]
   * @returns {AsyncGenerator<LogRecord, void, void>}
   * @throws {ProglogError} at a damaged record
   */
  async *scan({ from, to = OFFSET_MAX } = {}) {
    let next = from ?? this.lowestOffset;
    while (next < to) {
      const records = await this.readBatch(next);
      if (records.length === 0) return;
      for (const record of records) {
        if (record.offset >= to) return;
        yield record;
        next = record.offset + 1n;
      }
    }
  }

  /**
   * The last record of a producer, if the log knows one: what they have to append comes after it.
   *
   * @param {Uint8Array | string} id
   * @returns {Promise<{ sequence: bigint, offset: bigint } | undefined>}
   */
  async producerLast(id) {
    const [sequence, offset] = await this.#after("producerLast", toBytes(id));
    return sequence === undefined ? undefined : { sequence, offset };
  }

  /**
   * Where a record stands.
   *
   * @param {bigint} offset
   * @returns {Promise<{ segment: bigint, position: bigint }>}
   */
  async locate(offset) {
    checkOffset(offset);
    const [segment, position] = await this.#call("locate", offset);
    return { segment, position };
  }

  /** Returns once all that was appended is durable. */
  sync() {
    return this.#after("sync");
  }

  /**
   * Removes whole segments all of whose records are below an offset.
   *
   * @param {bigint} offset
   */
  async truncateBefore(offset) {
    checkOffset(offset);
    return this.#after("truncateBefore", offset);
  }

  /**
   * Removes every record above an offset.
   *
   * @param {bigint} offset
   */
  async truncateAfter(offset) {
    checkOffset(offset);
    return this.#after("truncateAfter", offset);
  }

  /** Removes every record. */
  reset() {
    return this.#after("reset");
  }

  /**
   * Removes the records that a later one of the same key has made obsolete, and in time the keys that were deleted.
   *
   * @param {import("../log.js").Compaction} [compaction]
   */
  compact(compaction = {}) {
    return this.#after("compact", compaction);
  }

  /**
   * Removes the lowest segments while there is more than is to be kept, or they are too old.
   *
   * @param {import("../log.js").Retention} retention
   */
  enforceRetention(retention) {
    return this.#after("enforceRetention", retention);
  }

  /** What opening had to scan. */
  recoveryReport() {
    return this.#call("recoveryReport");
  }

  /** Checks every byte; changes nothing. */
  verify() {
    return this.#after("verify");
  }

  /** The log's segments. */
  segments() {
    return this.#after("segments");
  }

  /**
   * The log's directory as a tar archive, byte for byte: unpacked, the server opens it.
   *
   * @returns {Promise<Blob>}
   */
  export() {
    return this.#after("export");
  }

  /** Closes the log. Calls on it fail from then on. */
  async close() {
    try {
      await this.#after("close");
    } finally {
      this.#calls.end();
    }
  }

  /**
   * @param {NewRecord[]} records
   * @param {AppendOptions} options
   * @returns {Promise<bigint>}
   */
  #append(records, { durability, expectedNextOffset = -1n }) {
    const nowMs = Date.now();
    const promise = durability === undefined ? 0 : DURABILITIES.indexOf(durability) + 1;
    if (durability !== undefined && promise === 0) {
      throw new ProglogError("InvalidArgument", `durability is none of ${DURABILITIES.join(", ")}`);
    }
    if (expectedNextOffset !== -1n) checkOffset(expectedNextOffset);
    const entries = encode(records.map((record) => ({ timestampMs: nowMs, ...record })));
    return new Promise((resolve, reject) => {
      this.#appends.push({ call: { entries, promise, expected: expectedNextOffset }, waiting: { resolve, reject } });
      this.#appending ??= this.#sendAppends();
    });
  }

  /** Sends what there is to append, and what comes meanwhile once that was answered. */
  async #sendAppends() {
    // So that all that are made at once go together.
    await undefined;
    while (this.#appends.length > 0) {
      const sent = this.#appends.splice(0, APPENDS_SENT_MAX);
      try {
        const calls = sent.map(({ call }) => call);
        const results = await this.#calls.call("append", [calls], calls.map(({ entries }) => entries.buffer));
        sent.forEach(({ waiting }, n) => {
          const { offset, error } = results[n];
          if (error) waiting.reject(receiveError(error));
          else waiting.resolve(offset);
        });
      } catch (error) {
        sent.forEach(({ waiting }) => waiting.reject(/** @type {Error} */ (error)));
      }
    }
    this.#appending = undefined;
  }

  /**
   * @param {string} call
   * @param {any[]} args
   */
  #call(call, ...args) {
    return this.#calls.call(call, args);
  }

  /**
   * A call that comes after all that was appended before it.
   *
   * @param {string} call
   * @param {any[]} args
   */
  async #after(call, ...args) {
    while (this.#appending) await this.#appending;
    return this.#call(call, ...args);
  }
}

/** The calls to a worker that are under way. */
class Calls {
  #worker;
  #id = 0;
  /** @type {Map<number, Waiting>} */
  #waiting = new Map();
  /** @type {ProglogError | undefined} */
  #ended;
  /** @type {Offsets} */
  offsets = { lowestOffset: 0n, nextOffset: 0n, durableOffset: 0n };

  /** @param {Pick<Options, "worker">} options */
  constructor({ worker }) {
    this.#worker = worker
      ? worker()
      : new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "proglog" });
    this.#worker.addEventListener("message", ({ data: { id, result, error, offsets } }) => {
      if (offsets) this.offsets = offsets;
      const waiting = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error) waiting?.reject(receiveError(error));
      else waiting?.resolve(result);
    });
    this.#worker.addEventListener("error", ({ message }) => {
      const reason = message || "its script could not be loaded; see the options worker and wasmUrl";
      this.end(new ProglogError("Io", `the log's worker failed: ${reason}`));
    });
  }

  /**
   * @param {string} call
   * @param {any[]} args
   * @param {Transferable[]} [transferred]
   * @returns {Promise<any>}
   */
  call(call, args, transferred = []) {
    if (this.#ended) return Promise.reject(this.#ended);
    const id = this.#id++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, call, args }, transferred);
    });
  }

  /** Ends the worker. @param {ProglogError} [reason] what calls get from now on */
  end(reason = new ProglogError("Closed", "the log is closed; open it again")) {
    if (this.#ended) return;
    this.#ended = reason;
    this.#worker.terminate();
    this.#waiting.forEach(({ reject }) => reject(reason));
    this.#waiting.clear();
  }
}

/**
 * @param {string} name
 * @param {Options} options
 * @param {Blob} [tar]
 */
async function openLog(name, { persist = false, wasmUrl, worker, ...options }, tar) {
  const { segmentBytesMax, indexBytesMax, recordBytesMax } = options;
  for (const [option, bytes] of Object.entries({ segmentBytesMax, indexBytesMax, recordBytesMax })) {
    if (bytes !== undefined && !(Number.isSafeInteger(bytes) && bytes > 0)) {
      throw new ProglogError("InvalidArgument", `${option} is ${bytes}; give a whole number of bytes, 1 or more`);
    }
  }
  const calls = new Calls(worker ? { worker } : {});
  try {
    const url = wasmUrl === undefined ? undefined : `${new URL(wasmUrl, location.href)}`;
    await calls.call("open", [{ name, options, wasmUrl: url, tar }]);
    const { storage } = navigator;
    const persisted = (persist ? await storage.persist?.() : await storage.persisted?.()) ?? false;
    return new Log(name, calls, persisted);
  } catch (error) {
    calls.end();
    throw error;
  }
}

/** @param {NewRecord[]} records */
function encode(records) {
  try {
    return encodeBatch(records);
  } catch (error) {
    throw new ProglogError("InvalidArgument", /** @type {Error} */ (error).message);
  }
}

/**
 * A larger one would wrap on its way to the module, and name another record.
 *
 * @param {bigint} offset
 */
function checkOffset(offset) {
  if (typeof offset !== "bigint" || offset < 0n || offset > OFFSET_MAX) {
    throw new ProglogError("InvalidArgument", `${offset} is no offset; give a bigint from 0n to 2n ** 63n - 1n`);
  }
}
