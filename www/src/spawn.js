// The worker, as a file of its own. Bundlers know it by this very expression, and make it one of theirs; see also
// spawn.inline.js.

/** @param {string} [url] where it is, if it is not beside this file */
export function spawn(url) {
  if (url !== undefined) return new Worker(url, { type: "module", name: "proglog" });
  return new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "proglog" });
}
