// The worker, as text within this file: build.js puts this in the place of spawn.js.

import text from "proglog:worker";

/** Where the browser has it; not given back, for another worker may be made at any time. @type {string | undefined} */
let own;

/** @param {string} [url] where it is, if it is not to be this one */
export function spawn(url) {
  if (url === undefined) own ??= URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  return new Worker(url ?? /** @type {string} */ (own), { type: "module", name: "proglog" });
}
