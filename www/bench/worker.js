// Engines in a worker: what a page asks of them one by one, and what is measured here, without the way to the page.

import { ENGINES } from "./engines.js";
import { fill, measure } from "./measure.js";

/** @typedef {import("./engines.js").Engine} Engine */

/** @type {Engine | undefined} */
let open;

/** @type {Record<string, (...args: any[]) => unknown>} */
const CALLS = {
  open: async (engine, name) => {
    open = await ENGINES[engine]?.open(name);
  },
  append: (value) => open?.append(value),
  appendBatch: (values) => open?.appendBatch(values),
  last: () => open?.last(),
  close: () => open?.close(),
  measure: (work) => open && measure(open, work),
  fill: (records, bytes, batch) => open && fill(open, records, bytes, batch),
  delete: (engine, name) => ENGINES[engine]?.delete(name),
};

self.addEventListener("message", async ({ data: { id, call, args } }) => {
  try {
    const result = await CALLS[call]?.(...args);
    // Nothing more than who measures needs: what an append gives is no one's business.
    self.postMessage({ id, result: call.startsWith("append") ? undefined : result });
  } catch (error) {
    self.postMessage({ id, error: `${error}` });
  }
});
