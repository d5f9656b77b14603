// The calls on an open log, wherever its files are: in a browser, through a tab's worker, or on the disk of Node.js.

import { decodeFrame, decodeFrames, encodeBatch, isBytes, toBytes } from "../frame.js";
import { checkBytes, checkDurability, checkNumber, checkOffset, checkOptions, checkSignal, invalid } from "./check.js";
import { ProglogError, receiveError } from "./error.js";
import { SHIP_OPTIONS, ship } from "./ship.js";

/** @typedef {import("../frame.js").LogRecord} LogRecord */
/** @typedef {import("../frame.js").NewRecord} NewRecord */
/** @typedef {import("./error.js").Kind} Kind */
/** @typedef {"synced" | "written" | "buffered"} Durability */

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

/**
 * How to compact.
 *
 * @typedef {object} Compaction
 * @property {number} [memoryBytesMax] what the keys may take that are looked at at once; 64 MiB unless told
 * @property {number} [tombstonesKeptMs] how long a record that deletes its key stays; a day unless told
 * @property {number} [nowMs] what time it is
 */

/**
 * How much is kept; what is not told has no bound.
 *
 * @typedef {object} Retention
 * @property {number} [bytesMax] of all stores together
 * @property {number} [ageMaxMs] of a segment's last record
 * @property {number} [nowMs] what time it is
 */

/** @typedef {{ lowestOffset: bigint, nextOffset: bigint, durableOffset: bigint }} Offsets */
/** @typedef {"leader" | "follower"} Role whether the log's files are open here, for all tabs, or in another */
/** @typedef {import("./ship.js").ShipOptions} ShipOptions */
/** @typedef {import("./ship.js").Progress} Progress */

/**
 * Who does what is asked of the log; in a browser a tab, see tabs.js.
 *
 * @typedef {object} Calls
 * @property {string} name the log's
 * @property {Role} role
 * @property {Offsets} offsets as of the last answer; another object once they are others
 * @property {boolean} isShared whether appends may have to be sent again, and so have to say whose they are
 * @property {AbortSignal} connection until what this one alone does for all is up to another
 * @property {(call: string, args: any[], isAgain?: boolean) => Promise<any>} call
 * @property {(offsets: Offsets, signal?: AbortSignal) => Promise<void>} changed waits until the offsets are others than these
 * @property {(lock: string, signal: AbortSignal, run: () => Promise<void>) => Promise<void>} alone does what one at a time does
 * @property {() => void} end
 */

/**
 * @typedef {object} Appending
 * @property {{ entries: Uint8Array<ArrayBuffer>, promise: number, expected: bigint, producer: import("./appended.js").Producer | undefined }} call
 * @property {boolean} isAgain whether it may be sent twice, for its records say whose they are
 * @property {(offset: bigint) => void} resolve
 * @property {(error: Error) => void} reject
 */

/** The names of {@link AppendOptions}, and of {@link RecordOptions}. */
const APPEND_OPTIONS = ["durability", "expectedNextOffset"];
const RECORD_OPTIONS = ["key", "headers", "timestampMs", "producer", ...APPEND_OPTIONS];
/** So many appends go to the worker at a time; those after them wait for their answer, and go together. */
const APPENDS_SENT_MAX = 1024;
/** Bytes of the id that a tab's appends have once they may be sent twice. */
const PRODUCER_BYTES = 8;
/** What a batch was encoded in is kept for the next if it has more bytes than the one, and no more than the other. */
const SPARE_BYTES_MIN = 4 << 10;
const SPARE_BYTES_MAX = 4 << 20;
/** How much a scan reads at a time. */
const SCANNED_BYTES = 256 << 10;
/** The module takes no number above. */
const READ_BYTES_MAX = 2 ** 31 - 1;

/** What all logs have in common. `Log` opens one, of index.js or node.js. */
export class LogBase {
  #calls;
  #durability;
  /** What closing it came to. @type {Promise<void> | undefined} */
  #closed;
  #persisted;
  /** @type {Appending[]} */
  #appends = [];
  #producer = { id: crypto.getRandomValues(new Uint8Array(PRODUCER_BYTES)), sequence: 0n };
  /** @type {Promise<void> | undefined} */
  #appending;
  /**
   * What a batch was encoded in, for the next: the memory of a new buffer has to be made when it is first written to, which
   * took longer than the encoding.
   *
   * @type {ArrayBuffer | undefined}
   */
  #spare;

  /**
   * @param {Calls} calls
   * @param {Durability} durability
   * @param {boolean} persisted
   */
  constructor(calls, durability, persisted) {
    this.#calls = calls;
    this.#durability = durability;
    this.#persisted = persisted;
  }

  get name() {
    return this.#calls.name;
  }

  /** Whether the log's files are open here, for all tabs, or in another. */
  get role() {
    return this.#calls.role;
  }

  /** Whether the browser promised not to evict what this site keeps when the disk gets full. */
  get persisted() {
    return this.#persisted;
  }

