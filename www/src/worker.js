// The log's side of the package: a dedicated worker, which has the files and the module. One message is one call, and
// one is dealt with after the other.

import { ProglogError, sendError } from "./error.js";
import { Files, deleteFiles } from "./files.js";
import * as tar from "./tar.js";

/** @typedef {import("./module.js").Log} ModuleLog */

/**
 * What is asked of the worker.
 *
 * @typedef {{ name: string, options: object, wasmUrl?: string | undefined, tar?: Blob | undefined }} OpenCall
 * @typedef {{ entries: Uint8Array, promise: number, expected: bigint }} AppendCall
 */

/** What an append promises, as the module takes it. */
const SYNCED = 1;
const BUFFERED = 3;

/** What is read of a file at a time, to be exported. */
const EXPORTED_BYTES = 4 << 20;

/** @type {Promise<Pick<typeof import("./module.js"), "Directory" | "Log">> | undefined} */
let loaded;

/** @param {string | undefined} wasmUrl */
function load(wasmUrl) {
  loaded ??= (async () => {
    const module = await import("../dist/proglog.js");
    await module.default({ module_or_path: wasmUrl ?? new URL("../dist/proglog_bg.wasm", import.meta.url) });
    return module;
  })();
  return loaded;
}

/** An open log and its files. */
class OpenLog {
  #files;
  #log;
  #name;
  #synced;

  /**
   * @param {OpenCall} call
   * @returns {Promise<OpenLog>}
   */
  static async open({ name, options, wasmUrl, tar }) {
    const module = await load(wasmUrl);
    const files = await Files.open(module.Directory, name);
    try {
      if (tar) await importTar(files, name, tar);
      // One that was opened without a file that it should have looked at is opened again.
      const open = () => module.Log.open(name, options);
      const log = await files.again(open, (log) => log.free());
      return new OpenLog(name, files, log, options);
    } catch (error) {
      await files.close();
      throw error;
    }
  }

  /**
   * @param {string} name
   * @param {Files} files
   * @param {ModuleLog} log
   * @param {{ durability?: string }} options
   */
  constructor(name, files, log, { durability = "synced" }) {
    this.#name = name;
    this.#files = files;
    this.#log = log;
    this.#synced = durability === "synced";
  }

  /** What the other side shows without asking. */
  get offsets() {
    const { lowestOffset, nextOffset, durableOffset } = this.#log;
    return { lowestOffset, nextOffset, durableOffset };
  }

