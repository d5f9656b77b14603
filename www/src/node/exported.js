// A log in a module that has the raw exports alone, as wasm-bindgen's class has it in the other; see ../module.d.ts.

import { check, openHandle, toInteger, unpack, withBytes } from "../../log.js";
import { ProglogError, receiveError, sendError } from "../error.js";
import { GUEST_PATH } from "./wasi.js";

/** @typedef {import("../../log.js").Exports} Exports */

const DAY_MS = 24 * 60 * 60 * 1000;

/** @implements {Pick<import("../module.js").Log, keyof import("../module.js").Log>} */
export class ExportedLog {
  #exports;
  #wasi;
  #handle;
  /** Why no more is asked of the module. @type {ProglogError | undefined} */
  #failure;

  /**
   * Opens the log in the directory that the module has.
   *
   * @param {Exports} exports
   * @param {import("./wasi.js").Wasi} wasi
   * @param {object} options
   */
  constructor(exports, wasi, options) {
    this.#exports = exports;
    this.#wasi = wasi;
    this.#handle = this.#guard(() => openHandle(exports, GUEST_PATH, options));
  }

  /**
   * @param {Uint8Array} request
   * @param {number} promise
   * @param {bigint} expected
   */
  appendEntries(request, promise, expected) {
    return this.#given(request, (pointer, length) =>
      this.#number((exports, handle) => exports.append_batch(handle, pointer, length, promise, expected)),
    );
  }

  /** @param {Uint8Array} id */
  producerLast(id) {
    return this.#given(id, (pointer, length) =>
      this.#numbers((exports, handle) => exports.producer_last(handle, pointer, length)),
    );
  }

  /** @param {bigint} offset */
  readFrame(offset) {
    return this.#bytes((exports, handle) => exports.read(handle, offset));
  }

  /**
   * @param {bigint} from
   * @param {number} bytesMax
   */
  readBatch(from, bytesMax) {
    return this.#bytes((exports, handle) => exports.read_batch(handle, from, bytesMax));
  }

  /** @param {bigint} offset */
  locate(offset) {
    return this.#numbers((exports, handle) => exports.locate(handle, offset));
  }

  /** @param {bigint} offset */
  truncateBefore(offset) {
    this.#number((exports, handle) => exports.truncate_before(handle, offset));
  }

  /** @param {bigint} offset */
  truncateAfter(offset) {
    this.#number((exports, handle) => exports.truncate_after(handle, offset));
  }

  reset() {
    this.#number((exports, handle) => exports.reset(handle));
  }

  /** @param {import("../base.js").Compaction} options */
  compact({ memoryBytesMax = 0, tombstonesKeptMs = DAY_MS, nowMs = Date.now() }) {
    return this.#json((exports, handle) =>
      exports.compact(handle, toInteger(memoryBytesMax), toInteger(tombstonesKeptMs), toInteger(nowMs)),
    );
  }

  /** @param {import("../base.js").Retention} options */
  enforceRetention({ bytesMax = 0, ageMaxMs = 0, nowMs = Date.now() }) {
    this.#number((exports, handle) =>
      exports.enforce_retention(handle, toInteger(bytesMax), toInteger(ageMaxMs), toInteger(nowMs)),
    );
  }

  sync() {
    this.#number((exports, handle) => exports.sync(handle));
  }

  close() {
    this.#number((exports, handle) => exports.close(handle));
  }

  get lowestOffset() {
    return this.#number((exports, handle) => exports.lowest_offset(handle));
  }

  get nextOffset() {
    return this.#number((exports, handle) => exports.next_offset(handle));
  }

  get durableOffset() {
    return this.#number((exports, handle) => exports.durable_offset(handle));
  }

  recoveryReport() {
    return this.#json((exports, handle) => exports.recovery_report(handle));
  }

  verify() {
    return this.#json((exports, handle) => exports.verify(handle));
  }

  segments() {
    return this.#json((exports, handle) => exports.segments(handle));
  }

  /** Nothing: its instance goes with it. */
  free() {}

  /**
   * @template T
   * @param {Uint8Array} bytes
   * @param {(pointer: number, length: number) => T} call
   */
  #given(bytes, call) {
    return this.#guard(() => withBytes(this.#exports, bytes, call));
  }

  /**
   * @template {number | bigint} T
   * @param {(exports: Exports, handle: number) => T} call
   */
  #number(call) {
    return this.#guard(() => check(this.#exports, call(this.#exports, this.#handle)));
  }

  /** @param {(exports: Exports, handle: number) => bigint} call */
  #bytes(call) {
    return unpack(this.#exports, this.#number(call));
  }

  /** @param {(exports: Exports, handle: number) => bigint} call */
  #numbers(call) {
    return new BigUint64Array(this.#bytes(call).buffer);
  }

  /** @param {(exports: Exports, handle: number) => bigint} call */
  #json(call) {
    return new TextDecoder().decode(this.#bytes(call));
  }

  /**
   * Tells of errors by the directory's own name. A module that fails is in no state to be asked again.
   *
   * @template T
   * @param {() => T} call
   */
  #guard(call) {
    if (this.#failure) throw this.#failure;
    try {
      return call();
    } catch (error) {
      if (error instanceof ProglogError) throw error;
      if (error instanceof WebAssembly.RuntimeError) {
        const words = this.#wasi.lastWords || error.message;
        const message = `the module failed, which is a bug: ${words}; open the log again`;
        throw (this.#failure = new ProglogError("Poisoned", message));
      }
      const { message, ...sent } = sendError(error);
      throw receiveError({ ...sent, message: message.replaceAll(GUEST_PATH, this.#wasi.directory) });
    }
  }
}
