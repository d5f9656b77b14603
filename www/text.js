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
