// Runs a shared vector (tests/vectors/) on the package, in a page.

import { end, entries, header, padding } from "../src/tar.js";

/** @typedef {any} Json */

/**
 * What is not as the vector says, of what each step gives and of the files that are left.
 *
 * @param {typeof import("../src/index.js")} proglog
 * @param {string} name of the log, which is deleted afterwards
 * @param {Json} vector
 * @returns {Promise<string[]>}
 */
export async function runVector({ Log }, name, vector) {
  const wrong = [];
  const given = Object.entries(vector.given ?? {});
  /** @type {any} */
  let log = given.length
    ? await Log.import(name, archive(given.map(([file, bytes]) => [file, fileBytes(bytes)])), options(vector.options))
    : await Log.open(name, options(vector.options));
  for (const [number, step] of vector.script.entries()) {
    let outcome;
    try {
      if (step.do.reopen) {
        await log?.close();
        log = undefined;
        log = await Log.open(name, options({ ...vector.options, ...step.do.reopen }));
      } else {
        outcome = { gives: await perform(log, step.do) };
      }
    } catch (error) {
      outcome = { fails: snakeCase(/** @type {{ kind?: string }} */ (error).kind ?? `${error}`) };
    }
    const found = text({ gives: outcome?.gives ?? null, fails: outcome?.fails ?? null });
    const expected = text({ gives: normal(step.gives) ?? null, fails: step.fails ?? null });
    if (found !== expected) wrong.push(`step ${number}, ${text(step.do)}: ${found}, not ${expected}`);
  }
  const files = await filesOf(await log.export());
  await log.close();
  await Log.delete(name);
  const expected = vector.files;
  if (text(Object.keys(files).sort()) !== text(Object.keys(expected).sort())) {
    wrong.push(`the files ${text(Object.keys(files))}, not ${text(Object.keys(expected))}`);
  }
  for (const [file, bytes] of Object.entries(expected)) {
    const found = files[file] ?? "";
    const isSame = bytes.hex === undefined ? found.length / 2 === bytes.bytes : found === bytes.hex;
    if (!isSame) wrong.push(`${file} is ${found.slice(0, 2000)}, not ${text(bytes)}`);
  }
  return wrong;
}

/**
 * The files in an archive, in hex.
 *
 * @param {Blob} archive
 */
export async function filesOf(archive) {
  /** @type {Record<string, string>} */
  const files = {};
  for await (const { name, contents } of entries(archive)) files[name] = hex(new Uint8Array(await contents.arrayBuffer()));
  return files;
}

/** @param {any[]} files of each its name and bytes */
export function archive(files) {
  return new Blob([...files.flatMap(([name, bytes]) => [header(name, bytes.length), bytes, padding(bytes.length)]), end()]);
}

/** @param {Uint8Array} bytes */
export function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {string} digits */
export function unhex(digits) {
  return Uint8Array.from(digits.match(/../g) ?? [], (byte) => parseInt(byte, 16));
}

/**
 * @param {any} log
 * @param {Json} operation
 */
async function perform(log, operation) {
  if (operation === "lowest_offset") return log.lowestOffset;
  if (operation === "next_offset") return log.nextOffset;
  if (operation === "durable_offset") return log.durableOffset;
  if (operation === "sync") return void (await log.sync());
  if (operation === "reset") return void (await log.reset());
  if (operation === "segments") {
    return (await log.segments()).map((/** @type {Json} */ { base, next, storeBytes }) => [base, next, storeBytes]);
  }
  if (operation === "verify") {
    const { segments } = await log.verify();
    const sum = (/** @type {string} */ field) => segments.reduce((/** @type {number} */ all, /** @type {Json} */ one) => all + one[field], 0);
    const isSound = segments.every((/** @type {Json} */ { damage }) => damage.length === 0);
    return { sound: isSound, records: sum("records"), unchecked: sum("uncheckedRecords") };
  }
  const [[name, argument]] = /** @type {[[string, Json]]} */ (Object.entries(operation));
  switch (name) {
    case "append": {
      const { value, ...options } = newRecord(argument);
      return log.append(value, options);
    }
    case "append_batch":
      return appended(log, argument, {});
    case "append_expecting":
      return appended(log, argument.records, { expectedNextOffset: BigInt(argument.expected_next_offset) });
    case "producer_last": {
      const last = await log.producerLast(data(argument));
      return last ? [last.sequence, last.offset] : [];
    }
    case "read": {
      const offset = BigInt(argument);
      const record = await log.read(offset);
      if (!record) throw Object.assign(new Error(), { kind: "OffsetOutOfRange" });
      return recordRead(record);
    }
    case "read_batch": {
      const from = BigInt(argument.from);
      return (await log.readBatch(from, argument.bytes_max)).map(recordRead);
    }
    case "scan": {
      const records = [];
      const to = BigInt(argument.to);
      for (let from = BigInt(argument.from); from < to; from++) {
        try {
          for await (const record of log.scan({ from, to })) {
            records.push(recordRead(record));
            from = record.offset + 1n;
          }
          break;
        } catch (error) {
          const { kind } = /** @type {{ kind: string }} */ (error);
          if (kind !== "Corrupt") throw error;
          records.push({ offset: from, fails: snakeCase(kind) });
        }
      }
      return records;
    }
    case "truncate_before":
      return void (await log.truncateBefore(BigInt(argument)));
    case "truncate_after":
      return void (await log.truncateAfter(BigInt(argument)));
    case "locate": {
      const { segment, position } = await log.locate(BigInt(argument));
      return [segment, position];
    }
    default:
      throw new Error(`no operation is called ${name}`);
  }
}

