// A log in the wasm module, through the same raw exports that the server's host calls.

import { decodeFrame, decodeFrames, encodeBatch, toBytes } from "./frame.js";

/** @typedef {import("./frame.js").LogRecord} LogRecord */
/** @typedef {import("./frame.js").NewRecord} NewRecord */

/**
 * The module's raw exports. A result of bytes is packed, `length << 32 | pointer`, and stands until
 * the next call; a negative result is a status, and `last_error` says more.
 *
 * @typedef {object} Exports
 * @property {WebAssembly.Memory} memory
 * @property {() => number} abi_version
 * @property {(length: number) => number} alloc
 * @property {(pointer: number, length: number) => number} dealloc
 * @property {(name: number, nameLength: number, flags: number, segmentBytesMax: bigint,
 *   indexBytesMax: bigint, recordBytesMax: bigint, initialOffset: bigint) => number} open
 * @property {(handle: number, value: number, valueLength: number, timestampMs: bigint,
 *   promise: number, expected: bigint) => bigint} append
 * @property {(handle: number, batch: number, batchLength: number, promise: number, expected: bigint) => bigint} append_batch
 * @property {(handle: number, drafts: number, draftsLength: number, promise: number, expected: bigint) => bigint} append_drafts
 * @property {(handle: number, id: number, idLength: number) => bigint} producer_last
 * @property {(handle: number, offset: bigint) => bigint} read
 * @property {(handle: number, from: bigint, bytesMax: number) => bigint} read_batch
 * @property {(handle: number, offset: bigint) => number} truncate_before
 * @property {(handle: number, offset: bigint) => number} truncate_after
 * @property {(handle: number) => number} reset
 * @property {(handle: number, memoryBytesMax: bigint, tombstonesKeptMs: bigint, nowMs: bigint) => bigint} compact
 * @property {(handle: number, bytesMax: bigint, ageMaxMs: bigint, nowMs: bigint) => number} enforce_retention
 * @property {(handle: number) => number} sync
 * @property {(handle: number) => number} close
 * @property {(handle: number) => bigint} lowest_offset
 * @property {(handle: number) => bigint} next_offset
 * @property {(handle: number) => bigint} durable_offset
 * @property {(handle: number, offset: bigint) => bigint} locate
 * @property {(handle: number) => bigint} recovery_report
 * @property {(handle: number) => bigint} verify
 * @property {(handle: number) => bigint} segments
 * @property {() => bigint} last_error
 * @property {() => bigint} last_conflict
 */

/**
 * @typedef {object} Options
 * @property {boolean} [readOnly]
 * @property {Durability} [durability]
 * @property {number} [segmentBytesMax] a segment is sealed once its store holds so many bytes
 * @property {number} [indexBytesMax]
 * @property {number} [recordBytesMax]
 * @property {bigint} [initialOffset] the first offset of a new log
 */

/** @typedef {import("./src/base.js").Compaction} Compaction */
/** @typedef {import("./src/base.js").Retention} Retention */

/**
 * What a compaction did.
 *
 * @typedef {object} Compacted
 * @property {number} recordsRemoved
 * @property {number} bytesRemoved
 * @property {number} segments how many were written anew
 * @property {number} segmentsLeftAlone how many were not, as they are damaged or could not be written
 */

const DAY_MS = 24 * 60 * 60 * 1000;

/** The version of the exports that this file calls. */
const ABI_VERSION = 3;

/** What went wrong, by status. Each is something that a caller would act on in its own way. */
const KINDS = /** @type {const} */ ({
  "-1": "InvalidArgument",
  "-2": "OffsetOutOfRange",
  "-3": "Corrupt",
  "-4": "Poisoned",
  "-5": "Locked",
  "-6": "ReadOnly",
  "-7": "Closed",
  "-8": "TooLarge",
  "-9": "IndexFull",
  "-10": "Io",
  "-11": "OutOfMemory",
  "-12": "Conflict",
  "-13": "SequenceConflict",
  "-14": "Gap",
  "-15": "StorageFull",
});

/** @typedef {"synced" | "written" | "buffered"} Durability */

