// A record's frame, as it stands in a store: eight bytes of length, then the record in protobuf's
// wire format, as core/proto/log.proto defines it.

/** The bytes of a frame's length, before the record. */
export const LENGTH_BYTES = 8;

const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;
const FIXED32 = 5;

const VALUE = 1;
const OFFSET = 2;
const TIMESTAMP_MS = 5;
const KEY = 6;
const HEADERS = 7;
const BATCH_REMAINING = 8;
const PRODUCER_ID = 10;
const PRODUCER_SEQUENCE = 11;
const GAP_RECORDS = 12;
const CHECKSUM = 15;

/**
 * @typedef {"length" | "value" | "offset" | "timestamp_ms" | "key" | "headers" | "batch_remaining"
 *   | "producer_id" | "producer_sequence" | "checksum" | "other"} FieldName
 */

/**
 * Where a field stands in a frame: its tag (and length) from `start`, what it holds from `content`
 * up to `end`.
 *
 * @typedef {{ field: FieldName, start: number, content: number, end: number }} Part
 */

/** @typedef {{ name: string, value: Uint8Array }} Header */

/** @typedef {{ id: Uint8Array, sequence: bigint }} Producer who appended a record, and which of theirs it is */

/**
 * A record as it stands in the log.
 *
 * @typedef {object} LogRecord
 * @property {bigint} offset its number in the log: a u64, so a bigint
 * @property {Uint8Array} value what was appended
 * @property {Uint8Array | undefined} key
 * @property {Header[]} headers
 * @property {number | undefined} timestampMs milliseconds since 1970-01-01 UTC, if it has one
 * @property {Producer | undefined} producer
 * @property {number} batchRemaining how many records of the same batch follow it
 * @property {boolean} isGap whether it is no record, but tells of offsets that are not there, the last of which is `offset`
 * @property {bigint | undefined} checksum XXH3-64 of all before it; the book's program writes none
 * @property {Uint8Array} frame all its bytes
 * @property {Part[]} parts where each field stands in `frame`, in order, with no gap
 */

/**
 * A record to append. A string is taken as UTF-8; one with half of a surrogate pair is refused.
 *
 * @typedef {object} NewRecord
 * @property {Uint8Array | string} value
 * @property {Uint8Array | string | undefined} [key] empty is none
 * @property {{ name: string, value: Uint8Array | string }[]} [headers]
 * @property {number | undefined} [timestampMs] 0 is none
 * @property {{ id: Uint8Array | string, sequence: bigint } | undefined} [producer] whose it is, and which of theirs: such
 *   a record is appended once, however often it is sent; an id has at most 32 bytes, empty is none
 */

/**
 * Reads the record in one whole frame. Its checksum was checked by the log that read it.
 *
 * @param {Uint8Array} frame
 * @returns {LogRecord}
 * @throws {RangeError} if the bytes are no frame
 */
