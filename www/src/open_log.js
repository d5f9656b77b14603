// An open log and its files, and what is asked of them: where the files are, and how they are opened, is up to who opens it.

import { Appended } from "./appended.js";
import { ProglogError, sendError } from "./error.js";
import { reported } from "./report.js";
import { wholeBatches } from "./shipment.js";
import { Sources } from "./sources.js";
import * as tar from "./tar.js";

/** @typedef {import("./module.js").Log} ModuleLog */
/** @typedef {import("./appended.js").Producer} Producer */

/**
 * What is asked of it.
 *
 * @typedef {{ name: string, options: { durability?: string }, tar?: Blob | undefined }} OpenCall
 * @typedef {{ entries: Uint8Array, promise: number, expected: bigint, producer?: Producer, isAgain?: boolean }} AppendCall
 */

/**
 * A log's files: see files.js, and for those of Node.js node/files.js.
 *
 * @typedef {object} LogFiles
 * @property {Pick<import("./module.js").Directory, "names" | "fileBytes" | "readFile" | "importFile" | "finishImport">} directory
 * @property {FileSystemDirectoryHandle} handle
 * @property {<T>(call: () => T, undo?: (result: T) => void) => Promise<T>} again calls it again once what it needs is open
 * @property {<T>(call: () => T) => Promise<T>} change
 * @property {boolean} isReady
 * @property {() => Promise<void>} ready
 * @property {() => Promise<string>} room
 * @property {() => Promise<void>} close
 */

/** What an append promises, as the module takes it. */
const SYNCED = 1;
const BUFFERED = 3;

const OFFSET_MAX = 2n ** 64n - 1n;
/** What is read of a file at a time, to be exported. */
const EXPORTED_BYTES = 4 << 20;
/** A batch that is sent to a server has to be in memory. */
const SHIPPED_BYTES_MAX = 1 << 30;

/** An open log and its files. */
export class OpenLog {
  #files;
  #open;
  #log;
  #name;
  #sources;
  #synced;

  /**
   * Opens the log in these files, which are its own from then on.
   *
   * @param {OpenCall} call
   * @param {LogFiles} files
   * @param {() => ModuleLog} open
   * @returns {Promise<OpenLog>}
   */
  static async open({ name, options, tar }, files, open) {
    try {
      if (tar) {
        await importTar(files, name, tar);
        await Sources.remove(files.handle);
      }
      const [log, sources] = await Promise.all([openIn(files, open), Sources.open(files.handle)]);
      await sources.settle(log);
      return new OpenLog(name, files, open, log, sources, options);
    } catch (error) {
      await files.close();
      throw error;
    }
  }

