// log.js and frame.js, over the module that the program serves to browsers.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";

import { decodeFrame, decodeFrames, encodeBatch } from "../frame.js";
import { Log, LogError, withBytes } from "../log.js";
import { hex } from "../text.js";
import { Scratch, Server, nativeStore } from "./program.js";

/** @type {import("../log.js").Exports} */
let exports;
const scratch = new Scratch();
let names = 0;

before(async () => {
  const server = await Server.start(join(scratch.path, "log"));
  const glue = join(scratch.path, "proglog.mjs");
  writeFileSync(glue, await fetchBytes(`${server.url}dist/proglog.js`));
  const module_or_path = await fetchBytes(`${server.url}dist/proglog_bg.wasm`);
  await server.stop();
  exports = await (await import(pathToFileURL(glue).href)).default({ module_or_path });
});

after(() => scratch.remove());

test("a record comes back as it was appended, and its frame is what the program writes natively", () => {
  const log = newLog();
  assert.equal(log.nextOffset, 0n);
  const records = [
    { value: "hello world", timestampMs: 0 },
    { value: "b", timestampMs: 0 },
    { value: "", timestampMs: 0 },
    { value: "Grüße, 世界\nzwei", key: "Schlüssel", timestampMs: 1_795_348_768_204 },
    { value: Uint8Array.of(0xff, 0x00, 0x80, 0x79), timestampMs: 1_795_348_768_205 },
  ];
  records.forEach((record, index) => assert.equal(log.append(record), BigInt(index)));

  const read = records.map((_, index) => log.read(BigInt(index)));
  read.forEach((record, index) => {
    const { value, key, timestampMs } = records[index] ?? assert.fail();
    assert.equal(record.offset, BigInt(index));
    assert.deepEqual(Buffer.from(record.value), Buffer.from(value));
    assert.equal(record.key && Buffer.from(record.key).toString(), key);
    assert.equal(record.timestampMs, timestampMs || undefined);
    assert.equal(record.batchRemaining, 0);
  });
  assert.equal(hex(read[0]?.frame.subarray(0, -8) ?? assert.fail()), "00000000000000160a0b68656c6c6f20776f726c6479");
  assert.equal(
    hex(Buffer.concat(read.map(({ frame }) => frame))),
    hex(nativeStore(join(scratch.path, "native"), records)),
  );
  assert.deepEqual(
    [log.lowestOffset, log.nextOffset, log.durableOffset],
    [0n, 5n, 5n],
  );
});

test("the parts of a frame cover it, each field named", () => {
  const log = newLog();
  log.append("first");
  log.append({
    value: "value",
    key: "key",
    headers: [{ name: "trace", value: "4bf9" }, { name: "empty", value: "" }],
    timestampMs: 300,
  });
  const { parts, frame, headers, checksum } = log.read(1n);
  assert.deepEqual(
    parts.map(({ field }) => field),
    ["length", "value", "offset", "timestamp_ms", "key", "headers", "headers", "checksum"],
  );
  let end = 0;
  for (const part of parts) {
    assert.equal(part.start, end);
    ({ end } = part);
  }
  assert.equal(end, frame.length);
  assert.deepEqual(
    headers.map(({ name, value }) => [name, Buffer.from(value).toString()]),
    [["trace", "4bf9"], ["empty", ""]],
  );
  assert.equal(checksum, Buffer.from(frame).readBigUInt64LE(frame.length - 8));
  assert.deepEqual(log.locate(1n), { segment: 0n, position: BigInt(log.read(0n).frame.length) });
});

test("frames that tell of offsets that are not there are no records", () => {
  const log = newLog();
  log.append("a");
  const { frame } = log.read(0n);
  // Length, offset 9, of 9 offsets, compacted, and a checksum, which was checked.
  const gap = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 15, 0x10, 9, 0x60, 9, 0x68, 1, 0x79, 0, 0, 0, 0, 0, 0, 0, 0);
  const frames = Buffer.concat([gap, frame, gap, gap, frame]);
  assert.deepEqual(decodeFrames(frames).map(({ offset }) => offset), [0n, 0n]);
});

