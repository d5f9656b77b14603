// The module, as text within this file, compressed: build.js puts this in the place of wasm.js.

import gzipped from "proglog:wasm";

/** The module, as if it were fetched. */
export function wasm() {
  const bytes = Uint8Array.from(atob(gzipped), (character) => character.charCodeAt(0));
  const module = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(module, { headers: { "content-type": "application/wasm" } });
}
