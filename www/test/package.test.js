// The package, in a real Chromium: a log in the origin private file system.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";

import { PROGRAM, Scratch } from "./program.js";
import { Site } from "./site.js";

const WWW = join(dirname(fileURLToPath(import.meta.url)), "..");
const VECTORS = join(WWW, "..", "tests", "vectors");

const scratch = new Scratch();
/** @type {Site} */
let site;
/** @type {import("playwright-core").Page} */
let page;

before(async () => {
  // Not a private window, whose files are not on the disk.
  site = await Site.startPlain(join(scratch.path, "profile"));
});

after(async () => {
  await site?.stop();
  await scratch.remove();
});

beforeEach(async () => {
  page = await site.newPage();
});

afterEach(() => page.close());

test("the shared vectors hold, and leave the files that they tell of", async () => {
  const names = readdirSync(VECTORS).filter((name) => name.endsWith(".json"));
  assert.ok(names.length > 30);
  for (const name of names) {
    const vector = JSON.parse(readFileSync(join(VECTORS, name), "utf8"));
    const wrong = await page.evaluate(
      ([name, vector]) => shared.runVector(proglog, name, vector),
      /** @type {[string, any]} */ ([name, vector]),
    );
    assert.deepEqual(wrong, [], name);
  }
});

test("a directory is the native one's, byte for byte, and goes both ways", async () => {
  const records = Array.from({ length: 60 }, (_, n) => ({ value: `${n} `.repeat((n * 7) % 40), timestampMs: 1000 + n }));
  const files = await page.evaluate(async (records) => {
    const log = await proglog.Log.open("a/b: c");
    for (const { value, timestampMs } of records) await log.append(value, { timestampMs });
    const files = await shared.filesOf(await log.export());
    await log.close();
    return files;
  }, records);
  const directory = writeDirectory("from_browser", files);

  const natively = join(scratch.path, "natively");
  const input = records.map(({ value }) => `${value}\0`);
  records.forEach(({ timestampMs }, n) => {
    run(["append", natively, "--engine", "native", "--null", "--timestamp-ms", `${timestampMs}`], input[n]);
  });
  assert.deepEqual(files, readDirectory(natively));
  run(["verify", directory]);
  assert.equal(run(["read", directory, "59", "--raw"]), records[59]?.value);

  run(["append", directory, "--timestamp-ms", "2000"], "from the server\n");
  const again = await page.evaluate(async (files) => {
    const entries = Object.entries(files).map(([name, digits]) => [name, shared.unhex(digits)]);
    const log = await proglog.Log.import("brought", shared.archive(entries));
    const last = await log.read(60n);
    const offset = await log.append("from the browser");
    let count = 0;
    for await (const record of log.scan()) count += record.value.length >= 0 ? 1 : 0;
    await log.close();
    return [new TextDecoder().decode(last?.value), `${offset}`, count];
  }, readDirectory(directory));
  assert.deepEqual(again, ["from the server", "61", 62]);
});

test("what README.md shows can be done", async () => {
  const blocks = [...readFileSync(join(WWW, "..", "README.md"), "utf8").matchAll(/^```js\n(.*?)^```/gms)];
  assert.equal(blocks.length, 1);
  /** @type {string[]} */
  const said = [];
  page.on("console", (message) => said.push(message.text()));
  for (const [, block = ""] of blocks) {
    const content = `${block.replace('from "proglog"', 'from "/src/index.js"')}\nglobalThis.shown = log.nextOffset;`;
    await page.addScriptTag({ type: "module", content });
    await page.waitForFunction(() => "shown" in globalThis);
  }
  assert.equal(said.length, 3);
  assert.match(said[2] ?? "", /Uint8Array\(4\)$/);
});

