// The package in Node.js: a log in a directory, with the files that the program has natively.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs, { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { after, afterEach, mock, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { runInNewContext } from "node:vm";
import { Worker } from "node:worker_threads";

import { LogBase } from "../src/base.js";
import { Log, ProglogError } from "../src/node.js";
import { Wasi } from "../src/node/wasi.js";
import { PROGRAM, Scratch, Server } from "./program.js";
import { runVector } from "./vectors.js";

const WWW = join(dirname(fileURLToPath(import.meta.url)), "..");
const VECTORS = join(WWW, "..", "tests", "vectors");

const scratch = new Scratch();
after(() => scratch.remove());
afterEach(() => {
  mock.restoreAll();
  syncBuiltinESMExports();
});

test("the shared vectors hold, and leave the files that they tell of", async () => {
  const names = readdirSync(VECTORS).filter((name) => name.endsWith(".json"));
  assert.ok(names.length > 30);
  for (const name of names) {
    const vector = JSON.parse(readFileSync(join(VECTORS, name), "utf8"));
    const proglog = /** @type {typeof import("../src/index.js")} */ (/** @type {unknown} */ ({ Log }));
    assert.deepEqual(await runVector(proglog, join(scratch.path, name), vector), [], name);
  }
});

test("a directory is the native one's, byte for byte, and goes both ways", async () => {
  const directory = join(scratch.path, "made/for/node");
  const natively = join(scratch.path, "natively");
  const log = await Log.open(directory);
  for (let n = 0; n < 60; n++) {
    const value = `${n} `.repeat((n * 7) % 40);
    await log.append(value, { timestampMs: 1000 + n });
    run(["append", natively, "--engine", "native", "--null", "--timestamp-ms", `${1000 + n}`], `${value}\0`);
  }
  await log.close();
  assert.deepEqual(readDirectory(directory), readDirectory(natively));
  assert.match(run(["verify", directory]), /^sound +60 records/);

  run(["append", directory, "--engine", "native"], "from the program\n");
  const again = await Log.open(directory);
  assert.equal(new TextDecoder().decode((await again.read(60n))?.value), "from the program");
  assert.equal(await again.append("from Node.js"), 61n);
  const copy = await Log.import(join(scratch.path, "copy"), await again.export());
  await again.close();
  await copy.close();
  assert.equal(run(["read", directory, "61"]), "from Node.js\n");
  assert.deepEqual(readDirectory(join(scratch.path, "copy")), readDirectory(directory));

  // Files of other names are left alone, whatever bytes these are of.
  writeFileSync(join(directory, "notes.txt"), "not the log's");
  const unlike = Buffer.concat([Buffer.from(`${directory}/`), Buffer.from([0xff, 0xfe])]);
  writeFileSync(unlike, "");
  const beside = await Log.open(directory);
  assert.equal(beside.nextOffset, 62n);
  await (await Log.import(join(scratch.path, "beside"), await beside.export())).close();
  await beside.close();
  fs.unlinkSync(unlike);
  assert.deepEqual(readDirectory(join(scratch.path, "beside")), readDirectory(directory));
  await Log.delete(directory);
  assert.deepEqual(readdirSync(directory), ["notes.txt"]);
  await Log.delete(join(scratch.path, "copy"));
  await Log.delete(join(scratch.path, "copy"));
  assert.ok(!readdirSync(scratch.path).includes("copy"));
});