export function decodeFrame(frame) {
  const view = viewOf(frame);
  if (frame.length < LENGTH_BYTES || view.getBigUint64(0) !== BigInt(frame.length - LENGTH_BYTES)) {
    throw new RangeError("a frame's length does not match its bytes");
  }
  /** @type {LogRecord} */
  const record = {
    offset: 0n,
    value: new Uint8Array(),
    key: undefined,
    headers: [],
    timestampMs: undefined,
    producer: undefined,
    batchRemaining: 0,
    isGap: false,
    checksum: undefined,
    frame,
    parts: [{ field: "length", start: 0, content: 0, end: LENGTH_BYTES }],
  };
  let sequence = 0n;
  for (const { number, type, start, content, end, varint } of fields(frame, LENGTH_BYTES)) {
    /** @type {FieldName} */
    let field = "other";
    if (number === VALUE && type === BYTES) {
      field = "value";
      record.value = frame.subarray(content, end);
    } else if (number === OFFSET && type === VARINT) {
      field = "offset";
      record.offset = varint;
    } else if (number === TIMESTAMP_MS && type === VARINT) {
      field = "timestamp_ms";
      record.timestampMs = Number(varint) || undefined;
    } else if (number === KEY && type === BYTES) {
      field = "key";
      record.key = content < end ? frame.subarray(content, end) : undefined;
    } else if (number === HEADERS && type === BYTES) {
      field = "headers";
      record.headers.push(decodeHeader(frame.subarray(content, end)));
    } else if (number === BATCH_REMAINING && type === VARINT) {
      field = "batch_remaining";
      record.batchRemaining = Number(varint);
    } else if (number === PRODUCER_ID && type === BYTES) {
      field = "producer_id";
      record.producer = content < end ? { id: frame.subarray(content, end), sequence } : undefined;
    } else if (number === PRODUCER_SEQUENCE && type === VARINT) {
      field = "producer_sequence";
      sequence = varint;
      if (record.producer) record.producer.sequence = sequence;
    } else if (number === GAP_RECORDS) {
      record.isGap = true;
    } else if (number === CHECKSUM && type === FIXED64) {
      field = "checksum";
      record.checksum = view.getBigUint64(content, true);
    }
    record.parts.push({ field, start, content, end });
  }
  return record;
}

/**
 * Reads the records of frames that stand one after the other. Those that tell of offsets that are not
 * there are passed over.
 *
 * @param {Uint8Array} frames
 * @returns {LogRecord[]}
 * @throws {RangeError} if the bytes are no frames
 */
export function decodeFrames(frames) {
  const records = [];
  for (let at = 0; at < frames.length; ) {
    if (frames.length - at < LENGTH_BYTES) throw new RangeError("a frame is cut short");
    const end = at + LENGTH_BYTES + Number(viewOf(frames).getBigUint64(at));
    const record = decodeFrame(frames.subarray(at, end));
    if (!record.isGap) records.push(record);
    at = end;
  }
  return records;
}

/**
 * Writes records to append as the module's `append_batch` takes them: for each its length and its
 * fields, with neither offset nor checksum, which the log gives.
 *
 * @param {NewRecord[]} records
 * @param {number} [nowMs] the timestamp of those that tell none
 * @param {ArrayBuffer} [spare] one that is not used any more, to write them to if they fill it
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function encodeBatch(records, nowMs = 0, spare) {
  let bytes = 0;
  for (const record of records) bytes += RECORD_BYTES + checked(record?.value, "a value").length;
  const isSpareFilled = spare !== undefined && bytes <= spare.byteLength && isNearly(bytes, spare.byteLength);
  const output = new Output(isSpareFilled ? spare : new ArrayBuffer(bytes));
  for (const record of records) encodeRecord(output, record, nowMs);
  return output.taken();
}

/**
 * Whether these are bytes, also those of another realm, such as a frame's.
 *
 * @param {unknown} value
 * @returns {value is Uint8Array}
 */
export function isBytes(value) {
  return value instanceof Uint8Array || (ArrayBuffer.isView(value) && toString.call(value) === "[object Uint8Array]");
}

const { toString } = Object.prototype;

/**
 * What is not of the type that is told could be taken for no bytes, or for others than it has.
 *
 * @template {Uint8Array | string} T
 * @param {T} value
 * @param {string} what
 */
function checked(value, what) {
  if (typeof value !== "string" && !isBytes(value)) throw new TypeError(`${what} is neither a string nor a Uint8Array; give one`);
  return value;
}

/**
 * @template T
 * @param {T} option
 * @returns {option is NonNullable<T>}
 */
function isGiven(option) {
  return option !== undefined && option !== null;
}

/** Half of a pair, without the other. */
const LONE_SURROGATE = /\p{Surrogate}/u;

/**
 * The bytes of a value: a string's UTF-8.
 *
 * @param {Uint8Array | string} value
 * @throws {RangeError} if it has none
 */
