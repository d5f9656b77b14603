// The package as it is published, in the hands of those who install it: with Vite, esbuild, no bundler at all, and Node.js.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

import { build } from "esbuild";

import { PROGRAM, Scratch, Server } from "./program.js";
import { launch, originOf, serve } from "./site.js";

const WWW = join(dirname(fileURLToPath(import.meta.url)), "..");
const VITE = join(WWW, "node_modules/vite/bin/vite.js");
const TSC = join(WWW, "node_modules/typescript/bin/tsc");
const HTML = '<!doctype html><title>app</title><script type="module" src="main.js"></script>';

const README = readFileSync(join(WWW, "README.md"), "utf8");
/** What it shows: a start, URLs of one's own, what there is to do, and Node.js. */
const SHOWN = [...README.matchAll(/^```js\n(.*?)^```/gms)].map(([, block = ""]) => block);

const scratch = new Scratch();
/** Where the package is installed. */
const installed = join(scratch.path, "installed");
/** @type {import("playwright-core").Browser} */
let browser;
/** @type {{ filename: string, size: number, files: { path: string }[] }} */
let packed;

before(async () => {
  const output = run("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", scratch.path], WWW);
  [packed] = JSON.parse(output);
  mkdirSync(installed);
  writeFileSync(join(installed, "package.json"), '{ "private": true, "type": "module" }');
  const tarball = join(scratch.path, packed.filename);
  run("npm", ["install", "--offline", "--no-audit", "--no-fund", "--ignore-scripts", tarball], installed);
  browser = await launch();
});

after(async () => {
  await browser?.close();
  await scratch.remove();
});

test("it has what is needed and no more: no dependency, nothing that runs when it is installed", () => {
  const { scripts, dependencies, peerDependencies, optionalDependencies } = readPackage();
  assert.deepEqual([dependencies, peerDependencies, optionalDependencies], [undefined, undefined, undefined]);
  assert.deepEqual(Object.keys(scripts).filter((name) => /install|prepare/.test(name)), []);
  assert.deepEqual(readdirSync(join(installed, "node_modules")).filter((name) => !name.startsWith(".")), ["proglog"]);
  const paths = packed.files.map(({ path }) => path);
  for (const path of ["README.md", "LICENSE", "src/index.js", "dist/inline.js", "dist/proglog_bg.wasm"]) {
    assert.ok(paths.includes(path), path);
  }
  assert.deepEqual(paths.filter((path) => /test|build\.js|tsconfig|index\.html|inline\.js/.test(path)), ["dist/inline.js"]);
  assert.equal(readFileSync(join(WWW, "LICENSE"), "utf8"), readFileSync(join(WWW, "..", "LICENSE"), "utf8"));
  console.log(`${packed.filename}: ${packed.size} bytes, ${packed.files.length} files`);
});

test("in a fresh Vite app: the dev server, and what it builds", async () => {
  const app = newApp("vite", program("proglog"));
  const dev = await Vite.start(app, ["--host", "127.0.0.1", "--port", "0"]);
  try {
    // With its worker as text: until version 8 Vite's development server has lost a dependency's files.
    const asked = await appendsAndReads(dev.url);
    assert.deepEqual(asked.filter((url) => /worker|wasm/.test(url) && !url.startsWith("blob:")), []);
  } finally {
    await dev.stop();
  }
  run(process.execPath, [VITE, "build", "--logLevel", "error"], app);
  // Not as text within the JavaScript: as files, which are compiled while they come.
  const assets = readdirSync(join(app, "dist/assets")).sort();
  assert.deepEqual(assets.map((name) => name.replace(/-[^.]*/, "")), ["index.js", "proglog_bg.wasm", "worker.js"]);
  const preview = await Vite.start(app, ["preview", "--host", "127.0.0.1", "--port", "0"]);
  try {
    await appendsAndReads(preview.url);
  } finally {
    await preview.stop();
  }
});

test("in a fresh bundle of esbuild: of one file, and of files of its own", async () => {
  for (const entry of ["proglog", "proglog/inline"]) {
    const app = newApp(`esbuild-${entry.length}`, program(entry));
    await bundle(app, ["main.js"]);
    assert.deepEqual(readdirSync(join(app, "dist")).sort(), ["index.html", "main.js"]);
    await served(join(app, "dist"), (origin) => appendsAndReads(`${origin}/index.html`));
  }

  const urls = '{ workerUrl: "worker.js", wasmUrl: new URL("proglog.wasm", location.href) }';
  const app = newApp("esbuild-files", program("proglog", urls));
  await bundle(app, ["main.js", { in: "proglog/worker", out: "worker" }], ["production"]);
  cpSync(join(installed, "node_modules/proglog/dist/proglog_bg.wasm"), join(app, "dist/proglog.wasm"));
  await served(join(app, "dist"), async (origin) => {
    const asked = await appendsAndReads(`${origin}/index.html`);
    assert.ok(asked.includes(`${origin}/worker.js`), `${asked}`);
  });
});