const DURABILITIES = ["synced", "written", "buffered"];

/**
 * What an append promises: 0 is what the log does.
 *
 * @param {Durability | undefined} durability
 */
const promise = (durability) => (durability === undefined ? 0 : DURABILITIES.indexOf(durability) + 1);

/**
 * How to append, where that is not as the log does. With an `expectedNextOffset` nothing is appended unless the first
 * record gets it.
 *
 * @typedef {object} AppendOptions
 * @property {Durability} [durability]
 * @property {bigint} [expectedNextOffset]
 */

/**
 * The last two arguments of an append.
 *
 * @param {AppendOptions | Durability | undefined} options
 * @returns {[number, bigint]}
 */
function terms(options = {}) {
  if (typeof options === "string") options = { durability: options };
  return [promise(options.durability), toI64(options.expectedNextOffset ?? -1n)];
}

/**
 * What stood in the way of an append: the next offset was another than expected, or a producer's last record has a
 * sequence that is not lower.
 *
 * @typedef {{ expected: bigint, nextOffset: bigint } | { lastSequence: bigint, lastOffset: bigint }} Conflict
 */

/** Why a call on a log failed. Decide by `kind`; the message is for people. */
export class LogError extends Error {
  /**
   * @param {number} status
   * @param {string} message
   * @param {Conflict} [conflict]
   */
  constructor(status, message, conflict) {
    super(message);
    this.name = "LogError";
    this.status = status;
    /** With the kinds "Conflict" and "SequenceConflict". */
    this.conflict = conflict;
    /** @type {typeof KINDS[keyof typeof KINDS]} */
    this.kind = KINDS[/** @type {keyof typeof KINDS} */ (`${status}`)] ?? "Io";
  }
}

/** An open log. */
export class Log {
  #exports;
  #handle;

  /**
   * Opens the log of this name, and makes it if there is none.
   *
   * @param {Exports} exports
   * @param {string} name
   * @param {Options} [options]
   * @returns {Log}
   * @throws {LogError}
   */
  static open(exports, name, options = {}) {
    return new Log(exports, openHandle(exports, name, options));
  }

  /**
   * Use {@link Log.open}.
   *
   * @param {Exports} exports
   * @param {number} handle
   */
  constructor(exports, handle) {
    this.#exports = exports;
    this.#handle = handle;
  }

  /**
   * Appends a record, and gives its offset once it is as durable as the log promises, or this append.
   *
   * @param {NewRecord | Uint8Array | string} record
   * @param {AppendOptions | Durability} [options]
   * @returns {bigint}
   * @throws {LogError}
   */
  append(record, options) {
    if (typeof record === "string" || record instanceof Uint8Array) record = { value: record };
    if (record.key?.length || record.headers?.length || record.producer?.id.length) {
      return this.appendBatch([record], options);
    }
    const { value, timestampMs = 0 } = record;
    return this.#call((exports) =>
      withBytes(exports, toBytes(value), (pointer, length) =>
        exports.append(this.#handle, pointer, length, BigInt(timestampMs), ...terms(options)),
      ),
    );
  }

  /**
   * Appends records, all or none, and gives the first one's offset.
   *
   * @param {NewRecord[]} records
   * @param {AppendOptions | Durability} [options]
   * @returns {bigint}
   * @throws {LogError}
   */
  appendBatch(records, options) {
    return this.#call((exports) =>
      withBytes(exports, encodeBatch(records), (pointer, length) =>
        exports.append_batch(this.#handle, pointer, length, ...terms(options)),
      ),
    );
  }

  /**
   * The last record of a producer, if the log knows one: what they have to append comes after it.
   *
   * @param {Uint8Array | string} id
   * @returns {{ sequence: bigint, offset: bigint } | undefined}
   * @throws {LogError}
   */
  producerLast(id) {
    const bytes = this.#bytes((exports) =>
      withBytes(exports, toBytes(id), (pointer, length) =>
        exports.producer_last(this.#handle, pointer, length),
      ),
    );
    if (bytes.length === 0) return undefined;
    const [sequence, offset] = pair(bytes);
    return { sequence, offset };
  }