test("a batch is encoded alike into memory that another had", () => {
  let filled = 0;
  for (let bytes = 1; bytes < 3000; bytes += 7) {
    const plain = [{ value: new Uint8Array(bytes).fill(1) }, { value: "", timestampMs: 0 }, { value: "k".repeat(bytes) }];
    // These take more than they look like.
    const key = "k".repeat(bytes % 40);
    const large = [{ value: "ä".repeat(bytes), key, headers: [{ name: "n", value: new Uint8Array(bytes % 300) }] }, ...plain];
    for (const records of [plain, large]) {
      const whole = encodeBatch(records, 1_795_348_768_204);
      for (const more of [-1, 0, 1, bytes >> 4]) {
        const looks = records.reduce((sum, { value }) => sum + value.length + 24, 0);
        const spare = new Uint8Array(looks + more).fill(0xff).buffer;
        const refused = [...records, { value: "", timestampMs: -1 }];
        assert.throws(() => encodeBatch(refused, 0, spare), RangeError);
        const encoded = encodeBatch(records, 1_795_348_768_204, spare);
        assert.deepEqual(Buffer.from(encoded), Buffer.from(whole), `${bytes} ${more}`);
        if (encoded.buffer === spare) filled += 1;
      }
    }
  }
  assert.ok(filled > 1000, `${filled}`);
});

test("a batch is appended as one, and read as one", () => {
  const log = newLog();
  log.append("before");
  const values = Array.from({ length: 300 }, (_, index) => `value ${index}`);
  assert.equal(log.appendBatch(values.map((value) => ({ value, timestampMs: 7 }))), 1n);
  assert.equal(log.nextOffset, 301n);
  const read = log.readBatch(1n, 1 << 20);
  assert.deepEqual(read.map(({ value }) => Buffer.from(value).toString()), values);
  assert.deepEqual(read.map(({ batchRemaining }) => batchRemaining), values.map((_, index) => 299 - index));
  assert.ok(log.readBatch(1n, 1000).length < 300);
  assert.deepEqual(log.readBatch(301n, 1 << 20), []);
});

test("values of a megabyte make the module's memory grow, and come back whole", () => {
  const log = newLog();
  const memoryBytes = exports.memory.buffer.byteLength;
  const value = Uint8Array.from({ length: 1 << 20 }, (_, index) => (index * 31) >> 3);
  for (let offset = 0n; offset < 16n; offset++) {
    value[0] = Number(offset);
    assert.equal(log.append(value), offset);
  }
  for (let offset = 0n; offset < 16n; offset++) {
    value[0] = Number(offset);
    assert.deepEqual(Buffer.compare(log.read(offset).value, value), 0);
  }
  assert.ok(exports.memory.buffer.byteLength > memoryBytes);
});

test("an append has a promise of its own", () => {
  const log = newLog();
  assert.equal(log.append("later", "buffered"), 0n);
  assert.equal(log.appendBatch([{ value: "later" }, { value: "still" }], "written"), 1n);
  assert.equal(log.append({ value: "later", key: Buffer.from("k") }, "buffered"), 3n);
  assert.equal(log.durableOffset, 0n);
  assert.equal(log.append("now"), 4n);
  assert.equal(log.durableOffset, 5n);
});

test("what cannot be done is an error of a kind to act on", () => {
  const name = newName();
  const log = Log.open(exports, name, { recordBytesMax: 1000 });
  log.append("only");
  assert.throws(() => log.read(1n), failure("OffsetOutOfRange", /offset 1 /));
  assert.throws(() => log.read(-1n), failure("InvalidArgument", /-1/));
  assert.throws(() => log.read(2n ** 64n), failure("InvalidArgument", /18446744073709551616/));
  assert.throws(() => log.append(new Uint8Array(1001)), failure("TooLarge", /1000/));
  assert.throws(() => log.append({ value: "early", timestampMs: -1 }), failure("InvalidArgument", /./));
  assert.throws(() => Log.open(exports, name), failure("Locked", /./));
  assert.equal(log.nextOffset, 1n);

  const reader = Log.open(exports, name, { readOnly: true });
  assert.equal(Buffer.from(reader.read(0n).value).toString(), "only");
  assert.throws(() => reader.append("more"), failure("ReadOnly", /./));
  log.close();
  assert.throws(() => log.read(0n), LogError);
  assert.throws(() => log.close(), LogError);
});