test("one writer has it, be that Node.js or the program", async () => {
  const directory = join(scratch.path, "one-writer");
  const log = await Log.open(directory);
  await log.append("one");
  const locked = { name: "ProglogError", kind: "Locked", message: /one-writer is open for writing/ };
  await assert.rejects(Log.open(directory), locked);
  await assert.rejects(Log.delete(directory), locked);
  for (const engine of ["native", "wasm"]) {
    const { status, stderr } = spawnSync(PROGRAM, ["append", directory, "--engine", engine], { input: "two\n", encoding: "utf8" });
    assert.equal(status, 5, stderr);
  }
  // Beside the writer it is read.
  assert.equal(run(["read", directory, "0", "--engine", "native"]), "one\n");
  await log.close();

  const server = await Server.start(directory);
  await assert.rejects(Log.open(directory), locked);
  await server.stop();
  await (await Log.open(directory)).close();

  const path = process.env["PATH"];
  process.env["PATH"] = "/nowhere";
  try {
    await assert.rejects(Log.open(directory), { kind: "Unsupported", message: /flock/ });
    await (await Log.open(directory, { lock: false })).close();
  } finally {
    process.env["PATH"] = path;
  }
  // In another thread as in another process.
  const thread = `import { Log } from ${JSON.stringify(new URL("../src/node.js", import.meta.url).href)};
import { parentPort } from "node:worker_threads";
const log = await Log.open(${JSON.stringify(directory)});
parentPort.once("message", async () => parentPort.postMessage(await log.close()));
parentPort.postMessage(\`\${await log.append("from a thread")}\`);`;
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(thread)}`));
  assert.deepEqual(await once(worker, "message"), ["1"]);
  await assert.rejects(Log.open(directory), locked);
  worker.postMessage("close");
  await once(worker, "message");
  // Another program takes it where there is no `flock`.
  const bin = join(scratch.path, "bin");
  mkdirSync(bin);
  fs.symlinkSync(spawnSync("sh", ["-c", "command -v perl"], { encoding: "utf8" }).stdout.trim(), join(bin, "perl"));
  process.env["PATH"] = bin;
  try {
    const log = await Log.open(directory);
    await assert.rejects(Log.open(directory), locked);
    await log.close();
  } finally {
    process.env["PATH"] = path;
  }
});

test("a process that is killed in the middle of appends leaves all that was acknowledged", async () => {
  const directory = join(scratch.path, "killed");
  const source = `import { Log } from ${JSON.stringify(join(WWW, "src/node.js"))};
const log = await Log.open(${JSON.stringify(directory)}, { segmentBytesMax: 20_000 });
for (let n = 0; ; n++) {
  const value = \`record \${n} \${"x".repeat((n * 13) % 97)}\`;
  const offsets = n % 3 ? [await log.append(value)] : await log.appendBatch([value, value]);
  for (const offset of offsets) process.stdout.write(\`\${offset} \${value}\\n\`);
}`;
  const rounds = 20;
  /** @type {Map<bigint, string>} */
  const held = new Map();
  let torn = 0;
  for (let round = 0; round < rounds; round++) {
    const child = spawn(process.execPath, ["--input-type=module", "-e", source], { stdio: ["ignore", "pipe", "inherit"] });
    const killAfter = held.size + 1 + round * 7;
    for await (const line of createInterface({ input: child.stdout })) {
      const [, offset = "", value] = /^(\d+) (.*)$/.exec(line) ?? [];
      if (value !== undefined) held.set(BigInt(offset), value);
      if (held.size === killAfter) child.kill("SIGKILL");
    }
    const log = await Log.open(directory);
    torn += (await log.recoveryReport()).segments.length;
    for (const [offset, value] of held) {
      const record = await log.read(offset);
      assert.equal(record && new TextDecoder().decode(record.value), value, `round ${round}, record ${offset}`);
    }
    await log.close();
  }
  run(["verify", directory]);
  console.log(`${rounds} kills: ${held.size} acknowledged, ${torn} segments scanned`);
  assert.ok(held.size > rounds && torn > 0);
});

