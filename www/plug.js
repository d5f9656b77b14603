// Pulling the plug: the worker that has the files is ended in the middle of appends, and what another one then finds is
// compared with what was acknowledged.

import { describeIn, find } from "./dom.js";
import { toBytes } from "./frame.js";
import { count, counted, duration, reason, size } from "./text.js";

/** @typedef {import("./browser.js").BrowserLog} BrowserLog */

/** What is under way when the plug is pulled, at least and at most. */
const SENT_MS_MIN = 100;
const SENT_MS_MAX = 400;
const SENT_AT_ONCE = 8;
const READ_BYTES = 1 << 20;
/** A log whose workers end more often than about so is given up: it does not know who ends them. */
const AGAIN_MS = 2200;

/** @typedef {import("./src/report.js").Report} Report */

export class Plug {
  #section;
  #log;

  /**
   * @param {HTMLElement} section
   * @param {BrowserLog} log
   * @param {(state: "ended" | "open") => void} onState
   */
  constructor(section, log, onState) {
    this.#section = section;
    this.#log = log;
    const button = /** @type {HTMLButtonElement} */ (find(section, "button"));
    button.addEventListener("click", async () => {
      button.disabled = true;
      this.#say("Appending …");
      try {
        await this.#pull(onState);
      } catch (error) {
        this.#say(reason(error), true);
      }
      button.disabled = false;
      button.focus();
    });
  }

  /** @param {(state: "ended" | "open") => void} onState */
  async #pull(onState) {
    const log = this.#log;
    if (!log.isLeader) throw new Error("another tab has the files of this log: pull the plug there");
    const { nextOffset: before } = await log.offsets();
    const run = Date.now().toString(36);
    /** What was acknowledged, by offset. @type {Map<bigint, string>} */
    const acknowledged = new Map();
    let isSending = true;
    let sent = 0;
    const send = async () => {
      while (isSending) {
        const value = `record ${++sent} of ${run}, appended while the plug is pulled ${"·".repeat(sent % 40)}`;
        try {
          acknowledged.set(await log.appendEach([{ value: toBytes(value) }], "synced"), value);
        } catch (error) {
          if (isSending) throw error;
        }
      }
    };
    const sending = Promise.all(Array.from({ length: SENT_AT_ONCE }, send));
    // Whichever comes first: a log that takes no appends is told of now.
    const ms = SENT_MS_MIN + Math.random() * (SENT_MS_MAX - SENT_MS_MIN);
    await Promise.race([sending, pause(ms)]);
    isSending = false;
    const killed = performance.now();
    log.kill();
    const acknowledgedBefore = acknowledged.size;
    onState("ended");
    // Answered once another worker has the files. What was under way is sent again, or it is told that it is not known.
    const [report] = await Promise.all([log.recoveryReport(), sending]);
    const openMs = performance.now() - killed;
    onState("open");
    await this.#tell(report, { acknowledged, acknowledgedBefore, before, sent, run, openMs });
    await pause(AGAIN_MS - (performance.now() - killed));
  }

  /**
   * @param {Report} report
   * @param {{ acknowledged: Map<bigint, string>, acknowledgedBefore: number, before: bigint, sent: number, run: string,
   *   openMs: number }} pulled
   */
  async #tell({ segments }, { acknowledged, acknowledgedBefore, before, sent, run, openMs }) {
    const { lost, doubled, there } = await this.#compare(acknowledged, before, run);
    const [scanned] = segments;
    const torn = segments.find(({ tornTail }) => tornTail)?.tornTail;
    describeIn(find(this.#section, ".report"), [
      ["Sent", counted(sent, "record")],
      ["Acknowledged", `${count(acknowledgedBefore)} before the end, ${count(acknowledged.size - acknowledgedBefore)} sent again`],
      ["There after it", count(there)],
      ["Back in", duration(openMs)],
      ["Scanned", scanned ? `${scanned.base}.store, ${counted(scanned.records, "record")}; its index was ${scanned.index.replaceAll("_", " ")}` : "nothing: the index vouches for all"],
      ["Torn tail", torn ? `${size(torn.bytes)} cut off` : "none"],
      ["Damage", count(segments.reduce((sum, { damage }) => sum + damage.length, 0))],
    ]);
    if (lost + doubled > 0) {
      this.#say(`${counted(lost, "acknowledged record")} lost, ${count(doubled)} doubled: that is a bug.`, true);
      return;
    }
    const more = there - acknowledged.size;
    const beyond = more > 0 ? ` ${counted(more, "record")} more ${more === 1 ? "was" : "were"} written, and not acknowledged.` : "";
    this.#say(`Every acknowledged record is there, once.${beyond}`);
  }

  /**
   * What of this run is there, and what is not as it was acknowledged.
   *
   * @param {Map<bigint, string>} acknowledged
   * @param {bigint} from
   * @param {string} run
   */
  async #compare(acknowledged, from, run) {
    const missing = new Map(acknowledged);
    const seen = new Set();
    let there = 0;
    const { nextOffset } = await this.#log.offsets();
    while (from < nextOffset) {
      const records = await this.#log.readBatch(from, READ_BYTES);
      for (const { offset, value } of records) {
        const text = new TextDecoder().decode(value);
        if (!text.includes(` of ${run}, `)) continue;
        there += 1;
        seen.add(text);
        if (text === missing.get(offset)) missing.delete(offset);
      }
      const last = records.at(-1);
      if (!last) break;
      from = last.offset + 1n;
    }
    return { lost: missing.size, doubled: there - seen.size, there };
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

/** @param {number} ms */
function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
