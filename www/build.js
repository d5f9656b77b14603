// Builds what the package ships beside its JavaScript, in dist/: the modules and the code that loads the browser's, the
// entry `proglog/inline`, which has all of it within, and the types.

import { execFileSync } from "node:child_process";
import { readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

/** What the browser's module had, gzipped, when this was last changed. */
const GZIPPED_BYTES = 115_400;
/** How much more it may have. Who raises either number says why in the commit. */
const GROWTH_BYTES_MAX = 1000;

/** What the compiler uses, and all browsers have that have the files that a log takes. */
const FEATURES = [
  "bulk-memory",
  "multivalue",
  "mutable-globals",
  "nontrapping-float-to-int",
  "reference-types",
  "sign-ext",
  "simd",
];

const { build } = await import("esbuild").catch(() => {
  console.error("What this needs is not installed; run: npm ci");
  process.exit(1);
});

const here = dirname(fileURLToPath(import.meta.url));
const dist = join(here, "dist");
rmSync(dist, { recursive: true, force: true });
console.log("Compiling the modules, which the first time takes a minute or two");
const cargo = ["run", "--quiet", "--package", "proglog-modules", "--example", "npm", "--", dist];
execFileSync("cargo", cargo, { cwd: dirname(here), stdio: "inherit" });
writeFileSync(
  join(dist, "proglog.d.ts"),
  `export { Directory, Log } from "../src/module.js";
export default function init(options: { module_or_path: URL | string | Response }): Promise<unknown>;
`,
);
optimize("proglog_bg.wasm");
await bundleInline();
declareTypes();

const growth = sizeOf("proglog_bg.wasm") - GZIPPED_BYTES;
sizeOf("proglog_wasi.wasm");
sizeOf("inline.js");
console.log(`The browser's module has ${Math.abs(growth)} bytes ${growth < 0 ? "less" : "more"} than build.js knows, gzipped`);
if (growth > GROWTH_BYTES_MAX) {
  console.error("It is too large. If that is as it should be, raise GZIPPED_BYTES in build.js.");
  process.exitCode = 1;
}

/**
 * Has binaryen make a module smaller.
 *
 * @param {string} name of a file of dist/
 */
function optimize(name) {
  const wasmOpt = join(here, "node_modules/binaryen/bin/wasm-opt");
  const features = FEATURES.map((feature) => `--enable-${feature}`);
  const path = join(dist, name);
  execFileSync(process.execPath, [wasmOpt, "-Oz", "--converge", ...features, path, "-o", path], { stdio: "inherit" });
}

/** Puts the entry `.` into one file: with the worker as text, which has the module as text, compressed. */
async function bundleInline() {
  const wasm = gzipSync(readFileSync(join(dist, "proglog_bg.wasm")), { level: 9 }).toString("base64");
  const worker = await bundle("src/worker.js", { "proglog:wasm": wasm });
  writeFileSync(join(dist, "inline.js"), await bundle("src/index.js", { "proglog:worker": worker }));
}

/**
 * Bundles a file, with those called `*.inline.js` in the place of the others.
 *
 * @param {string} entry
 * @param {Record<string, string>} texts what they import
 * @returns {Promise<string>}
 */
async function bundle(entry, texts) {
  const { outputFiles } = await build({
    entryPoints: [join(here, entry)],
    bundle: true,
    write: false,
    minify: true,
    format: "esm",
    target: "es2022",
    legalComments: "none",
    plugins: [
      {
        name: "inline",
        setup({ onResolve, onLoad }) {
          onResolve({ filter: /^\.\/(spawn|wasm)\.js$/ }, ({ path, resolveDir }) => ({
            path: join(resolveDir, path.replace(".js", ".inline.js")),
          }));
          onResolve({ filter: /^proglog:/ }, ({ path }) => ({ path, namespace: "text" }));
          onLoad({ filter: /./, namespace: "text" }, ({ path }) => ({ contents: texts[path] ?? "", loader: "text" }));
        },
      },
    ],
  });
  const [output] = outputFiles;
  if (!output) throw new Error(`${entry} gives no bundle`);
  return output.text;
}

/** Writes the types of the entries, and of what those are made of. */
function declareTypes() {
  const compiler = join(here, "node_modules/typescript/bin/tsc");
  execFileSync(process.execPath, [compiler, "--project", join(here, "tsconfig.types.json")], { stdio: "inherit" });
  const types = join(dist, "types");
  const needed = new Set(["index", "node", "worker"].map((entry) => join(types, `src/${entry}.d.ts`)));
  for (const file of needed) {
    const imports = readFileSync(file, "utf8").matchAll(/["'](\.[^"']*)\.js["']/g);
    for (const [, path = ""] of imports) needed.add(join(dirname(file), `${path}.d.ts`));
  }
  for (const entry of readdirSync(types, { recursive: true, withFileTypes: true })) {
    const file = join(entry.parentPath, entry.name);
    if (entry.isFile() && !needed.has(file)) rmSync(file);
  }
}

/**
 * Tells how large a file of dist/ is.
 *
 * @param {string} name
 * @returns {number} its bytes, gzipped
 */
function sizeOf(name) {
  const bytes = readFileSync(join(dist, name));
  const gzipped = gzipSync(bytes, { level: 9 }).length;
  console.log(`dist/${name}: ${bytes.length} bytes, ${gzipped} gzipped`);
  return gzipped;
}
