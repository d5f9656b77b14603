// The page: a log in this page's memory and the server's log, side by side.

import init from "./pkg/proglog.js";
import { Dump } from "./dump.js";
import { Log } from "./log.js";
import { Panel } from "./panel.js";
import { Server, appendBody } from "./server.js";

/** @typedef {import("./panel.js").Subject} Subject */

/**
 * The log in this page.
 *
 * @param {Dump} dump where the frames of its records are shown
 * @returns {Subject}
 */
function pageLog(dump) {
  /** @type {Log | undefined} */
  let log;
  const open = () => {
    if (!log) throw new Error("the wasm module did not load; reload the page");
    return log;
  };
  return {
    title: "In this page",
    about: "The core as a wasm module, its files in memory: a reload empties them.",
    async start() {
      const exports = await init({ module_or_path: new URL("pkg/proglog_bg.wasm", import.meta.url) });
      log = Log.open(exports, "page");
    },
    async append(value, key) {
      return open().append({ value, key, timestampMs: Date.now() });
    },
    async read(offset) {
      const record = open().read(offset);
      dump.show(record, open().locate(offset));
      return record;
    },
    async offsets() {
      const { lowestOffset, nextOffset, durableOffset } = open();
      return { lowestOffset, nextOffset, durableOffset };
    },
  };
}

/**
 * The log behind the server that this page came from.
 *
 * @returns {Subject}
 */
function serverLog() {
  const server = new Server(location.origin);
  return {
    title: "On the server",
    about: "The core behind this page’s server, its files on disk, through the REST API.",
    async start() {},
    append: (value, key) => server.append(value, key),
    read: (offset) => server.read(offset),
    offsets: () => server.offsets(),
    appendCommand: (value, key) => `curl ${location.origin} -d '${appendBody(value, key)}'`,
    readCommand: (offset) => `curl '${location.origin}/?offset=${offset}'`,
  };
}

const dump = new Dump(/** @type {Element} */ (document.querySelector(".frame")));
for (const subject of [pageLog(dump), serverLog()]) new Panel(subject).start();
