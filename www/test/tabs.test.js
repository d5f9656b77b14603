// One log in several tabs, in a real Chromium.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";

import { Scratch } from "./program.js";
import { Site } from "./site.js";

/** @typedef {import("playwright-core").Page} Page */

/** @type {Site} */
let site;

before(async () => {
  site = await Site.start();
});

after(() => site?.stop());

afterEach(() => site.closePages());

/**
 * Opens the log of a name in a page, which keeps it in `log`, and its worker in `worker`.
 *
 * @param {Page} page
 * @param {string} name
 */
function open(page, name) {
  return page.evaluate(async (name) => {
    const shown = /** @type {any} */ (globalThis);
    const worker = () => (shown.worker = new Worker("/test/stuck.js", { type: "module" }));
    shown.log = await proglog.Log.open(name, { worker });
    return shown.log.role;
  }, name);
}

/**
 * The values in the log that a page has open, in order.
 *
 * @param {Page} page
 * @returns {Promise<string[]>}
 */
function values(page) {
  return page.evaluate(async () => {
    const values = [];
    for await (const { value } of /** @type {any} */ (globalThis).log.scan()) values.push(new TextDecoder().decode(value));
    return values;
  });
}

test("tabs that open a log at the same moment share it, and see each other's appends", async () => {
  const pages = await Promise.all([site.newPage(), site.newPage(), site.newPage()]);
  const roles = await Promise.all(pages.map((page) => open(page, "a/b: shared")));
  assert.deepEqual(roles.sort(), ["follower", "follower", "leader"]);
  const [first, second, third] = /** @type {[Page, Page, Page]} */ (pages);

  const seen = third.evaluate(async () => {
    const { log } = /** @type {any} */ (globalThis);
    const values = [];
    for await (const { value } of log.subscribe({ from: 0n })) if (values.push(new TextDecoder().decode(value)) === 400) break;
    return values;
  });
  await Promise.all(
    [first, second].map((page, n) =>
      page.evaluate(async (n) => {
        const { log } = /** @type {any} */ (globalThis);
        for (let k = 0; k < 200; k++) await log.append(`${n} ${k}`);
      }, n),
    ),
  );
  const inOrder = await seen;
  for (const n of [0, 1]) {
    const expected = Array.from({ length: 200 }, (_, k) => `${n} ${k}`);
    assert.deepEqual(inOrder.filter((value) => value.startsWith(`${n} `)), expected);
  }
  for (const page of pages) assert.deepEqual(await values(page), inOrder);

  // What is asked through another tab is what the leader would answer.
  const answers = await Promise.all(
    pages.map((page) =>
      page.evaluate(async () => {
        const { log } = /** @type {any} */ (globalThis);
        await log.sync();
        const past = await log.read(400n);
        const conflict = await log.append("x", { expectedNextOffset: 3n }).catch((/** @type {any} */ error) => error);
        const files = await shared.filesOf(await log.export());
        const large = await log.append(new Uint8Array(3 << 20).fill(7), { expectedNextOffset: 401n }).catch(() => undefined);
        return [`${log.nextOffset >= 400n}`, past === undefined, conflict.kind, Object.keys(files).sort(), large === undefined];
      }),
    ),
  );
  for (const answer of answers) assert.deepEqual(answer, ["true", true, "Conflict", ["0.index", "0.store"], true]);
});

test("what one tab removes the others know of without asking", async () => {
  const pages = [await site.newPage(), await site.newPage(), await site.newPage()];
  for (const page of pages) await open(page, "removed from");
  const [leader, watches, removes] = /** @type {[Page, Page, Page]} */ (pages);
  await removes.evaluate(async () => {
    const { log } = /** @type {any} */ (globalThis);
    await log.appendBatch(["a", "b", "c"]);
  });
  await watches.evaluate(async () => {
    const { log } = /** @type {any} */ (globalThis);
    await log.sync();
    void log.subscribe({ from: "end" }).next();
  });
  const lowest = (/** @type {Page} */ page) => page.evaluate(() => `${/** @type {any} */ (globalThis).log.lowestOffset}`);
  for (const page of pages) assert.equal(await lowest(page), "0");
  await removes.evaluate(() => /** @type {any} */ (globalThis).log.truncateBefore(3n));
  for (const page of [leader, watches]) {
    const until = Date.now() + 5000;
    while (Date.now() < until && (await lowest(page)) === "0") await page.waitForTimeout(20);
    assert.equal(await lowest(page), await lowest(removes));
    assert.notEqual(await lowest(page), "0");
  }
});

