// The benchmark in the browser, in short: each of its subjects appends, has what it should, and opens again. How fast is
// for `npm run bench` to tell, on a quiet machine.

import assert from "node:assert/strict";
import { after, test } from "node:test";

import { APPENDERS, STARTERS, measureAll } from "../bench/rounds.js";
import { Scratch } from "./program.js";

const SHORT = /^append, 100 B|^batch of 100,|^start/;
const scratch = new Scratch();

after(() => scratch.remove());

test("each subject of the benchmark appends, reads back and opens again", async () => {
  const { rows } = await measureAll(scratch.path, { rounds: 1, warmUps: 1, ms: 10, records: [1500], starts: 1, only: SHORT });
  assert.deepEqual(
    rows.map(({ title }) => title),
    ["append, 100 B", "append, 100 B, 100 at once", "batch of 100, 100 B", "start, 1,500 records"],
  );
  for (const { title, subjects } of rows) {
    assert.deepEqual(Object.keys(subjects), title.startsWith("start") ? STARTERS : APPENDERS);
    for (const [subject, measured] of Object.entries(subjects)) {
      assert.equal(measured.length, 1, `${title}, ${subject}`);
      assert.ok(Number(measured[0]) > 0, `${title}, ${subject}: ${measured}`);
    }
  }
});
