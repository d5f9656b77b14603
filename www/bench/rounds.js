// The measurements, in a real Chromium: every subject once a round, in another order each, and ratios within a round.

import { statfsSync } from "node:fs";

import { Site } from "../test/site.js";

/** @typedef {import("./measure.js").Measured} Measured */

/**
 * How often each is measured, and how; what sizes of logs are opened, and how often; and only what has such a title.
 *
 * @typedef {object} Plan
 * @property {number} rounds
 * @property {number} warmUps
 * @property {number} ms
 * @property {number[]} records
 * @property {number} starts
 * @property {RegExp | undefined} [only]
 */

/**
 * What every round gave of each subject: appends or batches a second, or milliseconds.
 *
 * @typedef {{ title: string, unit: "a second" | "ms", subjects: Record<string, number[]> }} Row
 */

export const WORK = [
  { title: "append, 100 B", bytes: 100, batch: 1, atOnce: 1 },
  { title: "append, 1 KiB", bytes: 1024, batch: 1, atOnce: 1 },
  { title: "append, 100 B, 100 at once", bytes: 100, batch: 1, atOnce: 100 },
  { title: "batch of 100, 100 B", bytes: 100, batch: 100, atOnce: 1 },
  { title: "batch of 1,000, 100 B", bytes: 100, batch: 1000, atOnce: 1 },
  { title: "batch of 10,000, 100 B", bytes: 100, batch: 10_000, atOnce: 1 },
];
export const APPENDERS = [
  "proglog",
  "indexeddb",
  "sqlite",
  "floor",
  "proglog in the worker",
  "sqlite in the worker",
  "floor in the worker",
];
export const STARTERS = ["proglog", "indexeddb", "sqlite"];

/** What a tmpfs tells that it is. */
const TMPFS = 0x01021994;

/**
 * @param {string} profile a directory for the browser's, on a disk: in memory nothing is durable
 * @param {Plan} plan
 * @param {(what: string) => void} [tell]
 */
export async function measureAll(profile, { rounds, warmUps, ms, records, starts, only }, tell = () => {}) {
  if (statfsSync(profile).type === TMPFS) throw new Error(`${profile} is in memory; give a directory on a disk`);
  const site = await Site.startPlain(profile);
  try {
    const version = site.version;
    /** @type {Row[]} */
    const rows = [];
    const wanted = WORK.filter(({ title }) => !only || only.test(title));
    const appended = wanted.map(({ title }) => newRow(title, "a second", APPENDERS));
    const page = await newPage(site);
    for (let round = 0; round < rounds; round++) {
      for (const [n, { bytes, batch, atOnce }] of wanted.entries()) {
        for (const subject of rotated(APPENDERS, round)) {
          tell(`round ${round + 1}: ${appended[n]?.title}, ${subject}`);
          const { times, ms: took } = await page.evaluate(
            ([subject, work]) => globalThis.shared["append"](subject, work),
            /** @type {const} */ ([subject, { bytes, batch, atOnce, warmUps, ms }]),
          );
          appended[n]?.subjects[subject]?.push((times * 1000) / took);
        }
      }
    }
    rows.push(...appended);
    await page.close();
    const sizes = records.filter((size) => !only || only.test(startTitle(size)));
    rows.push(...(await measureStarts(site, sizes, starts, tell)));
    return { version, rows };
  } finally {
    await site.stop();
  }
}

/**
 * Logs of all sizes are there at once, and opened in turn, so that what the machine does meanwhile happens to all.
 *
 * @param {Site} site
 * @param {number[]} sizes in records
 * @param {number} rounds
 * @param {(what: string) => void} tell
 */
async function measureStarts(site, sizes, rounds, tell) {
  const subjects = sizes.flatMap((size, n) => STARTERS.map((subject) => ({ subject, size, n })));
  const rows = sizes.map((size) => newRow(startTitle(size), "ms", STARTERS));
  for (const { subject, size } of subjects) {
    tell(`making ${size} records, ${subject}`);
    await once(site, subject, "make", size);
    // Once unmeasured: to have what is read in the page cache.
    await once(site, subject, "start", size);
  }
  for (let round = 0; round < rounds; round++) {
    for (const { subject, size, n } of rotated(subjects, round)) {
      tell(`round ${round + 1}: ${rows[n]?.title}, ${subject}`);
      rows[n]?.subjects[subject]?.push(await once(site, subject, "start", size));
    }
  }
  for (const { subject, size } of subjects) await once(site, subject, "remove", size);
  return rows;
}

/** @param {number} records of the log */
function startTitle(records) {
  return `start, ${records.toLocaleString("en")} records`;
}

/**
 * Calls a function of page.js in a page of its own.
 *
 * @param {Site} site
 * @param {string} subject
 * @param {"make" | "start" | "remove"} call
 * @param {number} records
 * @returns {Promise<any>}
 */
async function once(site, subject, call, records) {
  const page = await newPage(site);
  try {
    return await page.evaluate(
      ([call, subject, records]) => globalThis.shared[call](subject, records),
      /** @type {const} */ ([call, subject, records]),
    );
  } finally {
    await page.close();
  }
}

/** @param {Site} site */
async function newPage(site) {
  const page = await site.newPage();
  await page.evaluate(async () => {
    const load = (/** @type {string} */ path) => import(path);
    Object.assign(globalThis, { shared: await load("/bench/page.js") });
  });
  return page;
}

/**
 * @param {string} title
 * @param {Row["unit"]} unit
 * @param {string[]} subjects
 * @returns {Row}
 */
function newRow(title, unit, subjects) {
  return { title, unit, subjects: Object.fromEntries(subjects.map((subject) => [subject, []])) };
}

/**
 * @template T
 * @param {T[]} items
 * @param {number} by
 */
function rotated(items, by) {
  const at = by % items.length;
  return [...items.slice(at), ...items.slice(0, at)];
}