test("what is durable was synced before it is told, and its directory too", async () => {
  const directory = join(scratch.path, "synced");
  const calls = watched(["openSync", "writeSync", "fdatasyncSync", "fsyncSync", "renameSync", "unlinkSync"]);
  const log = await Log.open(directory, { segmentBytesMax: 200 });
  // The directory, in the one above it; and the files in it.
  const opened = calls.splice(0);
  assert.ok(opened.includes(`fsyncSync ${scratch.path}`), `${opened}`);
  assert.ok(opened.lastIndexOf(`fsyncSync ${directory}`) > opened.lastIndexOf(`openSync ${directory}/0.store`), `${opened}`);

  await log.append("x".repeat(100));
  const appended = calls.splice(0);
  assert.ok(appended.lastIndexOf(`fdatasyncSync ${directory}/0.store`) > appended.lastIndexOf(`writeSync ${directory}/0.store`), `${appended}`);
  assert.ok(appended.includes(`fdatasyncSync ${directory}/0.store`), `${appended}`);

  await log.append("x", { durability: "written" });
  const written = calls.splice(0);
  assert.ok(written.includes(`writeSync ${directory}/0.store`), `${written}`);
  assert.ok(!written.some((call) => /sync/.test(call.split(" ")[0] ?? "") && /fd?a?t?a?sync/.test(call)), `${written}`);
  assert.ok(log.durableOffset < log.nextOffset);

  await Promise.all(Array.from({ length: 100 }, () => log.append("together", { durability: "synced" })));
  const together = calls.filter((call) => call.startsWith("fdatasyncSync") && call.endsWith(".store"));
  assert.ok(together.length < 100, `${together.length} syncs`);
  assert.equal(log.durableOffset, log.nextOffset);
  await log.close();
});

test("a disk that is full, or fails, or a module that does, is told by kind, and nothing acknowledged is lost", async () => {
  const directory = join(scratch.path, "failing");
  const failures = [
    { call: /** @type {const} */ ("writeSync"), thrown: Object.assign(new Error("no space"), { code: "ENOSPC" }), kind: "StorageFull" },
    { call: /** @type {const} */ ("fdatasyncSync"), thrown: Object.assign(new Error("broken"), { code: "EIO" }), kind: "Io" },
    { call: /** @type {const} */ ("fdatasyncSync"), thrown: new WebAssembly.RuntimeError("unreachable"), kind: "Poisoned" },
  ];
  let records = 0n;
  for (const { call, thrown, kind } of failures) {
    const log = await Log.open(directory);
    assert.ok(log.nextOffset >= records);
    records = (await log.append("kept")) + 1n;
    mock.method(fs, call, () => {
      throw thrown;
    });
    syncBuiltinESMExports();
    const error = await log.append("lost").catch((error) => error);
    assert.ok(error instanceof ProglogError, `${error}`);
    assert.equal(error.kind, kind, error.message);
    if (kind === "StorageFull") assert.match(error.message, /the disk has \d+ bytes free/);
    mock.restoreAll();
    syncBuiltinESMExports();
    await assert.rejects(log.append("later"), { kind: "Poisoned" });
    if (kind !== "Poisoned") assert.equal(new TextDecoder().decode((await log.read(records - 1n))?.value), "kept");
    await log.close().catch(() => {});
    await assert.rejects(log.append("after"), { kind: "Closed" });
  }
  const log = await Log.open(directory);
  for (let offset = 0n; offset < records; offset++) assert.ok(await log.read(offset));
  await log.close();
  run(["verify", directory]);
});

test("what makes no sense is refused, by the directory's own name", async () => {
  const directory = join(scratch.path, "refused");
  const refused = { kind: "InvalidArgument" };
  await assert.rejects(Log.open(directory, { segmentBytesMax: -1 }), refused);
  await assert.rejects(Log.open(directory, { durability: /** @type {any} */ ("fsync") }), refused);
  await assert.rejects(Log.open(directory, { initialOffset: 2n ** 64n }), refused);
  await assert.rejects(Log.open("/proc/none/of/this"), { kind: "Io" });
  assert.ok(!readdirSync(scratch.path).includes("refused"));
  const log = await Log.open(directory);
  await assert.rejects(log.enforceRetention({ bytesMax: 1.5 }), { ...refused, name: "ProglogError" });
  await assert.rejects(log.compact({ tombstonesKeptMs: 1.5 }), { ...refused, name: "ProglogError" });
  await assert.rejects(Log.import(directory, await log.export()), refused);
  // Each cut before the zeros that end an archive lacks files, be it between two.
  const archive = await log.export();
  for (let bytes = 0; bytes < archive.size - 512; bytes += 256) {
    await assert.rejects(Log.import(join(scratch.path, "none"), archive.slice(0, bytes)), { kind: "Corrupt" }, `${bytes}`);
  }
  await assert.rejects(Log.import(join(scratch.path, "none"), new Uint8Array(700).fill(1)), { kind: "Corrupt" });
  assert.deepEqual(readdirSync(scratch.path).filter((name) => /none|importing/.test(name)), []);
  await log.append("damaged");
  await log.append("sound");
  await log.close();
  const store = readFileSync(join(directory, "0.store"));
  store[12] = (store[12] ?? 0) ^ 1;
  writeFileSync(join(directory, "0.store"), store);
  const again = await Log.open(directory);
  await assert.rejects(again.read(0n), { kind: "Corrupt" });
  assert.ok(await again.read(1n));
  await again.close();
  // What is no file of a log is not followed, nor written through.
  fs.rmSync(join(directory, "0.store"));
  fs.symlinkSync(join(scratch.path, "elsewhere"), join(directory, "0.store"));
  await assert.rejects(Log.open(directory), (/** @type {ProglogError} */ { kind, message }) => {
    return kind === "Io" && /link/.test(message) && !message.includes("directory-of-this-log");
  });
  assert.ok(!readdirSync(scratch.path).includes("elsewhere"));
});

