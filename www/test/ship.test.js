// A log in a browser that is shipped to a server.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createServer } from "node:http";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";

import { PROGRAM, Scratch, Server } from "./program.js";
import { Site } from "./site.js";

/** @typedef {import("playwright-core").Page} Page */

/** How long the network is away. */
const OFFLINE_SECONDS = Number(process.env["PROGLOG_OFFLINE_SECONDS"] ?? 5);

const scratch = new Scratch();
/** @type {Site} */
let site;

before(async () => {
  site = await Site.start();
});

after(async () => {
  await site?.stop();
  await scratch.remove();
});

afterEach(() => site.closePages());

/** @param {number} ms */
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * Opens the log of a name in a page, and ships it to a server.
 *
 * @param {Page} page
 * @param {string} name
 * @param {string} url
 * @param {any} [options] of the log and the shipping
 */
function ship(page, name, url, options = {}) {
  return page.evaluate(
    async ([name, url, options]) => {
      const shown = /** @type {any} */ (globalThis);
      const { batchBytes, retain, ...own } = options;
      shown.log = await proglog.Log.open(name, own);
      shown.abort = new AbortController();
      const { signal } = shown.abort;
      shown.errors = 0;
      shown.shipping = shown.log.syncTo(url, {
        batchBytes,
        retain,
        signal,
        onProgress: (/** @type {any} */ progress) => {
          shown.progress = progress;
          if (progress.error) shown.errors += 1;
        },
      });
      shown.shipping.catch((/** @type {any} */ error) => (shown.failure = error));
      return shown.log.role;
    },
    /** @type {const} */ ([name, url, options]),
  );
}

/** @param {Page} page */
async function allShipped(page) {
  await page.waitForFunction(() => {
    const { log, progress, failure } = /** @type {any} */ (globalThis);
    if (failure) throw failure;
    return progress?.shippedOffset === log.nextOffset;
  });
}

/** @param {Page} page */
function values(page) {
  return page.evaluate(async () => {
    /** @type {string[]} */
    const values = [];
    for await (const { value } of /** @type {any} */ (globalThis).log.scan()) values.push(new TextDecoder().decode(value));
    return values;
  });
}

/**
 * The records in a server's directory, which no one has open.
 *
 * @param {string} directory
 * @returns {{ value: string, batch: [number | undefined, number | undefined], producer: { id: string, sequence: number } }[]}
 */
function exported(directory) {
  const { status, stdout, stderr } = spawnSync(PROGRAM, ["export", directory], { encoding: "utf8", maxBuffer: 1 << 28 });
  assert.equal(status, 0, stderr);
  return stdout.trim().split("\n").map((line) => {
    const { value = "", batch_remaining, batch_records, producer } = JSON.parse(line);
    return { value: Buffer.from(value, "base64").toString(), batch: [batch_remaining, batch_records], producer };
  });
}

test("without a network for a while, and with a server that is killed, all is there once and in order", async () => {
  const directory = join(scratch.path, "offline");
  const args = ["--allow-origin", site.origin];
  let server = await Server.start(directory, args);
  const { host } = new URL(server.url);
  const restart = async () => {
    await server.kill();
    await sleep(300);
    server = await Server.start(directory, args, host);
  };
  const [page, other] = [await site.newPage(), await site.newPage()];
  await ship(page, "offline", server.url, { batchBytes: 2000, segmentBytesMax: 20_000 });
  await ship(other, "offline", server.url, { batchBytes: 2000, segmentBytesMax: 20_000 });
  const append = (/** @type {Page} */ page, /** @type {string} */ id) =>
    page.evaluate((id) => {
      const shown = /** @type {any} */ (globalThis);
      shown.isDone = false;
      shown.appending = (async () => {
        for (let n = 0; !shown.isDone; n++) {
          if (n % 3 === 0) await shown.log.appendBatch([`${id} ${n} a`, `${id} ${n} b`, `${id} ${n} c`]);
          else await shown.log.append(`${id} ${n}`);
          await new Promise((resolve) => setTimeout(resolve, 3));
        }
      })();
    }, id);
  await append(page, "first");
  await append(other, "other");
  // Also while nothing else is wrong: then an answer may be lost, and what it told of is there.
  for (let n = 0; n < 2; n++) {
    await sleep(500);
    await restart();
  }
  const session = await site.session(page);
  const conditions = { latency: 0, downloadThroughput: -1, uploadThroughput: -1 };
  await session.send("Network.enable");
  await session.send("Network.emulateNetworkConditions", { ...conditions, offline: true });
  await sleep((OFFLINE_SECONDS * 1000) / 2);
  await restart();
  await sleep((OFFLINE_SECONDS * 1000) / 2);
  const errors = await page.evaluate(() => /** @type {any} */ (globalThis).errors);
  assert.ok(errors > 2, `${errors}`);
  const onlineMs = Date.now();
  await session.send("Network.emulateNetworkConditions", { ...conditions, offline: false });
  await page.waitForFunction((errors) => {
    const { progress, errors: later } = /** @type {any} */ (globalThis);
    return later === errors && !progress.error;
  }, errors);
  console.log(`It went on ${Date.now() - onlineMs} ms after ${OFFLINE_SECONDS} s without a network, in which ${errors} attempts failed`);
  for (const one of [page, other]) {
    await one.evaluate(() => {
      const shown = /** @type {any} */ (globalThis);
      shown.isDone = true;
      return shown.appending;
    });
  }
  await other.evaluate(() => /** @type {any} */ (globalThis).log.sync());
  // It is the other tab's turn once the first is closed.
  await page.close();
  await other.evaluate(() => /** @type {any} */ (globalThis).log.append("last"));
  await allShipped(other);
  const there = await values(other);
  await other.evaluate(async () => {
    const { abort, shipping } = /** @type {any} */ (globalThis);
    abort.abort();
    await shipping;
  });
  await server.stop();
  const records = exported(directory);
  assert.ok(there.length > 500, `${there.length}`);
  assert.deepEqual(records.map(({ value }) => value), there);
  records.forEach(({ producer }, n) => assert.equal(producer.sequence, n));
  const isBatch = records.filter(({ batch: [remaining] }) => remaining === 2).length;
  assert.equal(isBatch, there.filter((value) => value.endsWith(" a")).length);
});