test("a leader that closes hands over at once, one that is there keeps the log from being deleted", async () => {
  const [first, second] = [await site.newPage(), await site.newPage()];
  assert.equal(await open(first, "kept"), "leader");
  assert.equal(await open(second, "kept"), "follower");
  await first.evaluate(() => /** @type {any} */ (globalThis).log.append("first"));
  const remove = () => proglog.Log.delete("kept").catch((/** @type {any} */ { kind, message }) => `${kind}: ${message}`);
  assert.match(`${await second.evaluate(remove)}`, /^Locked: .* is open in a tab or worker; close it there/);

  const closed = await first.evaluate(async () => {
    const { log } = /** @type {any} */ (globalThis);
    void log.append("last");
    await log.close();
    return log.append("x").catch((/** @type {any} */ { kind }) => kind);
  });
  assert.equal(closed, "Closed");
  assert.deepEqual(await values(second), ["first", "last"]);
  assert.equal(await second.evaluate(() => /** @type {any} */ (globalThis).log.role), "leader");
  assert.match(`${await first.evaluate(remove)}`, /^Locked: /);
  await second.evaluate(() => /** @type {any} */ (globalThis).log.close());
  assert.equal(await first.evaluate(remove), undefined);
  assert.equal(await open(first, "kept"), "leader");
  assert.deepEqual(await values(first), []);
});

test("five tabs append while the leader's is closed again and again: each record is there once, in order", async () => {
  const [tabs, records, closings] = [5, 2000, 4];
  const name = "five";
  /** @type {Page[]} */
  const pages = [];
  const start = async (/** @type {number} */ n) => {
    const page = await site.newPage();
    await open(page, name);
    pages[n] = page;
    // One that takes up the work of one that was closed asks the log how far that came.
    await page.evaluate(
      ([n, records]) => {
        const shown = /** @type {any} */ (globalThis);
        shown.pauseMs = 0;
        shown.done = (async () => {
          const id = `tab ${n}`;
          const last = await shown.log.producerLast(id);
          let next = (last?.sequence ?? 0n) + 1n;
          while (next <= BigInt(records)) {
            const began = performance.now();
            const appends = [];
            for (let k = 0; k < 20 && next <= BigInt(records); k++, next++) {
              appends.push(shown.log.append(`${n} ${next}`, { producer: { id, sequence: next } }));
            }
            await Promise.all(appends);
            const nowMs = performance.now();
            shown.pauseMs = Math.max(shown.pauseMs, nowMs - began);
            shown.acknowledgedMs = performance.timeOrigin + nowMs;
            await new Promise((resolve) => setTimeout(resolve, 130));
          }
        })();
      },
      /** @type {const} */ ([n, records]),
    );
  };
  await Promise.all(Array.from({ length: tabs }, (_, n) => start(n)));
  const state = (/** @type {Page} */ page) =>
    page.evaluate(() => {
      const { log, acknowledgedMs, pauseMs } = /** @type {any} */ (globalThis);
      return { role: log.role, acknowledgedMs, pauseMs };
    });
  const takeoversMs = [];
  const pausesMs = [];
  /** @type {Promise<void> | undefined} */
  let starting;
  for (let n = 0; n < closings; n++) {
    await Promise.all([starting, new Promise((resolve) => setTimeout(resolve, 2000))]);
    const states = await Promise.all(pages.map(state));
    const leader = states.findIndex(({ role }) => role === "leader");
    assert.ok(leader >= 0);
    pausesMs.push(states[leader]?.pauseMs);
    const closedMs = Date.now();
    await pages[leader]?.close();
    const others = pages.filter((_, n) => n !== leader);
    // Of each the first acknowledgement by the next leader.
    const next = others.map((page) => {
      const isAfter = (/** @type {number} */ ms) => /** @type {any} */ (globalThis).acknowledgedMs > ms + 20;
      return page.waitForFunction(isAfter, closedMs, { polling: 10, timeout: 10_000 }).then(() => state(page));
    });
    const firstsMs = (await Promise.all(next)).map(({ acknowledgedMs }) => acknowledgedMs - closedMs);
    takeoversMs.push(Math.max(...firstsMs));
    starting = start(leader);
  }
  await starting;
  await Promise.all(pages.map((page) => page.evaluate(() => /** @type {any} */ (globalThis).done)));
  const states = await Promise.all(pages.map(state));
  pausesMs.push(...states.map(({ pauseMs }) => pauseMs));
  const longestMs = Math.max(...pausesMs);
  const rounded = takeoversMs.map((ms) => Math.round(ms));
  console.log(`${closings} leaders closed: the others went on within ${rounded.join(", ")} ms; the longest append took ${longestMs.toFixed()} ms`);

  const found = await values(/** @type {Page} */ (pages[0]));
  assert.equal(found.length, tabs * records);
  for (let n = 0; n < tabs; n++) {
    const expected = Array.from({ length: records }, (_, k) => `${n} ${k + 1}`);
    assert.deepEqual(found.filter((value) => value.startsWith(`${n} `)), expected);
  }
  // On a machine that has nothing else to do each takes a tenth of that.
  assert.ok((takeoversMs.sort((a, b) => a - b)[closings >> 1] ?? Infinity) < 1000, `${takeoversMs}`);
});