test("in a plain module script: from the site's own files, and from another site", async () => {
  const own = newApp("plain", program("./node_modules/proglog/src/index.js"));
  await served(own, (origin) => appendsAndReads(`${origin}/index.html`));

  await served(installed, async (other) => {
    const app = newApp("plain-other", program(`${other}/node_modules/proglog/dist/inline.js`));
    await served(app, (origin) => appendsAndReads(`${origin}/index.html`));
  }, { "access-control-allow-origin": "*" });
});

test("under a policy of the directives that README.md names, each of which is needed", async () => {
  const policies = {
    "src/index.js": ["script-src 'self' 'wasm-unsafe-eval'", "worker-src 'self'", "connect-src 'self'"],
    "dist/inline.js": ["script-src 'self' 'wasm-unsafe-eval'", "worker-src blob:"],
  };
  for (const [file, directives] of Object.entries(policies)) {
    assert.ok(README.includes(directives.join("; ")), directives.join("; "));
    const app = newApp(`policy-${file.replace("/", "-")}`, program(`./node_modules/proglog/${file}`));
    const withPolicy = (/** @type {string[]} */ directives, /** @type {(origin: string) => Promise<unknown>} */ call) =>
      served(app, call, { "content-security-policy": ["default-src 'none'", ...directives].join("; ") });
    await withPolicy(directives, (origin) => appendsAndReads(`${origin}/index.html`));

    const without = directives.slice(1).map((directive) => directives.filter((other) => other !== directive));
    // A worker may be where a script may be.
    const lacking = [["script-src 'self'", ...directives.slice(1)], ...without.filter((_, n) => file !== "src/index.js" || n > 0)];
    for (const directives of lacking) {
      await withPolicy(directives, async (origin) => {
        const { error } = await outcomeOf(await (await browser.newContext()).newPage(), `${origin}/index.html`);
        assert.match(error ?? `all went well with ${directives}`, /^ProglogError: .*(worker failed|CSP|Content Security Policy|fetch)/);
      });
    }
  }
});

test("in Node.js: a directory that the program opens", async () => {
  const app = newApp("node", `${program("proglog/node")}\nconsole.log(JSON.stringify(outcome));`);
  const outcomes = [1, 2].map(() => JSON.parse(run(process.execPath, ["main.js"], app)));
  assert.deepEqual(outcomes, [
    { offset: 0, value: "paid", records: 1 },
    { offset: 1, value: "paid", records: 2 },
  ]);
  assert.match(run(PROGRAM, ["verify", "orders"], app), /^sound +2 records/);
  assert.equal(run(PROGRAM, ["read", "orders", "1"], app), "paid\n");

  // The browser's entry says what it is.
  const wrong = newApp("node-browser", `${program("proglog")}\nconsole.log(JSON.stringify(outcome));`);
  assert.match(JSON.parse(run(process.execPath, ["main.js"], wrong)).error, /^ProglogError: .*proglog\/node/);
});

