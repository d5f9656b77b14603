// An append-only log in the browser: durable, offline, and in files that the server opens.

import { LogBase } from "./base.js";
import { LOG_OPTIONS, checkArchive, checkDurability, checkLimits, checkName, checkOptions, invalid } from "./check.js";
import { ProglogError } from "./error.js";
import { spawn } from "./spawn.js";
import { Tab, once } from "./tabs.js";

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

/** The names of {@link Options}. */
const OPTIONS = [...LOG_OPTIONS, "persist", "workerUrl", "worker"];
/** What a file system takes, with what comes before it. */
const NAME_BYTES_MAX = 200;

/**
 * @typedef {object} Options
 * @property {Durability} [durability] what an append promises: "synced" unless told
 * @property {number} [segmentBytesMax] a segment is sealed once its store holds so many bytes
 * @property {number} [indexBytesMax]
 * @property {number} [recordBytesMax]
 * @property {bigint} [initialOffset] the first offset of a new log
 * @property {boolean} [persist] asks the browser not to evict what this site keeps, which may ask the user
 * @property {string | URL} [wasmUrl] where `proglog/proglog.wasm` is, if not beside the package's JavaScript
 * @property {string | URL} [workerUrl] where `proglog/worker` is, as a module of JavaScript, likewise
 * @property {() => Worker} [worker] makes the worker, where neither will do
 */

/**
 * An open log, which other tabs and workers may use at the same time. Offsets are `bigint`s, for they are numbers of 64 bits, and no
 * one's records get lost for want of a few of those.
 */
export class Log extends LogBase {
  /**
   * Opens the log of this name, made if there is none. After an unclean stop it is recovered. Any number of tabs and
   * workers may have it open: one of them has its files, with the options that it was opened with there.
   *
   * @param {string} name
   * @param {Options} [options]
   * @returns {Promise<Log>}
   * @throws {ProglogError} "Unavailable" if the tab that has its files does not answer for 10 s
   */
  static async open(name, options = {}) {
    return openLog(name, options);
  }

  /**
   * Makes a log of an archive of a log's directory, as {@link Log.export} and `tar` make it, and opens it.
   *
   * @param {string} name of which there is no log
   * @param {Blob | BufferSource} archive
   * @param {Options} [options]
   * @returns {Promise<Log>}
   * @throws {ProglogError}
   */
  static async import(name, archive, options = {}) {
    return openLog(name, options, checkArchive(archive));
  }

  /**
   * Deletes the log of this name, if there is one.
   *
   * @param {string} name
   * @param {Pick<Options, "worker" | "workerUrl">} [options]
   * @throws {ProglogError} "Locked" if it is open
   */
  static async delete(name, options = {}) {
    checkLogName(name);
    checkOptions(options, "a log", OPTIONS);
    await once(workerOf(options), "delete", [name]);
  }
}

/**
 * @param {string} name
 * @param {Options} options
 * @param {Blob} [tar]
 */
async function openLog(name, options, tar) {
  checkLogName(name);
  checkOptions(options, "a log", OPTIONS);
  const { persist = false, wasmUrl, worker, workerUrl, ...own } = options;
  checkLimits(own);
  const { durability = "synced" } = own;
  checkDurability(durability);
  const opening = { name, options: own, wasmUrl: absolute(wasmUrl), tar };
  const tab = await Tab.open(opening, workerOf({ worker, workerUrl }));
  const { storage } = navigator;
  const persisted = (persist ? await storage.persist?.() : await storage.persisted?.()) ?? false;
  return new Log(tab, durability, persisted);
}

/** @param {unknown} name */
function checkLogName(name) {
  checkName(name, "name of a log");
  try {
    if (encodeURIComponent(/** @type {string} */ (name)).length <= NAME_BYTES_MAX) return;
  } catch {
    throw invalid("the name of a log is no Unicode: it has half a character; give one of whole characters");
  }
  throw invalid(`the name of a log has more than ${NAME_BYTES_MAX} characters, in which those that no URL has count 3 or more; give a shorter one`);
}

/** @param {{ worker?: Options["worker"] | undefined, workerUrl?: Options["workerUrl"] | undefined }} options */
function workerOf({ worker, workerUrl }) {
  return worker ?? (() => spawn(absolute(workerUrl)));
}

/** @param {string | URL | undefined} url which may be relative to the page */
function absolute(url) {
  return url === undefined ? undefined : `${new URL(url, location.href)}`;
}