test("what has a log's name and is no file of its own is refused at once, and left where it is", async () => {
  const directory = join(scratch.path, "strange");
  const names = ["sources-0", "sources-1", "0.store", "0.index", "7.store"];
  const kinds = {
    pipe: (/** @type {string} */ path) => assert.equal(spawnSync("mkfifo", [path]).status, 0),
    directory: (/** @type {string} */ path) => mkdirSync(path),
    link: (/** @type {string} */ path) => fs.symlinkSync(join(scratch.path, "elsewhere"), path),
  };
  for (const [kind, make] of Object.entries(kinds)) {
    for (const name of names) {
      mkdirSync(directory);
      make(join(directory, name));
      // In a process of its own, for a call that waits for a pipe cannot be given up.
      const { status, stdout, stderr } = inProcess(`const log = await Log.open(${JSON.stringify(directory)});
await log.append("x");
await log.readFile(${JSON.stringify(name)}, 0, 1);`);
      assert.equal(status, 0, `${kind} ${name}: ${status} ${stderr}`);
      // What a sandbox is not shown is not there to it.
      assert.match(stdout, /^Io: .*not a regular file/, `${kind} ${name}: ${stdout}`);
      assert.ok(readdirSync(directory).includes(name));
      fs.rmSync(directory, { recursive: true });
    }
  }
  assert.ok(!readdirSync(scratch.path).includes("elsewhere"));

  // In the place of the directory.
  for (const make of [kinds.pipe, (/** @type {string} */ path) => writeFileSync(path, "a file")]) {
    make(directory);
    for (const call of ["open", "delete"]) {
      const { stdout } = inProcess(`await Log.${call}(${JSON.stringify(directory)});`);
      assert.match(stdout, /^Io: .*strange is no directory/, call);
    }
    fs.rmSync(directory);
  }
  // A file that grew without end is none of the log's sources, and not read to its end.
  mkdirSync(directory);
  writeFileSync(join(directory, "sources-0"), "");
  fs.truncateSync(join(directory, "sources-0"), 2 ** 40);
  await (await Log.open(directory)).close();
  fs.rmSync(directory, { recursive: true });
});

test("what is deleted is the log's own, and nothing is by a link", async () => {
  const directory = join(scratch.path, "deleted");
  const link = join(scratch.path, "link");
  await (await Log.open(directory)).close();
  fs.symlinkSync(directory, link);
  const before = readdirSync(directory);
  await assert.rejects(Log.delete(link), { kind: "InvalidArgument", message: /symbolic link/ });
  assert.deepEqual(readdirSync(directory), before);
  // By a link it is opened, as the program opens it.
  await (await Log.open(link)).close();
  fs.unlinkSync(link);
  fs.symlinkSync(join(scratch.path, "nowhere"), link);
  await assert.rejects(Log.delete(link), { kind: "InvalidArgument", message: /symbolic link/ });
  fs.unlinkSync(link);
  // A directory of a log's file's name is another's, and so is a file of a number that no log writes so.
  mkdirSync(join(directory, "12.store"));
  writeFileSync(join(directory, "12.store", "kept"), "");
  writeFileSync(join(directory, "007.store"), "kept");
  await Log.delete(directory);
  assert.deepEqual(readdirSync(directory).sort(), ["007.store", "12.store"]);
  assert.deepEqual(readdirSync(join(directory, "12.store")), ["kept"]);
});

