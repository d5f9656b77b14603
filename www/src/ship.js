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
 * @property {boolean | "acknowledged"} [retain] removes whole segments once the server has all of them: with one server only
 * @property {(progress: Progress) => void} [onProgress]
 */

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
  if (![true, false, "acknowledged"].includes(retain)) throw invalid('retain is none of true, false and "acknowledged"');
  if (typeof onProgress !== "function") throw invalid("onProgress is no function");
  checkSignal(signal);
  const server = new Server(url);
  while (!signal?.aborted) {
    const { connection } = tab;
    const ended = signal ? AbortSignal.any([signal, connection]) : connection;
    const shipping = new Shipping(tab, server, { batchBytes, retain: retain !== false, onProgress, ended });
    const done = new AbortController();
    try {
      // A page that is frozen would keep the lock: it is given up at once.
      const lock = scope(tab.name, "ship", server.url.href);
      await tab.alone(lock, ended, () => Promise.race([shipping.run(), aborted(ended, done.signal)]));
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
    const response = await this.#fetch(`producers/${base64url(id)}?search=log`, {}, SEARCH_MS_MAX, ended);
    if (response.status === 404) {
      await response.body?.cancel();
      return undefined;
    }
    const sequence = sequenceIn(await checked(response));
    if (sequence === undefined) throw senseless("does not say which record it has");
    return sequence;
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
    const response = await this.#fetch(`producers/${base64url(id)}/records`, request, REQUEST_MS_MAX, ended);
    if (response.status === 413 && isDivisible) {
      await response.body?.cancel();
      return false;
    }
    const sequence = sequenceIn(await checked(response));
    if (sequence === undefined) throw senseless("does not say which record it has");
    if (sequence < last) throw new Passing(`the server has records up to ${sequence}, not ${last}`);
    return true;
  }

  /**
   * @param {string} path
   * @param {RequestInit} request
   * @param {number} msMax
   * @param {AbortSignal} ended
   */
  async #fetch(path, request, msMax, ended) {
    const signal = AbortSignal.any([ended, AbortSignal.timeout(msMax)]);
    try {
      return await fetch(new URL(path, this.url), { ...request, cache: "no-store", redirect: "manual", signal });
    } catch (error) {
      throw new Passing(`${this.url.href} cannot be reached, or does not allow this site: ${/** @type {Error} */ (error).message}`);
    }
  }
}

/**
 * An answer's text, if it is none of refusal.
 *
 * @param {Response} response
 */
async function checked(response) {
  // Not followed: a POST might go on as a GET, or elsewhere than is known. Who has to log in to a network first gets one too.
  if (response.type === "opaqueredirect" || (response.status >= 300 && response.status < 400)) {
    await response.body?.cancel();
    throw new Passing("the server redirects; give the URL that it redirects to");
  }
  const text = await textOf(response);
  if (response.ok) return text;
  const message = `the server answers with ${response.status}: ${text.slice(0, 1000)}`;
  if (response.status >= 500 || LATER.includes(response.status)) throw new Passing(message);
  throw new ProglogError("Refused", `${message}; nothing more is sent`);
}

/**
 * No more of an answer than a server's may have.
 *
 * @param {Response} response
 */
async function textOf(response) {
  const decoder = new TextDecoder();
  let [text, bytes] = ["", 0];
  const reader = response.body?.getReader();
  try {
    for (;;) {
      const { value } = (await reader?.read()) ?? {};
      if (!value) return text + decoder.decode();
      bytes += value.length;
      if (bytes > ANSWER_BYTES_MAX) break;
      text += decoder.decode(value, { stream: true });
    }
  } catch (error) {
    throw new Passing(`the server's answer was cut off: ${/** @type {Error} */ (error).message}`);
  }
  reader?.cancel().catch(() => {});
  throw senseless(`has more than ${ANSWER_BYTES_MAX} bytes`);
}

/** @param {string} what */
function senseless(what) {
  return new Passing(`the answer ${what}: this is no \`proglog serve\`, or something is in between`);
}

/**
 * The sequence in a server's answer, by its digits: a number would be rounded above 2^53.
 *
 * @param {string} text
 */
function sequenceIn(text) {
  const digits = /"sequence"\s*:\s*(\d{1,20})\b/.exec(text)?.[1];
  if (digits === undefined) return undefined;
  const sequence = BigInt(digits);
  return sequence > SEQUENCE_MAX ? undefined : sequence;
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
