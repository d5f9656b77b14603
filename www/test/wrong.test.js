// Calls that make no sense are refused alike, in Chromium and in Node.js.

import assert from "node:assert/strict";
import { join } from "node:path";
import { after, test } from "node:test";

import * as inNode from "../src/node.js";
import { Scratch } from "./program.js";
import { Site } from "./site.js";
import { wrongCalls } from "./wrong.js";

const scratch = new Scratch();
after(() => scratch.remove());

test("in Node.js", async () => {
  const proglog = /** @type {import("./wrong.js").Proglog} */ (/** @type {unknown} */ (inNode));
  assert.deepEqual(await wrongCalls(proglog, join(scratch.path, "log")), []);
  await assert.rejects(inNode.Log.open("a\0b"), { name: "ProglogError", kind: "InvalidArgument" });
  const wasmUrl = new URL("wrong.js", import.meta.url);
  await assert.rejects(inNode.Log.open(scratch.path, { wasmUrl }), { name: "ProglogError", kind: "Io", message: /proglog_wasi/ });
  await assert.rejects(inNode.Log.open(scratch.path, { wasmUrl: /** @type {any} */ (3) }), { kind: "InvalidArgument" });
});

test("in a browser", async () => {
  const site = await Site.start();
  try {
    const page = await site.newPage();
    const failures = await page.evaluate(async () => {
      const load = (/** @type {string} */ path) => import(path);
      const { wrongCalls } = await load("/test/wrong.js");
      /** @type {string[]} */
      const failures = await wrongCalls(proglog, "wrong");
      for (const name of ["\ud800", "x".repeat(1000), "ö".repeat(100)]) {
        const { kind } = await proglog.Log.open(name).catch((error) => error);
        if (kind !== "InvalidArgument") failures.push(`a name like ${name.slice(0, 5)}: ${kind}`);
      }
      const longest = await proglog.Log.open("x".repeat(200));
      await longest.append("x");
      await longest.close();
      return failures;
    });
    assert.deepEqual(failures, []);
  } finally {
    await site.stop();
  }
});