test("an archive that is not of one log is refused, and nothing is written", async () => {
  const source = join(scratch.path, "archived");
  const log = await Log.open(source, { segmentBytesMax: 100 });
  for (let n = 0; n < 20; n++) await log.append(`record ${n}`);
  await log.close();
  const archive = join(scratch.path, "archive.tar");
  const tar = (/** @type {string[]} */ ...args) => {
    const { status, stderr } = spawnSync("tar", ["-f", archive, "-C", source, ...args], { encoding: "utf8" });
    assert.equal(status, 0, stderr);
    return readFileSync(archive);
  };
  const target = join(scratch.path, "unpacked");
  const isRefused = async (/** @type {Uint8Array} */ bytes, /** @type {RegExp} */ message) => {
    await assert.rejects(Log.import(target, bytes), { name: "ProglogError", kind: "Corrupt", message });
    assert.deepEqual(readdirSync(scratch.path).filter((name) => name.startsWith("unpacked")), []);
  };
  tar("-c", ".");
  await isRefused(tar("-r", "0.store"), /"0.store" twice/);
  // Of two directories, each of which may be a log's.
  const other = join(scratch.path, "other");
  fs.cpSync(source, join(other, "a"), { recursive: true });
  fs.cpSync(source, join(other, "b"), { recursive: true });
  tar("-c", "-C", other, ".");
  await isRefused(readFileSync(archive), /twice/);
  await isRefused(new Uint8Array(1024), /no log in the archive/);
  fs.linkSync(join(source, "0.store"), join(source, "a-hard-link"));
  await isRefused(tar("-c", "a-hard-link", "0.store"), /is a link/);
  fs.unlinkSync(join(source, "a-hard-link"));
  fs.truncateSync(join(source, "0.store"), 1 << 20);
  for (const version of ["0.0", "0.1", "1.0"]) {
    await isRefused(tar("-c", "--sparse", `--sparse-version=${version}`, "--format=posix", "."), /holes/);
  }
  await isRefused(tar("-c", "--sparse", "--format=gnu", "."), /holes/);
  // Names of others' that are no log's may be what they like.
  fs.symlinkSync("0.store", join(source, "first"));
  const whole = tar("-c", ".");
  await (await Log.import(target, whole)).close();
  // Bytes of another realm are bytes, as where tests have one of their own.
  const elsewhere = runInNewContext("(bytes) => Uint8Array.from(bytes).buffer")(whole);
  assert.ok(!(elsewhere instanceof ArrayBuffer));
  await (await Log.import(`${target}-again`, elsewhere)).close();
});

test("what is given may change once a call has begun", async () => {
  const log = await Log.open(join(scratch.path, "changing"));
  const id = Uint8Array.of(1);
  const appended = log.append("a", { producer: { id, sequence: 5n } });
  const last = log.producerLast(id);
  id[0] = 2;
  assert.equal(await appended, 0n);
  assert.deepEqual(await last, { sequence: 5n, offset: 0n });
  // A value that is asked for twice.
  let asked = 0;
  const lie = { get value() { return asked++ % 2 ? { length: -20 } : "a"; } };
  const batch = log.appendBatch(["one", /** @type {any} */ (lie), "two"]);
  await assert.rejects(batch, { kind: "InvalidArgument", message: /neither a string nor a Uint8Array/ });
  assert.equal(log.nextOffset, 1n);
  // One that appends when it is asked for, where the memory of a batch before is used again.
  const bytes = (/** @type {number} */ fill) => new Uint8Array(10_000).fill(fill);
  await log.append(bytes(1));
  /** @type {Promise<bigint>[]} */
  const within = [];
  const appending = { get value() { within.push(log.append(bytes(2))); return bytes(3); } };
  await log.appendBatch([appending]);
  await Promise.all(within);
  const first = [];
  for await (const { value } of log.scan({ from: 1n })) first.push(value[0]);
  assert.deepEqual(first, [1, 2, 2, 3]);
  await log.close();

  // As a tab sends it to another: by this it finds what it sent before.
  /** @type {any[]} */
  const sent = [];
  const calls = /** @type {import("../src/base.js").Calls} */ (/** @type {unknown} */ ({
    call: async (/** @type {string} */ _, /** @type {any[][]} */ [appends = []]) => {
      sent.push(...appends);
      return appends.map(() => ({ offset: 0n }));
    },
  }));
  const tab = new LogBase(calls, "synced", true);
  const waits = tab.append("a", { producer: { id, sequence: 6n } });
  id[0] = 3;
  await waits;
  assert.deepEqual(sent.map(({ producer }) => producer), [{ id: Uint8Array.of(2), sequence: 6n }]);
});

