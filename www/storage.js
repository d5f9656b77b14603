// What the browser tells of the room it gives this page, and what can be done about it.

import { describeIn, find } from "./dom.js";
import { reason, size } from "./text.js";

/** @typedef {import("./browser.js").BrowserLog} BrowserLog */

/** How long a deletion that was asked for may be confirmed. */
const CONFIRM_MS = 5000;

export class Storage {
  #section;
  #status;

  /**
   * @param {HTMLElement} section
   * @param {BrowserLog} log
   * @param {{ onDelete: () => void, onReopened: () => void }} hooks called before it is deleted, and once it was or
   *   could not be
   */
  constructor(section, log, { onDelete, onReopened }) {
    this.#section = section;
    this.#status = find(section, ".kept");
    find(section, "[name=persist]").addEventListener("click", async () => {
      const granted = await navigator.storage?.persist?.();
      this.#say(granted ? "The browser keeps it until you delete it." : "The browser did not grant it: it decides by how this site is used.");
      await this.show();
    });
    const button = find(section, "[name=delete]");
    const asks = button.textContent;
    let until = 0;
    button.addEventListener("click", async () => {
      if (performance.now() > until) {
        until = performance.now() + CONFIRM_MS;
        button.textContent = "Press again to delete every record";
        setTimeout(() => (button.textContent = asks), CONFIRM_MS);
        return;
      }
      until = 0;
      button.textContent = asks;
      onDelete();
      try {
        await log.delete();
        this.#say("Deleted. The log is empty, and begins at offset 0.");
      } catch (error) {
        this.#say(reason(error), true);
      }
      onReopened();
      await this.show();
    });
  }

  /** Shows what there is now. */
  async show() {
    const { storage } = navigator;
    const { usage = 0, quota = 0 } = (await storage?.estimate?.()) ?? {};
    const persisted = (await storage?.persisted?.()) ?? false;
    /** @type {HTMLButtonElement} */ (find(this.#section, "[name=persist]")).hidden = persisted;
    describeIn(find(this.#section, ".storage"), [
      ["Persisted", persisted ? "yes: until you delete it" : "no: it may go when the disk is full"],
      ["Used", size(usage)],
      ["Free", quota ? size(Math.max(quota - usage, 0)) : "not told"],
    ]);
  }

  /**
   * @param {string} message
   * @param {boolean} [isFailure]
   */
  #say(message, isFailure = false) {
    this.#status.classList.toggle("failed", isFailure);
    this.#status.textContent = message;
  }
}
