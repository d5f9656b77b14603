// The leader's side of a log that any number of tabs and workers use at once: it has the files, and does what the others
// ask, one call after the other. Appends that wait at the same time share a write and a flush, whosever they are.

import { sendError } from "./error.js";
import { buffersOf, scope } from "./scope.js";

/** @typedef {import("./error.js").SentError} SentError */
/** @typedef {import("./base.js").Offsets} Offsets */

/**
 * Who asks: the page of this worker, or another tab over its channel.
 *
 * @typedef {(answer: object, transferred?: Transferable[]) => void} Post
 */

/**
 * @typedef {object} Asked
 * @property {Post} post
 * @property {number} id
 * @property {string} call
 * @property {any[]} args
 * @property {Uint8Array<ArrayBuffer>[]} [given] bytes of them that were not copied: who asks gets them back
 */

/**
 * What the leader needs of a log; see worker.js.
 *
 * @typedef {object} Led
 * @property {Offsets} offsets
 * @property {(calls: any[]) => Promise<{ offset?: bigint, error?: SentError }[]>} append
 * @property {() => Promise<void>} reopen
 * @property {() => Promise<void>} close
 */

/** After these a log takes no more appends until it is opened again. */
const NOT_WRITTEN = ["Poisoned", "StorageFull", "Io"];
/** So many appends share a write and a flush. */
const SHARED_APPENDS_MAX = 4096;

/** From when the lock was given to this worker until it gives it back. */
export class Leader {
  #id;
  #name;
  #postToPage;
  #channel;
  /** @type {Led | undefined} */
  #log;
  /** @type {Map<string, { channel: BroadcastChannel, post: Post, isWatching: boolean }>} */
  #tabs = new Map();
  /** @type {Asked[]} */
  #asked = [];
  #isAnswering = false;
  #isClosed = false;
  #isToReopen = false;
  #wasNotWritten = false;
  /** @type {() => void} */
  #release = () => {};
  /** @type {(error: unknown) => void} */
  #fail = () => {};
  /** Settled when the files are closed, or cannot be used any more. */
  closed = new Promise((/** @type {(value: void) => void} */ resolve, reject) => {
    this.#release = resolve;
    this.#fail = reject;
  });