  /** The first offset that the log held as of the last answer. */
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
    checkOptions(options, "an append", RECORD_OPTIONS);
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
    if (!Array.isArray(records)) throw invalid("a batch is an array, of records and values; give one");
    checkOptions(options, "an append", APPEND_OPTIONS);
    const isValue = (/** @type {unknown} */ record) => typeof record === "string" || isBytes(record);
    // Also of those that an array lacks.
    const whole = Array.from(records, (record) => /** @type {NewRecord} */ (isValue(record) ? { value: record } : record));
    let offset = await this.#append(whole, options);
    return whole.map(() => offset++);
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
    checkNumber(bytesMax, "bytesMax");
    return decodeFrames(await this.#call("readBatch", from, Math.min(bytesMax, READ_BYTES_MAX)));
  }

  /**
   * The records from an offset on, up to one or to the end that there is by then.
   *
   * @param {{ from?: bigint, to?: bigint }} [range]
   * @returns {AsyncGenerator<LogRecord, void, void>}
   * @throws {ProglogError} at a damaged record
   */
  async *scan(range = {}) {
    checkOptions(range, "a scan", ["from", "to"]);
    const { from, to } = range;
    if (to !== undefined) checkOffset(to);
    let next = from ?? this.lowestOffset;
    while (to === undefined || next < to) {
      const records = await this.readBatch(next);
      if (records.length === 0) return;
      for (const record of records) {
        if (to !== undefined && record.offset >= to) return;
        yield record;
        next = record.offset + 1n;
      }
    }
  }

  /**
   * The records from an offset on, or from the end that there is now, and then those that are appended, by whatever tab,
   * until the signal.
   *
   * @param {{ from?: bigint | "end", signal?: AbortSignal }} [options]
   * @returns {AsyncGenerator<LogRecord, void, void>}
   * @throws {ProglogError} at a damaged record; "Unavailable" if the tab that has the files does not answer for 10 s
   */
  async *subscribe(options = {}) {
    checkOptions(options, "a subscription", ["from", "signal"]);
    const { from, signal } = options;
    checkSignal(signal);
    // The end that there is, and not that of the last answer.
    if (from === "end") await this.#after("look");
    let next = from === "end" ? this.nextOffset : (from ?? this.lowestOffset);
    while (!signal?.aborted) {
      // Before reading: what is appended meanwhile makes them others.
      const { offsets } = this.#calls;
      const records = next !== offsets.nextOffset ? await this.readBatch(next) : [];
      for (const record of records) {
        if (signal?.aborted) return;
        yield record;
        next = record.offset + 1n;
      }
      // Offsets without records may be the last ones.
      if (records.length === 0 && next < offsets.nextOffset) next = offsets.nextOffset;
      if (next >= offsets.nextOffset) await this.#calls.changed(offsets, signal);
    }
  }