test("an archive has all files, however long their paths", async () => {
  const source = join(scratch.path, "deep");
  const log = await Log.open(source, { segmentBytesMax: 100 });
  for (let n = 0; n < 20; n++) await log.append(`record ${n}`);
  await log.close();
  // Where those of the first names fit in 100 bytes, and others do not.
  for (const bytes of [92, 93, 120, 300]) {
    const path = `${"a/".repeat(bytes / 2)}${bytes % 2 ? "b" : ""}`.replace(/\/$/, "b");
    fs.cpSync(source, join(scratch.path, "within", path), { recursive: true });
    for (const format of ["gnu", "posix", "ustar"]) {
      if (format === "ustar" && bytes > 120) continue;
      const tar = spawnSync("tar", ["-c", `--format=${format}`, "-C", join(scratch.path, "within"), path], { maxBuffer: 1 << 30 });
      assert.equal(tar.status, 0, `${tar.stderr}`);
      const target = join(scratch.path, `${format}-${bytes}`);
      const copy = await Log.import(target, tar.stdout);
      assert.equal(copy.nextOffset, 20n, target);
      await copy.close();
      assert.deepEqual(readDirectory(target), readDirectory(source), target);
    }
    fs.rmSync(join(scratch.path, "within"), { recursive: true });
  }
});

test("it is followed, and shipped to a server", async () => {
  const log = await Log.open(join(scratch.path, "shipped"));
  await log.append("before");
  const abort = new AbortController();
  /** @type {string[]} */
  const seen = [];
  const followed = (async () => {
    for await (const { value } of log.subscribe({ from: 0n, signal: abort.signal })) seen.push(new TextDecoder().decode(value));
  })();
  const server = await Server.start(join(scratch.path, "server"));
  const shipping = log.syncTo(server.url, {
    signal: abort.signal,
    onProgress: ({ shippedOffset }) => shippedOffset === 3n && abort.abort(),
  });
  await log.appendBatch(["picked", "packed"]);
  await shipping;
  await followed;
  assert.deepEqual(seen, ["before", "picked", "packed"]);
  await server.stop();
  await log.close();
  assert.match(run(["verify", join(scratch.path, "server")]), /^sound +3 records/);
  run(["verify", join(scratch.path, "shipped")]);
});

test("what is told of offsets that no number holds is exact, and in the words of the package", async () => {
  const initialOffset = 2n ** 62n + 1n;
  const log = await Log.open(join(scratch.path, "far"), { initialOffset, recordBytesMax: 100 });
  await log.append("a", { key: "k" });
  const next = initialOffset + 1n;
  assert.deepEqual(await log.segments(), [{ base: initialOffset, next, storeBytes: 40 }]);
  const [segment] = (await log.verify()).segments;
  assert.deepEqual([segment?.base, segment?.next, segment?.uncheckedRecords, segment?.tornTail], [initialOffset, next, 0, null]);
  await assert.rejects(log.append("x".repeat(101)), { kind: "TooLarge", message: /recordBytesMax/ });
  await log.close();
  await log.close();

  const path = join(scratch.path, "far", `${initialOffset}.store`);
  writeFileSync(path, Buffer.concat([readFileSync(path), Buffer.from("torn")]));
  const torn = await Log.open(join(scratch.path, "far"));
  assert.deepEqual((await torn.recoveryReport()).segments[0]?.tornTail, {
    segment: initialOffset, position: 40, bytes: 4, records: 0, zeros: false, sealed: false,
  });
  await torn.close();
});

