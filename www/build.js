// Builds what the package ships beside its JavaScript: the module for browsers and the code that loads it, in dist/.

import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

/**
 * What the module may have, gzipped: a little more than it has. Who raises it says why in the commit.
 */
const GZIPPED_BYTES_MAX = 175_000;

const here = dirname(fileURLToPath(import.meta.url));
const dist = join(here, "dist");
const cargo = ["run", "--quiet", "--package", "proglog-host", "--example", "browser_package", "--", dist];
execFileSync("cargo", cargo, { cwd: dirname(here), stdio: "inherit" });
writeFileSync(
  join(dist, "proglog.d.ts"),
  `export { Directory, Log } from "../src/module.js";
export default function init(options: { module_or_path: URL | string | Promise<Response> }): Promise<unknown>;
`,
);

const module = readFileSync(join(dist, "proglog_bg.wasm"));
const gzipped = gzipSync(module, { level: 9 }).length;
console.log(`dist/proglog_bg.wasm: ${module.length} bytes, ${gzipped} gzipped, of ${GZIPPED_BYTES_MAX} at the most`);
if (gzipped > GZIPPED_BYTES_MAX) {
  console.error("The module is too large. If that is as it should be, raise GZIPPED_BYTES_MAX in build.js.");
  process.exitCode = 1;
}