test("where the leader's worker ends, what others had sent is appended once, and nothing is claimed of its own", async () => {
  const pages = await Promise.all([site.newPage(), site.newPage(), site.newPage()]);
  const [first, second, third] = /** @type {[Page, Page, Page]} */ (pages);
  for (const page of pages) await open(page, "ended");
  const endings = 6;
  const append = (/** @type {Page} */ page, /** @type {string} */ id) =>
    page.evaluate((id) => {
      const shown = /** @type {any} */ (globalThis);
      shown.offsets = [];
      shown.isDone = false;
      shown.done = (async () => {
        for (let n = 0; !shown.isDone; n++) {
          // More than a log remembers the batches of one producer.
          const appends = Array.from({ length: 100 }, (_, k) => shown.log.append(`${id} ${n * 100 + k}`));
          shown.offsets.push(...(await Promise.all(appends)));
        }
      })();
    }, id);
  await append(second, "second");
  await append(third, "third");
  const own = [];
  for (let n = 0; n < endings; n++) {
    await new Promise((resolve) => setTimeout(resolve, 150 + 37 * n));
    for (const page of pages) {
      const ended = await page.evaluate(async () => {
        const shown = /** @type {any} */ (globalThis);
        if (shown.log.role !== "leader") return undefined;
        const appended = shown.log.append("own");
        // So that it does not append before it ends.
        shown.worker.postMessage({ stuckMs: 20 });
        shown.worker.terminate();
        return appended.then(() => "done", (/** @type {any} */ { kind }) => kind);
      });
      if (!ended) continue;
      own.push(ended);
      break;
    }
  }
  for (const page of [second, third]) {
    await page.evaluate(() => {
      const shown = /** @type {any} */ (globalThis);
      shown.isDone = true;
      return shown.done;
    });
  }
  assert.equal(own.length, endings);
  // The first was the only one yet when it appended, so that its records did not say whose they are.
  assert.equal(own[0], "Unavailable");
  const found = await values(first);
  for (const [page, id] of /** @type {const} */ ([[second, "second"], [third, "third"]])) {
    const offsets = await page.evaluate(() => /** @type {any} */ (globalThis).offsets.map(Number));
    assert.ok(offsets.length > endings * 100, `${offsets.length}`);
    assert.deepEqual(found.filter((value) => value.startsWith(id)), Array.from(offsets, (_, n) => `${id} ${n}`));
    assert.ok(offsets.every((/** @type {number} */ offset, /** @type {number} */ n) => found[offset] === `${id} ${n}`));
  }
});

test("a worker opens a log as a tab does, and leaves it when it is ended", async () => {
  const page = await site.newPage();
  const outcome = await page.evaluate(async () => {
    const script = `
      self.addEventListener("message", async ({ data }) => {
        const { Log } = await import(data);
        const log = await Log.open("worker");
        postMessage([log.role, Number(await log.append("from the worker"))]);
      });`;
    const worker = new Worker(URL.createObjectURL(new Blob([script])));
    const said = new Promise((resolve) => worker.addEventListener("message", ({ data }) => resolve(data)));
    worker.postMessage(`${location.origin}/src/index.js`);
    const [role, offset] = /** @type {any[]} */ (await said);
    const log = await proglog.Log.open("worker");
    const before = log.role;
    worker.terminate();
    const next = await log.append("from the page");
    await log.close();
    return [role, offset, before, Number(next), log.role];
  });
  assert.deepEqual(outcome, ["leader", 0, "follower", 1, "follower"]);
});