test("it is shipped to a server by one at a time: the next goes on where the one before stopped", async () => {
  const log = await Log.open(join(scratch.path, "shipped twice"));
  const server = await Server.start(join(scratch.path, "server of two"));
  /** @type {string[]} */
  const told = [];
  const [first, waits, second] = ["first", "waits", "second"].map((name) => {
    const until = new AbortController();
    const { signal } = until;
    const onProgress = (/** @type {import("../src/ship.js").Progress} */ { shippedOffset }) => told.push(`${name} ${shippedOffset}`);
    return { until, ended: log.syncTo(server.url, { signal, onProgress }) };
  });
  assert.ok(first && waits && second);
  const shipped = async (/** @type {string} */ what) => {
    while (!told.includes(what)) await pause(5);
  };
  await log.append("one");
  await shipped("first 1");
  waits.until.abort();
  await waits.ended;
  first.until.abort();
  await first.ended;
  await log.append("two");
  await shipped("second 2");
  second.until.abort();
  await second.ended;
  assert.equal(told.indexOf("first 2"), -1);
  assert.ok(told.findIndex((what) => what.startsWith("second")) > told.indexOf("first 1"), `${told}`);
  await server.stop();
  await log.close();
  assert.match(run(["verify", join(scratch.path, "server of two")]), /^sound +2 records/);
});

test("many may wait to ship it, and Node.js warns of nothing", async () => {
  const log = await Log.open(join(scratch.path, "shipped by many"));
  /** @type {Error[]} */
  const warnings = [];
  const warned = (/** @type {Error} */ warning) => void warnings.push(warning);
  process.on("warning", warned);
  const shipping = Array.from({ length: 12 }, () => log.syncTo("http://127.0.0.1:9/"));
  await pause(50);
  await log.close();
  for (const { status, reason } of /** @type {any[]} */ (await Promise.allSettled(shipping))) {
    assert.deepEqual([status, reason.kind], ["rejected", "Closed"]);
  }
  process.off("warning", warned);
  assert.deepEqual(warnings, []);
});

