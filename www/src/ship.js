// Sends a log's records to a server, `proglog serve`, each once and in order, as long as there are any: by frames as they
// stand in the stores, in whole batches. The server knows what it has, by the id of the source and the offset.

import { checkSignal, invalid } from "./check.js";
import { ProglogError } from "./error.js";
import { scope } from "./scope.js";

/** @typedef {import("./base.js").Calls} Calls */

/**
 * How far it is: the server has all records below `shippedOffset`, durably. After an attempt that failed `error` says why;
 * it is made again.
 *
 * @typedef {{ shippedOffset: bigint, nextOffset: bigint, error?: ProglogError }} Progress
 */

/**
 * @typedef {object} ShipOptions
 * @property {AbortSignal} [signal] ends it
 * @property {number} [batchBytes] how much is sent in a request: 512 KiB unless told; a larger batch goes alone
 * @property {boolean} [retain] removes whole segments once the server has all of them: with one server only
 * @property {(progress: Progress) => void} [onProgress]
 */

/** The names of {@link ShipOptions}. */
export const SHIP_OPTIONS = ["signal", "batchBytes", "retain", "onProgress"];
const BATCH_BYTES = 512 << 10;
const BATCH_BYTES_MAX = 256 << 20;
const RETRY_MS_MIN = 250;
const RETRY_MS_MAX = 30_000;
const REQUEST_MS_MAX = 60_000;
/** What is read of an answer, which is short. */
const ANSWER_BYTES_MAX = 64 << 10;
const SEQUENCE_MAX = 2n ** 63n - 1n;
/** The server may have to read its log for it. */
const SEARCH_MS_MAX = 300_000;
/** What a server answers that may answer otherwise later: too early, too many, none there. */
const LATER = [408, 425, 429];

/** A failure that may pass. */
class Passing extends Error {}

/**
 * Sends what there is, and what is appended, until it is aborted. One tab at a time does.
 *
 * @param {Calls} tab
 * @param {string | URL} url
 * @param {ShipOptions} options
 */
export async function ship(tab, url, { signal, batchBytes = BATCH_BYTES, retain = false, onProgress = () => {} }) {
  if (!Number.isSafeInteger(batchBytes) || batchBytes < 1 || batchBytes > BATCH_BYTES_MAX) {
    throw invalid(`batchBytes is ${String(batchBytes)}; give 1 to ${BATCH_BYTES_MAX}`);
  }
  if (typeof retain !== "boolean") throw invalid("retain is neither true nor false");
  if (typeof onProgress !== "function") throw invalid("onProgress is no function");
  checkSignal(signal);
  const server = new Server(url);
  while (!signal?.aborted) {
    const { connection } = tab;
    const done = new AbortController();
    const ended = withThem(signal ? [signal, connection] : [connection], done.signal).signal;
    const shipping = new Shipping(tab, server, { batchBytes, retain, onProgress, ended });
    try {
      // A page that is frozen would keep the lock: it is given up at once.
      const lock = scope(tab.name, "ship", server.url.href);
      const stopped = aborted(ended, done.signal);
      await Promise.race([tab.alone(lock, ended, () => Promise.race([shipping.run(), stopped])), stopped]);
    } catch (error) {
      if (!ended.aborted) throw error;
    } finally {
      done.abort();
    }
    // Once the page is back; or the log is closed, which this tells.
    if (!signal?.aborted) await tab.call("look", []);
  }
}

/** One tab's shipping, from when it is its turn. */
class Shipping {
  #tab;
  #server;
  #batchBytes;
  #retain;
  #onProgress;
  #ended;
  #failures = 0;
  /** Whether the newest source is one that no server was told of yet. */
  #isRenewed = false;
  #shipped = 0n;

  /**
   * @param {Calls} tab
   * @param {Server} server
   * @param {{ batchBytes: number, retain: boolean, onProgress: (progress: Progress) => void, ended: AbortSignal }} options
   */
  constructor(tab, server, { batchBytes, retain, onProgress, ended }) {
    this.#tab = tab;
    this.#server = server;
    this.#batchBytes = batchBytes;
    this.#retain = retain;
    this.#onProgress = onProgress;
    this.#ended = ended;
  }