test("what is cut off and appended anew is another source's, and what the server has goes if it is to", async () => {
  const directory = join(scratch.path, "cut");
  const server = await Server.start(directory, ["--allow-origin", site.origin, "--body-bytes-max", "3000"]);
  const page = await site.newPage();
  // The server takes less than is sent at a time.
  const options = { segmentBytesMax: 2000, retain: true, batchBytes: 100_000 };
  await ship(page, "cut", server.url, options);
  const append = (/** @type {string[]} */ ...values) =>
    page.evaluate(async (values) => {
      for (const value of values) await /** @type {any} */ (globalThis).log.append(value);
    }, values);
  const many = Array.from({ length: 200 }, (_, n) => `record ${n} ${"x".repeat(40)}`);
  await append(...many);
  await allShipped(page);
  const lowest = await page.evaluate(() => Number(/** @type {any} */ (globalThis).log.lowestOffset));
  assert.ok(lowest > 150 && lowest < 200, `${lowest}`);
  assert.deepEqual(await values(page), many.slice(lowest));

  await page.evaluate(() => /** @type {any} */ (globalThis).log.truncateAfter(197n));
  await append("198 anew", "199 anew");
  await allShipped(page);
  // What was not shipped before the cut, and a batch of which a part is left.
  await page.evaluate(async () => {
    const { log, abort, shipping } = /** @type {any} */ (globalThis);
    abort.abort();
    await shipping;
    await log.append("200");
    await log.appendBatch(["201 of 3", "202 of 3", "203 gone"]);
    await log.append("204 gone");
    await log.truncateAfter(202n);
    await log.append("203");
    await log.close();
  });
  await ship(page, "cut", server.url, options);
  await allShipped(page);
  await page.evaluate(() => /** @type {any} */ (globalThis).log.reset());
  await append("after all");
  await allShipped(page);
  await page.evaluate(() => /** @type {any} */ (globalThis).log.close());
  await server.stop();
  const expected = [...many, "198 anew", "199 anew", "200", "201 of 3", "202 of 3", "203", "after all"];
  const records = exported(directory);
  assert.deepEqual(records.map(({ value }) => value), expected);
  assert.equal(new Set(records.map(({ producer }) => producer.id)).size, 4);
});

test("a copy is another source, and a server that has more than there is gets what comes", async () => {
  const directory = join(scratch.path, "copies");
  const server = await Server.start(directory, ["--allow-origin", site.origin]);
  const page = await site.newPage();
  // What would not be durable for a while is before it is sent.
  await ship(page, "original", server.url, { durability: "buffered" });
  await page.evaluate(() => /** @type {any} */ (globalThis).log.appendBatch(["a", "b"]));
  await allShipped(page);
  assert.equal(await page.evaluate(() => Number(/** @type {any} */ (globalThis).log.durableOffset)), 2);
  await page.evaluate(async () => {
    const shown = /** @type {any} */ (globalThis);
    shown.archive = await shown.log.export();
  });
  await page.evaluate(async () => {
    const shown = /** @type {any} */ (globalThis);
    const { log, abort } = shown;
    abort.abort();
    // As if the browser had lost what it said to have on stable storage.
    await log.close();
    const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("proglog");
    const directory = await root.getDirectoryHandle("log-original");
    const kept = [];
    for await (const name of directory.keys()) {
      if (!name.startsWith("sources-")) continue;
      kept.push(/** @type {const} */ ([name, await (await (await directory.getFileHandle(name)).getFile()).arrayBuffer()]));
    }
    if (kept.length === 0) throw new Error("there are no sources");
    await proglog.Log.delete("original");
    await (await proglog.Log.open("original")).close();
    const anew = await root.getDirectoryHandle("log-original");
    for (const [name, bytes] of kept) {
      const writable = await (await anew.getFileHandle(name, { create: true })).createWritable();
      await writable.write(bytes);
      await writable.close();
    }
    await (await proglog.Log.import("copy", shown.archive)).close();
  });
  await ship(page, "original", server.url);
  await page.waitForFunction(() => /** @type {any} */ (globalThis).progress?.shippedOffset === 0n);
  await page.evaluate(() => /** @type {any} */ (globalThis).log.append("c"));
  await allShipped(page);
  await ship(page, "copy", server.url);
  await allShipped(page);
  await page.close();
  await server.stop();
  assert.deepEqual(exported(directory).map(({ value }) => value), ["a", "b", "c", "a", "b"]);
});