  /**
   * The last record of a producer, if the log knows one: what they have to append comes after it.
   *
   * @param {Uint8Array | string} id
   * @returns {Promise<{ sequence: bigint, offset: bigint } | undefined>}
   */
  async producerLast(id) {
    checkBytes(id);
    const [sequence, offset] = await this.#after("producerLast", copied(id));
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

  /**
   * Returns once all that was appended is durable.
   *
   * @returns {Promise<void>}
   */
  sync() {
    return this.#after("sync");
  }

  /**
   * Removes whole segments all of whose records are below an offset.
   *
   * @param {bigint} offset
   * @returns {Promise<void>}
   */
  async truncateBefore(offset) {
    checkOffset(offset);
    return this.#after("truncateBefore", offset);
  }

  /**
   * Removes every record above an offset.
   *
   * @param {bigint} offset
   * @returns {Promise<void>}
   */
  async truncateAfter(offset) {
    checkOffset(offset);
    return this.#after("truncateAfter", offset);
  }

  /**
   * Removes every record.
   *
   * @returns {Promise<void>}
   */
  reset() {
    return this.#after("reset");
  }

  /**
   * Removes the records that a later one of the same key has made obsolete, and in time the keys that were deleted.
   *
   * @param {Compaction} [compaction]
   * @returns {Promise<import("./report.js").Compacted>}
   */
  async compact(compaction = {}) {
    checkOptions(compaction, "a compaction", ["memoryBytesMax", "tombstonesKeptMs", "nowMs"]);
    return this.#after("compact", compaction);
  }

  /**
   * Removes the lowest segments while there is more than is to be kept, or they are too old.
   *
   * @param {Retention} retention
   * @returns {Promise<void>}
   */
  async enforceRetention(retention) {
    checkOptions(retention, "what is kept", ["bytesMax", "ageMaxMs", "nowMs"]);
    return this.#after("enforceRetention", retention);
  }

  /**
   * What opening had to scan.
   *
   * @returns {Promise<import("./report.js").Report>}
   */
  recoveryReport() {
    return this.#call("recoveryReport");
  }

  /**
   * Checks every byte; changes nothing.
   *
   * @returns {Promise<import("./report.js").Report>}
   */
  verify() {
    return this.#after("verify");
  }

  /**
   * The log's segments.
   *
   * @returns {Promise<import("./report.js").SegmentSummary[]>}
   */
  segments() {
    return this.#after("segments");
  }

  /**
   * Bytes of one of the log's files, such as `0.store`, as they stand there; fewer at its end.
   *
   * @param {string} name
   * @param {number} position
   * @param {number} bytes
   * @returns {Promise<Uint8Array>}
   * @throws {ProglogError} "Io" if there is none of the name
   */
  async readFile(name, position, bytes) {
    if (typeof name !== "string" || /^\.{0,2}$|[/\\\0]/.test(name)) throw invalid("give the name of one of the log's files, such as 0.store");
    checkNumber(position, "position");
    checkNumber(bytes, "bytes");
    return this.#after("readFile", name, position, bytes);
  }

  /**
   * The log's directory as a tar archive, byte for byte: unpacked, the server opens it.
   *
   * @returns {Promise<Blob>}
   */
  export() {
    return this.#after("export");
  }

  /**
   * Sends every record to a `proglog serve`, once and in order, and those that are appended from then on, by whatever tab;
   * until the signal. One tab at a time sends; what the server was told of is durable here and there. Without a network, or
   * a server, it is tried again and again, at intervals of up to 30 s. There a record has another `producer`, by which the
   * server knows what it has, and the header `source-timestamp-ms` if it arrives more than a second after its timestamp.
   *
   * @param {string | URL} url the server's
   * @param {ShipOptions} [options]
   * @returns {Promise<void>}
   * @throws {ProglogError} "Refused" if the server does not take it and will not, "Corrupt" at a damaged record
   */
  async syncTo(url, options = {}) {
    checkOptions(options, "syncTo", SHIP_OPTIONS);
    return ship(this.#calls, url, options);
  }

  /**
   * Closes the log. Other calls on it fail from then on; to close it again does nothing.
   *
   * @returns {Promise<void>}
   */
  close() {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close() {
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
  #append(records, { durability = this.#durability, expectedNextOffset }) {
    const promise = checkDurability(durability);
    if (expectedNextOffset !== undefined) checkOffset(expectedNextOffset);
    const isShared = this.#calls.isShared && records.every((record) => !record?.producer);
    const numbered = (/** @type {NewRecord} */ record) => ({
      ...record,
      producer: { ...this.#producer, sequence: this.#producer.sequence++ },
    });
    const whole = isShared ? records.map(numbered) : records;
    // No one else writes to it meanwhile: a record's getter may append as well.
    const spare = this.#spare;
    this.#spare = undefined;
    const entries = encode(whole, spare);
    if (entries.buffer !== spare) this.#spare ??= spare;
    const first = whole[0]?.producer;
    // The caller may use its memory for another id while this waits.
    const producer = first && { id: copied(first.id), sequence: first.sequence };
    return new Promise((resolve, reject) => {
      const call = { entries, promise, expected: expectedNextOffset ?? -1n, producer };
      const isAgain = whole.every(({ producer }) => producer && producer.id.length > 0);
      this.#appends.push({ call, isAgain, resolve, reject });
      this.#appending ??= this.#sendAppends();
    });
  }

  /** Sends what there is to append, and what comes meanwhile once that was answered. */
  async #sendAppends() {
    // So that all that are made at once go together.
    await undefined;
    while (this.#appends.length > 0) {
      const isAgain = this.#appends[0]?.isAgain;
      const end = this.#appends.findIndex((append, n) => n >= APPENDS_SENT_MAX || append.isAgain !== isAgain);
      const sent = this.#appends.splice(0, end < 0 ? this.#appends.length : end);
      try {
        const results = await this.#calls.call("append", [sent.map(({ call }) => call)], isAgain);
        this.#keepSpare(sent);
        sent.forEach(({ resolve, reject }, n) => {
          const { offset, error } = results[n];
          if (error) reject(receiveError(error));
          else resolve(offset);
        });
      } catch (error) {
        sent.forEach(({ reject }) => reject(/** @type {Error} */ (error)));
      }
    }
    this.#appending = undefined;
  }

  /** @param {Appending[]} sent whose bytes are not needed any more */
  #keepSpare(sent) {
    for (const { buffer } of sent.map(({ call }) => call.entries)) {
      const isLargest = buffer.byteLength > (this.#spare?.byteLength ?? SPARE_BYTES_MIN);
      if (isLargest && buffer.byteLength <= SPARE_BYTES_MAX) this.#spare = buffer;
    }
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

/** @param {Uint8Array | string} id */
function copied(id) {
  return new Uint8Array(toBytes(id));
}

/**
 * @param {NewRecord[]} records
 * @param {ArrayBuffer} [spare]
 */
function encode(records, spare) {
  try {
    return encodeBatch(records, Date.now(), spare);
  } catch (error) {
    throw invalid(/** @type {Error} */ (error).message);
  }
}
