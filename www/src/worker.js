// The log's side of the package: a dedicated worker, which has the files and the module once it is the leader; see
// tabs.js.

import init, { Directory, Log } from "../dist/proglog.js";
import { ProglogError, sendError } from "./error.js";
import { Files, deleteFiles } from "./files.js";
import { Leader } from "./leader.js";
import { OpenLog } from "./open_log.js";
import { hold, newId, scope } from "./scope.js";
import { wasm } from "./wasm.js";

/** @typedef {{ name: string, options: object, wasmUrl: string | undefined, tar: Blob | undefined }} OpenCall */

/** @type {Promise<unknown> | undefined} */
let loaded;

/** @param {string | undefined} wasmUrl */
function load(wasmUrl) {
  loaded ??= init({ module_or_path: wasmUrl ?? wasm() });
  // Without a network for a moment, it is there later.
  loaded.catch(() => (loaded = undefined));
  return loaded;
}

/**
 * Opens the log, whose files no one else has.
 *
 * @param {OpenCall} call
 */
async function openLog(call) {
  const { name, options, wasmUrl } = call;
  const files = await Files.open(load(wasmUrl).then(() => Directory), name);
  return OpenLog.open(call, files, () => Log.open(name, options));
}

/** How long a log that is to be deleted may still be open: in a tab that was just left. */
const DELETED_WITHIN_MS = 1000;

/** This worker's id, as others know it. */
const id = newId();
/** @type {Leader | undefined} */
let leader;

/**
 * Waits until this worker is to have the files, then has them until the log is closed.
 *
 * @param {OpenCall} call
 */
async function lead(call) {
  const { name, wasmUrl } = call;
  // So that it takes less time then.
  load(wasmUrl).catch(() => {});
  try {
    await navigator.locks.request(scope(name), async () => {
      leader = new Leader(id, name, (answer, transfer = []) => self.postMessage(answer, { transfer }));
      self.postMessage({ isOpening: true });
      try {
        leader.start(await openLog(call));
        await leader.closed;
      } catch (error) {
        leader.end();
        throw error;
      }
    });
  } catch (error) {
    self.postMessage({ failed: sendError(error) });
    // Also if someone took the lock away: then nothing may be written here any more.
    self.close();
  }
}

/** @param {string} name */
async function deleteLog(name) {
  try {
    const signal = AbortSignal.timeout(DELETED_WITHIN_MS);
    await navigator.locks.request(scope(name), { signal }, () => deleteFiles(name));
  } catch (error) {
    if (!(error instanceof DOMException && error.name === "TimeoutError")) throw error;
    throw new ProglogError("Locked", `the log "${name}" is open in a tab or worker; close it there, then delete it`);
  }
}

/** @param {OpenCall} call */
async function open(call) {
  const led = lead(call);
  // It is given back when this worker ends, however that is.
  await hold(scope(call.name, "worker", id));
  self.postMessage({ started: id });
  await led;
}

self.addEventListener("message", async ({ data }) => {
  const { id, call, args } = data;
  if (call === "open") return open(args[0]);
  if (call !== "delete") return leader?.ask(data);
  try {
    self.postMessage({ id, result: await deleteLog(args[0]) });
  } catch (error) {
    self.postMessage({ id, error: sendError(error) });
  }
});
