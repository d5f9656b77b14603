// What the module for WASI asks of its host, wasip1, over node:fs: files of one directory, by their plain names. As in
// `proglog serve`, a file that is made, renamed or removed is so on stable storage when the call returns, for a guest
// cannot sync a directory. Node's own node:wasi has no such thing, and warns that it may change at any time.

import {
  closeSync,
  constants,
  fdatasyncSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  lstatSync,
  openSync,
  readSync,
  readdirSync,
  renameSync,
  statSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";

/** What the directory is called within: no one else has it in a message. */
export const GUEST_PATH = "/directory-of-this-log";

const STDERR = 2;
const DIRECTORY = 3;
const FIRST_FILE = 4;
/** As `proglog serve` has it. */
const OPEN_FILES_MAX = 256;
/** The most parts of a read or write, as in POSIX. */
const PARTS_MAX = 1024;
const LAST_WORDS_BYTES_MAX = 4096;

const SUCCESS = 0;
const BADF = 8;
const INVAL = 28;
const IO = 29;
const MFILE = 33;
const SPIPE = 70;
const NOTCAPABLE = 76;
/** WASI's numbers, by Node's codes. @type {Record<string, number>} */
const ERRNO = {
  EACCES: 2,
  EBADF: BADF,
  EBUSY: 10,
  EDQUOT: 19,
  EEXIST: 20,
  EFBIG: 22,
  EINVAL: INVAL,
  EIO: IO,
  EISDIR: 31,
  ELOOP: 32,
  EMFILE: MFILE,
  ENAMETOOLONG: 37,
  ENFILE: 41,
  ENOENT: 44,
  ENOMEM: 48,
  ENOSPC: 51,
  ENOTDIR: 54,
  ENOTEMPTY: 55,
  EPERM: 63,
  EROFS: 69,
};

const TYPE_UNKNOWN = 0;
const TYPE_DIRECTORY = 3;
const TYPE_FILE = 4;
const TYPE_LINK = 7;
const ALL_RIGHTS = 2n ** 29n - 1n;
const RIGHT_TO_WRITE = 64n;
const O_CREATE = 1;
const O_DIRECTORY = 2;
const O_EXCLUSIVE = 4;
const O_TRUNCATE = 8;
/** What stands for bytes that are no Unicode. */
const REPLACED = "\ufffd";
const DIRENT_BYTES = 24;
const IOVEC_BYTES = 8;

/** @typedef {{ isFile(): boolean, isDirectory(): boolean, isSymbolicLink(): boolean }} Kind */
/** @typedef {{ dev: bigint, ino: bigint, nlink: bigint, size: bigint } & Kind} Stat */
/** @typedef {{ fd: number, at: number }} OpenFile */
/** @typedef {(fd: number, bytes: Uint8Array, from: number, length: number, position: number) => number} Transfer */

/** A guest's files, and the functions by which it gets at them. */
export class Wasi {
  #directory;
  /** @type {Map<number, OpenFile | "directory">} */
  #files = new Map([[DIRECTORY, "directory"]]);
  /** @type {{ name: string, type: number }[]} */
  #listed = [];
  #lastWords = "";
  /** @type {WebAssembly.Memory | undefined} */
  #memory;

  /** @param {string} directory */
  constructor(directory) {
    this.#directory = directory;
  }

  get directory() {
    return this.#directory;
  }

  /** What the guest said before it failed. */
  get lastWords() {
    return this.#lastWords.trim();
  }

  /** @param {WebAssembly.Memory} memory the instance's */
  start(memory) {
    this.#memory = memory;
  }

  /** Closes the files that were left open. */
  end() {
    for (const file of this.#files.values()) {
      if (file !== "directory") closeSync(file.fd);
    }
    this.#files.clear();
  }

  /** What to give the module. */
  get imports() {
    /** @type {Record<string, (...args: any[]) => number>} */
    const functions = {
      environ_get: () => SUCCESS,
      environ_sizes_get: (count, bytes) => this.#set(count, 0) || this.#set(bytes, 0),
      fd_close: (fd) => this.#close(fd),
      fd_datasync: (fd) => fdatasyncSync(this.#file(fd).fd) ?? SUCCESS,
      fd_fdstat_get: (fd, stat) => this.#fdstat(fd, stat),
      fd_filestat_get: (fd, stat) => this.#filestat(this.#stat(fd), stat),
      fd_filestat_set_size: (fd, bytes) => ftruncateSync(this.#file(fd).fd, number(bytes)) ?? SUCCESS,
      fd_pread: (fd, parts, count, at, done) => this.#transfer(readSync, fd, parts, count, number(at), done),
      fd_prestat_dir_name: (fd, path, bytes) => this.#prestatName(fd, path, bytes),
      fd_prestat_get: (fd, stat) => this.#prestat(fd, stat),
      fd_pwrite: (fd, parts, count, at, done) => this.#transfer(writeSync, fd, parts, count, number(at), done),
      fd_read: (fd, parts, count, done) => this.#transferHere(readSync, fd, parts, count, done),
      fd_readdir: (fd, entries, bytes, cookie, used) => this.#readdir(fd, entries, bytes, Number(cookie), used),
      fd_seek: () => SPIPE,
      fd_sync: (fd) => fsyncSync(this.#file(fd).fd) ?? SUCCESS,
      fd_write: (fd, parts, count, done) => this.#write(fd, parts, count, done),
      path_create_directory: () => NOTCAPABLE,
      path_filestat_get: (fd, _follow, path, bytes, stat) => this.#pathFilestat(fd, path, bytes, stat),
      path_open: (fd, _follow, path, bytes, how, rights, _inheriting, _flags, opened) =>
        this.#open(fd, path, bytes, how, rights, opened),
      path_rename: (fd, path, bytes, toFd, to, toBytes) => this.#rename(fd, path, bytes, toFd, to, toBytes),
      path_unlink_file: (fd, path, bytes) => this.#unlink(fd, path, bytes),
      random_get: (bytes, count) => crypto.getRandomValues(this.#bytes(bytes, count)) && SUCCESS,
      proc_exit: (status) => {
        throw new WebAssembly.RuntimeError(`it exited with status ${status}`);
      },
    };
    const guarded = Object.entries(functions).map(([name, call]) => [name, guard(call)]);
    return { wasi_snapshot_preview1: Object.fromEntries(guarded) };
  }

  /** @param {number} fd */
  #close(fd) {
    const file = this.#files.get(fd);
    if (!this.#files.delete(fd)) return BADF;
    if (file && file !== "directory") closeSync(file.fd);
    return SUCCESS;
  }

  /**
   * Never by a link.
   *
   * @param {number} fd
   * @param {number} path
   * @param {number} bytes
   * @param {number} how
   * @param {bigint} rights
   * @param {number} opened
   */
  #open(fd, path, bytes, how, rights, opened) {
    const name = this.#path(fd, path, bytes);
    if (this.#files.size > OPEN_FILES_MAX) return MFILE;
    const isDirectory = name === this.#directory;
    if (isDirectory) return this.#add("directory", opened);
    if (how & O_DIRECTORY) return ERRNO["ENOTDIR"] ?? IO;
    const flags =
      (rights & RIGHT_TO_WRITE ? constants.O_RDWR : constants.O_RDONLY) |
      (how & O_EXCLUSIVE ? constants.O_EXCL : 0) |
      (how & O_TRUNCATE ? constants.O_TRUNC : 0) |
      (constants.O_NOFOLLOW ?? 0);
    const isNew = (how & O_CREATE) !== 0 && !exists(name);
    const own = openSync(name, flags | (isNew ? constants.O_CREAT : 0), 0o644);
    if (isNew) syncDirectory(this.#directory);
    return this.#add({ fd: own, at: 0 }, opened);
  }

  /**
   * @param {OpenFile | "directory"} file
   * @param {number} opened
   */
  #add(file, opened) {
    let fd = FIRST_FILE;
    while (this.#files.has(fd)) fd++;
    this.#files.set(fd, file);
    return this.#set(opened, fd);
  }

  /**
   * @param {number} fd
   * @param {number} path
   * @param {number} bytes
   * @param {number} toFd
   * @param {number} to
   * @param {number} toBytes
   */
  #rename(fd, path, bytes, toFd, to, toBytes) {
    renameSync(this.#path(fd, path, bytes), this.#path(toFd, to, toBytes));
    syncDirectory(this.#directory);
    return SUCCESS;
  }

  /**
   * @param {number} fd
   * @param {number} path
   * @param {number} bytes
   */
  #unlink(fd, path, bytes) {
    unlinkSync(this.#path(fd, path, bytes));
    syncDirectory(this.#directory);
    return SUCCESS;
  }

  /**
   * @param {Transfer} transfer
   * @param {number} fd
   * @param {number} parts
   * @param {number} count
   * @param {number} at
   * @param {number} done
   */
  #transfer(transfer, fd, parts, count, at, done) {
    const file = this.#file(fd);
    let sum = 0;
    for (const bytes of this.#parts(parts, count)) {
      const part = transfer(file.fd, bytes, 0, bytes.length, at + sum);
      sum += part;
      if (part < bytes.length) break;
    }
    return this.#set(done, sum);
  }

  /**
   * Goes on where it was, which is only copied by.
   *
   * @param {Transfer} transfer
   * @param {number} fd
   * @param {number} parts
   * @param {number} count
   * @param {number} done
   */
  #transferHere(transfer, fd, parts, count, done) {
    const file = this.#file(fd);
    this.#transfer(transfer, fd, parts, count, file.at, done);
    file.at += this.#view().getUint32(done, true);
    return SUCCESS;
  }

  /**
   * @param {number} fd
   * @param {number} parts
   * @param {number} count
   * @param {number} done
   */
  #write(fd, parts, count, done) {
    if (fd !== STDERR) return this.#transferHere(writeSync, fd, parts, count, done);
    let sum = 0;
    for (const bytes of this.#parts(parts, count)) {
      this.#lastWords = (this.#lastWords + new TextDecoder().decode(bytes)).slice(-LAST_WORDS_BYTES_MAX);
      sum += bytes.length;
    }
    return this.#set(done, sum);
  }

  /**
   * @param {number} parts
   * @param {number} count
   */
  #parts(parts, count) {
    if (count >>> 0 > PARTS_MAX) throw new Errno(INVAL);
    const view = this.#view();
    return Array.from({ length: count }, (_, n) => {
      const at = (parts >>> 0) + n * IOVEC_BYTES;
      return this.#bytes(view.getUint32(at, true), view.getUint32(at + 4, true));
    });
  }

  /**
   * @param {number} fd
   * @param {number} stat
   */
  #fdstat(fd, stat) {
    const file = this.#files.get(fd);
    if (!file && fd > STDERR) return BADF;
    const view = this.#view();
    view.setUint8(stat, file === "directory" ? TYPE_DIRECTORY : file ? TYPE_FILE : TYPE_UNKNOWN);
    view.setUint16(stat + 2, 0, true);
    view.setBigUint64(stat + 8, ALL_RIGHTS, true);
    view.setBigUint64(stat + 16, ALL_RIGHTS, true);
    return SUCCESS;
  }

  /** @param {number} fd */
  #stat(fd) {
    if (this.#files.get(fd) === "directory") return statSync(this.#directory, { bigint: true });
    return fstatSync(this.#file(fd).fd, { bigint: true });
  }

  /**
   * @param {number} fd
   * @param {number} path
   * @param {number} bytes
   * @param {number} stat
   */
  #pathFilestat(fd, path, bytes, stat) {
    const name = this.#path(fd, path, bytes);
    return this.#filestat(name === this.#directory ? this.#stat(DIRECTORY) : lstatSync(name, { bigint: true }), stat);
  }

  /**
   * Without times, for a log knows none.
   *
   * @param {Stat} stat
   * @param {number} at
   */
  #filestat(stat, at) {
    const view = this.#view();
    [stat.dev, stat.ino, BigInt(typeOf(stat)), stat.nlink, stat.size, 0n, 0n, 0n].forEach((field, n) => {
      view.setBigUint64(at + 8 * n, BigInt.asUintN(64, field), true);
    });
    return SUCCESS;
  }

  /**
   * @param {number} fd
   * @param {number} stat
   */
  #prestat(fd, stat) {
    if (fd !== DIRECTORY) return BADF;
    return this.#set(stat, 0) || this.#set(stat + 4, GUEST_PATH.length);
  }

  /**
   * @param {number} fd
   * @param {number} path
   * @param {number} bytes
   */
  #prestatName(fd, path, bytes) {
    if (fd !== DIRECTORY) return BADF;
    if (bytes < GUEST_PATH.length) return INVAL;
    this.#bytes(path, GUEST_PATH.length).set(new TextEncoder().encode(GUEST_PATH));
    return SUCCESS;
  }

  /**
   * @param {number} fd
   * @param {number} at
   * @param {number} bytes
   * @param {number} cookie how many entries the guest has
   * @param {number} used
   */
  #readdir(fd, at, bytes, cookie, used) {
    if (this.#files.get(fd) !== "directory") return BADF;
    if (cookie === 0) {
      this.#listed = list(this.#directory).map((entry) => ({ name: entry.name, type: typeOf(entry) }));
    }
    const buffer = this.#bytes(at, bytes);
    let sum = 0;
    for (const [n, { name, type }] of this.#listed.entries()) {
      if (n < cookie) continue;
      const encoded = new TextEncoder().encode(name);
      const entry = new Uint8Array(DIRENT_BYTES + encoded.length);
      const view = new DataView(entry.buffer);
      view.setBigUint64(0, BigInt(n + 1), true);
      view.setUint32(16, encoded.length, true);
      view.setUint8(20, type);
      entry.set(encoded, DIRENT_BYTES);
      // One that is cut short tells that there are more.
      const part = entry.subarray(0, bytes - sum);
      buffer.set(part, sum);
      sum += part.length;
      if (sum === bytes) break;
    }
    return this.#set(used, sum);
  }

  /** @param {number} fd */
  #file(fd) {
    const file = this.#files.get(fd);
    if (!file || file === "directory") throw new Errno(BADF);
    return file;
  }

  /**
   * Where a path that the guest gives is: the directory itself, or what has a plain name in it.
   *
   * @param {number} fd
   * @param {number} path
   * @param {number} bytes
   */
  #path(fd, path, bytes) {
    if (this.#files.get(fd) !== "directory") throw new Errno(BADF);
    const name = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(this.#bytes(path, bytes));
    if (name === ".") return this.#directory;
    if (!name || name === ".." || /[/\\\0]/.test(name)) throw new Errno(NOTCAPABLE);
    return join(this.#directory, name);
  }

  #view() {
    if (!this.#memory) throw new WebAssembly.RuntimeError("the module asked for something before it was started");
    return new DataView(this.#memory.buffer);
  }

  /**
   * @param {number} at
   * @param {number} count
   */
  #bytes(at, count) {
    return new Uint8Array(this.#view().buffer, at >>> 0, count >>> 0);
  }

  /**
   * @param {number} at
   * @param {number} number
   */
  #set(at, number) {
    this.#view().setUint32(at >>> 0, number, true);
    return SUCCESS;
  }
}

/**
 * What is in a directory, but for names that are not Unicode: Node gives them as those of no file.
 *
 * @param {string} directory
 */
export function list(directory) {
  return readdirSync(directory, { withFileTypes: true }).filter(({ name }) => !name.includes(REPLACED));
}

/**
 * Returns once what was made, renamed and removed in a directory is so on stable storage. Windows syncs a directory's
 * entries with its files.
 *
 * @param {string} directory
 */
export function syncDirectory(directory) {
  if (process.platform === "win32") return;
  const fd = openSync(directory, constants.O_RDONLY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

class Errno extends Error {
  /** @param {number} errno */
  constructor(errno) {
    super(`WASI's error ${errno}`);
    this.errno = errno;
  }
}

/**
 * Turns what a function throws into the number that the guest knows it by.
 *
 * @param {(...args: any[]) => number} call
 */
function guard(call) {
  return (/** @type {any[]} */ ...args) => {
    try {
      return call(...args);
    } catch (error) {
      if (error instanceof WebAssembly.RuntimeError) throw error;
      if (error instanceof Errno) return error.errno;
      if (error instanceof RangeError || error instanceof TypeError) return INVAL;
      return ERRNO[/** @type {NodeJS.ErrnoException} */ (error).code ?? ""] ?? IO;
    }
  };
}

/** @param {string} path */
function exists(path) {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}

/** @param {Kind} kind */
function typeOf(kind) {
  if (kind.isFile()) return TYPE_FILE;
  if (kind.isDirectory()) return TYPE_DIRECTORY;
  return kind.isSymbolicLink() ? TYPE_LINK : TYPE_UNKNOWN;
}

/**
 * A position or a length, as Node takes it.
 *
 * @param {bigint} wide
 */
function number(wide) {
  const number = Number(BigInt.asUintN(64, wide));
  if (!Number.isSafeInteger(number)) throw new Errno(INVAL);
  return number;
}