test("no argument of the raw exports brings the module down", () => {
  const log = newLog();
  log.append("still there");
  const { open, append, append_batch, append_drafts, read, alloc, dealloc } = exports;
  const bad = -1;
  assert.equal(read(12345, 0n), BigInt(bad));
  assert.equal(read(-1, 0n), BigInt(bad));
  assert.equal(append(0, 0, 0, 0n, 0, -1n), BigInt(bad));
  assert.equal(append(1, 0, 0, 0n, 8, -1n), BigInt(bad));
  assert.equal(open(1 << 30, 100, 0, 0n, 0n, 0n, 0n), bad);
  assert.equal(open(0, 0, 0xff, 0n, 0n, 0n, 0n), bad);
  assert.equal(alloc(0), 0);
  assert.equal(alloc(-1), 0);
  assert.equal(dealloc(16, 16), bad);
  const pointer = alloc(16);
  assert.ok(pointer > 0);
  assert.equal(append_batch(1, pointer, -1, 0, -1n), BigInt(bad));
  assert.equal(append_drafts(1, pointer, -1, 0, -1n), BigInt(bad));
  assert.equal(append_drafts(1, pointer, 16, 0, -1n), BigInt(bad));
  // A batch whose entry says it is longer than the batch.
  new Uint8Array(exports.memory.buffer, pointer, 16).fill(0xff);
  assert.equal(append_batch(1, pointer, 16, 0, -1n), BigInt(bad));
  assert.equal(append_drafts(1, pointer, 16, 0, -1n), BigInt(bad));
  assert.equal(dealloc(pointer, 16), 0);
  assert.equal(dealloc(pointer, 16), bad);
  assert.equal(Buffer.from(log.read(0n).value).toString(), "still there");
});

test("drafts are appended as the records that they are of", () => {
  const log = newLog();
  const values = ["one", "", "three".repeat(1000)];
  log.appendBatch(values.map((value, n) => ({ value, key: `key ${n}`, timestampMs: 7 })));
  const drafts = Buffer.concat(log.readBatch(0n, 1 << 20).map(({ frame }) => frame));
  const name = newName();
  const handle = withBytes(exports, Buffer.from(name), (pointer, length) => exports.open(pointer, length, 0, 0n, 0n, 0n, 0n));
  assert.ok(handle > 0);
  for (const first of [0n, 3n]) {
    const appended = withBytes(exports, drafts, (pointer, length) => exports.append_drafts(handle, pointer, length, 0, -1n));
    assert.equal(appended, first);
  }
  const read = Log.open(exports, name, { readOnly: true }).readBatch(3n, 1 << 20);
  assert.deepEqual(read.map(({ offset }) => offset), [3n, 4n, 5n]);
  assert.deepEqual(read.map(({ value }) => Buffer.from(value).toString()), values);
  assert.deepEqual(read.map(({ key, timestampMs }) => [Buffer.from(key ?? []).toString(), timestampMs]), values.map((_, n) => [`key ${n}`, 7]));
});

test("a log that is closed and opened again has its records; one that is reset has none", () => {
  const name = newName();
  let log = Log.open(exports, name, { initialOffset: 10n, segmentBytesMax: 64 });
  for (let index = 0; index < 20; index++) log.append(`value ${index}`);
  log.close();
  log = Log.open(exports, name);
  assert.deepEqual([log.lowestOffset, log.nextOffset], [10n, 30n]);
  log.truncateBefore(20n);
  assert.throws(() => log.read(10n), failure("OffsetOutOfRange", /./));
  assert.ok(log.lowestOffset > 10n && log.lowestOffset <= 20n);
  log.truncateAfter(25n);
  assert.equal(log.nextOffset, 26n);
  assert.equal(Buffer.from(log.read(25n).value).toString(), "value 15");
  log.sync();
  log.reset();
  assert.equal(log.lowestOffset, log.nextOffset);
  log.close();
});

