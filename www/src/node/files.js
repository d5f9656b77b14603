// A log's files on the disk of Node.js, beside what the module does with them: the directory itself, its lock, and what is
// brought there or taken from it as a whole.

import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  openSync,
  readSync,
  readdirSync,
  renameSync,
  rmSync,
  rmdirSync,
  statfsSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";

import { invalid } from "../check.js";
import { ProglogError } from "../error.js";
import { lock } from "./lock.js";
import { list, syncDirectory } from "./wasi.js";

/** What is beside a log's files and goes to no copy: see sources.js and lock.js. */
const NOT_COPIED = /^(sources-\d|proglog\.lock)$/;
/** More than a file of sources.js ever has. */
const SOURCES_BYTES_MAX = 1 << 20;
/** What makes a log, and all that may be left of one; see core/FORMAT.md. */
const OWN = /^((0|[1-9]\d*)\.((store|index)(\.cut|\.rewritten)?|prepared)|sources-\d|proglog\.lock)$/;

/** The directory of a log, locked. */
export class DiskFiles {
  #directory;
  #lock;
  /** Where what is imported is to be in the end. @type {string | undefined} */
  #target;

  /**
   * Opens a directory, made if it is missing.
   *
   * @param {string} directory
   * @param {boolean} isLocked whether it is to be locked
   */
  static open(directory, isLocked) {
    makeDirectory(directory);
    return new DiskFiles(directory, isLocked ? lock(directory) : undefined);
  }

  /**
   * Opens one that comes to be what this directory is, once all is there that is imported.
   *
   * @param {string} directory
   */
  static openImport(directory) {
    if (existsSync(directory) && readdirSync(directory).length > 0) {
      throw invalid(`the directory ${directory} is not empty; import into another, or delete it`);
    }
    makeDirectory(dirname(directory));
    const beside = `${directory}.importing-${crypto.randomUUID()}`;
    mkdirSync(beside);
    const files = new DiskFiles(beside, lock(beside));
    files.#target = directory;
    return files;
  }

  /**
   * Use {@link DiskFiles.open}.
   *
   * @param {string} directory
   * @param {number | undefined} lock
   */
  constructor(directory, lock) {
    this.#directory = directory;
    this.#lock = lock;
  }

  /** Its path. */
  get path() {
    return this.#directory;
  }

  /** What is asked of the files as a whole. */
  get directory() {
    return {
      names: () => this.#names(),
      fileBytes: (/** @type {string} */ name) => this.#in(name, "r", (fd) => fstatSync(fd).size),
      readFile: (/** @type {string} */ name, /** @type {number} */ position, /** @type {number} */ bytes) =>
        this.#in(name, "r", (fd) => read(fd, position, bytes)),
      importFile: (/** @type {string} */ name, /** @type {Uint8Array} */ bytes, /** @type {number} */ position) => {
        if (/^\.{0,2}$|[/\\\0]/.test(name)) throw invalid(`"${name}" in the archive is no name`);
        return this.#in(name, "a", (fd) => write(fd, bytes, position));
      },
      finishImport: () => this.#finishImport(),
    };
  }

