// The page: this browser's log and the server's, side by side, and what stands on disk.

import { BrowserLog } from "./browser.js";
import { find } from "./dom.js";
import { Dump, ENTRY_BYTES } from "./dump.js";
import { decodeFrame } from "./frame.js";
import { Latency } from "./latency.js";
import { Panel } from "./panel.js";
import { Picture } from "./picture.js";
import { Plug } from "./plug.js";
import { Server, appendBody } from "./server.js";
import { Shipping } from "./shipping.js";
import { Storage } from "./storage.js";
import { reason } from "./text.js";

/** @typedef {import("./frame.js").LogRecord} LogRecord */
/** @typedef {import("./src/index.js").Durability} Durability */

const OPEN_AGAIN_MS = 1000;
const WHERE_OPEN = { leader: "files open in this tab", follower: "files open in another tab" };

const section = (/** @type {string} */ name) => find(document, `section.${name}`);
const browserLog = new BrowserLog();
const server = new Server(location.origin);

const browser = new Panel({
  title: "This browser",
  about: "The core as a wasm module in a worker, its files in the origin private file system. All tabs of this page share it.",
  append: (record) => browserLog.append(record),
  appendEach: (records) => browserLog.appendEach(records),
  readBatch: (from, bytesMax, options) => browserLog.readBatch(from, bytesMax, options),
  offsets: () => browserLog.offsets(),
  whereOpen: () => browserLog.role && WHERE_OPEN[browserLog.role],
  onChoose: (record) => void choose(record.offset),
  onDurability: (durability) => (browserLog.durability = /** @type {Durability} */ (durability)),
});

const remote = new Panel({
  title: "The server",
  about: "The core behind this page’s address, its files on disk, over REST. What others append shows here, too.",
  append: ({ value, key }) => server.append(/** @type {Uint8Array} */ (value), /** @type {Uint8Array} */ (key)),
  async appendEach(records) {
    const offsets = await Promise.all(
      records.map(({ value, key }) => server.append(/** @type {Uint8Array} */ (value), /** @type {Uint8Array} */ (key))),
    );
    return offsets.reduce((min, offset) => (offset < min ? offset : min));
  },
  readBatch: (from, bytesMax, options) => server.readBatch(from, bytesMax, options),
  offsets: () => server.offsets(),
  onChoose: chooseOfServer,
  appendCommand: (value, key) => `curl ${location.origin} -d '${appendBody(value, key)}'`,
  readCommand: (offset) => `curl '${location.origin}/?offset=${offset}'`,
});

const dump = new Dump(section("bytes"));
const picture = new Picture(section("bytes"), browserLog);
const latency = new Latency(section("latency"), (value) => browserLog.append({ value }));
const shipping = new Shipping(section("shipping"), browserLog, location.origin);
const storage = new Storage(section("shipping"), browserLog, {
  onDelete: () => shipping.stop(),
  onReopened() {
    forget();
    browser.follow();
  },
});
new Plug(section("plug"), browserLog, (state) => {
  browser.showState(state);
  void storage.show();
});

browserLog.onAppended = (durability, ms) => latency.add(durability, ms);
picture.onChoose = (offset) => void choose(offset, true);
picture.onPoint = (offset) => {
  const shown = offset ?? chosen;
  if (shown !== undefined) void showBytes(shown);
};

/** The record of this browser's log that the picture is of. @type {bigint | undefined} */
let chosen;
/** Counts what is shown, so that what is read later does not stand over what was asked for last. */
let shows = 0;

/**
 * Shows a record of this browser's log everywhere.
 *
 * @param {bigint} offset
 * @param {boolean} [isNear] whether it is the nearest one, where there is none
 */
async function choose(offset, isNear = false) {
  // There are none while the log is deleted.
  const offsets = await browserLog.offsets().catch(() => undefined);
  if (!offsets) return;
  const { lowestOffset, nextOffset } = offsets;
  if (isNear && offset >= nextOffset) offset = nextOffset - 1n;
  if (isNear && offset < lowestOffset) offset = lowestOffset;
  // It was removed, and stands in a list still: what is shown stays, and stays marked.
  if (offset < lowestOffset) browser.mark(chosen);
  if (offset < lowestOffset || offset >= nextOffset) return;
  chosen = offset;
  browser.mark(offset);
  remote.mark(undefined);
  await Promise.all([showBytes(offset), picture.show(offset)]);
}

/** @param {LogRecord} record */
function chooseOfServer(record) {
  shows++;
  forget();
  browser.mark(undefined);
  remote.mark(record.offset);
  dump.show("The server", record);
}

function forget() {
  chosen = undefined;
  void picture.show(undefined);
  dump.clear();
}

/**
 * Shows a record as it stands in the files.
 *
 * @param {bigint} offset
 */
async function showBytes(offset) {
  const show = ++shows;
  try {
    const [record] = await browserLog.readBatch(offset, 1);
    if (!record) return;
    const { segment, position } = await browserLog.locate(record.offset);
    const at = Number(record.offset - segment) * ENTRY_BYTES;
    const [frame, entry] = await Promise.all([
      browserLog.readFile(`${segment}.store`, Number(position), record.frame.length),
      browserLog.readFile(`${segment}.index`, at, ENTRY_BYTES),
    ]);
    // What is not synced may not be in the files yet: in its place they end, or have zeros.
    const isThere = frame.length === record.frame.length && frame.some((byte) => byte !== 0);
    const onDisk = isThere ? decodeFrame(frame) : record;
    if (show === shows) dump.show("This browser", onDisk, { segment, position, entry });
  } catch {
    // The record was removed or the log closed while it was read, and that is told elsewhere.
  }
}

addEventListener("focus", () => browser.look());
remote.follow();
for (let isOpen = false; !isOpen; ) {
  try {
    await browserLog.open();
    browser.follow();
    isOpen = true;
  } catch (error) {
    browser.showState("failed", reason(error));
    // A tab that has the files and does not answer may be closed.
    await new Promise((resolve) => setTimeout(resolve, OPEN_AGAIN_MS));
  }
}
// So that there is something in the picture: the last record, which is the nearest to any above.
if (shows === 0) await choose(2n ** 64n, true);
await storage.show();