test("a worker that is ended in the middle of appends leaves all that was acknowledged", async () => {
  const { rounds, records, acknowledged, torn, openMs } = await page.evaluate(async () => {
    const name = "killed";
    const held = new Map();
    let torn = 0;
    let openMs = 0;
    const rounds = 100;
    for (let round = 0; round < rounds; round++) {
      /** @type {Worker | undefined} */
      let worker;
      const began = performance.now();
      const log = await proglog.Log.open(name, {
        segmentBytesMax: 10_000,
        worker: () => {
          // It would go on with another.
          if (worker) throw new Error("it was ended");
          return (worker = new Worker("/src/worker.js", { type: "module" }));
        },
      });
      openMs = Math.max(openMs, performance.now() - began);
      for (const [offset, value] of held) {
        const record = await log.read(offset);
        const found = record && new TextDecoder().decode(record.value);
        if (found !== value) throw new Error(`round ${round}: record ${offset} is ${found}, not ${value}`);
      }
      // What was not read again in the last rounds was read often enough.
      while (held.size > 60) held.delete(held.keys().next().value);
      torn += (await log.recoveryReport()).segments.length;
      const end = performance.now() + (round % 10) * 3;
      for (let n = 0; n < 40; n++) {
        const value = `${round} ${n} ${"x".repeat((n * 13) % 97)}`;
        const appended = n % 3 === 0
          ? log.appendBatch([value, value]).then(([first, second]) => held.set(first, value).set(second, value))
          : log.append(value).then((offset) => held.set(offset, value));
        appended.catch(() => {});
        if (n % 5 === 4) await appended.catch(() => {});
        if (n % 7 === 6) await new Promise((resolve) => setTimeout(resolve));
        if (performance.now() > end && round % 10) break;
      }
      for (let n = 0; n < 20; n++) {
        const value = `${round} at last ${n} ${"y".repeat(100)}`;
        log.append(value).then((offset) => held.set(offset, value)).catch(() => {});
        await undefined;
      }
      await new Promise((resolve) => setTimeout(resolve, (round % 8) * 2));
      worker?.terminate();
    }
    const log = await proglog.Log.open(name);
    for (const [offset, value] of held) {
      const record = await log.read(offset);
      if (new TextDecoder().decode(record?.value) !== value) throw new Error(`at last record ${offset} is another`);
    }
    const { segments } = await log.verify();
    if (segments.some((/** @type {any} */ { damage }) => damage.length)) throw new Error("it is damaged");
    const last = [...held.keys()].at(-1);
    const records = log.nextOffset;
    await log.close();
    return { rounds, records: `${records}`, acknowledged: `${last + 1n}`, torn, openMs };
  });
  console.log(`${rounds} kills: ${acknowledged} acknowledged, ${records} there, ${torn} segments scanned, opened in ${openMs.toFixed()} ms at the most`);
  assert.ok(BigInt(records) >= BigInt(acknowledged) && BigInt(records) > 1000n);
});

test("where the browser gives no more room that is told, all is readable, and appends go on once there is", async () => {
  const session = await site.session(page);
  // Of which Chromium sets some aside for each open file that grows.
  const { usage } = await session.send("Storage.getUsageAndQuota", { origin: site.origin });
  await session.send("Storage.overrideQuotaForOrigin", { origin: site.origin, quotaSize: usage + 20_000_000 });
  const [first, read, second] = await page.evaluate(async () => {
    const log = await proglog.Log.open("full", { segmentBytesMax: 500_000 });
    const value = new Uint8Array(100_000).fill(7);
    let appended = 0n;
    /** @type {any} */
    let full;
    while (!full && appended < 1000n) {
      try {
        appended = (await log.append(value)) + 1n;
      } catch (error) {
        full = error;
      }
    }
    const poisoned = await log.append(value).catch((/** @type {any} */ error) => error.kind);
    for (let offset = 0n; offset < appended; offset++) {
      if ((await log.read(offset))?.value.length !== value.length) throw new Error(`record ${offset}`);
    }
    await log.close().catch(() => {});
    const again = await proglog.Log.open("full", { segmentBytesMax: 500_000 });
    const next = again.nextOffset;
    const last = (await again.read(appended - 1n))?.value.length;
    await again.close().catch(() => {});
    return /** @type {const} */ ([
      { kind: full?.kind, name: full?.name, message: full?.message, appended: Number(appended) },
      { next: Number(next), last, poisoned },
      value.length,
    ]);
  });
  console.log(`Full after ${first.appended} records of ${second} bytes: ${first.message}`);
  assert.equal(first.kind, "StorageFull");
  assert.equal(first.name, "ProglogError");
  assert.match(first.message, / bytes free of the .* open the log again/);
  assert.ok(first.appended > 10 && first.appended < 200, `${first.appended}`);
  assert.ok(read.next >= first.appended);
  assert.deepEqual([read.last, read.poisoned], [second, "Poisoned"]);

  await session.send("Storage.overrideQuotaForOrigin", { origin: site.origin });
  const went = await page.evaluate(async () => {
    const log = await proglog.Log.open("full", { segmentBytesMax: 500_000 });
    const next = log.nextOffset;
    const offset = await log.append(new Uint8Array(400_000));
    await log.close();
    return offset - next;
  });
  assert.equal(went, 0n);
});