test("a leader whose log takes no more, for want of space, opens it again for who opens it", async () => {
  const [first, second] = [await site.newPage(), await site.newPage()];
  await open(first, "full");
  await open(second, "full");
  const session = await site.session(first);
  const { usage } = await session.send("Storage.getUsageAndQuota", { origin: site.origin });
  await session.send("Storage.overrideQuotaForOrigin", { origin: site.origin, quotaSize: usage + 20_000_000 });
  const kinds = await second.evaluate(async () => {
    const { log } = /** @type {any} */ (globalThis);
    /** @type {string[]} */
    const kinds = [];
    while (kinds.length < 2) {
      await log.append(new Uint8Array(1_000_000)).catch((/** @type {any} */ { kind }) => kinds.push(kind));
    }
    return kinds;
  });
  assert.deepEqual(kinds, ["StorageFull", "Poisoned"]);
  await session.send("Storage.overrideQuotaForOrigin", { origin: site.origin });
  const before = await second.evaluate(async () => {
    const { log } = /** @type {any} */ (globalThis);
    await log.close().catch(() => {});
    return Number(log.nextOffset);
  });
  await open(second, "full");
  const offset = await second.evaluate(async () => Number(await /** @type {any} */ (globalThis).log.append("again")));
  assert.ok(offset >= before, `${offset}, ${before}`);
  assert.equal(await first.evaluate(async () => Number(await /** @type {any} */ (globalThis).log.append("here too"))), offset + 1);
  assert.equal(await first.evaluate(() => /** @type {any} */ (globalThis).log.role), "leader");
});

test("a page that is frozen gives the log up, and is back when it is awake", async () => {
  const scratch = new Scratch();
  const plain = await Site.startPlain(scratch.path);
  try {
    const [first, second] = [await plain.newPage(), await plain.newPage()];
    await open(first, "frozen");
    await open(second, "frozen");
    await first.evaluate(() => /** @type {any} */ (globalThis).log.append("before"));
    const session = await plain.session(first);
    await session.send("Page.setWebLifecycleState", { state: "frozen" });
    const tookMs = await second.evaluate(async () => {
      const began = performance.now();
      await /** @type {any} */ (globalThis).log.append("meanwhile");
      return performance.now() - began;
    });
    console.log(`A leader that was frozen was replaced within ${tookMs.toFixed()} ms`);
    assert.ok(tookMs < 3000, `${tookMs}`);
    assert.equal(await second.evaluate(() => /** @type {any} */ (globalThis).log.role), "leader");
    await session.send("Page.setWebLifecycleState", { state: "active" });
    await first.evaluate(() => /** @type {any} */ (globalThis).log.append("after"));
    assert.equal(await first.evaluate(() => /** @type {any} */ (globalThis).log.role), "follower");
    assert.deepEqual(await values(first), ["before", "meanwhile", "after"]);
    // A follower that is frozen must not be given the lock.
    await session.send("Page.setWebLifecycleState", { state: "frozen" });
    const third = await plain.newPage();
    await open(third, "frozen");
    await second.close();
    await third.evaluate(() => /** @type {any} */ (globalThis).log.append("last"));
    assert.equal(await third.evaluate(() => /** @type {any} */ (globalThis).log.role), "leader");
  } finally {
    await plain.stop();
    await scratch.remove();
  }
});

test("a leader that does not answer is told of in time, and its calls are done once at the most", async () => {
  const [first, second, third] = [await site.newPage(), await site.newPage(), await site.newPage()];
  await open(first, "stuck");
  await open(second, "stuck");
  await second.evaluate(() => /** @type {any} */ (globalThis).log.append("before"));
  await first.evaluate(() => /** @type {any} */ (globalThis).worker.postMessage({ stuckMs: 60_000 }));
  const began = Date.now();
  const [reset, append, opening] = await Promise.all([
    second.evaluate(() => /** @type {any} */ (globalThis).log.reset().catch((/** @type {any} */ { kind }) => kind)),
    second.evaluate(() => /** @type {any} */ (globalThis).log.append("in vain").catch((/** @type {any} */ error) => [error.kind, error.message])),
    third.evaluate(() => proglog.Log.open("stuck").catch((/** @type {any} */ error) => [error.kind, error.message])),
  ]);
  const seconds = (Date.now() - began) / 1000;
  assert.ok(seconds > 9 && seconds < 14, `${seconds} s`);
  assert.equal(append[0], "Unavailable");
  assert.match(append[1], /has not answered for 10 s.*whether "append" was done is not known/);
  assert.equal(/** @type {any} */ (opening)[0], "Unavailable");
  assert.equal(reset, "Unavailable");
  // The next call waits again, and is served once there is a leader that does.
  const again = second.evaluate(() => /** @type {any} */ (globalThis).log.truncateAfter(0n).catch((/** @type {any} */ { kind }) => kind));
  const next = second.evaluate(() => /** @type {any} */ (globalThis).log.append("after").then(() => "done"));
  await new Promise((resolve) => setTimeout(resolve, 300));
  await first.evaluate(() => /** @type {any} */ (globalThis).worker.terminate());
  assert.equal(await next, "done");
  assert.deepEqual((await values(second)).filter((value) => value !== "in vain"), ["before", "after"]);
  assert.equal(await again, "Unavailable");
});
