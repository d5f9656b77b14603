// A log's files in the origin private file system: what opens, makes and deletes them, which browsers do only between
// the log's calls. What the files are called and hold is the module's business.

import { ProglogError } from "./error.js";

/** @typedef {import("./module.js").Directory} Directory */

/** Where all logs are, each in a directory of its own. */
const ROOT = "proglog";
const COPIES = ["manifest-0", "manifest-1", "manifest-2"];

/** So many files are ready to be given a name; an append takes two of them at the most. */
const SPARES = 4;
const SPARES_OF_AN_APPEND = 2;
/** What a truncation or the opening takes at the most, mostly. */
const SPARES_OF_A_CHANGE = 4;
/**
 * How long files that another has are waited for: those of a page that was left, or of a worker that was ended, are
 * free a moment later.
 */
const LOCKED_MS_MAX = 1000;
const LOCKED_AGAIN_MS = 20;
/** So many files stay open. (Safari allows 252 in all.) */
const OPEN_MAX = 64;

/** The files of a log, which no one else has. */
export class Files {
  #handle;
  #directory;
  /** @type {Promise<void> | undefined} */
  #filling;
  /** @type {unknown} */
  #failure;

  /**
   * Opens the files of the log of this name, made if there are none.
   *
   * @param {Promise<typeof import("./module.js").Directory>} DirectoryClass the module's, which takes a while too
   * @param {string} name
   * @throws {ProglogError} "Locked" if another tab or worker has them
   */
  static async open(DirectoryClass, name) {
    // It is awaited below.
    DirectoryClass.catch(() => {});
    const root = await rootDirectory(true);
    const handle = await root.getDirectoryHandle(directoryName(name), { create: true });
    const copies = await openCopies(handle, name);
    try {
      /** @type {number[]} */
      const numbers = [];
      for await (const file of handle.keys()) {
        if (/^\d+$/.test(file)) numbers.push(Number(file));
      }
      const directory = new (await DirectoryClass)(name, copies, Uint32Array.from(numbers));
      const files = new Files(handle, directory);
      // Spares too, which few logs need to be opened.
      files.#tidy();
      if (directory.names().length > 0) return files;
      // Where there is no room for more files, what there is can be read.
      await files.ready(SPARES_OF_A_CHANGE).catch(() => {});
      return files;
    } catch (error) {
      copies.forEach((copy) => copy.close());
      throw error;
    }
  }

  /**
   * Use {@link Files.open}.
   *
   * @param {FileSystemDirectoryHandle} handle
   * @param {Directory} directory
   */
  constructor(handle, directory) {
    this.#handle = handle;
    this.#directory = directory;
  }

  get directory() {
    return this.#directory;
  }

  /** Where the browser has them. */
  get handle() {
    return this.#handle;
  }

  /**
   * Calls `call`, again for as long as files have to be opened for it; what it gave then is given to `undo`.
   *
   * @template T
   * @param {() => T} call
   * @param {(result: T) => void} [undo]
   */
  async again(call, undo) {
    for (;;) {
      let result;
      let failure;
      try {
        result = { value: call() };
      } catch (error) {
        failure = error;
      }
      const wanted = this.#directory.takeWanted();
      const lackedSpare = this.#directory.takeLackedSpare();
      if (wanted.length === 0 && !lackedSpare) {
        this.#tidy();
        if (!result) throw failure;
        return result.value;
      }
      if (result) undo?.(result.value);
      await this.#open(wanted);
      if (lackedSpare) await this.ready(SPARES_OF_A_CHANGE);
    }
  }

  /**
   * Calls what changes more than the end of the log: all files are open for it, and others ready.
   *
   * @template T
   * @param {() => T} call
   */
  async change(call) {
    await this.openAll();
    // Most changes take none, and some make room.
    await this.ready(SPARES_OF_A_CHANGE).catch(() => {});
    return this.again(call);
  }

  async openAll() {
    await this.#open(this.#directory.closedFiles());
  }

  /** Whether an append finds all that it may need. */
  get isReady() {
    return this.#directory.spares >= SPARES_OF_AN_APPEND;
  }

  /**
   * Waits until so many files can be made.
   *
   * @param {number} spares
   */
  async ready(spares = SPARES_OF_AN_APPEND) {
    while (this.#directory.spares < spares) {
      await this.#fill(spares);
      if (this.#failure) {
        const failure = this.#failure;
        this.#failure = undefined;
        throw failure;
      }
    }
  }