test("a damaged manifest costs nothing as long as a copy is whole, and is told when none is", async () => {
  const outcome = await page.evaluate(async () => {
    const log = await proglog.Log.open("damaged", { segmentBytesMax: 1000 });
    for (let n = 0; n < 50; n++) await log.append(`record ${n}, of some length`);
    await log.close();
    const root = await navigator.storage.getDirectory();
    const directory = await (await root.getDirectoryHandle("proglog")).getDirectoryHandle("log-damaged");
    const damage = async (/** @type {number} */ copy) => {
      const file = await directory.getFileHandle(`manifest-${copy}`);
      const bytes = new Uint8Array(await (await file.getFile()).arrayBuffer());
      bytes[30] = 0xff;
      const writable = await file.createWritable();
      await writable.write(bytes);
      await writable.close();
    };
    const counts = [];
    for (const copy of [0, 1, 2]) {
      await damage(copy);
      const log = await proglog.Log.open("damaged");
      let count = 0;
      for await (const _ of log.scan()) count++;
      counts.push(count);
      await log.close();
    }
    await Promise.all([0, 1, 2].map(damage));
    const refused = await proglog.Log.open("damaged").catch((/** @type {any} */ { kind }) => kind);
    await proglog.Log.delete("damaged");
    const anew = await proglog.Log.open("damaged");
    const next = anew.nextOffset;
    await anew.close();
    return [counts, refused, Number(next)];
  });
  assert.deepEqual(outcome, [[50, 50, 50], "Corrupt", 0]);
});

test("calls keep their order, and what is not as expected is told in numbers", async () => {
  const outcome = await page.evaluate(async () => {
    const log = await proglog.Log.open("ordered", { segmentBytesMax: 300 });
    for (let n = 0; n < 30; n++) void log.append(`price ${n}`, { key: `k${n % 2}`, headers: [{ name: "n", value: `${n}` }] });
    await log.sync();
    const synced = [log.nextOffset, log.durableOffset];
    const conflict = await log.append("x", { expectedNextOffset: 7n }).catch((/** @type {any} */ error) => error);
    await log.append("mine", { producer: { id: "p", sequence: 5n } });
    const again = await log.append("mine", { producer: { id: "p", sequence: 5n } });
    const behind = await log.append("other", { producer: { id: "p", sequence: 3n } }).catch((/** @type {any} */ error) => error);
    const { recordsRemoved } = await log.compact();
    const gap = await log.read(0n).catch((/** @type {any} */ { kind }) => kind);
    const left = [];
    for await (const { offset } of log.scan()) left.push(offset);
    const headers = (await log.read(29n))?.headers.map(({ name, value }) => name + new TextDecoder().decode(value));
    await log.enforceRetention({ bytesMax: 1 });
    const lowest = log.lowestOffset;
    await log.close();
    const numbers = { synced, again, left: left.slice(0, 3), lowest };
    return [
      JSON.stringify(numbers, (_, part) => (typeof part === "bigint" ? Number(part) : part)),
      [conflict.kind, `${Object.values(conflict.conflict)}`, behind.kind, `${Object.values(behind.conflict)}`],
      [gap, headers, recordsRemoved > 20],
    ];
  });
  const { lowest, left, ...numbers } = JSON.parse(`${outcome[0]}`);
  assert.deepEqual(numbers, { synced: [30, 30], again: 30 });
  assert.ok(left[0] > 20 && lowest > left[0], `${outcome[0]}`);
  assert.deepEqual(outcome[1], ["Conflict", "7,30", "SequenceConflict", "5,30"]);
  assert.deepEqual(outcome[2], ["Gap", ["n29"], true]);
});