  /**
   * Appends batches, each of which is appended or not by itself. Those that are to be durable share a write and a flush.
   *
   * @param {AppendCall[]} calls
   */
  async append(calls) {
    const isSynced = (/** @type {AppendCall} */ { promise }) => promise === SYNCED || (promise === 0 && this.#synced);
    const synced = calls.filter(isSynced);
    /** @type {{ offset?: bigint, error?: import("./error.js").SentError }[]} */
    const results = [];
    for (const call of calls) {
      const promise = isSynced(call) ? (synced.length === 1 ? SYNCED : BUFFERED) : call.promise;
      try {
        if (!this.#files.isReady) await this.#files.ready();
        const offset = await this.#files.again(() => this.#log.appendEntries(call.entries, promise, call.expected));
        results.push({ offset });
      } catch (error) {
        results.push({ error: sendError(await this.#told(error)) });
      }
    }
    if (synced.length > 1) {
      try {
        this.#log.sync();
      } catch (error) {
        const sent = sendError(await this.#told(error));
        calls.forEach((call, n) => {
          if (isSynced(call) && results[n]?.offset !== undefined) results[n] = { error: sent };
        });
      }
    }
    return results;
  }

  /** @param {bigint} offset */
  read(offset) {
    return this.#files.again(() => this.#log.readFrame(offset));
  }

  /**
   * @param {bigint} from
   * @param {number} bytesMax
   */
  readBatch(from, bytesMax) {
    return this.#files.again(() => this.#log.readBatch(from, bytesMax));
  }

  /** @param {Uint8Array} id */
  producerLast(id) {
    return this.#files.again(() => this.#log.producerLast(id));
  }

  /** @param {bigint} offset */
  locate(offset) {
    return this.#files.again(() => this.#log.locate(offset));
  }

  sync() {
    return this.#change(() => this.#log.sync());
  }

  /** @param {bigint} offset */
  truncateBefore(offset) {
    return this.#change(() => this.#log.truncateBefore(offset));
  }

  /** @param {bigint} offset */
  truncateAfter(offset) {
    return this.#change(() => this.#log.truncateAfter(offset));
  }

  reset() {
    return this.#change(() => this.#log.reset());
  }

  /** @param {object} options */
  compact(options) {
    return this.#change(() => this.#log.compact(options));
  }

  /** @param {object} options */
  enforceRetention(options) {
    return this.#change(() => this.#log.enforceRetention(options));
  }

  recoveryReport() {
    return this.#log.recoveryReport();
  }

  verify() {
    return this.#files.change(() => this.#log.verify());
  }

  segments() {
    return this.#files.change(() => this.#log.segments());
  }

  /** The log's files, byte for byte, as a tar archive. */
  async export() {
    await this.sync();
    await this.#files.openAll();
    const { directory } = this.#files;
    /** @type {BlobPart[]} */
    const parts = [];
    for (const name of directory.names()) {
      const bytes = directory.fileBytes(name);
      parts.push(tar.header(name, bytes));
      for (let at = 0; at < bytes; at += EXPORTED_BYTES) {
        parts.push(new Blob([directory.readFile(name, at, EXPORTED_BYTES)]));
      }
      parts.push(tar.padding(bytes));
    }
    return new Blob([...parts, tar.end()], { type: "application/x-tar" });
  }

  async close() {
    try {
      this.#log.close();
    } finally {
      this.#log.free();
      await this.#files.close();
    }
  }

  /**
   * @template T
   * @param {() => T} call
   */
  async #change(call) {
    try {
      return await this.#files.change(call);
    } catch (error) {
      throw await this.#told(error);
    }
  }

  /**
   * An error that says how much is free, if that is what it is about.
   *
   * @param {unknown} error
   */
  async #told(error) {
    const { kind, message } = /** @type {{ kind?: string, message?: string }} */ (error);
    if (kind !== "StorageFull") return error;
    const { quota = 0, usage = 0 } = await navigator.storage.estimate();
    return new ProglogError(
      "StorageFull",
      `${message}; the browser tells of ${Math.max(quota - usage, 0)} bytes free of the ${quota} that this site may keep, ` +
        `which it may round: what was acknowledged in "${this.#name}" can be read; make room and open the log again ` +
        "before appending",
    );
  }
}

/**
 * Puts the files of an archive into a directory that has none.
 *
 * @param {Files} files
 * @param {string} name
 * @param {Blob} archive
 */
async function importTar(files, name, archive) {
  const { directory } = files;
  if (directory.names().length > 0) {
    throw new ProglogError("InvalidArgument", `there is a log "${name}" already; import under another name, or delete it`);
  }
  for await (const { name, contents } of tar.entries(archive)) {
    await files.ready();
    let at = 0;
    do {
      const part = new Uint8Array(await contents.slice(at, at + EXPORTED_BYTES).arrayBuffer());
      directory.importFile(name, part, at);
      at += part.length;
    } while (at < contents.size);
  }
  directory.finishImport();
}

/** @type {OpenLog | undefined} */
let log;

/**
 * @param {string} call
 * @param {any[]} args
 */
async function answer(call, args) {
  if (call === "delete") return deleteFiles(args[0]);
  if (call === "open") {
    log = await OpenLog.open(args[0]);
    return undefined;
  }
  if (!log) throw new ProglogError("Closed", "the log is closed; open it again");
  if (call === "close") {
    const closing = log;
    log = undefined;
    return closing.close();
  }
  return /** @type {any} */ (log)[call](...args);
}

let before = Promise.resolve();

self.addEventListener("message", ({ data: { id, call, args } }) => {
  before = before.then(async () => {
    try {
      const result = await answer(call, args);
      const transferred = result instanceof Uint8Array ? [result.buffer] : [];
      self.postMessage({ id, result, offsets: log?.offsets }, { transfer: transferred });
    } catch (error) {
      self.postMessage({ id, error: sendError(error), offsets: log?.offsets });
    }
  });
});