test("what README.md shows can be done, and is as large as it says", async () => {
  assert.equal(SHOWN.length, 4);
  const [start = "", , more = "", node = ""] = SHOWN;
  const app = newApp("shown", `${start}\nglobalThis.outcome = \`\${offset} \${record.key.length} \${log.nextOffset}\`;`);
  await bundle(app, ["main.js"]);
  await served(join(app, "dist"), async (origin) => {
    const page = await (await browser.newContext()).newPage();
    assert.equal(await outcomeOf(page, `${origin}/index.html`), "0 7 1");
  });
  writeFileSync(join(app, "main.js"), node);
  run(process.execPath, ["main.js"], app);
  assert.match(run(PROGRAM, ["verify", "orders"], app), /^sound +1 record/);

  const server = await Server.start(join(scratch.path, "logs.example"));
  try {
    const all = newApp("shown-more", [
      start.replace('"proglog"', '"proglog/node"').replace("await log.close();\n", ""),
      more.replace("https://logs.example/", server.url).replace(/^for await/m, "setTimeout(() => until.abort(), 2000);\n$&"),
      "await log.close();",
    ].join("\n"));
    const printed = run(process.execPath, ["main.js"], all).replace(/\[[^\]]*\]/g, "[…]");
    assert.equal(printed, "0n paid\nUint8Array(6) […]\nUint8Array(6) […]\nUint8Array(7) […]\nUint8Array(4) […]\n");
    assert.equal((await (await fetch(`${server.url}healthz`)).json()).next_offset, 5);
  } finally {
    await server.stop();
  }

  const rows = [...README.matchAll(/^\| `(dist\/[^`]+)`[^|]*\| (\d+) KB \| (\d+) KB \|$/gm)];
  assert.equal(rows.length, 3);
  for (const [, file = "", ...told] of rows) {
    const bytes = readFileSync(join(installed, "node_modules/proglog", file));
    const sizes = [bytes.length, gzipSync(bytes, { level: 9 }).length].map((size) => Math.round(size / 1000));
    sizes.forEach((size, n) => {
      const isNear = Math.abs(size - Number(told[n])) <= size / 50;
      assert.ok(isNear, `${file} has ${sizes.join(" KB, gzipped ")} KB: say so in www/README.md`);
    });
  }
});

test("a TypeScript program that uses it compiles, and one that does not as it should does not", () => {
  const app = newApp("types", "");
  writeFileSync(
    join(app, "browser.ts"),
    `import { Log, ProglogError, type LogRecord, type Options } from "proglog";
import { Log as InlineLog } from "proglog/inline";
import "proglog/worker";

const options: Options = { durability: "written", persist: true, wasmUrl: new URL("x", location.href), workerUrl: "/w.js" };
const log: Log = await Log.open("orders", options);
const offset: bigint = await log.append("paid", { key: "order-7", headers: [{ name: "a", value: new Uint8Array(1) }] });
const offsets: bigint[] = await log.appendBatch(["picked", { value: "packed", timestampMs: 7 }], { durability: "synced" });
const record: LogRecord | undefined = await log.read(offset);
for await (const { offset, value } of log.scan({ from: 1n })) console.log(offset.toString(), value.byteLength);
const abort = new AbortController();
for await (const { key } of log.subscribe({ from: "end", signal: abort.signal })) console.log(key?.length);
await log.syncTo("https://logs.example/", { signal: abort.signal, onProgress: ({ shippedOffset }) => console.log(shippedOffset + 1n) });
const damaged: boolean = (await log.verify()).segments.some(({ damage }) => damage.length > 0);
const removed: number = (await log.compact()).recordsRemoved;
const base: bigint | undefined = (await log.segments())[0]?.base;
const tar: Blob = await log.export();
await log.close();
const copy: InlineLog = await InlineLog.import("copy", tar, { worker: () => new Worker("/w.js") });
try {
  await Log.delete("orders");
} catch (error) {
  if (error instanceof ProglogError && error.kind === "Locked") console.log(error.message, error.conflict);
}
// @ts-expect-error a value is bytes or text
await log.append(5);
// @ts-expect-error an offset is a bigint
await log.read(5);
// @ts-expect-error there is no such durability
await Log.open("orders", { durability: "fsync" });
// @ts-expect-error there is no such kind
new ProglogError("Nothing", "");
// @ts-expect-error there may be none
record.value;
// @ts-expect-error
removed.toFixed(damaged);
console.log(offsets, copy.role);
`,
  );
  writeFileSync(
    join(app, "server.ts"),
    `import { Log, ProglogError, type Options } from "proglog/node";

const options: Options = { segmentBytesMax: 1 << 20, lock: true };
const log: Log = await Log.open("./orders", options);
const first: bigint | undefined = (await log.read(await log.append(new Uint8Array(3))))?.offset;
await log.close();
console.log(first, ProglogError.name);
// @ts-expect-error there is no page to ask
await Log.open("./orders", { persist: true });
`,
  );
  const given = `import { Log } from "proglog";
declare const log: Log;
`;
  const shown = SHOWN.map((block, n) => {
    const needsLog = !block.includes("const log");
    const name = `shown-${n}.ts`;
    const prelude = block.includes("import") ? "" : needsLog ? given : given.replace(/^declare const log.*\n/m, "");
    writeFileSync(join(app, name), `${prelude}${block}\nexport {};\n`);
    return name;
  });
  const strict = ["--strict", "--noEmit", "--skipLibCheck", "false", "--exactOptionalPropertyTypes", "--target", "es2022"];
  const kinds = [
    ["--module", "esnext", "--moduleResolution", "bundler"],
    ["--module", "nodenext", "--moduleResolution", "nodenext"],
  ];
  for (const kind of kinds) {
    const web = ["--lib", "es2022,dom,dom.iterable,dom.asynciterable", "--types", "", "browser.ts", ...shown];
    run(process.execPath, [TSC, ...strict, ...kind, ...web], app);
    const types = ["--typeRoots", join(WWW, "node_modules/@types"), "--types", "node"];
    run(process.execPath, [TSC, ...strict, ...kind, "--lib", "es2022", ...types, "server.ts"], app);
  }
});

/**
 * A program that appends a record, reads it, and leaves what came of it in `outcome`.
 *
 * @param {string} entry
 * @param {string} [options]
 */
function program(entry, options = "{}") {
  return `import { Log } from ${JSON.stringify(entry)};

async function main() {
  const log = await Log.open("orders", ${options});
  const offset = Number(await log.append("paid", { key: "order-7" }));
  const value = new TextDecoder().decode((await log.read(BigInt(offset))).value);
  let records = 0;
  for await (const _ of log.scan()) records += 1;
  await log.close();
  return { offset, value, records };
}

const outcome = await main().catch((error) => ({ error: \`\${error}\` }));
globalThis.outcome = outcome;
`;
}

/**
 * A directory that has the package, a page, and a program.
 *
 * @param {string} name
 * @param {string} main
 */
function newApp(name, main) {
  const app = join(scratch.path, name);
  cpSync(installed, app, { recursive: true });
  writeFileSync(join(app, "index.html"), HTML);
  writeFileSync(join(app, "main.js"), main);
  return app;
}

/**
 * @param {string} app
 * @param {(string | { in: string, out: string })[]} entries
 * @param {string[]} [conditions]
 */
async function bundle(app, entries, conditions) {
  const entryPoints = entries.map((entry) => (typeof entry === "string" ? { in: entry, out: entry.replace(".js", "") } : entry));
  const own = conditions && { conditions };
  await build({ absWorkingDir: app, entryPoints, bundle: true, format: "esm", outdir: "dist", logLevel: "warning", ...own });
  cpSync(join(app, "index.html"), join(app, "dist/index.html"));
}

/**
 * The program of a page appends and reads, and does so again when the page is loaded again.
 *
 * @param {string} url
 * @returns {Promise<string[]>} what was asked of servers
 */
async function appendsAndReads(url) {
  const context = await browser.newContext();
  const page = await context.newPage();
  /** @type {string[]} */
  const asked = [];
  context.on("request", (request) => asked.push(request.url()));
  assert.deepEqual(await outcomeOf(page, url), { offset: 0, value: "paid", records: 1 });
  assert.deepEqual(await outcomeOf(page, url), { offset: 1, value: "paid", records: 2 });
  await context.close();
  return asked;
}

/**
 * @param {import("playwright-core").Page} page
 * @param {string} url
 */
async function outcomeOf(page, url) {
  page.on("pageerror", (error) => console.error(error));
  await page.goto(url);
  await page.waitForFunction(() => "outcome" in globalThis, undefined, { timeout: 30_000 });
  return page.evaluate(() => /** @type {any} */ (globalThis).outcome);
}

/**
 * Calls `call` while a directory is served.
 *
 * @param {string} directory
 * @param {(origin: string) => Promise<unknown>} call
 * @param {Record<string, string>} [headers]
 */
async function served(directory, call, headers) {
  const server = await serve(directory, headers);
  try {
    await call(originOf(server));
  } finally {
    server.close();
  }
}

/** A server of Vite's, as its command line starts it. */
class Vite {
  #process;
  url;

  /**
   * @param {string} app
   * @param {string[]} args
   */
  static async start(app, args) {
    const started = spawn(process.execPath, [VITE, ...args], { cwd: app, stdio: ["ignore", "pipe", "inherit"] });
    let said = "";
    for await (const part of started.stdout) {
      said += part;
      const [url] = said.replace(/\x1b\[[0-9;]*m/g, "").match(/http:\/\/127\.0\.0\.1:\d+\//) ?? [];
      if (url) return new Vite(started, url);
    }
    throw new Error(`Vite ended: ${said}`);
  }

  /**
   * @param {import("node:child_process").ChildProcess} process
   * @param {string} url
   */
  constructor(process, url) {
    this.#process = process;
    this.url = url;
  }

  async stop() {
    const exited = new Promise((resolve) => this.#process.once("exit", resolve));
    this.#process.kill();
    await exited;
  }
}

function readPackage() {
  return JSON.parse(readFileSync(join(installed, "node_modules/proglog/package.json"), "utf8"));
}

/**
 * @param {string} program
 * @param {string[]} args
 * @param {string} cwd
 */
function run(program, args, cwd) {
  const { status, stdout, stderr } = spawnSync(program, args, { cwd, encoding: "utf8" });
  assert.equal(status, 0, `${program} ${args.join(" ")}: ${stdout}${stderr}`);
  return stdout;
}
