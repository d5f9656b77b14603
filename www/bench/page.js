// What is measured in the page, each by the client that its users have there.

import { Log } from "../src/index.js";
import { fill, measure } from "./measure.js";

/** @typedef {import("./engines.js").Engine} Engine */
/** @typedef {import("./engines.js").Last} Last */
/** @typedef {import("./measure.js").Work} Work */
/** @typedef {import("./measure.js").Measured} Measured */

/** @type {Record<string, { open: (name: string) => Promise<Engine>, delete: (name: string) => Promise<unknown> }>} */
const CLIENTS = {
  proglog: { open: openProglog, delete: (name) => Log.delete(name) },
  indexeddb: { open: openIndexedDb, delete: (name) => done(indexedDB.deleteDatabase(name)) },
  sqlite: { open: (name) => Remote.open("sqlite", name), delete: (name) => Remote.delete("sqlite", name) },
  floor: { open: (name) => Remote.open("floor", name), delete: (name) => Remote.delete("floor", name) },
};

const STORE = "records";

/**
 * Appends for a while to a new log, or whatever it is called there, and deletes it.
 *
 * @param {string} subject with " in the worker" without the way there
 * @param {Work} work
 * @returns {Promise<Measured>}
 */
export async function append(subject, work) {
  const [engine = "", ...where] = subject.split(" ");
  if (where.length > 0) {
    const remote = await Remote.open(engine, "appended");
    const measured = await remote.measure(work);
    await remote.close();
    await Remote.delete(engine, "appended");
    return measured;
  }
  const client = clientOf(engine);
  const opened = await client.open("appended");
  const measured = await measure(opened, work);
  await opened.close();
  await client.delete("appended");
  return measured;
}

/**
 * Makes what is to be opened.
 *
 * @param {string} subject
 * @param {number} records
 */
export async function make(subject, records) {
  const name = `of-${records}`;
  // What takes the least time: this is not measured.
  const engine = subject === "sqlite" ? await Remote.open(subject, name) : await clientOf(subject).open(name);
  if (engine instanceof Remote) await engine.fill(records, 100, 1000);
  else await fill(engine, records, 100, 1000);
  await engine.close();
}

/**
 * How long it takes from opening until the last record was read.
 *
 * @param {string} subject
 * @param {number} records
 * @returns {Promise<number>} milliseconds
 */
export async function start(subject, records) {
  const client = clientOf(subject);
  const began = performance.now();
  const engine = await client.open(`of-${records}`);
  const { count, value } = await engine.last();
  const ms = performance.now() - began;
  const number = value && new DataView(value.buffer, value.byteOffset).getFloat64(0);
  if (count !== records || number !== records - 1) throw new Error(`${count} records of ${records}, the last is ${number}`);
  await engine.close();
  return ms;
}

/**
 * @param {string} subject
 * @param {number} records
 */
export async function remove(subject, records) {
  await clientOf(subject).delete(`of-${records}`);
}

/** @param {string} subject */
function clientOf(subject) {
  const client = CLIENTS[subject];
  if (!client) throw new Error(`there is no ${subject} to measure`);
  return client;
}

/** @param {string} name */
async function openProglog(name) {
  const log = await Log.open(name);
  return {
    append: (/** @type {Uint8Array} */ value) => log.append(value),
    appendBatch: (/** @type {Uint8Array[]} */ values) => log.appendBatch(values),
    async last() {
      const { nextOffset, lowestOffset } = log;
      return { count: Number(nextOffset - lowestOffset), value: (await log.read(nextOffset - 1n))?.value };
    },
    close: () => log.close(),
  };
}

/** @param {string} name */
async function openIndexedDb(name) {
  const opening = indexedDB.open(name);
  opening.addEventListener("upgradeneeded", () => opening.result.createObjectStore(STORE, { autoIncrement: true }));
  const db = await done(opening);
  /** @param {Uint8Array[]} values */
  const appendBatch = (values) => {
    const transaction = db.transaction(STORE, "readwrite", { durability: "strict" });
    const store = transaction.objectStore(STORE);
    for (const value of values) store.put(value);
    transaction.commit();
    return new Promise((resolve, reject) => {
      transaction.addEventListener("complete", resolve);
      transaction.addEventListener("abort", () => reject(transaction.error));
    });
  };
  return {
    append: (/** @type {Uint8Array} */ value) => appendBatch([value]),
    appendBatch,
    /** @returns {Promise<Last>} */
    async last() {
      const cursor = await done(db.transaction(STORE).objectStore(STORE).openCursor(null, "prev"));
      return { count: Number(cursor?.key ?? 0), value: cursor?.value };
    },
    close: () => db.close(),
  };
}

/**
 * @template T
 * @param {IDBRequest<T>} request
 * @returns {Promise<T>}
 */
function done(request) {
  return new Promise((resolve, reject) => {
    request.addEventListener("success", () => resolve(request.result));
    request.addEventListener("error", () => reject(request.error));
  });
}

/** An engine in a worker of its own. */
class Remote {
  #worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  #calls = 0;
  /** @type {Map<number, { resolve: (result: any) => void, reject: (error: Error) => void }>} */
  #waiting = new Map();

  /**
   * @param {string} engine
   * @param {string} name
   */
  static async open(engine, name) {
    const remote = new Remote();
    await remote.#call("open", engine, name);
    return remote;
  }

  /**
   * @param {string} engine
   * @param {string} name
   */
  static async delete(engine, name) {
    const remote = new Remote();
    await remote.#call("delete", engine, name);
    remote.#worker.terminate();
  }

  constructor() {
    this.#worker.addEventListener("message", ({ data: { id, result, error } }) => {
      const waiting = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error) waiting?.reject(new Error(error));
      else waiting?.resolve(result);
    });
    this.#worker.addEventListener("error", ({ message }) => {
      this.#waiting.forEach(({ reject }) => reject(new Error(message)));
    });
  }

  /** @param {Uint8Array} value */
  append(value) {
    return this.#call("append", value);
  }

  /** @param {Uint8Array[]} values */
  appendBatch(values) {
    return this.#call("appendBatch", values);
  }

  /** @returns {Promise<Last>} */
  last() {
    return this.#call("last");
  }

  /**
   * @param {Work} work
   * @returns {Promise<Measured>}
   */
  measure(work) {
    return this.#call("measure", work);
  }

  /**
   * @param {number} records
   * @param {number} bytes
   * @param {number} batch
   */
  fill(records, bytes, batch) {
    return this.#call("fill", records, bytes, batch);
  }

  async close() {
    await this.#call("close");
    this.#worker.terminate();
  }

  /**
   * @param {string} call
   * @param {any[]} args
   * @returns {Promise<any>}
   */
  #call(call, ...args) {
    const id = this.#calls++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, call, args });
    });
  }
}
