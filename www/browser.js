// This browser's log: the package's, which other tabs of this site share, with what a page needs to end its worker.

import { Log } from "./src/index.js";

/** @typedef {import("./frame.js").LogRecord} LogRecord */
/** @typedef {import("./frame.js").NewRecord} NewRecord */
/** @typedef {import("./src/index.js").Durability} Durability */

const NAME = "page";
/** Small, so that there soon is more than one segment to look at. */
const SEGMENT_BYTES_MAX = 64 << 10;

/** The log that this page keeps in its browser. */
export class BrowserLog {
  /** @type {Log | undefined} */
  #log;
  /** The last one made: the log has another made where one has ended. @type {Worker | undefined} */
  #worker;

  name = NAME;
  /** @type {Durability} */
  durability = "synced";
  /** What is told of each record that was appended by itself. @type {(durability: Durability, ms: number) => void} */
  onAppended = () => {};

  async open() {
    this.#log = await Log.open(NAME, {
      segmentBytesMax: SEGMENT_BYTES_MAX,
      worker: () => {
        this.#worker = new Worker(new URL("src/worker.js", import.meta.url), { type: "module", name: "proglog" });
        return this.#worker;
      },
    });
  }

  /** Whether this tab's worker has the files. */
  get isLeader() {
    return this.#open.role === "leader";
  }

  /** What part this tab has in the log; none while it is not open. */
  get role() {
    return this.#log?.role;
  }

  /** Ends this tab's worker, whatever it is doing. */
  kill() {
    this.#worker?.terminate();
  }

  /** Deletes it and all its records, unless another tab has it open; opens it in any case. */
  async delete() {
    const log = this.#open;
    this.#log = undefined;
    // What it cannot close it deletes all the same.
    await log.close().catch(() => {});
    try {
      await Log.delete(NAME);
    } finally {
      await this.open();
    }
  }

  /**
   * Appends a record, as durable as was chosen.
   *
   * @param {NewRecord} record
   * @returns {Promise<bigint>}
   */
  async append({ value, ...options }) {
    const { durability } = this;
    const began = performance.now();
    const offset = await this.#open.append(value, { ...options, durability });
    this.onAppended(durability, performance.now() - began);
    return offset;
  }

  /**
   * Appends each of the records; those that wait together share a flush.
   *
   * @param {NewRecord[]} records
   * @param {Durability} [durability]
   * @returns {Promise<bigint>} the first one's offset
   */
  async appendEach(records, durability = this.durability) {
    const log = this.#open;
    const appended = records.map(({ value, ...options }) => log.append(value, { ...options, durability }));
    const [first = 0n] = await Promise.all(appended);
    return first;
  }

  /**
   * @param {bigint} from
   * @param {number} bytesMax
   * @param {{ waits?: boolean }} [options]
   * @returns {Promise<LogRecord[]>}
   */
  async readBatch(from, bytesMax, { waits = false } = {}) {
    const log = this.#open;
    const records = await log.readBatch(from, bytesMax);
    if (records.length > 0 || !waits) return records;
    for await (const _ of log.subscribe({ from })) break;
    return log.readBatch(from, bytesMax);
  }

  async offsets() {
    const { lowestOffset, nextOffset, durableOffset } = this.#open;
    return { lowestOffset, nextOffset, durableOffset };
  }

  /** @returns {Promise<import("./src/report.js").SegmentSummary[]>} */
  async segments() {
    return this.#open.segments();
  }

  /** @param {bigint} offset */
  async locate(offset) {
    return this.#open.locate(offset);
  }

  /**
   * @param {string} name
   * @param {number} position
   * @param {number} bytes
   */
  async readFile(name, position, bytes) {
    return this.#open.readFile(name, position, bytes);
  }

  /** What the last opening of the files, by whichever worker, had to scan. */
  async recoveryReport() {
    return this.#open.recoveryReport();
  }

  /**
   * Sends every record to a server, and those to come, until the signal.
   *
   * @param {string} url
   * @param {import("./src/ship.js").ShipOptions} options
   */
  async syncTo(url, options) {
    return this.#open.syncTo(url, options);
  }

  async export() {
    return this.#open.export();
  }

  /** @returns {Log} */
  get #open() {
    if (!this.#log) throw new Error("this browser’s log is not open");
    return this.#log;
  }
}