test("what is obsolete, too much or too old goes", () => {
  const log = Log.open(exports, newName(), { segmentBytesMax: 1 });
  const value = ["a", "b", "c", "d", ""];
  value.forEach((value, index) => log.append({ value, key: "k", timestampMs: 1000 * (index + 1) }));
  for (const timestampMs of [6000, 7000, 8000]) log.append({ value: "x", timestampMs });
  const compact = (/** @type {import("../log.js").Compaction} */ compaction) => log.compact(compaction).recordsRemoved;
  assert.deepEqual(log.compact({ tombstonesKeptMs: 500, nowMs: 5499 }).segments, 4);
  assert.throws(() => log.read(3n), failure("Gap", /./));
  assert.equal(compact({ tombstonesKeptMs: 500, nowMs: 5499 }), 0);
  assert.equal(log.read(4n).value.length, 0);
  assert.equal(compact({ memoryBytesMax: 1 }), 1);
  assert.throws(() => log.read(4n), failure("Gap", /./));
  for (const bad of [-1, 0.5, NaN, 2 ** 60]) {
    assert.throws(() => log.compact({ nowMs: bad }), failure("InvalidArgument", /./));
    assert.throws(() => log.enforceRetention({ bytesMax: bad }), failure("InvalidArgument", /./));
  }

  log.enforceRetention({});
  log.enforceRetention({ ageMaxMs: 1000, nowMs: 7000 });
  const lowest = log.lowestOffset;
  assert.ok(lowest <= 5n, `${lowest}`);
  log.enforceRetention({ ageMaxMs: 1000, nowMs: 7001 });
  assert.equal(log.lowestOffset, 6n);
  log.enforceRetention({ bytesMax: 0 });
  assert.equal(log.lowestOffset, 7n);
  log.close();
});

test("what a producer sends again is there once, and what is expected comes there or not at all", () => {
  const log = newLog();
  const send = (/** @type {bigint} */ sequence, /** @type {import("../log.js").AppendOptions} */ options = {}) =>
    log.append({ value: "x", producer: { id: "outbox", sequence } }, options);
  assert.equal(log.producerLast("outbox"), undefined);
  for (let round = 0; round < 2; round++) {
    assert.equal(send(7n), 0n);
    assert.equal(send(2n ** 64n - 1n, { expectedNextOffset: 1n }), 1n);
  }
  assert.deepEqual(log.producerLast("outbox"), { sequence: 2n ** 64n - 1n, offset: 1n });
  const { producer } = log.read(0n);
  assert.deepEqual([Buffer.from(producer?.id ?? "").toString(), producer?.sequence], ["outbox", 7n]);
  const refused = (/** @type {LogError["kind"]} */ kind, /** @type {object} */ conflict) =>
    (/** @type {unknown} */ error) => {
      assert.ok(error instanceof LogError, `${error}`);
      assert.equal(error.kind, kind);
      assert.deepEqual(error.conflict, conflict);
      return true;
    };
  assert.throws(() => send(8n), refused("SequenceConflict", { lastSequence: 2n ** 64n - 1n, lastOffset: 1n }));
  assert.throws(
    () => log.append("late", { expectedNextOffset: 1n, durability: "written" }),
    refused("Conflict", { expected: 1n, nextOffset: 2n }),
  );
  assert.equal(log.append("in time", { expectedNextOffset: 2n }), 2n);
  assert.throws(() => log.producerLast("x".repeat(33)), failure("InvalidArgument", /32/));
});

test("bytes that are no frame are refused", () => {
  const log = newLog();
  log.append({ value: "value", key: "key", timestampMs: 300 });
  const { frame } = log.read(0n);
  for (let length = 0; length < frame.length; length++) {
    assert.throws(() => decodeFrame(frame.slice(0, length)), RangeError);
  }
  const cut = frame.slice(0, -4);
  new DataView(cut.buffer).setBigUint64(0, BigInt(cut.length - 8));
  assert.throws(() => decodeFrame(cut), RangeError);
});

function newLog() {
  return Log.open(exports, newName());
}

function newName() {
  return `log ${names++}`;
}

/**
 * @param {LogError["kind"]} kind
 * @param {RegExp} message
 */
function failure(kind, message) {
  return (/** @type {unknown} */ error) => {
    assert.ok(error instanceof LogError, `${error}`);
    assert.equal(error.kind, kind);
    assert.match(error.message, message);
    return true;
  };
}

/** @param {string} url */
async function fetchBytes(url) {
  const response = await fetch(url);
  assert.equal(response.status, 200, url);
  return new Uint8Array(await response.arrayBuffer());
}
