// Measures an engine, in a page or in a worker.

/** @typedef {import("./engines.js").Engine} Engine */

/**
 * What is appended: records of so many bytes, in batches of so many, by themselves if of one; so many appends at once, each
 * of them durable by itself; so often unmeasured, then for so long.
 *
 * @typedef {{ bytes: number, batch: number, atOnce: number, warmUps: number, ms: number }} Work
 */

/** How many durable appends or batches that took how long. @typedef {{ times: number, ms: number }} Measured */

/**
 * Appends for a while, one after the other or some at once and then the next, then reads the last record back.
 *
 * @param {Engine} engine
 * @param {Work} work
 * @returns {Promise<Measured>}
 */
export async function measure(engine, { bytes, batch, atOnce, warmUps, ms }) {
  const values = Array.from({ length: batch }, (_, n) => valueOf(bytes, n));
  const before = Array.from({ length: atOnce - 1 }, (_, n) => valueOf(bytes, n));
  const last = /** @type {Uint8Array} */ (values.at(-1));
  const number = new DataView(last.buffer);
  let times = 0;
  const turn = async () => {
    times += atOnce;
    // So that what is read back is the last.
    number.setFloat64(0, times);
    if (batch > 1) await engine.appendBatch(values);
    else await Promise.all([...before, last].map((value) => engine.append(value)));
  };
  for (let n = 0; n < warmUps; n++) await turn();
  const began = performance.now();
  let ended = began;
  while (ended - began < ms) {
    await turn();
    ended = performance.now();
  }
  const { count, value } = await engine.last();
  if (count !== times * batch || !value || `${value}` !== `${last}`) {
    throw new Error(`${count} of ${times * batch} records are there, the last is [${value}] and was [${last}]`);
  }
  return { times: times - warmUps * atOnce, ms: ended - began };
}

/**
 * The value of a number: random bytes after that.
 *
 * @param {number} bytes
 * @param {number} number
 */
export function valueOf(bytes, number) {
  const value = crypto.getRandomValues(new Uint8Array(bytes));
  new DataView(value.buffer).setFloat64(0, number);
  return value;
}

/**
 * Appends records in batches, unmeasured.
 *
 * @param {Engine} engine
 * @param {number} records
 * @param {number} bytes
 * @param {number} batch
 */
export async function fill(engine, records, bytes, batch) {
  for (let at = 0; at < records; at += batch) {
    const length = Math.min(batch, records - at);
    await engine.appendBatch(Array.from({ length }, (_, n) => valueOf(bytes, at + n)));
  }
}