test("a log whose cutting was interrupted is another source from there on, also if a file that says so is damaged", async () => {
  const directory = join(scratch.path, "interrupted");
  const server = await Server.start(directory, ["--allow-origin", site.origin]);
  const page = await site.newPage();
  await ship(page, "interrupted", server.url);
  const append = (/** @type {string[]} */ ...values) =>
    page.evaluate(async (values) => {
      for (const value of values) await /** @type {any} */ (globalThis).log.append(value);
    }, values);
  await append("0", "1", "2");
  await allShipped(page);
  await page.evaluate(async () => {
    const { log, abort, shipping } = /** @type {any} */ (globalThis);
    abort.abort();
    await shipping;
    await log.close();
    const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("proglog");
    const directory = await root.getDirectoryHandle("log-interrupted");
    const write = async (/** @type {string} */ name, /** @type {string} */ text) => {
      const writable = await (await directory.getFileHandle(name, { create: true })).createWritable();
      await writable.write(text);
      await writable.close();
    };
    // The first, of generation 1.
    const text = await (await (await directory.getFileHandle("sources-1")).getFile()).text();
    const { sources } = JSON.parse(text.slice(64));
    await directory.removeEntry("sources-1");
    const cut = await proglog.Log.open("interrupted");
    await cut.truncateAfter(0n);
    await cut.close();
    const json = JSON.stringify({ generation: 2, sources, cutBelow: "3" });
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(json)));
    await write("sources-0", shared.hex(digest) + json);
    // As if the one before had been written in part when the power went.
    await write("sources-1", text.slice(0, -1));
  });
  await ship(page, "interrupted", server.url);
  await append("1 anew");
  await allShipped(page);
  await page.close();
  await server.stop();
  assert.deepEqual(exported(directory).map(({ value }) => value), ["0", "1", "2", "1 anew"]);
});

test("a server that refuses is told of, one that fails is asked again, and nothing is sent once it is aborted", async () => {
  let status = 503;
  let requests = 0;
  const server = createServer((request, response) => {
    requests += 1;
    request.resume();
    response.setHeader("access-control-allow-origin", "*");
    response.setHeader("access-control-allow-headers", "*");
    if (request.method === "OPTIONS") return response.end();
    if (request.method === "GET") return response.writeHead(404).end("{}");
    return response.writeHead(status).end('{"error":"not today"}');
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
  const address = server.address();
  const url = `http://127.0.0.1:${typeof address === "object" && address?.port}/api`;
  try {
    const page = await site.newPage();
    await ship(page, "refused", url);
    await page.evaluate(() => /** @type {any} */ (globalThis).log.append("x"));
    await page.waitForFunction(() => /** @type {any} */ (globalThis).errors >= 2);
    const [kind, message] = await page.evaluate(() => {
      const { error } = /** @type {any} */ (globalThis).progress;
      return [error.kind, error.message];
    });
    assert.equal(kind, "Unavailable");
    assert.match(message, /503: .*not today/);
    status = 403;
    const refused = await page.evaluate(() => /** @type {any} */ (globalThis).shipping.catch((/** @type {any} */ error) => [error.kind, error.message]));
    assert.equal(refused[0], "Refused");
    assert.match(refused[1], /403: .*not today/);
    status = 503;
    await ship(page, "refused", url);
    await page.waitForFunction(() => /** @type {any} */ (globalThis).errors >= 1);
    await page.evaluate(() => {
      const { abort, shipping } = /** @type {any} */ (globalThis);
      abort.abort();
      return shipping;
    });
    const before = requests;
    await sleep(1500);
    assert.equal(requests, before);
    const closed = await page.evaluate(async () => {
      const { log } = /** @type {any} */ (globalThis);
      const shipping = log.syncTo("http://127.0.0.1:9/").catch((/** @type {any} */ { kind }) => kind);
      const invalid = await log.syncTo("http://:x").catch((/** @type {any} */ { kind }) => kind);
      await log.close();
      return [await shipping, invalid];
    });
    assert.deepEqual(closed, ["Closed", "InvalidArgument"]);
  } finally {
    server.close();
    server.closeAllConnections();
  }
});