export function toBytes(value) {
  if (typeof value !== "string") return value;
  if (LONE_SURROGATE.test(value)) {
    throw new RangeError("a string has half of a surrogate pair, which is no character and would be lost; give the other half too, or bytes");
  }
  return new TextEncoder().encode(value);
}

/**
 * @param {Output} output
 * @param {NewRecord} record
 * @param {number} nowMs of one that tells no timestamp
 */
function encodeRecord(output, { value, key, headers, timestampMs, producer }, nowMs) {
  const ms = timestampMs ?? nowMs;
  const isNumber = typeof ms === "number" || typeof ms === "bigint";
  if (!isNumber) throw new TypeError("a timestamp is no number; give milliseconds since 1970");
  if (ms < 0) throw new RangeError(`a timestamp of ${ms} ms is before 1970`);
  const start = output.begin(LENGTH_BYTES);
  // Once more: a getter may give another one.
  output.bytesField(VALUE, checked(value, "a value"));
  output.numberField(TIMESTAMP_MS, ms);
  if (isGiven(key)) output.bytesField(KEY, checked(key, "a key"));
  if (isGiven(headers)) {
    if (!Array.isArray(headers)) throw new TypeError("the headers are no array of { name, value }; give one");
    for (const header of headers) {
      if (typeof header?.name !== "string") throw new TypeError("a header's name is no string; give each as { name, value }");
      const encoded = new Output(new ArrayBuffer(RECORD_BYTES));
      encoded.bytesField(1, header.name);
      encoded.bytesField(2, checked(header.value, "a header's value"));
      const bytes = encoded.taken();
      output.varint((HEADERS << 3) | BYTES);
      output.varint(bytes.length);
      output.put(bytes);
    }
  }
  if (isGiven(producer)) {
    output.bytesField(PRODUCER_ID, checked(producer.id, "a producer's id"));
    output.numberField(PRODUCER_SEQUENCE, producer.sequence);
  }
  output.endWithLength(start);
}

/** What a record takes beside its value, mostly: its length, the time, and what of the value comes first. */
const RECORD_BYTES = 24;
const U32_VALUES = 2 ** 32;
/** Four bytes of a varint. */
const U28_VALUES = 2 ** 28;

/**
 * Whether so many bytes fill a buffer of so many, or nearly.
 *
 * @param {number} filled
 * @param {number} bytes
 */
function isNearly(filled, bytes) {
  return bytes - filled <= filled >> 3;
}

/** Bytes that are put one after the other. One array for all: a batch of a thousand made ten thousand of them. */
class Output {
  #bytes;
  #end = 0;

  /** @param {ArrayBuffer} buffer of as many bytes as there will be, perhaps */
  constructor(buffer) {
    this.#bytes = new Uint8Array(buffer);
  }