  /**
   * @param {bigint} offset
   * @returns {LogRecord}
   * @throws {LogError}
   */
  read(offset) {
    return decodeFrame(this.#bytes((exports) => exports.read(this.#handle, toI64(offset))));
  }

  /**
   * Reads records from an offset on, about `bytesMax` of them but at least one; none at the end.
   *
   * @param {bigint} from
   * @param {number} bytesMax
   * @returns {LogRecord[]}
   * @throws {LogError}
   */
  readBatch(from, bytesMax) {
    return decodeFrames(
      this.#bytes((exports) => exports.read_batch(this.#handle, toI64(from), bytesMax)),
    );
  }

  /** The first offset that the log holds. */
  get lowestOffset() {
    return this.#call((exports) => exports.lowest_offset(this.#handle));
  }

  /** The offset that the next append will give. */
  get nextOffset() {
    return this.#call((exports) => exports.next_offset(this.#handle));
  }

  /** Every record below this offset is on stable storage. */
  get durableOffset() {
    return this.#call((exports) => exports.durable_offset(this.#handle));
  }

  /**
   * Where a record stands: its segment's base offset, which names the files, and the byte of the
   * store where its frame starts.
   *
   * @param {bigint} offset
   * @throws {LogError}
   */
  locate(offset) {
    const bytes = this.#bytes((exports) => exports.locate(this.#handle, toI64(offset)));
    const [segment, position] = pair(bytes);
    return { segment, position };
  }

  /**
   * Drops whole segments that hold only records below this offset.
   *
   * @param {bigint} offset
   * @throws {LogError}
   */
  truncateBefore(offset) {
    this.#call((exports) => exports.truncate_before(this.#handle, toI64(offset)));
  }

  /**
   * Drops the records above this offset.
   *
   * @param {bigint} offset
   * @throws {LogError}
   */
  truncateAfter(offset) {
    this.#call((exports) => exports.truncate_after(this.#handle, toI64(offset)));
  }

  /** Drops every record. */
  reset() {
    this.#call((exports) => exports.reset(this.#handle));
  }

  /**
   * Removes the records that a later one of the same key has made obsolete, and in time the keys that were deleted: by
   * a record with a key and without a value, a tombstone. What is in the active segment stays.
   *
   * @param {Compaction} [compaction]
   * @returns {Compacted}
   * @throws {LogError}
   */
  compact(compaction = {}) {
    const { memoryBytesMax = 0, tombstonesKeptMs = DAY_MS, nowMs = Date.now() } = compaction;
    const numbers = /** @type {const} */ ([toInteger(memoryBytesMax), toInteger(tombstonesKeptMs), toInteger(nowMs)]);
    const json = this.#bytes((exports) => exports.compact(this.#handle, ...numbers));
    const compacted = JSON.parse(new TextDecoder().decode(json));
    return {
      recordsRemoved: compacted.records_removed,
      bytesRemoved: compacted.bytes_removed,
      segments: compacted.segments.length,
      segmentsLeftAlone: compacted.left_alone.length,
    };
  }

  /**
   * Removes the lowest segments while there is more than is to be kept, or they are too old. The active one stays.
   *
   * @param {Retention} retention
   * @throws {LogError}
   */
  enforceRetention({ bytesMax, ageMaxMs, nowMs = Date.now() }) {
    // To the module 0 is no bound.
    const bound = (/** @type {number | undefined} */ max) => (max === undefined ? 0n : toInteger(max) || 1n);
    const numbers = /** @type {const} */ ([bound(bytesMax), bound(ageMaxMs), toInteger(nowMs)]);
    this.#call((exports) => exports.enforce_retention(this.#handle, ...numbers));
  }

  /** Puts all that was appended on stable storage. */
  sync() {
    this.#call((exports) => exports.sync(this.#handle));
  }

  /** Closes the log. Calls on it fail from then on. */
  close() {
    this.#call((exports) => exports.close(this.#handle));
  }

  /**
   * A call that gives a number, which is a status if it is negative.
   *
   * @template {number | bigint} T
   * @param {(exports: Exports) => T} call
   * @returns {T}
   */
  #call(call) {
    return check(this.#exports, call(this.#exports));
  }

  /**
   * A call that gives bytes, copied, for the module's own stand only until the next call.
   *
   * @param {(exports: Exports) => bigint} call
   */
  #bytes(call) {
    return unpack(this.#exports, this.#call(call));
  }
}

/**
 * Opens the log of this name, and makes it if there is none.
 *
 * @param {Exports} exports
 * @param {string} name
 * @param {Options} [options]
 * @returns {number} its handle
 * @throws {LogError}
 */
export function openHandle(exports, name, options = {}) {
  const version = exports.abi_version();
  if (version !== ABI_VERSION) {
    throw new Error(`the module's ABI is version ${version}, and this code knows ${ABI_VERSION}; load both anew`);
  }
  const durability = DURABILITIES.indexOf(options.durability ?? "synced");
  const flags = (options.readOnly ? 1 : 0) | (durability << 1);
  const limit = (/** @type {number | undefined} */ bytes) => BigInt(bytes ?? 0);
  const handle = withBytes(exports, toBytes(name), (pointer, length) =>
    exports.open(
      pointer,
      length,
      flags,
      limit(options.segmentBytesMax),
      limit(options.indexBytesMax),
      limit(options.recordBytesMax),
      toI64(options.initialOffset ?? 0n),
    ),
  );
  return check(exports, handle);
}

/**
 * Runs `call` with a copy of these bytes in the module's memory.
 *
 * @template T
 * @param {Exports} exports
 * @param {Uint8Array} bytes
 * @param {(pointer: number, length: number) => T} call
 * @returns {T}
 */
export function withBytes(exports, bytes, call) {
  const { length } = bytes;
  // There are no buffers without bytes, and none is needed.
  if (length === 0) return call(0, 0);
  const pointer = exports.alloc(length) >>> 0;
  if (pointer === 0) throw new LogError(-11, `the module has no memory for ${length} bytes`);
  try {
    new Uint8Array(exports.memory.buffer, pointer, length).set(bytes);
    return call(pointer, length);
  } finally {
    exports.dealloc(pointer, length);
  }
}

/**
 * @template {number | bigint} T
 * @param {Exports} exports
 * @param {T} result
 * @returns {T}
 */
export function check(exports, result) {
  if (result >= 0) return result;
  const message = unpack(exports, exports.last_error());
  throw new LogError(Number(result), new TextDecoder().decode(message), conflict(exports, Number(result)));
}

/**
 * @param {Exports} exports
 * @param {number} status
 * @returns {Conflict | undefined}
 */
function conflict(exports, status) {
  if (status !== -12 && status !== -13) return undefined;
  const [first, second] = pair(unpack(exports, exports.last_conflict()));
  return status === -12
    ? { expected: first, nextOffset: second }
    : { lastSequence: first, lastOffset: second };
}

/**
 * Two numbers of 64 bits.
 *
 * @param {Uint8Array} bytes
 * @returns {[bigint, bigint]}
 */
function pair(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return [view.getBigUint64(0, true), view.getBigUint64(8, true)];
}

/**
 * @param {Exports} exports
 * @param {bigint} packed
 */
export function unpack(exports, packed) {
  const pointer = Number(packed & 0xffff_ffffn);
  return new Uint8Array(exports.memory.buffer, pointer, Number(packed >> 32n)).slice();
}

/**
 * A number as the module takes it, which refuses a negative one.
 *
 * @param {number} number
 */
export function toInteger(number) {
  if (!Number.isSafeInteger(number)) {
    throw new LogError(-1, `${number} is no whole number up to 2^53; give one`);
  }
  return BigInt(number);
}

/**
 * An offset as the module takes it. A larger one would wrap on its way there, and name another record.
 *
 * @param {bigint} offset
 */
function toI64(offset) {
  if (BigInt.asIntN(64, offset) !== offset) {
    throw new LogError(-1, `no log has an offset ${offset}: the largest is ${2n ** 63n - 1n}`);
  }
  return offset;
}
