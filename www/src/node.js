// An append-only log in a directory of Node.js: the very files that `proglog` has natively, and opens.

import { setMaxListeners } from "node:events";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";

import { LogBase } from "./base.js";
import { LOG_OPTIONS, checkArchive, checkDurability, checkLimits, checkName, checkOptions, invalid } from "./check.js";
import { ProglogError } from "./error.js";
import { ExportedLog } from "./node/exported.js";
import { DiskFiles, deleteFiles, typed } from "./node/files.js";
import { Wasi } from "./node/wasi.js";
import { OpenLog } from "./open_log.js";

export { ProglogError };

/** @typedef {import("./base.js").LogRecord} LogRecord */
/** @typedef {import("./base.js").NewRecord} NewRecord */
/** @typedef {import("./base.js").RecordOptions} RecordOptions */
/** @typedef {import("./base.js").AppendOptions} AppendOptions */
/** @typedef {import("./base.js").Durability} Durability */
/** @typedef {import("./base.js").Kind} Kind */
/** @typedef {import("./base.js").Offsets} Offsets */
/** @typedef {import("./base.js").Role} Role */
/** @typedef {import("./base.js").ShipOptions} ShipOptions */
/** @typedef {import("./base.js").Progress} Progress */

/**
 * @typedef {object} Options
 * @property {Durability} [durability] what an append promises: "synced" unless told
 * @property {number} [segmentBytesMax] a segment is sealed once its store holds so many bytes
 * @property {number} [indexBytesMax]
 * @property {number} [recordBytesMax]
 * @property {bigint} [initialOffset] the first offset of a new log
 * @property {boolean} [lock] whether others are kept from writing to the directory; false only where there are none
 * @property {string | URL} [wasmUrl] the path, or the file: URL, of `proglog/proglog_wasi.wasm`, if it is not in the package
 */

/** @typedef {import("./base.js").Calls} Calls */

/**
 * An open log. Its calls are done one after the other in this thread, which waits for the disk meanwhile: who has more to
 * do at the same time opens it in a `worker_threads` Worker. One process at a time has it open; when it is killed, the
 * next finds all that was acknowledged. Durable means that fsync, of the files and of the directory, has returned.
 */
export class Log extends LogBase {
  /**
   * Opens the log in a directory, made if it is missing. After an unclean stop it is recovered.
   *
   * @param {string} directory
   * @param {Options} [options]
   * @returns {Promise<Log>}
   * @throws {ProglogError} "Locked" if it is open for writing, in whatever program
   */
  static async open(directory, options = {}) {
    return openLog(directory, options, (path) => DiskFiles.open(path, options.lock ?? true));
  }

  /**
   * Makes a log of an archive of a log's directory, as {@link Log.export} and `tar` make it, and opens it.
   *
   * @param {string} directory that is not there yet, or is empty
   * @param {Blob | ArrayBuffer | Uint8Array} archive
   * @param {Options} [options]
   * @returns {Promise<Log>}
   * @throws {ProglogError}
   */
  static async import(directory, archive, options = {}) {
    return openLog(directory, options, (path) => DiskFiles.openImport(path), checkArchive(archive));
  }

  /**
   * Deletes the log in a directory, and the directory if there is nothing else in it. One that is missing is no error.
   * A symbolic link is refused, and nothing deleted: the directory goes by its own path alone.
   *
   * @param {string} directory
   * @throws {ProglogError} "Locked" if it is open
   */
  static async delete(directory) {
    checkDirectory(directory);
    try {
      deleteFiles(resolve(directory));
    } catch (error) {
      throw typed(error);
    }
  }
}

/**
 * @param {string} directory
 * @param {Options} given
 * @param {(path: string) => DiskFiles} openFiles
 * @param {Blob} [tar]
 */
async function openLog(directory, given, openFiles, tar) {
  checkDirectory(directory);
  checkOptions(given, "a log", [...LOG_OPTIONS, "lock"]);
  const { lock: _, wasmUrl, ...options } = given;
  checkLimits(options);
  const { durability = "synced" } = options;
  checkDurability(durability);
  const path = resolve(directory);
  const wasi = new Wasi(path);
  try {
    const { exports } = await WebAssembly.instantiate(await compiled(wasmUrl), wasi.imports);
    const own = /** @type {import("../log.js").Exports} */ (/** @type {unknown} */ (exports));
    wasi.start(own.memory);
    const open = () => new ExportedLog(own, wasi, options);
    const log = await OpenLog.open({ name: path, options, tar }, openFiles(path), open);
    return new Log(new OwnCalls(path, log, wasi), durability, true);
  } catch (error) {
    wasi.end();
    throw typed(error);
  }
}