  async run() {
    while (!this.#ended.aborted) {
      try {
        await this.#shipSources();
      } catch (error) {
        if (this.#ended.aborted) return;
        const isPassing = error instanceof Passing || (error instanceof ProglogError && error.kind === "Unavailable");
        if (!isPassing) throw error;
        this.#tell(new ProglogError("Unavailable", error.message));
        await this.#pause();
      }
    }
  }

  /** Sends all sources of the log, and does not end with the last one unless it is another by then. */
  async #shipSources() {
    /** @type {import("./sources.js").Source[]} */
    const sources = await this.#tab.call("sources", []);
    let from = sources[0]?.from ?? 0n;
    for (const [n, source] of sources.entries()) {
      // What was sent is known by the server alone: an answer may have been lost.
      const last = await this.#server.lastSequence(source.id, this.#ended);
      if (last === undefined) from = from < source.from ? from : source.from;
      else from = last + 1n;
      const isNewest = n === sources.length - 1;
      const after = sources[n + 1];
      // What the server says of what is no more in the log is not told as sent of it.
      if (after && from > after.from) from = after.from;
      if (isNewest) await this.#tab.call("look", []);
      if (isNewest && from > this.#tab.offsets.nextOffset) {
        if (this.#isRenewed) throw senseless("tells of records that the server was never sent");
        this.#isRenewed = true;
        await this.#tab.call("renewSource", []);
        return;
      }
      const next = await this.#shipSource(source.id, from);
      if (next === undefined) return;
      from = next;
    }
  }

  /**
   * Sends a source from an offset on.
   *
   * @param {Uint8Array} id
   * @param {bigint} from
   * @returns {Promise<bigint | undefined>} the offset up to which it was sent, if no more of it will come; nothing if the
   *   sources are others by now
   */
  async #shipSource(id, from) {
    let batchBytes = this.#batchBytes;
    this.#shipped = from;
    this.#tell();
    while (!this.#ended.aborted) {
      // Before reading: what is appended meanwhile makes them others.
      const { offsets } = this.#tab;
      /** @type {import("./shipment.js").Shipment | undefined} */
      const shipment = await this.#tab.call("shipment", [id, this.#shipped, batchBytes]);
      if (!shipment) return undefined;
      const { frames, batches, next, last, isLast } = shipment;
      if (isLast) return next;
      if (last === undefined) {
        // There is nothing, or what there was is no longer there.
        if (next > this.#shipped) this.#shipped = next;
        else await this.#tab.changed(offsets, this.#ended);
        continue;
      }
      const isTaken = await this.#server.send(id, frames, last, batches > 1, this.#ended);
      if (!isTaken) {
        batchBytes = Math.max(frames.length >> 1, 1);
        continue;
      }
      this.#failures = 0;
      this.#isRenewed = false;
      this.#shipped = next;
      if (this.#retain) await this.#tab.call("removeSegmentsBelow", [last]);
      this.#tell();
    }
    return undefined;
  }

  /** @param {ProglogError} [error] */
  #tell(error) {
    // What was under way may be done after the caller was told that it is over.
    if (this.#ended.aborted) return;
    const progress = { shippedOffset: this.#shipped, nextOffset: this.#tab.offsets.nextOffset };
    this.#onProgress(error ? { ...progress, error } : progress);
  }

  /** Waits before the next attempt: longer each time, and no longer once there is a network again. */
  async #pause() {
    const longest = Math.min(RETRY_MS_MIN * 2 ** this.#failures++, RETRY_MS_MAX);
    // So that the pages that one server lost do not come back all at once.
    const ms = longest * (0.5 + Math.random() / 2);
    const done = new AbortController();
    const online = new Promise((resolve) => globalThis.addEventListener?.("online", resolve, { signal: done.signal }));
    const timer = new Promise((resolve) => {
      const timeout = setTimeout(resolve, ms);
      done.signal.addEventListener("abort", () => clearTimeout(timeout));
    });
    await Promise.race([timer, online, aborted(this.#ended, done.signal)]);
    done.abort();
  }
}

/** What a server answers. */
class Server {
  url;

  /** @param {string | URL} url where its API is */
  constructor(url) {
    try {
      if (typeof url !== "string" && !(url instanceof URL)) throw new TypeError("neither a string nor a URL");
      this.url = new URL(url, globalThis.location?.href);
    } catch {
      throw invalid(`${typeof url === "string" ? `"${url}"` : "what was given as the server"} is no URL; give that of a \`proglog serve\``);
    }
    // No request is made to any other, ever.
    const { protocol, username, password } = this.url;
    if (!/^https?:$/.test(protocol)) throw invalid(`"${url}" is no URL of http or https; give that of a \`proglog serve\``);
    if (username || password) throw invalid("a request takes no URL with a name or password in it; give one without");
    if (!this.url.pathname.endsWith("/")) this.url.pathname += "/";
  }

  /**
   * The last record of a source that the server has.
   *
   * @param {Uint8Array} id
   * @param {AbortSignal} ended
   */
  async lastSequence(id, ended) {
    const answer = await this.#ask(`producers/${base64url(id)}?search=log`, {}, SEARCH_MS_MAX, ended);
    return answer.status === 404 ? undefined : sequenceIn(answer);
  }

  /**
   * Sends frames, and returns once they are durable there.
   *
   * @param {Uint8Array} id
   * @param {Uint8Array} frames
   * @param {bigint} last record's offset
   * @param {boolean} isDivisible whether they may be sent in parts
   * @param {AbortSignal} ended
   * @returns {Promise<boolean>} whether it took them; if not they are too many
   */
  async send(id, frames, last, isDivisible, ended) {
    const request = {
      method: "POST",
      headers: { "content-type": "application/octet-stream" },
      body: /** @type {Uint8Array<ArrayBuffer>} */ (frames),
    };
    const answer = await this.#ask(`producers/${base64url(id)}/records`, request, REQUEST_MS_MAX, ended);
    if (answer.status === 413 && isDivisible) return false;
    const sequence = sequenceIn(answer);
    if (sequence < last) throw new Passing(`the server has records up to ${sequence}, not ${last}`);
    return true;
  }

  /**
   * The answer to a request, all of it within this time.
   *
   * @param {string} path
   * @param {RequestInit} request
   * @param {number} msMax
   * @param {AbortSignal} ended
   * @returns {Promise<Answer>}
   */
  async #ask(path, request, msMax, ended) {
    const done = new AbortController();
    // Not by AbortSignal.timeout and any: Node.js 20 forgets such signals, and not all browsers have them.
    const ending = withThem([ended], done.signal);
    const timeout = setTimeout(() => ending.abort(new Error(`there was no answer for ${msMax / 1000} s`)), msMax);
    /** @type {Response | undefined} */
    let response;
    try {
      const { signal } = ending;
      response = await fetch(new URL(path, this.url), { ...request, cache: "no-store", redirect: "manual", signal });
      // Not followed: a POST might go on as a GET, or elsewhere. Who has to log in to a network first gets one too.
      const isRedirect = response.type === "opaqueredirect" || (response.status >= 300 && response.status < 400);
      const { text, isWhole } = await startOf(response);
      if (isRedirect) throw new Passing("the server redirects; give the URL that it redirects to");
      if (response.ok && !isWhole) throw senseless(`has more than ${ANSWER_BYTES_MAX} bytes`);
      return { status: response.status, isOk: response.ok, text };
    } catch (error) {
      if (error instanceof Passing) throw error;
      const { message } = /** @type {Error} */ (error);
      if (response) throw new Passing(`the server's answer was cut off: ${message}`);
      throw new Passing(`${this.url.href} cannot be reached, or does not allow this site, or this site's policy does not allow it: ${message}`);
    } finally {
      clearTimeout(timeout);
      done.abort();
    }
  }
}

/** @typedef {{ status: number, isOk: boolean, text: string }} Answer */

/**
 * The text of an answer, up to what one may have.
 *
 * @param {Response} response
 */
async function startOf(response) {
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  const reader = response.body?.getReader();
  for (;;) {
    const { value } = (await reader?.read()) ?? {};
    if (!value) return { text: text + decoder.decode(), isWhole: true };
    bytes += value.length;
    if (bytes > ANSWER_BYTES_MAX) break;
    text += decoder.decode(value, { stream: true });
  }
  reader?.cancel().catch(() => {});
  return { text, isWhole: false };
}

/**
 * The sequence in a server's answer, by its digits: a number would be rounded above 2^53.
 *
 * @param {Answer} answer
 */
function sequenceIn({ status, isOk, text }) {
  if (!isOk) {
    const message = `the server answers with ${status}: ${text.slice(0, 1000)}`;
    if (status >= 500 || LATER.includes(status)) throw new Passing(message);
    throw new ProglogError("Refused", `${message}; nothing more is sent`);
  }
  const digits = /"sequence"\s*:\s*(\d{1,19})\s*[,}]/.exec(text)?.[1];
  const sequence = BigInt(digits ?? -1);
  if (digits === undefined || sequence > SEQUENCE_MAX) throw senseless("does not say which record it has");
  return sequence;
}

/** @param {string} what */
function senseless(what) {
  return new Passing(`the answer ${what}: this is no \`proglog serve\`, or something is in between`);
}

/** @param {Uint8Array} bytes */
function base64url(bytes) {
  return btoa(String.fromCharCode(...bytes)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

/**
 * @param {AbortSignal} signal
 * @param {AbortSignal} done until then; a caller's signal may outlive many waits
 */
function aborted(signal, done) {
  return new Promise((/** @type {(value: void) => void} */ resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener("abort", () => resolve(), { once: true, signal: done });
  });
}

/**
 * What is aborted with any of these signals.
 *
 * @param {AbortSignal[]} signals
 * @param {AbortSignal} done until then; they may outlive many requests
 */
function withThem(signals, done) {
  const controller = new AbortController();
  for (const signal of signals) {
    if (signal.aborted) controller.abort(signal.reason);
    signal.addEventListener("abort", () => controller.abort(signal.reason), { signal: done });
  }
  return controller;
}
