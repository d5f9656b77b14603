// A tab's part in a log that any number of tabs and workers use at once. Each has a worker of its own; whose worker holds
// the log's Web Lock is the leader, and has the files. The others send it their calls over a channel for each, and send
// again what was not answered when another takes its place: at once where it was closed or ended, for then the browser
// gives the lock to the next. A page that is to be frozen gives up its worker before.

import { ProglogError, receiveError } from "./error.js";
import { buffersOf, hold, newId, scope } from "./scope.js";

/** @typedef {import("./base.js").Offsets} Offsets */
/** @typedef {import("./base.js").Role} Role */

/**
 * What a tab is opened with.
 *
 * @typedef {{ name: string, options: object, wasmUrl: string | undefined, tar: Blob | undefined }} Opening
 */

/** @typedef {{ entries: Uint8Array<ArrayBuffer> }} AppendCall */

/**
 * A call that was not answered yet.
 *
 * @typedef {object} Waiting
 * @property {string} call
 * @property {any[]} args
 * @property {boolean} isAgain whether it may be done twice
 * @property {string | undefined} sentTo the leader that may have done it
 * @property {AppendCall[]} given those whose bytes the worker has, until it answers
 * @property {number} sinceMs
 * @property {(result: any) => void} resolve
 * @property {(error: Error) => void} reject
 */

/** So many bytes are given to the worker, and not copied, where they need not be sent again. */
const GIVEN_BYTES_MIN = 64 << 10;
/** A call that the leader has not answered for so long is given up, if there was no sign of the leader either. */
const UNAVAILABLE_MS = 10_000;
const ASKED_AGAIN_MS = 500;
/** A page that was suspended has asked less often than that time tells. */
const ASKED_MIN = 5;
/** A worker that ends so often within this time does so for a reason. */
const WORKERS_MAX = 5;
const WORKERS_MAX_MS = 10_000;
/** What is not done twice: others may have appended in between. */
const ONCE = ["truncateAfter", "reset"];

/** The calls to a log, wherever its files are open. */
export class Tab {
  #opening;
  #makeWorker;
  #id = newId();
  /** @type {Worker | undefined} */
  #worker;
  /** @type {number[]} */
  #workersMadeMs = [];
  /** @type {BroadcastChannel | undefined} */
  #all;
  /** @type {BroadcastChannel | undefined} */
  #channel;
  #connection = new AbortController();
  /** The leader's id, if it is known. */
  #leader = "";
  /** Whether this tab's worker has the lock, be the log open yet or not. */
  #isOwn = false;
  #heardMs = 0;
  #asked = 0;
  #calls = 0;
  /** @type {Map<number, Waiting>} */
  #waiting = new Map();
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #timer;
  /** @type {ProglogError | undefined} */
  #ended;
  /** @type {(opened?: Error) => void} */
  #opened = () => {};
  #lifecycle = new AbortController();
  /** @type {Set<(error?: Error) => void>} */
  #watchers = new Set();
  #isWatching = false;

  /** As of the last answer. @type {Offsets} */
  offsets = { lowestOffset: 0n, nextOffset: 0n, durableOffset: 0n };
  /**
   * Whether appends may have to be sent again: once another tab was the leader, or this one's worker ended. Before that
   * records need not say whose they are, and are as every other program writes them.
   */
  isShared = false;

