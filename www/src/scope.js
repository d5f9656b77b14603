// What the locks and channels of a log are called by, which its tabs and workers find each other.

/**
 * A log may have any name, and none may be that of another's lock.
 *
 * @param {string} name of the log
 * @param {"tab" | "worker" | "ship"} [what]
 * @param {string} [id]
 */
export function scope(name, what, id) {
  const parts = ["proglog", encodeURIComponent(name)];
  if (what !== undefined && id !== undefined) parts.push(what, id);
  return parts.join(":");
}

/** An id that no other tab or worker has. */
export function newId() {
  return crypto.randomUUID();
}

/**
 * Holds a lock until the function that this gives is called, or whoever called this has ended.
 *
 * @param {string} lock that no one else holds
 * @returns {Promise<() => void>} once it is held
 */
export function hold(lock) {
  return new Promise((resolve, reject) => {
    const held = navigator.locks.request(lock, () => {
      return new Promise((/** @type {(value: void) => void} */ release) => resolve(release));
    });
    held.catch(reject);
  });
}

/**
 * What has to be transferred, so that these bytes are given and not copied.
 *
 * @param {Uint8Array<ArrayBuffer>[]} [given]
 */
export function buffersOf(given = []) {
  return given.map(({ buffer }) => buffer);
}