  /** How much more may be written, in words. */
  async room() {
    const { quota = 0, usage = 0 } = await navigator.storage.estimate();
    return `the browser tells of ${Math.max(quota - usage, 0)} bytes free of the ${quota} that this site may keep, which it may round`;
  }

  /** Closes all files. */
  async close() {
    await this.#filling;
    this.#directory.close();
    this.#directory.free();
  }

  /** After a call: what it left is deleted, what it took is made anew, and what is not read is closed. */
  #tidy() {
    for (const number of this.#directory.takeUnneeded()) {
      // One that stays is deleted the next time that the log is opened.
      this.#handle.removeEntry(`${number}`).catch(() => {});
    }
    this.#directory.closeLeastUsed(OPEN_MAX);
    if (this.#directory.spares < SPARES) void this.#fill(SPARES);
  }

  /**
   * Makes files until there are so many that can be given a name. What is in the way is told to who waits for them.
   *
   * @param {number} spares
   */
  #fill(spares) {
    this.#filling ??= (async () => {
      this.#failure = undefined;
      try {
        while (this.#directory.spares < spares) {
          const number = this.#directory.nextNumber();
          const file = await this.#handle.getFileHandle(`${number}`, { create: true });
          this.#directory.addSpare(number, await file.createSyncAccessHandle());
        }
      } catch (error) {
        this.#failure = typed(error);
      } finally {
        this.#filling = undefined;
      }
    })();
    return this.#filling;
  }

  /** @param {Uint32Array} numbers */
  async #open(numbers) {
    const opened = [...numbers].map(async (number) => {
      const file = await this.#handle.getFileHandle(`${number}`);
      this.#directory.addOpen(number, await file.createSyncAccessHandle());
    });
    // All are waited for, so that none is left open unseen.
    for (const one of await Promise.allSettled(opened)) {
      if (one.status === "rejected") throw typed(one.reason);
    }
  }
}

/**
 * Deletes the log of a name; one that is not there is no error.
 *
 * @param {string} name
 * @throws {ProglogError} "Locked" if it is open
 */
export async function deleteFiles(name) {
  try {
    const root = await rootDirectory(false);
    const handle = await root.getDirectoryHandle(directoryName(name));
    // No one has it open then; the browser deletes others' files that are just closed.
    const copies = await openCopies(handle, name);
    copies.forEach((copy) => copy.close());
    await root.removeEntry(directoryName(name), { recursive: true });
  } catch (error) {
    if (!(error instanceof DOMException && error.name === "NotFoundError")) throw typed(error);
  }
}

/**
 * @param {FileSystemDirectoryHandle} handle
 * @param {string} name
 */
async function openCopies(handle, name) {
  const until = performance.now() + LOCKED_MS_MAX;
  for (;;) {
    const opened = COPIES.map(async (copy) => {
      const file = await handle.getFileHandle(copy, { create: true });
      return file.createSyncAccessHandle();
    });
    const settled = await Promise.allSettled(opened);
    const copies = settled.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
    const error = settled.find((one) => one.status === "rejected")?.reason;
    if (error === undefined) return copies;
    copies.forEach((copy) => copy.close());
    const isLocked = error instanceof DOMException && error.name === "NoModificationAllowedError";
    if (!isLocked) throw typed(error);
    if (performance.now() > until) {
      const message = `the log "${name}" is open in another tab or worker; close it there, or use it from there`;
      throw new ProglogError("Locked", message);
    }
    await new Promise((resolve) => setTimeout(resolve, LOCKED_AGAIN_MS));
  }
}

/** @param {boolean} create */
async function rootDirectory(create) {
  if (!navigator.storage?.getDirectory) {
    throw new ProglogError(
      "Unsupported",
      "this browser keeps no files for this page: that takes https (or localhost), and no private window in some",
    );
  }
  const root = await navigator.storage.getDirectory();
  return root.getDirectoryHandle(ROOT, { create });
}

/**
 * A name that any file system takes.
 *
 * @param {string} name
 */
function directoryName(name) {
  return `log-${encodeURIComponent(name)}`;
}

/** @param {unknown} error */
function typed(error) {
  if (!(error instanceof DOMException)) return error;
  const isFull = error.name === "QuotaExceededError";
  return new ProglogError(isFull ? "StorageFull" : "Io", `${error.name}: ${error.message}`);
}