/**
 * @param {any} log
 * @param {Json[]} records
 * @param {object} options
 */
async function appended(log, records, options) {
  const offsets = await log.appendBatch(records.map(newRecord), options);
  const first = offsets[0] ?? log.nextOffset;
  return [first, first + BigInt(offsets.length)];
}

/** @param {Json} settings */
function options(settings = {}) {
  return {
    ...(settings.segment_bytes_max !== undefined && { segmentBytesMax: settings.segment_bytes_max }),
    ...(settings.index_bytes_max !== undefined && { indexBytesMax: settings.index_bytes_max }),
    ...(settings.record_bytes_max !== undefined && { recordBytesMax: settings.record_bytes_max }),
    ...(settings.initial_offset !== undefined && { initialOffset: BigInt(settings.initial_offset) }),
  };
}

/** @param {Json} record */
function newRecord({ value = "", key, headers = [], timestamp_ms = 0, producer }) {
  return {
    value: data(value),
    key: key === undefined ? undefined : data(key),
    headers: headers.map((/** @type {Json} */ [name, value]) => ({ name, value: data(value) })),
    timestampMs: /** @type {any} */ (BigInt(timestamp_ms)),
    producer: producer && { id: data(producer[0]), sequence: BigInt(producer[1]) },
  };
}

/** @param {any} record */
function recordRead({ offset, value, key, headers, timestampMs, producer, batchRemaining, checksum }) {
  return {
    offset,
    value,
    ...(key && { key }),
    ...(headers.length && { headers: headers.map((/** @type {Json} */ { name, value }) => [name, value]) }),
    ...(timestampMs && { timestamp_ms: timestampMs }),
    ...(producer && { producer: [producer.id, producer.sequence] }),
    ...(batchRemaining && { batch_remaining: batchRemaining }),
    ...(checksum === undefined && { unchecked: true }),
  };
}

/** @param {Json} form */
function data(form) {
  if (typeof form === "string") return new TextEncoder().encode(form);
  return form.hex === undefined ? new TextEncoder().encode(form.repeat.repeat(form.times)) : unhex(form.hex);
}

/** @param {Json} file */
function fileBytes(file) {
  return file.hex === undefined ? new Uint8Array(file.bytes) : unhex(file.hex);
}

/**
 * What a vector says, with bytes as bytes where they can be told.
 *
 * @param {Json} json
 * @returns {any}
 */
function normal(json) {
  if (Array.isArray(json)) return json.map(normal);
  if (json?.hex !== undefined || json?.repeat !== undefined) return data(json);
  if (json === null || typeof json !== "object") return json;
  const fields = Object.entries(json).map(([name, value]) => [name, normal(value)]);
  // The package has it as a number.
  if (json.timestamp_ms) fields.push(["timestamp_ms", Number(json.timestamp_ms)]);
  return Object.fromEntries(fields);
}

/**
 * One text for what is the same: numbers as digits, bytes as text, fields in order.
 *
 * @param {any} value
 */
function text(value) {
  return JSON.stringify(value, (_, part) => {
    if (typeof part === "bigint" || typeof part === "number") return `${part}`;
    if (part instanceof Uint8Array) return new TextDecoder().decode(part);
    if (part === null || typeof part !== "object" || Array.isArray(part)) return part;
    return Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)));
  });
}

/** @param {string} kind */
function snakeCase(kind) {
  return kind.replace(/(?<=.)[A-Z]/g, (letter) => `_${letter}`).toLowerCase();
}
