// The server's log, over its REST API.

import { decodeFrames } from "./frame.js";

/** @typedef {import("./frame.js").LogRecord} LogRecord */

/** How long the server is asked to wait for a record. One that is to stop waits for as long, at the most. */
const WAIT_MS = 2000;

/** A refusal by the server. Decide by `status`, which is HTTP's; the message is for people. */
export class ServerError extends Error {
  /**
   * @param {number} status
   * @param {string} message
   */
  constructor(status, message) {
    super(message);
    this.name = "ServerError";
    this.status = status;
  }
}

/** The log behind a `proglog serve`. */
export class Server {
  #url;

  /** @param {string | URL} url where its API is */
  constructor(url) {
    this.#url = new URL(url);
  }

  /**
   * Appends a record, and gives its offset once the server has made it durable. Its timestamp is the
   * server's.
   *
   * @param {Uint8Array} value
   * @param {Uint8Array} [key] empty is none
   * @returns {Promise<bigint>}
   * @throws {ServerError}
   */
  async append(value, key = new Uint8Array()) {
    const { offset } = await this.#json("", { method: "POST", body: appendBody(value, key) });
    return offset;
  }

  /**
   * Consecutive records from an offset on, about so many bytes of them but at least one; none at the end, unless one
   * comes meanwhile and that is to be waited for.
   *
   * @param {bigint} from
   * @param {number} bytesMax
   * @param {{ waits?: boolean }} [options]
   * @returns {Promise<LogRecord[]>}
   * @throws {ServerError}
   */
  async readBatch(from, bytesMax, { waits = false } = {}) {
    const wait = waits ? `&wait_ms=${WAIT_MS}` : "";
    const response = await this.#fetch(`records?from=${from}&bytes_max=${bytesMax}${wait}`);
    if (!response.ok) await refuse(response);
    return decodeFrames(new Uint8Array(await response.arrayBuffer()));
  }

  /**
   * The first offset that the log holds, the one the next append will give, and the one up to which
   * records are on stable storage.
   *
   * @returns {Promise<{ lowestOffset: bigint, nextOffset: bigint, durableOffset: bigint }>}
   * @throws {ServerError}
   */
  async offsets() {
    const health = await this.#json("healthz");
    return {
      lowestOffset: health.lowest_offset,
      nextOffset: health.next_offset,
      durableOffset: health.durable_offset,
    };
  }

  /**
   * @param {string} path
   * @param {RequestInit} [request]
   */
  async #json(path, request) {
    const response = await this.#fetch(path, request);
    if (!response.ok) await refuse(response);
    try {
      return JSON.parse(await response.text(), toBigint);
    } catch {
      throw new ServerError(response.status, "the server's answer is not JSON");
    }
  }

  /**
   * @param {string} path
   * @param {RequestInit} [request]
   */
  async #fetch(path, request = {}) {
    try {
      return await fetch(new URL(path, this.#url), { cache: "no-store", ...request });
    } catch {
      throw new ServerError(0, "the server does not answer");
    }
  }
}

/**
 * What an append sends: JSON, with bytes in base64.
 *
 * @param {Uint8Array} value
 * @param {Uint8Array} key
 */
export function appendBody(value, key) {
  const record = { value: toBase64(value), ...(key.length && { key: toBase64(key) }) };
  return JSON.stringify({ record });
}

/**
 * @param {Response} response
 * @returns {Promise<never>}
 */
async function refuse(response) {
  let error;
  try {
    ({ error } = await response.json());
  } catch {
    // A proxy's answer may be anything.
  }
  throw new ServerError(response.status, error ?? "the server gives no reason");
}

/**
 * Reads offsets as bigints, from their text where the browser gives it: a number would round those
 * above 2^53.
 *
 * @param {string} name
 * @param {any} value
 * @param {{ source?: string }} [text]
 */
function toBigint(name, value, text) {
  return /^(.+_)?offset$/.test(name) ? BigInt(text?.source ?? value) : value;
}

/** @param {Uint8Array} bytes */
function toBase64(bytes) {
  let characters = "";
  // In pieces: a call takes only so many arguments.
  for (let at = 0; at < bytes.length; at += 0x8000) {
    characters += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  }
  return btoa(characters);
}