test("a large batch is given to the worker once, whole or not at all", async () => {
  const { lengths, isLeft, later, answered } = await page.evaluate(async () => {
    const value = new Uint8Array(100_000).fill(7);
    let log = await proglog.Log.open("large");
    const answered = [await log.appendBatch([value, "small"]), [await log.append(value)]];
    const closed = log.close();
    const later = await log.append(value).catch((/** @type {any} */ { kind }) => kind);
    await closed;
    log = await proglog.Log.open("large");
    const lengths = [];
    for await (const record of log.scan()) lengths.push(record.value.length);
    await log.close();
    return { lengths, isLeft: value.length === 100_000, later, answered: answered.flat().map(Number) };
  });
  assert.deepEqual(answered, [0, 1, 2]);
  assert.ok(isLeft, "the caller's bytes are still the caller's");
  const isThere = typeof later === "bigint";
  assert.ok(isThere || later === "Closed" || later === "Unavailable", `${later}`);
  assert.deepEqual(lengths, [100_000, 5, 100_000, ...(isThere ? [100_000] : [])]);
});

test("appends that wait together share a flush, and what they cost is told", async () => {
  const [single, together, batch, scanned] = await page.evaluate(async () => {
    const log = await proglog.Log.open("fast");
    const value = new Uint8Array(100).fill(1);
    const time = async (/** @type {number} */ records, /** @type {() => Promise<unknown>} */ call) => {
      const began = performance.now();
      await call();
      return Math.round((records * 1000) / (performance.now() - began));
    };
    await log.append(value);
    const single = await time(300, async () => {
      for (let n = 0; n < 300; n++) await log.append(value);
    });
    const together = await time(5000, () => Promise.all(Array.from({ length: 5000 }, () => log.append(value))));
    const batch = await time(100_000, async () => {
      for (let n = 0; n < 100; n++) await log.appendBatch(Array.from({ length: 1000 }, () => value));
    });
    const scanned = await time(105_301, async () => {
      let count = 0;
      for await (const record of log.scan()) count += record.value.length / 100;
      if (count !== 105_301) throw new Error(`${count} records`);
    });
    await log.close();
    return [single, together, batch, scanned];
  });
  console.log(`durable records a second: ${single} one by one, ${together} together, ${batch} in batches; scanned ${scanned}`);
  assert.ok(together > single);
});

/**
 * @param {string[]} args
 * @param {string} [input]
 */
function run(args, input = "") {
  const { status, stdout, stderr } = spawnSync(PROGRAM, args, { input, encoding: "utf8" });
  assert.equal(status, 0, `proglog ${args.join(" ")}: ${stderr}`);
  return stdout;
}

/**
 * @param {string} name
 * @param {Record<string, string>} files
 */
function writeDirectory(name, files) {
  const directory = join(scratch.path, name);
  mkdirSync(directory);
  for (const [file, digits] of Object.entries(files)) writeFileSync(join(directory, file), Buffer.from(digits, "hex"));
  return directory;
}

/** @param {string} directory */
function readDirectory(directory) {
  const names = readdirSync(directory).sort();
  return Object.fromEntries(names.map((name) => [name, readFileSync(join(directory, name)).toString("hex")]));
}
