// Calls that make no sense, the same in a browser and in Node.js.

/** @typedef {typeof import("../src/index.js")} Proglog */

const OFFSETS = [undefined, null, -1n, 2n ** 63n, 2n ** 64n, 1, "1", NaN, Symbol("1"), {}, Object.create(null)];
const VALUES = [undefined, null, 3, {}, [1, 2, 300], new ArrayBuffer(3), Uint16Array.of(1, 300), Symbol("x"), () => 1, 5n,
  new String("ab"), { length: 5 }, { length: 1e12 }, true, "\ud83d", "a\udc00b"];
const OPTIONS = [null, 3, "synced"];

/**
 * Makes them, of a name that is taken by no log.
 *
 * @param {Proglog} proglog
 * @param {string} name
 * @returns {Promise<string[]>} those that were not refused as they should
 */
export async function wrongCalls({ Log, ProglogError }, name) {
  const log = /** @type {any} */ (await Log.open(name));
  await log.append("first");
  /** @type {[string, () => any][]} */
  const calls = [];
  const wrong = (/** @type {string} */ call, /** @type {any[]} */ ...args) => {
    calls.push([`${call} ${args.map(show)}`, () => log[call](...args)]);
  };
  for (const it of ["", "\ud83d", undefined, null, 3, {}, [], Symbol("x"), new URL("file:///tmp/x")]) {
    const other = /** @type {any} */ (it);
    calls.push([`open ${show(it)}`, () => Log.open(other)]);
    calls.push([`delete ${show(it)}`, () => Log.delete(other)]);
    calls.push([`import ${show(it)}`, () => Log.import(other, new Blob())]);
  }
  for (const options of OPTIONS) calls.push([`open with ${show(options)}`, () => Log.open(name, /** @type {any} */ (options))]);
  for (const [call, ...args] of [["append", "x"], ["appendBatch", ["x"]], ["compact"], ["enforceRetention"], ["syncTo", "http://127.0.0.1:1/"]]) {
    wrong(/** @type {string} */ (call), ...args, { expectedNextOfset: 7n });
  }
  for (const call of ["scan", "subscribe"]) calls.push([`${call} of fro`, () => log[call]({ fro: 0n }).next()]);
  calls.push(["open with bogus", () => Log.open(name, /** @type {any} */ ({ bogus: 1 }))]);
  for (const archive of [undefined, null, 3, "archive", {}]) {
    calls.push([`import of ${show(archive)}`, () => Log.import(`${name}-none`, /** @type {any} */ (archive))]);
  }
  for (const offset of OFFSETS) {
    for (const call of ["read", "readBatch", "locate", "truncateBefore", "truncateAfter"]) wrong(call, offset);
    if (offset === undefined) continue;
    calls.push([`scan to ${show(offset)}`, () => log.scan({ to: offset }).next()]);
    calls.push([`append at ${show(offset)}`, () => log.append("x", { expectedNextOffset: offset })]);
    if (offset === null) continue;
    calls.push([`scan from ${show(offset)}`, () => log.scan({ from: offset }).next()]);
    calls.push([`subscribe from ${show(offset)}`, () => log.subscribe({ from: offset }).next()]);
  }
  for (const value of VALUES) {
    wrong("append", value);
    wrong("appendBatch", ["right", { value }]);
    wrong("append", "x", { headers: [{ name: "name", value }] });
    wrong("append", "x", { headers: [{ name: value, value: "value" }] });
    wrong("append", "x", { producer: { id: value, sequence: 1n } });
    wrong("producerLast", value);
    if (value !== undefined && value !== null) wrong("append", "x", { key: value });
  }
  for (const records of [undefined, null, "abc", 3, {}, new Set(["a"]), [undefined], [null], [3], [["a"]], new Array(2)]) {
    wrong("appendBatch", records);
  }
  for (const options of [...OPTIONS, { durability: "fsync" }, { durability: 1 }]) wrong("append", "x", options);
  for (const headers of [5, "ab", {}, [5], [null], [{}], [{ name: 3, value: "x" }], [{ name: Uint8Array.of(97), value: "x" }]]) {
    wrong("append", "x", { headers });
  }
  for (const timestampMs of [-1, 1.5, NaN, Infinity, 2 ** 64, -1n, "5", new Date()]) wrong("append", "x", { timestampMs });
  for (const sequence of [undefined, null, -1n, 2n ** 64n, 1.5, "3"]) wrong("append", "x", { producer: { id: "x", sequence } });
  for (const bytesMax of [-1, NaN, 1.5, "x", 5n, null, {}, Infinity]) wrong("readBatch", 0n, bytesMax);
  for (const options of OPTIONS) {
    for (const call of ["compact", "enforceRetention"]) wrong(call, options);
    for (const call of ["scan", "subscribe"]) calls.push([`${call} ${show(options)}`, () => log[call](options).next()]);
    wrong("syncTo", "http://127.0.0.1:1/", options);
  }
  for (const signal of [null, 5, {}, { aborted: false }]) {
    calls.push([`subscribe until ${show(signal)}`, () => log.subscribe({ from: "end", signal }).next()]);
    wrong("syncTo", "http://127.0.0.1:1/", { signal });
  }
  for (const url of [undefined, null, 3, "", "ftp://127.0.0.1/", "file:///x", "http://name:password@127.0.0.1:1/", "http://["]) {
    // To a page it is one of its own.
    if (url !== "" || !globalThis.location) wrong("syncTo", url);
  }
  for (const it of [{ batchBytes: "x" }, { batchBytes: 0 }, { onProgress: 5 }, { retain: "x" }]) wrong("syncTo", "http://127.0.0.1:1/", it);
  for (const file of [undefined, "", ".", "..", "../0.store", "a/b", "a\0b", 3]) wrong("readFile", file, 0, 1);
  for (const number of [undefined, -1, NaN, 1.5, "0", 0n]) {
    wrong("readFile", "0.store", number, 1);
    wrong("readFile", "0.store", 0, number);
  }

  /** @type {string[]} */
  const failures = [];
  for (const [what, call] of calls) {
    const late = new Promise((resolve) => setTimeout(() => resolve("nothing for 5 s"), 5000));
    const given = await Promise.race([late, (async () => call())()]).catch((error) => error);
    const isRefused = given instanceof ProglogError && given.kind === "InvalidArgument" && given.message.length > 10;
    if (!isRefused) failures.push(`${what}: ${given instanceof Error ? `${given.name}, ${given.message}` : show(given)}`);
  }
  // Nothing was appended, and it goes on.
  if (log.nextOffset !== 1n) failures.push(`${log.nextOffset - 1n} records were appended`);
  await log.append("x", { key: null, headers: null, producer: null, timestampMs: undefined });
  const { timestampMs, key } = await log.read(1n);
  if (!(timestampMs > 1e12) || key !== undefined) failures.push(`${timestampMs} ${key}`);
  const ended = AbortSignal.abort();
  await log.syncTo("http://127.0.0.1:1/", { signal: ended });
  if (!(await log.subscribe({ signal: ended }).next()).done) failures.push("a subscription goes on");

  const appends = Array.from({ length: 50 }, (_, n) => log.append(`${n}`));
  const closed = log.close();
  const late = log.append("late").catch((/** @type {any} */ { kind }) => kind);
  await Promise.all([...appends, closed]);
  if (!["Closed", 52n].includes(await late)) failures.push(`an append while it is closed: ${await late}`);
  await log.close();
  for (const call of ["sync", "export", "segments", "verify", "reset", "recoveryReport"]) {
    const kind = await log[call]().catch((/** @type {any} */ { kind }) => kind);
    if (kind !== "Closed") failures.push(`${call} after it was closed: ${show(kind)}`);
  }
  return failures;
}

/** @param {unknown} value */
function show(value) {
  if (typeof value === "symbol" || typeof value === "function") return `a ${typeof value}`;
  return JSON.stringify(value, (_, part) => (typeof part === "bigint" ? `${part}n` : part)) ?? `${value}`;
}
