// The module, as a file of its own. Bundlers know it by this very expression; see also wasm.inline.js.

/** Where it is. */
export function wasm() {
  return new URL("../dist/proglog_bg.wasm", import.meta.url);
}
