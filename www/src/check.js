// What callers give, looked at where it comes in: what makes no sense is refused alike in browsers and in Node.js, before
// anything is done.

import { isBytes, toBytes } from "../frame.js";
import { ProglogError } from "./error.js";

/** The names of what a log is opened with, anywhere. */
export const LOG_OPTIONS = ["durability", "segmentBytesMax", "indexBytesMax", "recordBytesMax", "initialOffset", "wasmUrl"];
const DURABILITIES = ["synced", "written", "buffered"];
const ARCHIVES = ["[object ArrayBuffer]", "[object Blob]", "[object File]"];
const OFFSET_MAX = 2n ** 63n - 1n;

/**
 * A larger one would wrap on its way to the module, and name another record.
 *
 * @param {unknown} offset
 */
export function checkOffset(offset) {
  if (typeof offset !== "bigint" || offset < 0n || offset > OFFSET_MAX) {
    throw invalid(`${show(offset)} is no offset; give a bigint from 0n to 2n ** 63n - 1n`);
  }
}

/**
 * Refuses what cannot be a limit, or the first offset.
 *
 * @param {{ segmentBytesMax?: number, indexBytesMax?: number, recordBytesMax?: number, initialOffset?: bigint }} limits
 */
export function checkLimits({ segmentBytesMax, indexBytesMax, recordBytesMax, initialOffset = 0n }) {
  checkOffset(initialOffset);
  for (const [option, bytes] of Object.entries({ segmentBytesMax, indexBytesMax, recordBytesMax })) {
    if (bytes !== undefined && !(Number.isSafeInteger(bytes) && bytes > 0)) {
      throw invalid(`${option} is ${show(bytes)}; give a whole number of bytes, 1 or more`);
    }
  }
}

/**
 * What the module is to be told of a durability, which may be a log's.
 *
 * @param {unknown} durability
 */
export function checkDurability(durability) {
  const promise = DURABILITIES.indexOf(/** @type {string} */ (durability)) + 1;
  if (promise === 0) throw invalid(`durability is none of ${DURABILITIES.join(", ")}`);
  return promise;
}

/**
 * @param {unknown} name
 * @param {string} what it is to be
 */
export function checkName(name, what) {
  if (typeof name !== "string" || name === "") throw invalid(`${show(name)} is no ${what}; give a string that is not empty`);
  checkBytes(name);
}

/**
 * Refuses options that are none: what one that is misspelt was to do would not be done, unseen.
 *
 * @param {unknown} options
 * @param {string} what they are of
 * @param {readonly string[]} names that they may have
 */
export function checkOptions(options, what, names) {
  if (typeof options !== "object" || options === null) {
    throw invalid(`${show(options)} are no options of ${what}; give an object, or nothing`);
  }
  for (const name in options) {
    if (!names.includes(name)) throw invalid(`${show(name)} is no option of ${what}; give some of ${names.join(", ")}`);
  }
}

/**
 * @param {unknown} number
 * @param {string} what it is
 */
export function checkNumber(number, what) {
  if (!Number.isSafeInteger(number) || Number(number) < 0) {
    throw invalid(`${what} is ${show(number)}; give a whole number, 0 or more`);
  }
}

/** @param {any} signal which may be another realm's */
export function checkSignal(signal) {
  if (signal !== undefined && !(typeof signal?.aborted === "boolean" && typeof signal.addEventListener === "function")) {
    throw invalid(`${show(signal)} is no signal; give that of an AbortController`);
  }
}

/**
 * An archive's bytes, wherever they are, also in what is another realm's.
 *
 * @param {unknown} archive
 * @returns {Blob}
 */
export function checkArchive(archive) {
  if (archive instanceof Blob) return archive;
  if (ARCHIVES.includes(Object.prototype.toString.call(archive)) || ArrayBuffer.isView(archive)) {
    return new Blob([/** @type {ArrayBuffer | Uint8Array<ArrayBuffer>} */ (archive)]);
  }
  throw invalid(`${show(archive)} is no archive; give a Blob, or bytes`);
}

/** @param {unknown} bytes */
export function checkBytes(bytes) {
  if (typeof bytes !== "string" && !isBytes(bytes)) throw invalid(`${show(bytes)} is neither a string nor a Uint8Array; give one`);
  try {
    toBytes(bytes);
  } catch (error) {
    throw invalid(/** @type {Error} */ (error).message);
  }
}

/** @param {string} message */
export function invalid(message) {
  return new ProglogError("InvalidArgument", message);
}

/**
 * What was given, in a few words: not every value can be made a string of.
 *
 * @param {unknown} value
 */
function show(value) {
  if (typeof value === "string") return JSON.stringify(value.slice(0, 100));
  if (value === null) return "null";
  return typeof value === "object" || typeof value === "function" || typeof value === "symbol" ? `a value of type ${typeof value}` : `${value}`;
}
