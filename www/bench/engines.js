// What is measured in a worker: the package's module, SQLite, and as floor one file that is written and flushed.

import { encodeBatch } from "../frame.js";
import { Files, deleteFiles } from "../src/files.js";
import { ROWS_LAST, SQLITE_PRAGMAS } from "./sqlite.js";

/**
 * Something that keeps values in order. What was appended is durable when the append returns.
 *
 * @typedef {object} Engine
 * @property {(value: Uint8Array) => unknown} append
 * @property {(values: Uint8Array[]) => unknown} appendBatch
 * @property {() => Last | Promise<Last>} last
 * @property {() => unknown} close
 */

/** How many values there are, and the last of them. @typedef {{ count: number, value: Uint8Array | undefined }} Last */

/** @type {Record<string, { open: (name: string) => Promise<Engine>, delete: (name: string) => Promise<unknown> }>} */
export const ENGINES = {
  proglog: { open: openProglog, delete: deleteFiles },
  sqlite: { open: openSqlite, delete: async (name) => (await pool(name)).removeVfs() },
  floor: { open: openFloor, delete: async (name) => (await navigator.storage.getDirectory()).removeEntry(floorName(name)) },
};

const SYNCED = 1;

/** @param {string} name */
async function openProglog(name) {
  const module = await import("../dist/proglog.js");
  await module.default({ module_or_path: new URL("../dist/proglog_bg.wasm", import.meta.url) });
  const files = await Files.open(Promise.resolve(module.Directory), name);
  const open = () => module.Log.open(name, {});
  const log = await files.again(open, (log) => log.free());
  /** As the package has one. @type {ArrayBuffer | undefined} */
  let spare;
  /** @param {Uint8Array[]} values */
  const appendBatch = async (values) => {
    const entries = encodeBatch(values.map((value) => ({ value })), Date.now(), spare);
    spare = entries.buffer;
    if (!files.isReady) await files.ready();
    return files.again(() => log.appendEntries(entries, SYNCED, -1n));
  };
  return {
    append: (/** @type {Uint8Array} */ value) => appendBatch([value]),
    appendBatch,
    async last() {
      const { decodeFrame } = await import("../frame.js");
      const { nextOffset, lowestOffset } = log;
      const frame = await files.again(() => log.readFrame(nextOffset - 1n));
      return { count: Number(nextOffset - lowestOffset), value: decodeFrame(frame).value };
    },
    async close() {
      await files.change(() => log.close());
      log.free();
      await files.close();
    },
  };
}

/** @param {string} name */
async function pool(name) {
  const { default: init } = await import("../node_modules/@sqlite.org/sqlite-wasm/dist/index.mjs");
  const sqlite = await init();
  return sqlite.installOpfsSAHPoolVfs({ name: `pool-${name}`, directory: `.bench-${name}` });
}

/** @param {string} name */
async function openSqlite(name) {
  const { OpfsSAHPoolDb } = await pool(name);
  const db = new OpfsSAHPoolDb("/bench.db");
  for (const pragma of SQLITE_PRAGMAS) db.exec(`PRAGMA ${pragma}`);
  db.exec("CREATE TABLE IF NOT EXISTS records (id INTEGER PRIMARY KEY, value BLOB NOT NULL)");
  const insert = db.prepare("INSERT INTO records (value) VALUES (?)");
  /** @param {Uint8Array} value */
  const append = (value) => insert.bind(1, value).stepReset();
  return {
    append,
    appendBatch: (/** @type {Uint8Array[]} */ values) => db.transaction(() => values.forEach(append)),
    last() {
      const [row] = db.selectArrays(ROWS_LAST);
      return { count: Number(row?.[0] ?? 0), value: /** @type {Uint8Array | undefined} */ (row?.[1]) };
    },
    close() {
      insert.finalize();
      db.close();
    },
  };
}

/** @param {string} name */
function floorName(name) {
  return `floor-${name}`;
}

/** @param {string} name */
async function openFloor(name) {
  const root = await navigator.storage.getDirectory();
  const file = await root.getFileHandle(floorName(name), { create: true });
  const handle = await file.createSyncAccessHandle();
  let end = handle.getSize();
  let count = 0;
  let bytes = 0;
  /** @param {Uint8Array[]} values */
  const appendBatch = (values) => {
    const all = new Uint8Array(values.reduce((sum, value) => sum + value.length, 0));
    let at = 0;
    for (const value of values) {
      all.set(value, at);
      at += bytes = value.length;
    }
    handle.write(all, { at: end });
    handle.flush();
    end += at;
    count += values.length;
  };
  return {
    append: (/** @type {Uint8Array} */ value) => appendBatch([value]),
    appendBatch,
    last() {
      const value = new Uint8Array(bytes);
      handle.read(value, { at: end - bytes });
      return { count, value };
    },
    close: () => handle.close(),
  };
}