  /** All of them, with not much more in their buffer: whole buffers are sent. */
  taken() {
    const isNearlyFull = isNearly(this.#end, this.#bytes.length);
    return isNearlyFull ? this.#bytes.subarray(0, this.#end) : this.#bytes.slice(0, this.#end);
  }

  /** @param {Uint8Array} bytes */
  put(bytes) {
    this.#makeRoom(bytes.length);
    this.#bytes.set(bytes, this.#end);
    this.#end += bytes.length;
  }

  /** @param {number | bigint} number a whole one, not below 0 */
  varint(number) {
    this.#makeRoom(10);
    const bytes = this.#bytes;
    let at = this.#end;
    let rest = number;
    if (typeof rest === "number" && !Number.isSafeInteger(rest)) rest = BigInt(rest);
    if (typeof rest === "bigint") {
      for (; rest >= U32_VALUES; rest >>= 7n) bytes[at++] = Number(rest & 0x7fn) | 0x80;
      rest = Number(rest);
    }
    // All of this is of 32 bits then, which is several times as fast as what is not.
    for (let high; rest >= U28_VALUES; rest = high) {
      high = Math.floor(rest / U28_VALUES);
      const low = rest - high * U28_VALUES;
      for (let shift = 0; shift < 28; shift += 7) bytes[at++] = (low >>> shift) | 0x80;
    }
    for (; rest >= 0x80; rest >>>= 7) bytes[at++] = rest | 0x80;
    bytes[at++] = rest;
    this.#end = at;
  }

  /**
   * A field of bytes; nothing for none, as proto3 has it.
   *
   * @param {number} number
   * @param {Uint8Array | string} value
   */
  bytesField(number, value) {
    const bytes = toBytes(value);
    if (bytes.length === 0) return;
    this.varint((number << 3) | BYTES);
    this.varint(bytes.length);
    this.put(bytes);
  }

  /**
   * A field that is a number, likewise.
   *
   * @param {number} number
   * @param {number | bigint} value
   */
  numberField(number, value) {
    const isWhole = typeof value === "bigint" || Number.isInteger(value);
    if (!isWhole || value < 0 || value >= 2 ** 64) throw new RangeError(`${String(value)} is no whole number of 64 bits`);
    if (!value) return;
    this.varint((number << 3) | VARINT);
    this.varint(value);
  }

  /**
   * Leaves room, and gives where it ends.
   *
   * @param {number} bytes
   */
  begin(bytes) {
    this.#makeRoom(bytes);
    for (const end = this.#end + bytes; this.#end < end; ) this.#bytes[this.#end++] = 0;
    return this.#end;
  }

  /**
   * Puts how many bytes there are from `start` on before that.
   *
   * @param {number} start
   */
  endWithLength(start) {
    let at = start;
    for (let rest = this.#end - start; rest > 0; rest = Math.floor(rest / 0x100)) this.#bytes[--at] = rest % 0x100;
  }

  /** @param {number} bytes */
  #makeRoom(bytes) {
    const least = this.#end + bytes;
    if (least <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(2 * this.#bytes.length, least));
    grown.set(this.#bytes.subarray(0, this.#end));
    this.#bytes = grown;
  }
}

/**
 * @param {Uint8Array} header
 * @returns {Header}
 */
function decodeHeader(header) {
  /** @type {Header} */
  const decoded = { name: "", value: new Uint8Array() };
  for (const { number, type, content, end } of fields(header, 0)) {
    if (type !== BYTES) continue;
    if (number === 1) decoded.name = new TextDecoder().decode(header.subarray(content, end));
    if (number === 2) decoded.value = header.subarray(content, end);
  }
  return decoded;
}

/**
 * The fields of a protobuf message, from a byte of it to its end.
 *
 * @param {Uint8Array} bytes
 * @param {number} from
 */
function* fields(bytes, from) {
  for (let at = from; at < bytes.length; ) {
    const start = at;
    const tag = readVarint(bytes, at);
    const type = Number(tag.varint & 7n);
    let [content, end, varint] = [tag.end, tag.end, 0n];
    if (type === VARINT) {
      ({ varint, end } = readVarint(bytes, content));
    } else if (type === BYTES) {
      const length = readVarint(bytes, content);
      content = length.end;
      end = content + Number(length.varint);
    } else if (type === FIXED64 || type === FIXED32) {
      end = content + (type === FIXED64 ? 8 : 4);
    } else {
      throw new RangeError(`a field has the unknown wire type ${type}`);
    }
    if (end > bytes.length) throw new RangeError("a field runs past the end of its record");
    yield { number: Number(tag.varint >> 3n), type, start, content, end, varint };
    at = end;
  }
}

/**
 * @param {Uint8Array} bytes
 * @param {number} at
 */
function readVarint(bytes, at) {
  let varint = 0n;
  for (let shift = 0n; shift < 70n; shift += 7n) {
    const byte = bytes[at++];
    if (byte === undefined) break;
    varint |= BigInt(byte & 0x7f) << shift;
    if (byte < 0x80) return { varint: BigInt.asUintN(64, varint), end: at };
  }
  throw new RangeError("a number is cut short or longer than ten bytes");
}

/** @param {Uint8Array} bytes */
function viewOf(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