/** @param {unknown} directory */
function checkDirectory(directory) {
  checkName(directory, "path of a directory");
  if (/** @type {string} */ (directory).includes("\0")) throw invalid("the path of a directory has no character 0; give another");
}

/** @type {Promise<WebAssembly.Module> | undefined} */
let own;

/** @param {string | URL | undefined} url */
async function compiled(url) {
  if (url !== undefined) {
    if (typeof url !== "string" && !(url instanceof URL)) throw invalid("wasmUrl is neither a string nor a URL; give one");
    const bytes = readFileSync(`${url}`.startsWith("file:") ? new URL(url) : url);
    return WebAssembly.compile(bytes).catch((error) => {
      throw new ProglogError("Io", `${url} is not proglog/proglog_wasi.wasm; give where that is: ${error.message}`);
    });
  }
  own ??= WebAssembly.compile(readFileSync(new URL("../dist/proglog_wasi.wasm", import.meta.url)));
  return own;
}

/**
 * What is asked of a log whose files are open here.
 *
 * @implements {Calls}
 */
class OwnCalls {
  #log;
  #wasi;
  /** Settled once all is done that was asked for. @type {Promise<unknown>} */
  #done = Promise.resolve();
  /** @type {ProglogError | undefined} */
  #ended;
  #connection = new AbortController();
  /** @type {Set<(error?: Error) => void>} */
  #watchers = new Set();
  /** What one at a time does, by its lock: the last one's turn. @type {Map<string, Promise<void>>} */
  #turns = new Map();

  name;
  /** @type {Role} */
  role = "leader";
  offsets;
  isShared = false;

  /**
   * @param {string} name
   * @param {OpenLog} log
   * @param {Wasi} wasi
   */
  constructor(name, log, wasi) {
    this.name = name;
    this.#log = log;
    this.#wasi = wasi;
    this.offsets = log.offsets;
    // Each that ships listens: from the eleventh on Node.js would warn of a leak.
    setMaxListeners(0, this.#connection.signal);
  }

  get connection() {
    return this.#connection.signal;
  }

  /**
   * @param {string} call
   * @param {any[]} args
   * @returns {Promise<any>}
   */
  call(call, args) {
    const done = this.#done.then(() => this.#do(call, args));
    this.#done = done.catch(() => {});
    return done;
  }

  /**
   * @param {string} call
   * @param {any[]} args
   */
  async #do(call, args) {
    if (this.#ended) throw this.#ended;
    const isClose = call === "close";
    // None will be had afterwards.
    if (isClose) this.#note();
    try {
      return await /** @type {any} */ (this.#log)[call](...args);
    } catch (error) {
      throw typed(error);
    } finally {
      if (isClose) this.end();
      else this.#note();
    }
  }

  /**
   * @param {Offsets} offsets
   * @param {AbortSignal} [signal]
   */
  async changed(offsets, signal) {
    if (this.#ended) throw this.#ended;
    if (this.offsets !== offsets || signal?.aborted) return;
    await new Promise((/** @type {(value: void) => void} */ resolve, reject) => {
      const wake = (/** @type {Error | undefined} */ error) => {
        this.#watchers.delete(wake);
        signal?.removeEventListener("abort", abort);
        if (error) reject(error);
        else resolve();
      };
      const abort = () => wake(undefined);
      this.#watchers.add(wake);
      signal?.addEventListener("abort", abort);
    });
  }

  /**
   * No other process has the log: who does the same in this one is waited for.
   *
   * @param {string} lock
   * @param {AbortSignal} signal
   * @param {() => Promise<void>} run
   */
  async alone(lock, signal, run) {
    const before = this.#turns.get(lock);
    const turn = (async () => {
      await before;
      if (!signal.aborted) await run();
    })();
    const ended = turn.catch(() => {});
    this.#turns.set(lock, ended);
    try {
      await turn;
    } finally {
      if (this.#turns.get(lock) === ended) this.#turns.delete(lock);
    }
  }

  end() {
    if (this.#ended) return;
    const reason = new ProglogError("Closed", "the log is closed; open it again");
    this.#ended = reason;
    this.#connection.abort();
    this.#wasi.end();
    this.#watchers.forEach((wake) => wake(reason));
  }

  #note() {
    const { lowestOffset, nextOffset, durableOffset } = this.offsets;
    let offsets;
    try {
      ({ offsets } = this.#log);
    } catch {
      // The module failed, as its calls tell.
      return;
    }
    const isSame =
      offsets.nextOffset === nextOffset && offsets.durableOffset === durableOffset && offsets.lowestOffset === lowestOffset;
    if (isSame) return;
    this.offsets = offsets;
    this.#watchers.forEach((wake) => wake());
  }
}
