// The server's log, over its REST API.

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

/**
 * A record as the server gives it, which is without its frame.
 *
 * @typedef {object} ServerRecord
 * @property {bigint} offset
 * @property {Uint8Array} value
 * @property {Uint8Array | undefined} key
 * @property {number | undefined} timestampMs
 */

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
    const { offset } = await this.#fetch("", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: appendBody(value, key),
    });
    return offset;
  }

  /**
   * @param {bigint} offset
   * @returns {Promise<ServerRecord>}
   * @throws {ServerError}
   */
  async read(offset) {
    const { record } = await this.#fetch(`?offset=${offset}`);
    return {
      offset: record.offset,
      value: fromBase64(record.value ?? ""),
      key: record.key ? fromBase64(record.key) : undefined,
      timestampMs: record.timestamp_ms || undefined,
    };
  }

  /**
   * The first offset that the log holds, the one the next append will give, and the one up to which
   * records are on stable storage.
   *
   * @returns {Promise<{ lowestOffset: bigint, nextOffset: bigint, durableOffset: bigint }>}
   * @throws {ServerError}
   */
  async offsets() {
    const health = await this.#fetch("healthz");
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
  async #fetch(path, request) {
    let response;
    try {
      response = await fetch(new URL(path, this.#url), { cache: "no-store", ...request });
    } catch {
      throw new ServerError(0, "the server does not answer");
    }
    const text = await response.text();
    let body;
    try {
      body = JSON.parse(text, toBigint);
    } catch {
      throw new ServerError(response.status, "the server's answer is not JSON");
    }
    if (!response.ok) throw new ServerError(response.status, body.error ?? "the server gives no reason");
    return body;
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

/** @param {string} base64 */
function fromBase64(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}
