// What takes a log elsewhere: to the server, as it grows, and into a file.

import { describeIn, find } from "./dom.js";
import { counted, duration, reason, size } from "./text.js";

/** @typedef {import("./browser.js").BrowserLog} BrowserLog */
/** @typedef {import("./src/ship.js").Progress} Progress */

export class Shipping {
  #section;
  #log;
  #button;
  #progress;
  /** While it ships. @type {AbortController | undefined} */
  #shipping;
  #began = 0;
  /** How long it took until the server had all that there was. @type {number | undefined} */
  #caughtUpMs;

  /**
   * @param {HTMLElement} section
   * @param {BrowserLog} log
   * @param {string} url the server's
   */
  constructor(section, log, url) {
    this.#section = section;
    this.#log = log;
    this.#button = find(section, "[name=ship]");
    this.#progress = /** @type {HTMLProgressElement} */ (find(section, "progress"));
    this.#button.addEventListener("click", () => {
      if (this.#shipping) this.#shipping.abort();
      else void this.#ship(url);
    });
    find(section, "[name=download]").addEventListener("click", () => this.#download());
  }

  /** Ends it, if it ships. */
  stop() {
    this.#shipping?.abort();
  }

  /** @param {string} url */
  async #ship(url) {
    const shipping = new AbortController();
    const starts = this.#button.textContent;
    this.#shipping = shipping;
    this.#button.textContent = "Stop shipping";
    this.#progress.hidden = false;
    this.#progress.removeAttribute("value");
    this.#began = performance.now();
    this.#caughtUpMs = undefined;
    /** @type {bigint | undefined} */
    let first;
    const onProgress = (/** @type {Progress} */ progress) => {
      if (shipping.signal.aborted) return;
      first ??= progress.shippedOffset;
      void this.#tell(progress, first);
    };
    try {
      await this.#log.syncTo(url, { signal: shipping.signal, onProgress });
      this.#say("Stopped. What is there stays, and it goes on from there.");
    } catch (error) {
      this.#say(reason(error), true);
    }
    this.#shipping = undefined;
    this.#progress.hidden = true;
    this.#button.textContent = starts;
  }

  /**
   * @param {Progress} progress
   * @param {bigint} first that was not there before
   */
  async #tell({ shippedOffset, error }, first) {
    // More may have been appended since.
    const { lowestOffset, nextOffset } = await this.#log.offsets();
    const all = nextOffset - lowestOffset;
    if (shippedOffset >= nextOffset) this.#caughtUpMs ??= performance.now() - this.#began;
    this.#progress.value = all > 0n ? Number(shippedOffset - lowestOffset) / Number(all) : 1;
    describeIn(find(this.#section, ".report"), [
      ["Shipped now", counted(shippedOffset - first, "record")],
      ["There before", counted(first - lowestOffset, "record")],
      ["First caught up in", this.#caughtUpMs === undefined ? "…" : duration(this.#caughtUpMs)],
    ]);
    if (error) this.#say(`${reason(error)}; it is tried again.`, true);
    else if (shippedOffset >= nextOffset) this.#say(`The server has all ${counted(all, "record")}, and gets those to come.`);
    else this.#say(`The server has all before offset ${shippedOffset}.`);
  }

  async #download() {
    try {
      const archive = await this.#log.export();
      const link = document.createElement("a");
      const url = URL.createObjectURL(archive);
      link.href = url;
      link.download = `${this.#log.name}.tar`;
      link.click();
      // The browser has begun to read it by then.
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
      this.#say(`${this.#log.name}.tar, ${size(archive.size)}: unpack it into a directory, and serve that.`);
    } catch (error) {
      this.#say(reason(error), true);
    }
  }

  /**
   * @param {string} message
   * @param {boolean} [isFailure]
   */
  #say(message, isFailure = false) {
    const status = find(this.#section, ".status");
    status.classList.toggle("failed", isFailure);
    status.textContent = message;
  }
}