  /**
   * @param {Opening} opening
   * @param {() => Worker} makeWorker
   * @throws {ProglogError}
   */
  static async open(opening, makeWorker) {
    if (typeof Worker === "undefined") {
      throw new ProglogError("Unsupported", "this is no browser, or a worker in one that has none of its own; in Node.js use proglog/node");
    }
    if (!navigator.locks || typeof BroadcastChannel === "undefined") {
      throw new ProglogError("Unsupported", "this browser has no Web Locks for this page: that takes https, or localhost");
    }
    const tab = new Tab(opening, makeWorker);
    const opened = new Promise((/** @type {(value: void) => void} */ resolve, reject) => {
      tab.#opened = (error) => (error ? reject(error) : resolve());
    });
    tab.#watchLifecycle();
    try {
      tab.#wait();
      await Promise.all([opened, tab.#connect()]);
      return tab;
    } catch (error) {
      tab.end();
      throw error;
    } finally {
      tab.#opened = () => {};
    }
  }

  /**
   * Use {@link Tab.open}.
   *
   * @param {Opening} opening
   * @param {() => Worker} makeWorker
   */
  constructor(opening, makeWorker) {
    this.#opening = opening;
    this.#makeWorker = makeWorker;
  }

  /** @returns {Role} */
  get role() {
    return this.#isOwn ? "leader" : "follower";
  }

  get name() {
    return this.#opening.name;
  }

  /** Until the page is frozen, or the log closed. What this tab alone does for all is up to another then. */
  get connection() {
    return this.#connection.signal;
  }

  /**
   * @param {string} call
   * @param {any[]} args
   * @param {boolean} [isAgain] whether it may be done twice
   * @returns {Promise<any>}
   */
  call(call, args, isAgain = !ONCE.includes(call)) {
    if (this.#ended) return Promise.reject(this.#ended);
    const id = this.#calls++;
    return new Promise((resolve, reject) => {
      /** @type {Waiting} */
      const waiting = { call, args, isAgain, sentTo: undefined, given: [], sinceMs: performance.now(), resolve, reject };
      this.#waiting.set(id, waiting);
      this.#wait();
      if (this.#leader) this.#send(id, waiting);
    });
  }

  /**
   * Waits until the log's offsets are others than these, or the signal.
   *
   * @param {Offsets} offsets
   * @param {AbortSignal} [signal]
   * @throws {ProglogError} "Unavailable" if there is no sign of the leader
   */
  async changed(offsets, signal) {
    if (this.#ended) throw this.#ended;
    if (this.offsets !== offsets || signal?.aborted) return;
    if (!this.#isWatching) {
      this.#isWatching = true;
      // The answer has the offsets that there are by then.
      this.#hello();
    }
    this.#wait();
    await new Promise((/** @type {(value: void) => void} */ resolve, reject) => {
      /** @param {Error} [error] */
      const wake = (error) => {
        this.#watchers.delete(wake);
        signal?.removeEventListener("abort", abort);
        if (error) reject(error);
        else resolve();
      };
      const abort = () => wake();
      this.#watchers.add(wake);
      signal?.addEventListener("abort", abort);
    });
  }

  /**
   * Does what one tab at a time does.
   *
   * @param {string} lock
   * @param {AbortSignal} signal
   * @param {() => Promise<void>} run
   */
  async alone(lock, signal, run) {
    await navigator.locks.request(lock, { signal }, run);
  }

  /** Leaves the log. @param {ProglogError} [reason] what calls get from now on */
  end(reason = new ProglogError("Closed", "the log is closed; open it again")) {
    if (this.#ended) return;
    this.#ended = reason;
    this.#lifecycle.abort();
    this.#disconnect();
    this.#opened(reason);
    this.#waiting.forEach(({ reject }) => reject(reason));
    this.#waiting.clear();
    this.#watchers.forEach((wake) => wake(reason));
  }

  /**
   * A page that is frozen, or kept to come back to, would keep the files and the lock from the others. (A worker that
   * opened a log is not told.)
   */
  #watchLifecycle() {
    if (typeof document === "undefined") return;
    const { signal } = this.#lifecycle;
    const isKept = (/** @type {Event} */ event) => /** @type {PageTransitionEvent} */ (event).persisted;
    const leave = () => this.#disconnect();
    const comeBack = () => {
      if (!this.#worker) void this.#connect().catch((error) => this.end(error));
    };
    document.addEventListener("freeze", leave, { signal });
    document.addEventListener("resume", comeBack, { signal });
    addEventListener("pagehide", (event) => isKept(event) && leave(), { signal });
    addEventListener("pageshow", (event) => isKept(event) && comeBack(), { signal });
  }

  async #connect() {
    const connection = new AbortController();
    this.#connection = connection;
    this.#startWorker(connection.signal);
    const { name } = this.#opening;
    const id = this.#id;
    // Before the leader hears of this tab: it takes the lock for the tab's life.
    const release = await hold(scope(name, "tab", id));
    if (connection.signal.aborted) return release();
    connection.signal.addEventListener("abort", release);
    this.#channel = new BroadcastChannel(scope(name, "tab", id));
    this.#channel.addEventListener("message", ({ data }) => this.#heard(data));
    this.#all = new BroadcastChannel(scope(name));
    this.#all.addEventListener("message", ({ data: { leader, isNew } }) => {
      if (!leader) return;
      this.#live();
      if (isNew && leader !== this.#leader) this.#hello();
    });
    this.#hello();
  }

  /** Gives up the worker, and with it the files if it has them. */
  #disconnect() {
    this.#connection.abort();
    this.#worker?.terminate();
    this.#worker = undefined;
    this.#channel?.close();
    this.#all?.close();
    this.#channel = this.#all = undefined;
    if (this.#isOwn) this.isShared = true;
    this.#isOwn = false;
    this.#leader = "";
    // What asks goes by another name when it comes back, for the leader may not have seen that it left.
    this.#id = newId();
  }

  /** @param {AbortSignal} signal */
  #startWorker(signal) {
    const nowMs = performance.now();
    this.#workersMadeMs = this.#workersMadeMs.filter((ms) => ms > nowMs - WORKERS_MAX_MS);
    this.#workersMadeMs.push(nowMs);
    if (this.#workersMadeMs.length > WORKERS_MAX) {
      return this.end(new ProglogError("Io", `the log's worker ended again and again; open "${this.#opening.name}" again`));
    }
    let worker;
    try {
      worker = this.#makeWorker();
    } catch (error) {
      return this.end(workerFailed(`${error}`));
    }
    this.#worker = worker;
    worker.addEventListener("message", ({ data }) => {
      if (worker === this.#worker) this.#told(data, signal);
    });
    worker.addEventListener("error", ({ message }) => {
      if (worker === this.#worker) this.end(workerFailed(message));
    });
    const { name, options, wasmUrl, tar } = this.#opening;
    worker.postMessage({ call: "open", args: [{ name, options, wasmUrl, tar }] });
  }

  /**
   * This tab's worker says something.
   *
   * @param {any} said
   * @param {AbortSignal} signal
   */
  #told(said, signal) {
    if (said.started) {
      // Given once the worker has ended, which no event tells of.
      const ended = navigator.locks.request(scope(this.#opening.name, "worker", said.started), { signal }, () => {
        if (!signal.aborted) this.#workerEnded(signal);
      });
      ended.catch(() => {});
    } else if (said.failed) {
      this.end(receiveError(said.failed));
    } else if (said.isOpening) {
      this.#isOwn = true;
      this.#leader = "";
      this.#live();
    } else if (said.leads) {
      this.#note(said.offsets);
      this.#follow(said.leads);
    } else {
      this.#note(said.offsets);
      this.#answered(said);
    }
  }

  /** @param {AbortSignal} signal */
  #workerEnded(signal) {
    this.#worker?.terminate();
    if (this.#isOwn) {
      this.#leader = "";
      this.#isOwn = false;
    }
    this.isShared = true;
    this.#startWorker(signal);
    this.#hello();
  }

  /**
   * The leader says something, perhaps one that was.
   *
   * @param {any} said
   */
  #heard(said) {
    this.#live();
    if (this.#isOwn) return;
    this.#note(said.offsets);
    if (said.welcome) {
      this.isShared = true;
      this.#follow(said.leader);
    }
    if (said.id !== undefined) this.#answered(said);
  }

  /**
   * @typedef {object} Answer
   * @property {number} id
   * @property {any} [result]
   * @property {import("./error.js").SentError} [error]
   * @property {boolean} [isNotDone]
   * @property {Uint8Array<ArrayBuffer>[]} [given] the bytes that the worker was given, back
   *
   * @param {Answer} answer
   */
  #answered({ id, result, error, isNotDone, given = [] }) {
    const waiting = this.#waiting.get(id);
    if (!waiting) return;
    given.forEach((entries, n) => {
      const append = waiting.given[n];
      if (append) append.entries = entries;
    });
    if (isNotDone) {
      // It is closing the log: the next one does it.
      waiting.sentTo = undefined;
      this.#leader = "";
      return;
    }
    this.#waiting.delete(id);
    if (error) waiting.reject(receiveError(error));
    else waiting.resolve(result);
  }

  /**
   * From now on the calls go to this leader, and first those that another left without an answer.
   *
   * @param {string} leader
   */
  #follow(leader) {
    if (leader === this.#leader) return;
    this.#leader = leader;
    if (this.#opening.tar && !this.#isOwn) {
      const { name } = this.#opening;
      return this.end(new ProglogError("InvalidArgument", `there is a log "${name}" already; import under another name`));
    }
    // What was imported once is there.
    this.#opening.tar = undefined;
    for (const [id, waiting] of this.#waiting) {
      const isNew = waiting.sentTo === undefined;
      if (!isNew && waiting.call === "append") waiting.args[0].forEach((/** @type {any} */ call) => (call.isAgain = true));
      if (isNew || waiting.isAgain) this.#send(id, waiting);
      else this.#giveUp(id, waiting, "the tab that had the log ended meanwhile, perhaps after it was done");
    }
    this.#opened();
  }

  /**
   * @param {number} id
   * @param {Waiting} waiting
   */
  #send(id, waiting) {
    const { call, args } = waiting;
    waiting.sentTo = this.#leader;
    try {
      if (this.#isOwn) {
        waiting.given = waiting.isAgain ? [] : givenBy(waiting);
        const given = waiting.given.map(({ entries }) => entries);
        this.#worker?.postMessage({ id, call, args, given }, buffersOf(given));
      } else this.#channel?.postMessage({ to: this.#leader, id, call, args });
    } catch (error) {
      this.#waiting.delete(id);
      waiting.reject(/** @type {Error} */ (error));
    }
  }

  /**
   * @param {number} id
   * @param {Waiting} waiting
   * @param {string} reason
   */
  #giveUp(id, { call, sentTo, reject }, reason) {
    this.#waiting.delete(id);
    const isUnknown = sentTo !== undefined;
    const advice = isUnknown ? `whether "${call}" was done is not known: look before doing it again` : "nothing was done";
    reject(new ProglogError("Unavailable", `${reason}; ${advice}`));
  }

