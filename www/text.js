// Bytes as people write and read them.

/** Characters of a text that are shown where there is little room. */
const CHARACTERS_MAX = 60;

/**
 * @param {Uint8Array} bytes
 * @returns {string} two digits a byte
 */
export function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Reads hex digits, in any grouping by spaces.
 *
 * @param {string} text
 * @returns {Uint8Array}
 * @throws {SyntaxError}
 */
export function fromHex(text) {
  const digits = text.replace(/\s+/g, "");
  const bad = digits.match(/[^0-9a-f]/i);
  if (bad) throw new SyntaxError(`“${bad[0]}” is not a hex digit: write bytes like 00 ff 7a`);
  if (digits.length % 2) throw new SyntaxError("A byte is two hex digits, and one is missing");
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/**
 * The text that bytes are, if they are one: UTF-8 without control characters but line ends and tabs.
 *
 * @param {Uint8Array} bytes
 * @returns {string | undefined}
 */
export function textOf(bytes) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    return /[\p{Cc}]/u.test(text.replace(/[\n\r\t]/g, "")) ? undefined : text;
  } catch {
    return undefined;
  }
}

/**
 * What bytes are, in a few words: how many, and the text if they are one.
 *
 * @param {Uint8Array} bytes
 * @returns {{ size: string, content: string }}
 */
export function describe(bytes) {
  const size = `${bytes.length} ${bytes.length === 1 ? "byte" : "bytes"}`;
  if (bytes.length === 0) return { size, content: "nothing" };
  const text = textOf(bytes);
  if (text === undefined) return { size, content: "not text" };
  const isCut = text.length > CHARACTERS_MAX;
  return { size, content: isCut ? `${text.slice(0, CHARACTERS_MAX)}…` : text };
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/**
 * A whole number with its thousands apart.
 *
 * @param {number | bigint} number
 */
export function count(number) {
  return whole.format(number);
}

/**
 * "1 record", "2 records".
 *
 * @param {number | bigint} number
 * @param {string} noun
 */
export function counted(number, noun) {
  return `${count(number)} ${noun}${Number(number) === 1 ? "" : "s"}`;
}

const UNITS = ["KB", "MB", "GB", "TB"];

/**
 * A size as people say it: exact while it is short.
 *
 * @param {number} bytes
 */
export function size(bytes) {
  if (bytes < 10_000) return `${count(bytes)} B`;
  let unit = -1;
  for (; bytes >= 1000 && unit < UNITS.length - 1; unit++) bytes /= 1000;
  return `${bytes < 100 ? bytes.toFixed(1) : count(bytes)} ${UNITS[unit]}`;
}

/**
 * A duration in milliseconds, to two digits or more.
 *
 * @param {number} ms
 */
export function duration(ms) {
  if (ms >= 10_000) return `${(ms / 1000).toFixed(1)} s`;
  return `${ms < 10 ? ms.toFixed(2) : ms < 100 ? ms.toFixed(1) : count(ms)} ms`;
}

/** @param {number} ms */
export function timeOf(ms) {
  const date = new Date(ms);
  // A timestamp is any u64, and a calendar ends before.
  if (Number.isNaN(date.getTime())) return `${ms} ms`;
  return date.toISOString().replace("T", " ").replace("Z", " UTC");
}

/** @param {unknown} error */
export function reason(error) {
  const { message, kind, status } = /** @type {{ message?: string, kind?: string, status?: number }} */ (error ?? {});
  const of = kind ?? (status || "");
  return `${of ? `${of}: ` : ""}${message ?? error}`;
}