  /** The directory as a browser gives it, as far as sources.js needs it. */
  get handle() {
    return /** @type {FileSystemDirectoryHandle} */ (/** @type {unknown} */ (new Handles(this.#directory)));
  }

  /**
   * @template T
   * @param {() => T} call
   */
  async again(call) {
    return call();
  }

  /**
   * @template T
   * @param {() => T} call
   */
  async change(call) {
    return call();
  }

  get isReady() {
    return true;
  }

  async ready() {}

  /** How much more may be written, in words. */
  async room() {
    const { bavail, bsize } = statfsSync(this.#directory);
    return `the disk has ${bavail * bsize} bytes free`;
  }

  async close() {
    if (this.#target !== undefined) rmSync(this.#directory, { recursive: true, force: true });
    if (this.#lock !== undefined) closeSync(this.#lock);
    this.#lock = undefined;
  }

  #names() {
    return list(this.#directory)
      .filter((entry) => entry.isFile() && !NOT_COPIED.test(entry.name))
      .map(({ name }) => name);
  }

  #finishImport() {
    if (this.#target === undefined) return;
    for (const name of this.#names()) this.#in(name, "r", fsyncSync);
    syncDirectory(this.#directory);
    // One that is empty is replaced.
    renameSync(this.#directory, this.#target);
    this.#directory = this.#target;
    this.#target = undefined;
    syncDirectory(dirname(this.#directory));
  }

  /**
   * @template T
   * @param {string} name
   * @param {"r" | "a"} how
   * @param {(fd: number) => T} call
   */
  #in(name, how, call) {
    try {
      const fd = openFile(join(this.#directory, name), how);
      try {
        return call(fd);
      } finally {
        closeSync(fd);
      }
    } catch (error) {
      throw typed(error);
    }
  }
}

/**
 * Deletes the log in a directory, and the directory if nothing else is in it.
 *
 * @param {string} directory
 * @throws {ProglogError} "Locked" if it is open
 */
export function deleteFiles(directory) {
  const found = lstatSync(directory, { throwIfNoEntry: false });
  if (!found) return;
  if (found.isSymbolicLink()) {
    throw invalid(`${directory} is a symbolic link; delete the log by the path of its directory, then remove the link`);
  }
  const held = lock(directory);
  try {
    removeFiles(directory);
    if (readdirSync(directory).length === 0) {
      rmdirSync(directory);
      syncDirectory(dirname(directory));
    }
  } finally {
    closeSync(held);
  }
}

/** @param {string} directory */
function removeFiles(directory) {
  for (const entry of list(directory)) {
    // A directory is no log's, whatever its name.
    if (OWN.test(entry.name) && !entry.isDirectory()) rmSync(join(directory, entry.name));
  }
  syncDirectory(directory);
}

/**
 * Makes a directory and those above it, each durably.
 *
 * @param {string} directory
 */
function makeDirectory(directory) {
  if (existsSync(directory)) return;
  makeDirectory(dirname(directory));
  try {
    mkdirSync(directory);
  } catch (error) {
    // Made by another meanwhile.
    if (!existsSync(directory)) throw error;
  }
  syncDirectory(dirname(directory));
}

/**
 * Opens a file of the directory's own, which takes no time: that of a pipe would wait for a writer.
 *
 * @param {string} path
 * @param {"r" | "r+" | "a"} how
 */
function openFile(path, how) {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found && !found.isFile()) {
    const what = "is not a regular file; a log's files cannot be links, directories or pipes: move it away";
    throw new ProglogError("Io", `${path} ${what}`);
  }
  const { O_RDONLY, O_RDWR, O_WRONLY, O_APPEND, O_CREAT, O_NOFOLLOW = 0, O_NONBLOCK = 0 } = constants;
  const flags = { r: O_RDONLY, "r+": O_RDWR, a: O_WRONLY | O_APPEND | O_CREAT }[how];
  return openSync(path, flags | O_NOFOLLOW | O_NONBLOCK, 0o644);
}

/**
 * @param {number} fd
 * @param {number} position
 * @param {number} bytes
 * @returns {Uint8Array<ArrayBuffer>}
 */
function read(fd, position, bytes) {
  const buffer = new Uint8Array(Math.max(Math.min(bytes, fstatSync(fd).size - position), 0));
  let sum = 0;
  while (sum < buffer.length) {
    const part = readSync(fd, buffer, sum, buffer.length - sum, position + sum);
    if (part === 0) break;
    sum += part;
  }
  return buffer.subarray(0, sum);
}

/**
 * @param {number} fd
 * @param {Uint8Array} bytes
 * @param {number} position
 */
function write(fd, bytes, position) {
  for (let sum = 0; sum < bytes.length; ) sum += writeSync(fd, bytes, sum, bytes.length - sum, position + sum);
}

/**
 * An error of Node's as one of the log's.
 *
 * @param {unknown} error
 */
export function typed(error) {
  if (error instanceof ProglogError || !(error instanceof Error && "code" in error)) return error;
  const isFull = error.code === "ENOSPC" || error.code === "EDQUOT";
  return new ProglogError(isFull ? "StorageFull" : "Io", error.message);
}

/** Files by their names, as a browser gives them. */
class Handles {
  #directory;

  /** @param {string} directory */
  constructor(directory) {
    this.#directory = directory;
  }

  /**
   * @param {string} name
   * @param {{ create?: boolean }} [options]
   */
  async getFileHandle(name, { create = false } = {}) {
    const path = join(this.#directory, name);
    // A link that leads nowhere is there too.
    if (!lstatSync(path, { throwIfNoEntry: false })) {
      if (!create) throw new DOMException(`there is no ${path}`, "NotFoundError");
      closeSync(openFile(path, "a"));
      syncDirectory(this.#directory);
    }
    return {
      getFile: async () => new Blob([contents(path)]),
      createSyncAccessHandle: async () => new Handle(path),
    };
  }

  /** @param {string} name */
  async removeEntry(name) {
    await this.getFileHandle(name);
    rmSync(join(this.#directory, name));
    syncDirectory(this.#directory);
  }
}

/**
 * What a file holds, as far as one of sources.js may: another is none.
 *
 * @param {string} path
 */
function contents(path) {
  const fd = openFile(path, "r");
  try {
    return read(fd, 0, SOURCES_BYTES_MAX);
  } finally {
    closeSync(fd);
  }
}

/** An open file, as a browser has it. */
class Handle {
  #fd;

  /** @param {string} path */
  constructor(path) {
    this.#fd = openFile(path, "r+");
  }

  /** @param {number} bytes */
  truncate(bytes) {
    ftruncateSync(this.#fd, bytes);
  }

  /**
   * @param {Uint8Array} bytes
   * @param {{ at: number }} options
   */
  write(bytes, { at }) {
    write(this.#fd, bytes, at);
    return bytes.length;
  }

  flush() {
    fsyncSync(this.#fd);
  }

  close() {
    closeSync(this.#fd);
  }
}