  /**
   * @param {string} id
   * @param {string} name
   * @param {Post} postToPage
   */
  constructor(id, name, postToPage) {
    this.#id = id;
    this.#name = name;
    this.#postToPage = postToPage;
    this.#channel = new BroadcastChannel(scope(name));
    this.#channel.addEventListener("message", ({ data }) => {
      if (data.hello) this.#welcome(data.hello, data.isWatching);
    });
    // Someone is there, though it may take a while until the log is open.
    this.#channel.postMessage({ leader: id });
  }

  /**
   * Begins to do what was asked.
   *
   * @param {Led} log
   */
  start(log) {
    this.#log = log;
    this.#postToPage({ leads: this.#id, offsets: log.offsets });
    this.#tabs.forEach(({ post }) => post({ welcome: true }));
    this.#channel.postMessage({ leader: this.#id, isNew: true });
    void this.#answerAll();
  }

  /** Ends it where the log cannot be opened. */
  end() {
    this.#isClosed = true;
    this.#channel.close();
    this.#tabs.forEach(({ channel }) => channel.close());
    this.#tabs.clear();
    this.#release();
  }

  /**
   * @param {Omit<Asked, "post">} call
   * @param {Post} [post] to who asks
   */
  ask(call, post = this.#postToPage) {
    const asked = { ...call, post };
    if (this.#isClosed) return notDone(asked);
    this.#asked.push(asked);
    if (this.#log) void this.#answerAll();
  }

  /**
   * A tab says that it is there, or asks whether the leader is.
   *
   * @param {string} id
   * @param {boolean} isWatching
   */
  #welcome(id, isWatching) {
    if (this.#isClosed) return;
    let tab = this.#tabs.get(id);
    if (!tab) {
      // Who opens a log takes it that it can be appended to.
      this.#isToReopen ||= this.#wasNotWritten;
      const channel = new BroadcastChannel(scope(this.#name, "tab", id));
      const post = (/** @type {object} */ answer) => {
        channel.postMessage({ leader: this.#id, offsets: this.#log?.offsets, ...answer });
      };
      channel.addEventListener("message", ({ data }) => {
        if (data.to === this.#id) this.ask(data, post);
      });
      tab = { channel, post, isWatching };
      this.#tabs.set(id, tab);
      // It is the tab's for as long as that is there.
      void navigator.locks.request(scope(this.#name, "tab", id), () => {
        channel.close();
        this.#tabs.delete(id);
      });
    }
    tab.isWatching = isWatching;
    tab.post({ welcome: this.#log !== undefined });
  }

  async #answerAll() {
    if (this.#isAnswering) return;
    this.#isAnswering = true;
    while (this.#asked.length > 0) {
      // What others sent meanwhile is taken in, so that it shares the flush.
      if (this.#tabs.size > 0) await turn();
      const log = /** @type {Led} */ (this.#log);
      if (this.#isToReopen) {
        this.#isToReopen = this.#wasNotWritten = false;
        try {
          await log.reopen();
        } catch (error) {
          return this.#fail(error);
        }
      }
      const { lowestOffset, nextOffset } = log.offsets;
      const answered = this.#asked[0]?.call === "append" ? await this.#append(log) : await this.#answer(log);
      if (this.#isClosed) continue;
      const after = log.offsets;
      if (after.nextOffset !== nextOffset || after.lowestOffset !== lowestOffset) this.#tell(answered);
    }
    this.#isAnswering = false;
  }

  /**
   * Does the appends that come next in one go.
   *
   * @param {Led} log
   */
  async #append(log) {
    let end = 0;
    for (let appends = 0; this.#asked[end]?.call === "append" && appends < SHARED_APPENDS_MAX; end++) {
      appends += this.#asked[end]?.args[0].length;
    }
    const asked = this.#asked.splice(0, end);
    try {
      const results = await log.append(asked.flatMap(({ args }) => args[0]));
      let at = 0;
      for (const { post, id, args, given } of asked) {
        const result = results.slice(at, (at += args[0].length));
        result.forEach(({ error }) => this.#note(error));
        post({ id, result, offsets: log.offsets, given }, buffersOf(given));
      }
    } catch (error) {
      const sent = sendError(error);
      this.#note(sent);
      asked.forEach(({ post, id }) => post({ id, error: sent, offsets: log.offsets }));
    }
    return asked.map(({ post }) => post);
  }

  /** @param {Led} log */
  async #answer(log) {
    const { post, id, call, args } = /** @type {Asked} */ (this.#asked.shift());
    const isClose = call === "close";
    if (isClose && post === this.#postToPage) {
      await this.#close(log, post, id);
      return [];
    }
    try {
      // Who closes it has all on stable storage; the files stay open for the others.
      const result = await /** @type {any} */ (log)[isClose ? "sync" : call](...args);
      const transferred = result instanceof Uint8Array ? [result.buffer] : [];
      post({ id, result, offsets: log.offsets }, transferred);
    } catch (error) {
      const sent = sendError(error);
      this.#note(sent);
      post({ id, error: sent, offsets: log.offsets });
    }
    return [post];
  }

  /** @param {SentError | undefined} error */
  #note(error) {
    if (error && NOT_WRITTEN.includes(error.kind)) this.#wasNotWritten = true;
  }

  /**
   * Closes the log, and lets the next one have it.
   *
   * @param {Led} log
   * @param {Post} post
   * @param {number} id
   */
  async #close(log, post, id) {
    this.#isClosed = true;
    const { offsets } = log;
    this.#asked.splice(0).forEach(notDone);
    try {
      await log.close();
      post({ id, offsets });
    } catch (error) {
      post({ id, error: sendError(error), offsets });
    }
    this.#release();
  }

  /**
   * Tells those who watch that there is more, or less, but for those who were told by their answer.
   *
   * @param {Post[]} answered
   */
  #tell(answered) {
    const offsets = this.#log?.offsets;
    if (!answered.includes(this.#postToPage)) this.#postToPage({ offsets });
    for (const { post, isWatching } of this.#tabs.values()) {
      if (isWatching && !answered.includes(post)) post({});
    }
  }
}

/**
 * Tells that this leader does not do it: another does.
 *
 * @param {Asked} asked
 */
function notDone({ post, id, given }) {
  post({ id, isNotDone: true, given }, buffersOf(given));
}

const { port1, port2 } = new MessageChannel();
/** @type {(() => void)[]} */
const turns = [];
port1.addEventListener("message", () => turns.shift()?.());
port1.start();

/** Lets what was sent here meanwhile be received. */
function turn() {
  return new Promise((/** @type {(value: void) => void} */ resolve) => {
    turns.push(resolve);
    port2.postMessage(undefined);
  });
}
