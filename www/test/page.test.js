// The page, in a real Chromium, from the real server.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, test } from "node:test";

import { chromium } from "playwright-core";

import { Scratch, Server, nativeStore } from "./program.js";

/** @typedef {import("playwright-core").Locator} Locator */
/** @typedef {import("playwright-core").Page} Page */

const scratch = new Scratch();
/** Where to look at the page afterwards. */
const screenshots = process.env["SCREENSHOTS"] ?? join(scratch.path, "screenshots");
/** @type {Server} */
let server;
/** @type {import("playwright-core").Browser} */
let browser;
/** @type {Page} */
let page;
/** What the page's console said, and what it threw. */
/** @type {string[]} */
let complaints;

before(async () => {
  mkdirSync(screenshots, { recursive: true });
  server = await Server.start(join(scratch.path, "log"));
  browser = await chromium.launch({
    executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium",
    args: [
      // Chromium's sandbox does not run as root.
      ...(process.getuid?.() === 0 ? ["--no-sandbox"] : []),
      "--headless",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
});

after(async () => {
  await browser?.close();
  const code = await server?.stop();
  scratch.remove();
  assert.equal(code, 0);
});

beforeEach(async () => {
  page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  page.setDefaultTimeout(20_000);
  complaints = [];
  page.on("console", (message) => complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(`${error}`));
  await page.goto(server.url);
  await page.waitForFunction(() => document.querySelectorAll(".state[data-state]").length === 2);
  const states = await page.locator(".state").allInnerTexts();
  assert.deepEqual(states, ["ready", "ready"], await page.locator("main").innerText());
});

afterEach(() => page.close());

test("records go into the log in the page and come back, frames and all", async () => {
  const log = panel("In this page");
  const appended = [
    { value: "hello world", key: "" },
    { value: "Grüße, 世界 🦀\nzweite Zeile", key: "Schlüssel" },
    { value: "", key: "" },
    { value: Uint8Array.of(0xff, 0x00, 0x80), key: "bytes" },
    { value: "x".repeat(200_000), key: "" },
  ];
  const records = [];
  const frames = [];
  for (const [offset, { value, key }] of appended.entries()) {
    await append(log, value, key);
    await said(log, `Appended record ${offset}.`);
    records.push({ value, key, timestampMs: await shownTimestamp() });
    frames.push(await shownFrame());
  }
  assert.equal(await log.locator("dl").innerText(), "lowest offset\n0\nnext offset\n5\ndurable offset\n5");

  const store = nativeStore(join(scratch.path, "native"), records).toString("hex");
  let at = 0;
  for (const [offset, { hex, bytes }] of frames.entries()) {
    const native = store.slice(at, at + 2 * bytes);
    if (bytes < 300) assert.equal(hex, native, `record ${offset}`);
    // Of a long one the page shows the ends.
    else assert.deepEqual([hex.slice(0, 600), hex.slice(-100)], [native.slice(0, 600), native.slice(-100)]);
    at += 2 * bytes;
  }
  assert.equal(at, store.length);

  await log.getByLabel("Offset").fill("0");
  await log.getByRole("button", { name: "Read", exact: true }).click();
  await said(log, "Read record 0.");
  assert.equal(await shownValue(log), "hello world");
  await log.getByRole("button", { name: "Next record" }).click();
  await said(log, "Read record 1.");
  assert.equal(await shownValue(log), "Grüße, 世界 🦀\nzweite Zeile");
  assert.match(await log.getByRole("article").innerText(), /key Schlüssel/);
  await log.getByRole("button", { name: "Previous record" }).click();
  await said(log, "Read record 0.");
  await log.getByLabel("Offset").fill("3");
  await log.getByLabel("Offset").press("Enter");
  await said(log, "Read record 3.");
  assert.equal(await shownValue(log), "ff 00 80");
  assert.deepEqual(complaints, []);
});

test("what cannot be done is said in words", async () => {
  const log = panel("In this page");
  await append(log, "only");
  await said(log, "Appended record 0.");
  for (const [offset, message] of /** @type {const} */ ([
    ["7", /^OffsetOutOfRange: offset 7 /],
    ["18446744073709551615", /^InvalidArgument: /],
    ["-1", /whole number/],
    ["", /whole number/],
  ])) {
    await log.getByLabel("Offset").fill(offset);
    await log.getByRole("button", { name: "Read", exact: true }).click();
    await said(log, message);
    assert.equal(await log.getByRole("article").isVisible(), false);
  }
  await log.getByLabel("hex").check();
  await log.getByLabel("Value", { exact: true }).fill("f");
  await log.getByRole("button", { name: "Append" }).click();
  await said(log, /two hex digits/);
  await log.getByLabel("Value", { exact: true }).fill("0g");
  await log.getByRole("button", { name: "Append" }).click();
  await said(log, /“g” is not a hex digit/);
  assert.deepEqual(complaints, []);
});

test("records go to the server and come back, and are in its files", async () => {
  const log = panel("On the server");
  const values = ["Grüße, 世界 🦀", Uint8Array.of(0xff, 0x00, 0x80), ""];
  for (const [offset, value] of values.entries()) {
    await append(log, value, `key ${offset}`);
    await said(log, `Appended record ${offset}.`);
  }
  await log.getByRole("button", { name: "Previous record" }).click();
  await said(log, "Read record 1.");
  assert.equal(await shownValue(log), "ff 00 80");
  assert.match(await log.getByRole("article").innerText(), /key key 1/);
  await log.getByRole("button", { name: "Previous record" }).click();
  await said(log, "Read record 0.");
  assert.equal(await shownValue(log), "Grüße, 世界 🦀");
  assert.ok(readFileSync(join(scratch.path, "log", "0.store")).includes("Grüße, 世界 🦀"));
  assert.deepEqual(complaints, []);

  await log.getByLabel("Offset").fill("99");
  await log.getByRole("button", { name: "Read", exact: true }).click();
  await said(log, /^404: offset 99 /);
  // Chromium's own words about the status.
  assert.deepEqual(complaints.length, 1);
  assert.match(complaints[0] ?? "", /404/);
});

test("the keyboard does all that the mouse does", async () => {
  const log = panel("In this page");
  await log.getByLabel("Value", { exact: true }).focus();
  await page.keyboard.press("Control+A");
  await page.keyboard.type("typed");
  await page.keyboard.press("Control+Enter");
  await said(log, "Appended record 0.");
  await page.keyboard.press("Tab");
  await page.keyboard.type("k");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await said(log, "Appended record 1.");

  const field = page.getByRole("button", { name: "key", exact: true });
  await field.focus();
  await page.keyboard.press("Enter");
  assert.equal(await field.getAttribute("aria-pressed"), "true");
  assert.equal(await page.locator(".bytes .marked").allInnerTexts().then((bytes) => bytes.join("")), "32016b");
  await page.keyboard.press("Enter");
  assert.equal(await page.locator(".marked").count(), 0);
});

test("it fits a phone, and follows the colour scheme", async () => {
  await append(panel("In this page"), "Grüße", "order-7");
  await said(panel("In this page"), "Appended record 0.");
  const papers = [];
  for (const { name, colorScheme, width } of /** @type {const} */ ([
    { name: "light", colorScheme: "light", width: 1280 },
    { name: "dark", colorScheme: "dark", width: 1280 },
    { name: "narrow", colorScheme: "light", width: 360 },
    { name: "narrow-dark", colorScheme: "dark", width: 360 },
  ])) {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize({ width, height: 900 });
    await page.screenshot({ path: join(screenshots, `${name}.png`), fullPage: true });
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(wide <= width, `${name} is ${wide} pixels wide`);
    papers.push(await page.evaluate(() => getComputedStyle(document.body).backgroundColor));
    assert.equal(await page.locator(".row").first().locator(".bytes span").count(), width > 640 ? 16 : 8);
  }
  assert.notEqual(papers[0], papers[1]);
});

test("files come with their types, a policy, and a tag that saves sending them again", async () => {
  const types = {
    "main.js": "text/javascript; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "pkg/proglog.js": "text/javascript; charset=utf-8",
    "pkg/proglog_bg.wasm": "application/wasm",
  };
  for (const [path, type] of Object.entries(types)) {
    const response = await fetch(server.url + path);
    assert.equal(response.status, 200, path);
    assert.equal(response.headers.get("content-type"), type);
    assert.equal(response.headers.get("cache-control"), "no-cache");
    assert.equal(response.headers.get("x-content-type-options"), "nosniff");
    const etag = response.headers.get("etag") ?? assert.fail(path);
    const again = await fetch(server.url + path, { headers: { "if-none-match": `"other", W/${etag}` } });
    assert.equal(again.status, 304);
    assert.equal((await again.arrayBuffer()).byteLength, 0);
    const other = await fetch(server.url + path, { headers: { "if-none-match": '"other"' } });
    assert.equal(other.status, 200);
  }
  const index = await fetch(server.url, { headers: { accept: "text/html" } });
  assert.equal(index.headers.get("content-type"), "text/html; charset=utf-8");
  assert.equal(index.headers.get("vary"), "accept");
  assert.match(index.headers.get("content-security-policy") ?? "", /script-src 'self' 'wasm-unsafe-eval';/);
  assert.equal((await fetch(`${server.url}main.ts`)).status, 404);
});

/** @param {string} name */
function panel(name) {
  return page.getByRole("region", { name });
}

/**
 * Fills in the form and sends it.
 *
 * @param {Locator} log
 * @param {string | Uint8Array} value
 * @param {string} [key]
 */
async function append(log, value, key = "") {
  const isText = typeof value === "string";
  await log.getByLabel(isText ? "text" : "hex", { exact: true }).check();
  await log.getByLabel("Value", { exact: true }).fill(isText ? value : Buffer.from(value).toString("hex"));
  await log.getByLabel("Key, optional").fill(key);
  await log.getByRole("button", { name: "Append" }).click();
}

/**
 * Waits until the panel says this.
 *
 * @param {Locator} log
 * @param {string | RegExp} message
 */
async function said(log, message) {
  await log.getByRole("status").filter({ hasText: message }).waitFor();
}

/** @param {Locator} log */
function shownValue(log) {
  return log.locator("pre").evaluate((pre) => pre.textContent);
}

/** The frame on the page: the digits it shows, and the bytes it says there are. */
async function shownFrame() {
  const frame = page.getByRole("region", { name: "Byte for byte" });
  const digits = await frame.locator(".bytes").evaluateAll((rows) => rows.map((row) => row.textContent));
  const bytes = (await frame.locator(".about").innerText()).match(/is (\d+) bytes/);
  return { hex: digits.join(""), bytes: Number(bytes?.[1]) };
}

/** The timestamp that the frame on the page holds. */
async function shownTimestamp() {
  const row = page.getByRole("row").filter({ hasText: "timestamp_ms" });
  return Date.parse((await row.getByRole("cell").last().innerText()).replace(" UTC", "Z"));
}