test("a module gets at its directory's files and nothing else, whatever it asks", () => {
  const directory = join(scratch.path, "wasi");
  mkdirSync(directory);
  writeFileSync(join(scratch.path, "secret"), "secret");
  const memory = new WebAssembly.Memory({ initial: 1 });
  const wasi = new Wasi(directory);
  wasi.start(memory);
  const functions = /** @type {any} */ (wasi.imports.wasi_snapshot_preview1);
  const bytes = Buffer.from(memory.buffer);
  const view = new DataView(memory.buffer);
  const open = (/** @type {string} */ path, /** @type {number} */ how, fd = 3) =>
    functions.path_open(fd, 0, 1000, bytes.write(path, 1000), how, 66n, 66n, 0, 0);
  for (const path of ["../secret", "/etc/passwd", "..", "a/b", "a\\b", "a\0", ""]) assert.notEqual(open(path, 1), 0, path);
  assert.notEqual(open("a", 0), 0);
  assert.equal(open("a", 1), 0);
  const fd = view.getUint32(0, true);

  // "two" and "parts", as parts of one write, and read again as parts of other lengths.
  const parts = (/** @type {number[]} */ ...numbers) => numbers.forEach((number, n) => view.setUint32(100 + 4 * n, number, true));
  bytes.write("twoparts", 2000);
  parts(2000, 3, 2003, 5);
  assert.equal(functions.fd_pwrite(fd, 100, 2, 4n, 0), 0);
  assert.equal(view.getUint32(0, true), 8);
  assert.equal(readFileSync(join(directory, "a"), "latin1"), "\0\0\0\0twoparts");
  parts(3000, 6, 3006, 10);
  assert.equal(functions.fd_pread(fd, 100, 2, 2n, 0), 0);
  assert.equal(view.getUint32(0, true), 10);
  assert.equal(bytes.toString("latin1", 3000, 3010), "\0\0twoparts");
  for (const part of ["read", "by", "turns"]) {
    parts(4000, part.length);
    bytes.write(part, 4000);
    assert.equal(functions.fd_write(fd, 100, 1, 0), 0);
  }
  assert.equal(readFileSync(join(directory, "a"), "latin1"), "readbyturnss");

  const wrong = [
    () => functions.fd_pwrite(fd, 100, -1, 0n, 0),
    () => functions.fd_pwrite(fd, 100, 1025, 0n, 0),
    () => functions.fd_pwrite(fd, 0xffff_fff8, 1, 0n, 0),
    () => functions.fd_pwrite(99, 100, 1, 0n, 0),
    () => functions.fd_pread(fd, 100, 1, -1n, 0),
    () => functions.fd_filestat_get(3, -1),
    () => functions.fd_filestat_set_size(fd, -1n),
    () => functions.fd_readdir(fd, 100, 100, 0n, 0),
    () => functions.fd_close(99),
    () => functions.path_unlink_file(3, 1000, bytes.write("../secret", 1000)),
    () => functions.path_rename(3, 1000, bytes.write("a", 1000), 3, 1010, bytes.write("../b", 1010)),
    () => functions.random_get(65_530, 100),
    () => open("a", 1, fd),
  ];
  for (const call of wrong) assert.ok(call() > 0, `${call}`);
  assert.throws(() => functions.proc_exit(1), WebAssembly.RuntimeError);
  assert.deepEqual(readdirSync(directory), ["a"]);
  assert.equal(readFileSync(join(scratch.path, "secret"), "utf8"), "secret");

  // A listing that does not fit is gone on with.
  for (let n = 0; n < 50; n++) writeFileSync(join(directory, `${n}.store`), "");
  const names = new Set();
  for (let cookie = 0n, used = 100; used === 100; ) {
    assert.equal(functions.fd_readdir(3, 5000, 100, cookie, 0), 0);
    used = view.getUint32(0, true);
    for (let at = 5000; at + 24 <= 5000 + used; ) {
      const length = view.getUint32(at + 16, true);
      if (at + 24 + length > 5000 + used) break;
      names.add(bytes.toString("utf8", at + 24, at + 24 + length));
      cookie = view.getBigUint64(at, true);
      at += 24 + length;
    }
  }
  assert.equal(names.size, 51);
  wasi.end();
});

/**
 * Notes calls of node:fs, each with the path of what it is about.
 *
 * @param {("openSync" | "writeSync" | "fdatasyncSync" | "fsyncSync" | "renameSync" | "unlinkSync")[]} names
 */
function watched(names) {
  /** @type {string[]} */
  const calls = [];
  /** @type {Map<unknown, unknown>} */
  const paths = new Map();
  for (const name of names) {
    const original = /** @type {(...args: any[]) => any} */ (fs[name]);
    mock.method(fs, name, (/** @type {any[]} */ ...args) => {
      const result = original(...args);
      if (name === "openSync") paths.set(result, args[0]);
      calls.push(`${name} ${typeof args[0] === "number" ? paths.get(args[0]) : args[0]}`);
      return result;
    });
  }
  syncBuiltinESMExports();
  return calls;
}

/**
 * Does something in a process of its own, which tells of the error, if there is one.
 *
 * @param {string} source
 */
function inProcess(source) {
  const whole = `import { Log } from ${JSON.stringify(join(WWW, "src/node.js"))};
try {
  ${source}
} catch ({ kind, message }) {
  console.log(\`\${kind}: \${message}\`);
}
process.exit();`;
  const options = /** @type {const} */ ({ encoding: "utf8", timeout: 10_000 });
  return spawnSync(process.execPath, ["--input-type=module", "-e", whole], options);
}

/**
 * @param {string[]} args
 * @param {string} [input]
 */
function run(args, input = "") {
  const { status, stdout, stderr } = spawnSync(PROGRAM, args, { input, encoding: "utf8" });
  assert.equal(status, 0, `proglog ${args.join(" ")}: ${stderr}`);
  return stdout;
}

/** @param {string} directory */
function readDirectory(directory) {
  const names = readdirSync(directory).sort();
  return Object.fromEntries(names.map((name) => [name, readFileSync(join(directory, name)).toString("hex")]));
}
