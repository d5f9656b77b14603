// The worker, as text within this file: build.js puts this in the place of spawn.js.

import text from "proglog:worker";

/** @param {string} [url] where it is, if it is not to be this one */
export function spawn(url) {
  if (url !== undefined) return new Worker(url, { type: "module", name: "proglog" });
  const own = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  try {
    return new Worker(own, { type: "module", name: "proglog" });
  } finally {
    // The worker has it by now.
    URL.revokeObjectURL(own);
  }
}
