// `npm run bench`: the log beside IndexedDB and SQLite in the same browser. Prints tables, and writes JSON where told.
//
// Options: --rounds 7, --ms 500 (of each measurement), --records 1000,100000,1000000 (of logs to open), --starts 21 (of each),
// --only REGEXP (of titles), --directory DIR (for the browser's profile, on a disk), --json FILE.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, loadavg, release, tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import { execFileSync } from "node:child_process";
import { parseArgs } from "node:util";

import { measureAll } from "./rounds.js";

/** @typedef {import("./rounds.js").Row} Row */

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "7" },
    ms: { type: "string", default: "500" },
    records: { type: "string", default: "1000,100000,1000000" },
    starts: { type: "string", default: "21" },
    only: { type: "string" },
    directory: { type: "string", default: tmpdir() },
    json: { type: "string" },
  },
});

const load = loadavg()[0] ?? 0;
const profile = mkdtempSync(join(values.directory, "proglog-bench-"));
try {
  const plan = {
    rounds: Number(values.rounds),
    warmUps: 10,
    ms: Number(values.ms),
    records: values.records.split(",").map(Number),
    starts: Number(values.starts),
    only: values.only ? new RegExp(values.only) : undefined,
  };
  const isShown = process.stderr.isTTY;
  const tell = (/** @type {string} */ what) => isShown && process.stderr.write(`\x1b[2K\r${what}`);
  const { version, rows } = await measureAll(profile, plan, tell);
  if (isShown) process.stderr.write("\x1b[2K\r");
  const machine = {
    browser: version,
    processor: `${cpus()[0]?.model}, ${cpus().length} cores, ${Math.round(totalmem() / 2 ** 30)} GiB`,
    kernel: `Linux ${release()}`,
    "file system": mountOf(profile),
    date: new Date().toISOString().slice(0, 16).replace("T", " ") + " UTC",
    "load before": load.toFixed(2),
    rounds: values.rounds,
    starts: values.starts,
  };
  console.log(Object.entries(machine).map(([name, value]) => `${name}: ${value}`).join("\n"));
  for (const unit of /** @type {const} */ (["a second", "ms"])) print(rows.filter((row) => row.unit === unit));
  printGrowth(rows.filter((row) => row.unit === "ms"));
  if (values.json) writeFileSync(values.json, JSON.stringify({ machine, rows }, null, 1) + "\n");
} finally {
  rmSync(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
}

/** @param {Row[]} rows */
function print(rows) {
  const [first] = rows;
  if (!first) return;
  const subjects = Object.keys(first.subjects);
  console.log(`\n| ${first.unit} | ${subjects.join(" | ")} |\n|-|${subjects.map(() => "-:|").join("")}`);
  for (const { title, subjects: measured } of rows) {
    const cells = subjects.map((subject) => {
      const ratios = (measured["proglog"] ?? []).map((ours, round) => ours / (measured[subject]?.[round] ?? NaN));
      const beside = subject === "proglog" ? "" : `; ${ratio(first.unit === "ms" ? ratios.map((r) => 1 / r) : ratios)}`;
      return `${whole(median(measured[subject] ?? []))}${beside}`;
    });
    console.log(`| ${title} | ${cells.join(" | ")} |`);
  }
  const what = first.unit === "ms" ? "how many times as long as proglog" : "how many times as many proglog does";
  console.log(`\nMedians; after the semicolon ${what}: median, and least to most of a round.`);
}

/** How much longer a start takes in the largest log than in the smallest. @param {Row[]} rows */
function printGrowth(rows) {
  const [first, last] = [rows[0], rows.at(-1)];
  if (!first || !last || first === last) return;
  const grown = Object.keys(first.subjects).map((subject) => {
    const ratios = (last.subjects[subject] ?? []).map((ms, round) => ms / (first.subjects[subject]?.[round] ?? NaN));
    return `${subject} ${ratio(ratios)}`;
  });
  console.log(`\n${last.title}, beside ${first.title}, of a round: ${grown.join(", ")}`);
}

/** @param {number[]} numbers */
function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? NaN;
}

/** @param {number[]} ratios */
function ratio(ratios) {
  const [least, most] = [Math.min(...ratios), Math.max(...ratios)];
  return `${median(ratios).toFixed(2)} (${least.toFixed(2)}–${most.toFixed(2)})`;
}

/** @param {number} number */
function whole(number) {
  return number < 100 ? number.toFixed(1) : Math.round(number).toLocaleString("en");
}

/** @param {string} path */
function mountOf(path) {
  const fields = execFileSync("df", ["--output=fstype,source", path], { encoding: "utf8" }).trim().split("\n")[1];
  return fields?.trim().split(/\s+/).join(" on ") ?? "";
}
