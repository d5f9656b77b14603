// Directories as tar archives, in the form that every tar reads: ustar, POSIX.1-1988.

import { ProglogError } from "./error.js";

const BLOCK_BYTES = 512;
const NAME_BYTES = 100;
/** What stands before a file's header, such as a name that is too long for it, has no more. */
const EXTENSION_BYTES_MAX = 1 << 20;
/** Where a header's checksum stands, and what it counts as while it is made. */
const CHECKSUM = { at: 148, bytes: 8 };

/**
 * The header of a file of a name and so many bytes. It is the same for the same files, whenever it is made.
 *
 * @param {string} name
 * @param {number} bytes
 */
export function header(name, bytes) {
  const block = new Uint8Array(BLOCK_BYTES);
  const encoded = new TextEncoder().encode(name);
  if (encoded.length > NAME_BYTES) throw new ProglogError("TooLarge", `"${name}" is too long a name for an archive`);
  block.set(encoded);
  const text = (/** @type {number} */ at, /** @type {string} */ value) => block.set(new TextEncoder().encode(value), at);
  text(100, "0000644\0");
  text(108, "0000000\0");
  text(116, "0000000\0");
  text(124, `${bytes.toString(8).padStart(11, "0")} `);
  text(136, "00000000000 ");
  text(156, "0");
  text(257, "ustar\x0000");
  text(CHECKSUM.at, `${checksum(block).toString(8).padStart(6, "0")}\0 `);
  return block;
}

/** @param {number} bytes of a file, after which zeros fill its last block */
export function padding(bytes) {
  return new Uint8Array((BLOCK_BYTES - (bytes % BLOCK_BYTES)) % BLOCK_BYTES);
}

/** What ends an archive. */
export function end() {
  return new Uint8Array(2 * BLOCK_BYTES);
}

/**
 * The files in an archive of a log's directory, by their names.
 *
 * @param {Blob} archive
 * @returns {Promise<Map<string, Blob>>}
 * @throws {ProglogError} if it is none, or not of one log
 */
export async function filesOf(archive) {
  /** @type {Map<string, Blob>} */
  const files = new Map();
  for await (const { name, contents } of entries(archive)) {
    if (files.has(name)) {
      throw new ProglogError("Corrupt", `the archive has "${name}" twice, so it is not known which one is the log's; make another of its directory alone`);
    }
    files.set(name, contents);
  }
  if (![...files.keys()].some((name) => /^\d+\.store$/.test(name))) {
    throw new ProglogError("Corrupt", "there is no log in the archive: it has no file such as 0.store; make one of a log's directory");
  }
  return files;
}

/**
 * The files in an archive, as where they stand in it. Directories are passed over, and their names left out of those
 * of the files. So is what is neither, but not in the place of a log's file: that would be missing.
 *
 * @param {Blob} archive
 * @returns {AsyncGenerator<{ name: string, contents: Blob }>}
 * @throws {ProglogError} if it is none
 */
export async function* entries(archive) {
  /** What was told of the next file. @type {Extension} */
  let told = {};
  for (let at = 0; at < archive.size; ) {
    const block = new Uint8Array(await archive.slice(at, at + BLOCK_BYTES).arrayBuffer());
    at += BLOCK_BYTES;
    const isWhole = block.length === BLOCK_BYTES;
    if (isWhole && block.every((byte) => byte === 0)) return;
    const bytes = isWhole ? octal(block, 124, 12) : NaN;
    if (!(octal(block, CHECKSUM.at, CHECKSUM.bytes) === checksum(block)) || !(at + bytes <= archive.size)) {
      throw damaged(at - BLOCK_BYTES);
    }
    const type = String.fromCharCode(block[156] ?? 0);
    const contents = archive.slice(at, at + bytes);
    const start = at;
    at += bytes + padding(bytes).length;
    if (/^[LKxg]$/.test(type)) {
      const extension = bytes <= EXTENSION_BYTES_MAX && extensionIn(type, new Uint8Array(await contents.arrayBuffer()));
      if (!extension) throw damaged(start);
      told = { ...told, ...extension };
      continue;
    }
    const path = told.path ?? text(block, 0, NAME_BYTES);
    const name = path.slice(path.lastIndexOf("/") + 1);
    const isSparse = type === "S" || told.isSparse || path.includes("GNUSparseFile.");
    told = {};
    if ((isSparse || /^[1-46]$/.test(type)) && /^\d+\.(store|index)$/.test(name)) {
      throw new ProglogError("Corrupt", `"${name}" in the archive is a link, or a file with holes left out; make one of plain files, without \`tar --sparse\``);
    }
    if ((type === "0" || type === "\0") && name) yield { name, contents };
  }
  // Without its end, which is zeros, it may lack files.
  throw damaged(archive.size);
}

/** @typedef {{ path?: string, isSparse?: boolean }} Extension */

/**
 * What is told of the file that comes next, by GNU's tar or as POSIX.1-2001 has it; nothing if the bytes make no sense.
 *
 * @param {string} type
 * @param {Uint8Array} bytes
 * @returns {Extension | undefined}
 */
function extensionIn(type, bytes) {
  if (type === "L") return { path: text(bytes, 0, bytes.length) };
  /** @type {Extension} */
  const extension = {};
  for (let at = 0; type === "x" && at < bytes.length; ) {
    const length = parseInt(text(bytes, at, 10), 10);
    const [, key, value] = /^\d+ ([^=]+)=(.*)\n$/s.exec(new TextDecoder().decode(bytes.subarray(at, at + length))) ?? [];
    if (key === undefined) return undefined;
    if (key === "path" && value) extension.path = value;
    if (key.startsWith("GNU.sparse.")) extension.isSparse = true;
    at += length;
  }
  return extension;
}

/** @param {number} at */
function damaged(at) {
  return new ProglogError("Corrupt", `this is no tar archive, or it is cut short or damaged at byte ${at}`);
}

/** @param {Uint8Array} block */
function checksum(block) {
  const { at, bytes } = CHECKSUM;
  return block.reduce((sum, byte, index) => sum + (index >= at && index < at + bytes ? 0x20 : byte), 0);
}

/**
 * @param {Uint8Array} block
 * @param {number} at
 * @param {number} bytes
 */
function text(block, at, bytes) {
  const field = block.subarray(at, at + bytes);
  const ends = field.indexOf(0);
  return new TextDecoder().decode(ends < 0 ? field : field.subarray(0, ends));
}

/**
 * @param {Uint8Array} block
 * @param {number} at
 * @param {number} bytes
 */
function octal(block, at, bytes) {
  const digits = text(block, at, bytes).trim();
  return /^[0-7]+$/.test(digits) ? parseInt(digits, 8) : NaN;
}