  /** @param {Offsets | undefined} offsets */
  #note(offsets) {
    if (!offsets) return;
    const { lowestOffset, nextOffset, durableOffset } = this.offsets;
    const isSame =
      offsets.nextOffset === nextOffset && offsets.durableOffset === durableOffset && offsets.lowestOffset === lowestOffset;
    if (isSame) return;
    this.offsets = offsets;
    this.#watchers.forEach((wake) => wake());
  }

  #live() {
    this.#heardMs = performance.now();
    this.#asked = 0;
  }

  /** Says that this tab is there, which the leader answers. */
  #hello() {
    if (!this.#isOwn) this.#all?.postMessage({ hello: this.#id, isWatching: this.#isWatching });
  }

  /** Sees to it that no call waits for ever. */
  #wait() {
    if (this.#timer !== undefined) return;
    this.#live();
    this.#timer = setInterval(() => {
      const isOpening = !this.#leader;
      if (this.#ended || (this.#waiting.size === 0 && this.#watchers.size === 0 && !isOpening)) {
        clearInterval(this.#timer);
        this.#timer = undefined;
        return;
      }
      // Its own worker's end is told by the worker's lock.
      if (this.#isOwn || !this.#worker) return this.#live();
      const nowMs = performance.now();
      if (nowMs - this.#heardMs < ASKED_AGAIN_MS) return;
      this.#asked += 1;
      this.#hello();
      if (this.#asked < ASKED_MIN || nowMs - this.#heardMs < UNAVAILABLE_MS) return;
      const seconds = UNAVAILABLE_MS / 1000;
      const reason = `the tab that has the log "${this.#opening.name}" has not answered for ${seconds} s: it is suspended or busy`;
      const error = new ProglogError("Unavailable", `${reason}; close it, or try again later`);
      this.#opened(error);
      this.#watchers.forEach((wake) => wake(error));
      for (const [id, waiting] of this.#waiting) {
        if (nowMs - waiting.sinceMs >= UNAVAILABLE_MS) this.#giveUp(id, waiting, reason);
      }
    }, ASKED_AGAIN_MS);
  }
}

/**
 * The appends of a call whose bytes the worker is given.
 *
 * @param {Waiting} waiting
 * @returns {AppendCall[]}
 */
function givenBy({ call, args }) {
  if (call !== "append") return [];
  /** @type {AppendCall[]} */
  const appends = args[0];
  return appends.filter(({ entries }) => entries.length >= GIVEN_BYTES_MIN);
}

/**
 * Has a worker do one thing that no open log is needed for.
 *
 * @param {() => Worker} makeWorker
 * @param {string} call
 * @param {any[]} args
 */
export async function once(makeWorker, call, args) {
  const worker = makeWorker();
  try {
    return await new Promise((resolve, reject) => {
      worker.addEventListener("message", ({ data }) => {
        if (data.error) reject(receiveError(data.error));
        else resolve(data.result);
      });
      worker.addEventListener("error", ({ message }) => reject(workerFailed(message)));
      worker.postMessage({ id: 0, call, args });
    });
  } finally {
    worker.terminate();
  }
}

/** @param {string | undefined} message */
function workerFailed(message) {
  const reason = message || "its script could not be loaded; use proglog/inline, or the option workerUrl";
  return new ProglogError("Io", `the log's worker failed: ${reason}`);
}