  /**
   * @param {string} name
   * @param {LogFiles} files
   * @param {() => ModuleLog} open
   * @param {ModuleLog} log
   * @param {Sources} sources
   * @param {{ durability?: string }} options
   */
  constructor(name, files, open, log, sources, { durability = "synced" }) {
    this.#name = name;
    this.#files = files;
    this.#open = open;
    this.#log = log;
    this.#sources = sources;
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
    const appended = new Appended((from, bytesMax) => this.readBatch(from, bytesMax), this.#log.lowestOffset);
    /** @type {{ offset?: bigint, error?: import("./error.js").SentError }[]} */
    const results = [];
    for (const call of calls) {
      const promise = isSynced(call) ? (synced.length === 1 ? SYNCED : BUFFERED) : call.promise;
      try {
        if (!this.#files.isReady) await this.#files.ready();
        const offset = await this.#files.again(() => this.#log.appendEntries(call.entries, promise, call.expected));
        results.push({ offset });
      } catch (error) {
        const sent = sendError(await this.#told(error));
        results.push(await before(appended, call, sent).catch(() => ({ error: sent })));
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

  /** Nothing: the answer brings the offsets. */
  look() {}

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
    return this.#cut(() => this.#log.truncateAfter(offset));
  }

  reset() {
    return this.#cut(() => this.#log.reset());
  }

  /** @param {object} options */
  async compact(options) {
    return reported(await this.#change(() => this.#log.compact(options)));
  }

  /** @param {object} options */
  enforceRetention(options) {
    return this.#change(() => this.#log.enforceRetention(options));
  }

  recoveryReport() {
    return reported(this.#log.recoveryReport());
  }

  async verify() {
    return reported(await this.#files.change(() => this.#log.verify()));
  }

  async segments() {
    return reported(await this.#files.change(() => this.#log.segments()));
  }

  /**
   * @param {string} name
   * @param {number} position
   * @param {number} bytes
   */
  readFile(name, position, bytes) {
    return this.#files.again(() => this.#files.directory.readFile(name, position, bytes));
  }

  /** The log's files, byte for byte, as a tar archive. */
  async export() {
    await this.sync();
    const last = (await this.segments()).at(-1);
    const { directory } = this.#files;
    const active = lastStore(directory.names());
    /** @type {BlobPart[]} */
    const parts = [];
    for (const name of directory.names()) {
      // Without the space that was prepared for records to come: as if it were closed.
      const bytes = last && name === active ? last.storeBytes : directory.fileBytes(name);
      parts.push(tar.header(name, bytes));
      for (let at = 0; at < bytes; at += EXPORTED_BYTES) {
        parts.push(new Blob([directory.readFile(name, at, Math.min(EXPORTED_BYTES, bytes - at))]));
      }
      parts.push(tar.padding(bytes));
    }
    return new Blob([...parts, tar.end()], { type: "application/x-tar" });
  }

  /** Opens it again, which is what one takes that could not be written. */
  async reopen() {
    const before = this.#log.nextOffset;
    try {
      this.#log.close();
    } catch {
      // That it could not be written was told.
    }
    this.#log.free();
    this.#log = await openIn(this.#files, this.#open);
    if (this.#sources.isUsed && this.#log.nextOffset < before) await this.#sources.renew(this.#log);
  }

  async close() {
    try {
      this.#log.close();
    } finally {
      this.#log.free();
      await this.#files.close();
    }
  }

  /** Which log this is, to servers, from the lowest offset on. */
  sources() {
    return this.#sources.list();
  }

  /**
   * What is to be sent next of a source, about so many bytes of it but at least a whole batch, all durable: what is not
   * may be lost, and its offset be given again.
   *
   * @param {Uint8Array} id
   * @param {bigint} from
   * @param {number} bytesMax
   * @returns {Promise<import("./shipment.js").Shipment | undefined>} nothing if that is no source of this log any more
   */
  async shipment(id, from, bytesMax) {
    const sources = await this.#sources.list();
    const n = sources.findIndex((source) => `${source.id}` === `${id}`);
    if (n < 0) return undefined;
    await this.#files.again(() => this.#log.sync());
    const { lowestOffset, nextOffset } = this.#log;
    const after = sources[n + 1];
    const end = after?.from ?? nextOffset;
    // What was removed in the meantime cannot be sent.
    const first = from > lowestOffset ? from : lowestOffset;
    const nothing = { frames: new Uint8Array(), batches: 0, next: first, last: undefined, isLast: after !== undefined };
    if (first >= end) return nothing;
    let frames = await this.readBatch(first, bytesMax);
    for (;;) {
      const { reached, ...shipment } = wholeBatches(frames, first, end);
      if (shipment.next > first) return { ...shipment, isLast: false };
      // A batch that was cut by a truncation has no end of its own: it goes with what comes after it.
      if (reached >= end || frames.length >= SHIPPED_BYTES_MAX) return nothing;
      const more = await this.readBatch(reached, Math.max(bytesMax, frames.length));
      frames = new Uint8Array(await new Blob([frames, more]).arrayBuffer());
    }
  }

  /**
   * The server has more of this log than there is: what it was told of is no longer here. What comes is another source.
   */
  renewSource() {
    return this.#sources.renew(this.#log);
  }

  /**
   * Removes the segments before the one of this offset.
   *
   * @param {bigint} offset
   */
  async removeSegmentsBelow(offset) {
    const [base = 0n] = await this.locate(offset);
    if (base > this.#log.lowestOffset) await this.truncateBefore(base);
  }

  /**
   * @template T
   * @param {() => T} call that may remove records at the end
   */
  async #cut(call) {
    if (!this.#sources.isUsed) return this.#change(call);
    await this.sync();
    await this.#sources.cutting(this.#log.nextOffset);
    // Where it fails, what was removed is known once the log is opened again.
    const result = await this.#change(call);
    await this.#sources.settle(this.#log);
    return result;
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
    return new ProglogError(
      "StorageFull",
      `${message}; ${await this.#files.room()}: what was acknowledged in "${this.#name}" can be read; make room and open ` +
        "the log again before appending",
    );
  }
}

/**
 * The store of the highest base, which may be more than a number of JavaScript's holds. Others' files are not a log's.
 *
 * @param {string[]} names
 */
function lastStore(names) {
  const bases = names.flatMap((name) => {
    const [, base = ""] = name.match(/^(0|[1-9]\d*)\.store$/) ?? [];
    return base && BigInt(base) <= OFFSET_MAX ? [BigInt(base)] : [];
  });
  return bases.length > 0 ? `${bases.reduce((a, b) => (a > b ? a : b))}.store` : undefined;
}

/**
 * Opens a log, again if it was opened without a file that it should have looked at.
 *
 * @param {LogFiles} files
 * @param {() => ModuleLog} open
 */
function openIn(files, open) {
  return files.again(open, (log) => log.free());
}

/**
 * What an append that fails gives: if it was sent before, to another leader, and done there, where that was.
 *
 * @param {Appended} appended
 * @param {AppendCall} call
 * @param {import("./error.js").SentError} error
 */
async function before(appended, { producer, isAgain }, error) {
  const { conflict } = error;
  if (!producer || !isAgain || !conflict || !("lastOffset" in conflict)) return { error };
  const offset = await appended.find(producer, conflict.lastOffset);
  if (offset !== undefined) return { offset };
  const message = "it is not in the log: the tab that had the log refused it, and ended before it told why; append it again";
  return { error: sendError(new ProglogError("Unavailable", message)) };
}

/**
 * Puts the files of an archive into a directory that has none.
 *
 * @param {LogFiles} files
 * @param {string} name
 * @param {Blob} archive
 */
async function importTar(files, name, archive) {
  const { directory } = files;
  if (directory.names().length > 0) {
    throw new ProglogError("InvalidArgument", `there is a log "${name}" already; import under another name, or delete it`);
  }
  // All is looked at before anything is written.
  for (const [name, contents] of await tar.filesOf(archive)) {
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
