// The page, in a real Chromium, from the real server.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";
import { isDeepStrictEqual } from "node:util";

import { chromium } from "playwright-core";

import { PROGRAM, Scratch, Server, nativeStore } from "./program.js";

/** @typedef {import("playwright-core").Locator} Locator */
/** @typedef {import("playwright-core").Page} Page */

const WWW = join(dirname(fileURLToPath(import.meta.url)), "..");
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const scratch = new Scratch();
/** Where to look at the page afterwards. */
const screenshots = process.env["SCREENSHOTS"] ?? join(scratch.path, "screenshots");
/** How long is waited for what the page is to show. */
const SHOWN_MS_MAX = 20_000;
/** @type {Server} */
let server;
/** @type {import("playwright-core").Browser} */
let browser;
/** @type {import("playwright-core").BrowserContext} */
let context;
/** @type {Page} */
let page;
/** What the page's console said, and what it threw. */
/** @type {string[]} */
let complaints;

before(async () => {
  mkdirSync(screenshots, { recursive: true });
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
  await scratch.remove();
});

let servers = 0;

beforeEach(async () => {
  server = await Server.start(join(scratch.path, `log-${servers++}`));
  // A log of its own for each test: the browser's is the context's.
  context = await browser.newContext({ viewport: { width: 1280, height: 900 }, acceptDownloads: true });
  page = await open(server.url);
});

afterEach(async () => {
  await context.close();
  assert.equal(await server.stop(), 0);
});

/** @param {string} url */
async function open(url) {
  const page = await context.newPage();
  page.setDefaultTimeout(SHOWN_MS_MAX);
  complaints = [];
  page.on("console", (message) => {
    // Chromium's own words about a log of which the server has nothing yet.
    if (!/\/producers\/.*search=log/.test(message.location().url)) complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(`${error}`));
  await page.goto(url);
  await opened(page);
  return page;
}

/** Waits until both logs are open. @param {Page} page */
async function opened(page) {
  await page.waitForFunction(() => document.querySelectorAll('.state[data-state="open"]').length === 2);
}

test("records go into the browser's files and come back, frames, index and all", async () => {
  const log = region("This browser");
  const appended = [
    { value: "hello world", key: "" },
    { value: "Grüße, 世界 🦀\nzweite Zeile", key: "Schlüssel" },
    { value: "", key: "" },
    { value: Uint8Array.of(0xff, 0x00, 0x80), key: "bytes" },
    { value: "x".repeat(60_000), key: "" },
  ];
  const records = [];
  const frames = [];
  for (const [offset, { value, key }] of appended.entries()) {
    await append(log, value, key);
    await said(log, `Appended record ${offset}.`);
    await shows(`This browser, record ${offset}:`);
    records.push({ value, key, timestampMs: await shownTimestamp() });
    frames.push(await shownFrame());
  }
  await becomes(() => offsets(log), ["0", "5", "5"]);

  const native = join(scratch.path, "native");
  const store = nativeStore(native, records).toString("hex");
  const index = readFileSync(join(native, "0.index")).toString("hex");
  let at = 0;
  for (const [offset, { hex, bytes, entry }] of frames.entries()) {
    const native = store.slice(at, at + 2 * bytes);
    if (bytes < 150) assert.equal(hex, native, `record ${offset}`);
    // Of a long one the page shows the ends.
    else assert.deepEqual([hex.slice(0, 250), hex.slice(-60)], [native.slice(0, 250), native.slice(-60)]);
    assert.equal(entry, index.slice(24 * offset, 24 * (offset + 1)), `entry ${offset}`);
    at += 2 * bytes;
  }
  assert.equal(at, store.length);

  await read(log, "1");
  await said(log, "Read record 1.");
  await shows("This browser, record 1:");
  assert.equal(await page.getByRole("row", { name: /^key/ }).getByRole("cell").last().innerText(), "10 bytes: Schlüssel");
  await page.reload();
  await opened(page);
  assert.deepEqual(await listed(log), ["0", "1", "2", "3", "4"], "what is open shows what it has");
  assert.deepEqual(complaints, []);
});

test("what cannot be done is said in words", async () => {
  const log = region("This browser");
  await append(log, "only");
  await said(log, "Appended record 0.");
  for (const [offset, message] of /** @type {const} */ ([
    ["7", /^OffsetOutOfRange: offset 7 /],
    ["1", /no record 1 yet/],
    ["18446744073709551615", /^InvalidArgument: /],
    ["18446744073709551616", /from 0 to 18446744073709551615$/],
    ["-1", /whole number/],
    ["", /whole number/],
  ])) {
    await read(log, offset);
    await said(log, message);
  }
  await log.getByLabel("hex").check();
  for (const [value, message] of /** @type {const} */ ([["f", /two hex digits/], ["0g", /“g” is not a hex digit/]])) {
    await log.getByLabel("Value", { exact: true }).fill(value);
    await log.getByRole("button", { name: "Append", exact: true }).click();
    await said(log, message);
  }
  assert.deepEqual(complaints, []);
});

test("tabs share the log: what one appends the other shows, and goes on when that is closed", async () => {
  const log = region("This browser");
  await append(log, "of the first tab");
  await said(log, "Appended record 0.");
  const first = page;
  page = await open(server.url);
  await log.getByText("files open in this tab").waitFor();
  await region("This browser").getByRole("cell", { name: "of the first tab" }).waitFor();
  await region("This browser").getByText("files open in another tab").waitFor();
  await append(region("This browser"), "of the second tab");
  await said(region("This browser"), "Appended record 1.");
  await first.getByRole("region", { name: "This browser" }).getByRole("cell", { name: "of the second tab" }).waitFor();
  await page.getByRole("button", { name: "Pull the plug" }).click();
  await said(region("Pull the plug"), "another tab has the files");
  await first.close();
  await region("This browser").getByText("files open in this tab").waitFor();
  await append(region("This browser"), "after it");
  await said(region("This browser"), "Appended record 2.");
  assert.deepEqual(complaints, []);
});

test("records go to the server and come back, and what others append comes by itself", async () => {
  const log = region("The server");
  const values = ["Grüße, 世界 🦀", Uint8Array.of(0xff, 0x00, 0x80), ""];
  for (const [offset, value] of values.entries()) {
    await append(log, value, `key ${offset}`);
    await said(log, `Appended record ${offset}.`);
    await shows(`The server, record ${offset}:`);
  }
  await read(log, "1");
  await said(log, /^Read record 1\. The same in a shell: curl/);
  await shows("The server, record 1:");
  assert.match((await shownFrame()).hex, /^0000000000000[0-9a-f]{3}0a03ff0080/);
  assert.ok(readFileSync(join(scratch.path, `log-${servers - 1}`, "0.store")).includes("Grüße, 世界 🦀"));

  await log.getByLabel("Follow the end").check();
  await fetch(server.url, { method: "POST", body: JSON.stringify({ record: btoa("from elsewhere") }) });
  await log.getByRole("cell", { name: "from elsewhere" }).waitFor();
  // It waits for what comes, rather than to ask all the time.
  let asked = 0;
  page.on("request", (request) => (asked += Number(request.url().includes("/records"))));
  await page.waitForTimeout(1000);
  assert.ok(asked <= 2, `asked ${asked} times in a second`);
  await log.getByRole("button", { name: "Scan all" }).click();
  await said(log, /^Scanned 4 records, /);
  assert.deepEqual(complaints, []);

  await read(log, "99");
  await said(log, /^404: offset 99 /);
  // Chromium's own words about the status.
  assert.deepEqual(complaints.length, 1);
  assert.match(complaints[0] ?? "", /404/);
});

test("a server that does not answer is told of until it does", async () => {
  const log = region("The server");
  await log.locator(".state[data-state=open]").waitFor();
  await context.setOffline(true);
  // What waits for records was asked before.
  await fetch(server.url, { method: "POST", body: JSON.stringify({ record: btoa("meanwhile") }) });
  await said(log, "the server does not answer");
  await context.setOffline(false);
  await log.getByRole("cell", { name: "meanwhile" }).waitFor();
  await log.getByRole("status").filter({ hasText: "the server does not answer" }).waitFor({ state: "detached" });
});

test("the keyboard alone appends, reads, chooses, measures, pulls the plug, ships and downloads", async () => {
  const log = region("This browser");
  await press("Value", "Control+A");
  await page.keyboard.type("typed");
  await page.keyboard.press("Control+Enter");
  await said(log, "Appended record 0.");
  await page.keyboard.press("Tab");
  await page.keyboard.type("k");
  await press("written", "Space");
  await press("Append", "Enter");
  await said(log, "Appended record 1.");
  await press("Append 100", "Enter");
  await said(log, "Appended 100 records from 2 on");
  await press("synced", "Space");

  await press("Offset", "Control+A");
  await page.keyboard.type("40");
  await page.keyboard.press("Enter");
  await said(log, "Read record 40.");
  await shows("This browser, record 40:");
  await press("Scan all", "Space");
  await said(log, /^Scanned 102 records, .* a second\.$/);
  await tabTo("40");
  await page.keyboard.press("ArrowDown");
  await shows("This browser, record 41:");
  assert.equal(await focused(), "41");
  await page.keyboard.press("Home");
  await page.keyboard.press("ArrowUp");
  await shows("This browser, record 39:");

  await tabTo("Record in the picture");
  await page.keyboard.press("ArrowRight");
  await shows("This browser, record 40:");
  const lanes = page.getByRole("slider");
  const toldOf40 = lanes.and(page.locator('[aria-valuetext^="record 40, "]'));
  await toldOf40.waitFor();
  assert.match((await toldOf40.getAttribute("aria-valuetext")) ?? "", /^record 40, \d+ bytes at position \d+$/);
  await page.keyboard.press("End");
  await shows("This browser, record 101:");

  await tabTo("key");
  await page.keyboard.press("Enter");
  const marked = page.locator(".of-store .digits .marked");
  assert.equal((await marked.allInnerTexts()).join(""), "32016b");
  await page.keyboard.press("Enter");
  assert.equal(await marked.count(), 0);

  await press("Append 200, one by one", "Enter");
  await said(region("What a promise costs"), /^200 records of 100 bytes in .* a second\.$/);
  await page.getByRole("row", { name: /^synced 201 [\d.,]+ ms [\d.,]+ ms$/ }).waitFor();

  await press("Pull the plug", "Enter");
  await said(region("Pull the plug"), "Every acknowledged record is there, once.");
  await opened(page);

  await press("Ship to the server", "Enter");
  await said(region("Take it elsewhere"), /^The server has all [\d,]+ records, and/);
  const { next_offset: shipped } = await (await fetch(`${server.url}healthz`)).json();
  assert.ok(shipped > 300, `${shipped} records`);
  await becomes(() => offsets(log), ["0", `${shipped}`, `${shipped}`]);
  await said(region("Take it elsewhere"), `The server has all ${shipped.toLocaleString("en")} records, and`);
  const [download] = await Promise.all([
    page.waitForEvent("download"),
    press("Download the directory", "Enter"),
  ]);
  assert.equal(download.suggestedFilename(), "page.tar");
  assert.deepEqual(complaints, []);
});

test("a worker that is ended in the middle of appends loses nothing that was acknowledged", async () => {
  const plug = region("Pull the plug");
  const log = region("This browser");
  await append(log, "before", "k");
  await said(log, "Appended record 0.");
  let records = 1;
  for (let round = 0; round < 3; round++) {
    await page.getByRole("button", { name: "Pull the plug" }).click();
    await said(plug, "Every acknowledged record is there, once.");
    const told = Object.fromEntries(await plug.locator(".report div").evaluateAll((facts) =>
      facts.map((fact) => [fact.querySelector("dt")?.textContent, fact.querySelector("dd")?.textContent])));
    const number = (/** @type {string} */ fact) => Number((told[fact] ?? "").replace(",", "").match(/^\d+/)?.[0]);
    assert.ok(number("Acknowledged") > 0 && number("Acknowledged") <= number("There after it"), JSON.stringify(told));
    assert.ok(number("There after it") <= number("Sent"), JSON.stringify(told));
    assert.equal(number("Damage"), 0);
    records += number("There after it");
    await page.getByRole("button", { name: "Pull the plug" }).and(page.locator(":enabled")).waitFor();
  }
  await read(log, "0");
  await said(log, "Read record 0.");
  await append(log, "after", "k");
  await said(log, `Appended record ${records}.`);
  assert.deepEqual(complaints, []);
});

test("what is shipped is on the server once, and what is downloaded the server opens", async () => {
  const log = region("This browser");
  await append(log, "first", "k");
  await log.getByRole("button", { name: "Append 100" }).click();
  await said(log, "Appended 100 records");
  const ship = region("Take it elsewhere");
  await ship.getByRole("button", { name: "Ship to the server" }).click();
  await said(ship, "The server has all 101 records, and gets those to come.");
  await append(log, "last", "k");
  await said(ship, "The server has all 102 records");
  await ship.getByRole("button", { name: "Stop shipping" }).click();
  await said(ship, "Stopped.");
  await ship.getByRole("button", { name: "Ship to the server" }).click();
  await said(ship, "The server has all 102 records");
  assert.deepEqual(await ship.locator(".report dd").first().innerText(), "0 records");
  const health = await (await fetch(`${server.url}healthz`)).json();
  assert.equal(health.next_offset, 102);
  await region("The server").getByRole("cell", { name: "last" }).waitFor();

  const [download] = await Promise.all([
    page.waitForEvent("download"),
    ship.getByRole("button", { name: "Download the directory" }).click(),
  ]);
  const archive = join(scratch.path, "page.tar");
  await download.saveAs(archive);
  const directory = join(scratch.path, "downloaded");
  mkdirSync(directory);
  execFileSync("tar", ["xf", archive, "-C", directory]);
  assert.ok(readdirSync(directory).includes("0.store"));
  execFileSync(PROGRAM, ["verify", directory]);
  assert.equal(execFileSync(PROGRAM, ["read", directory, "101", "--raw"], { encoding: "utf8" }), "last");

  // A log that was deleted is another one: its offsets are given anew, and go to the server as others.
  await ship.getByRole("button", { name: "Delete this browser’s log" }).click();
  await ship.getByRole("button", { name: "Press again" }).click();
  await said(ship, "Deleted. The log is empty");
  await append(log, "anew", "");
  await said(log, "Appended record 0.");
  await ship.getByRole("button", { name: "Ship to the server" }).click();
  await said(ship, "The server has all 1 record,");
  const record = await (await fetch(`${server.url}?offset=102`)).json();
  assert.equal(atob(record.record.value), "anew");
  assert.deepEqual(complaints, []);
});

test("a record that is chosen while the log is deleted, or that was removed, is not shown, and nothing fails", async () => {
  const log = region("This browser");
  for (let n = 1; n <= 3; n++) {
    await log.getByRole("button", { name: "Append 100" }).click();
    await said(log, `Appended 100 records from ${n * 100 - 100} on`);
  }
  await read(log, "5");
  await shows("This browser, record 5:");
  await page.evaluate(async () => {
    const from = "/src/index.js";
    const { Log } = await import(from);
    const other = await Log.open("page", { segmentBytesMax: 64 << 10 });
    // It has a segment alone.
    await other.append("x".repeat(64 << 10));
    await other.append("above");
    await other.truncateBefore(301n);
    await other.close();
  });
  await becomes(async () => {
    // As one comes back from the tab that did it.
    await page.evaluate(() => dispatchEvent(new Event("focus")));
    return offsets(log);
  }, ["301", "302", "302"]);
  await log.getByRole("row", { name: /^8 / }).getByRole("button").click();
  const chosen = log.locator("tr.chosen td:first-child");
  await becomes(() => chosen.allInnerTexts(), ["5"]);
  await page.getByRole("slider").press("ArrowRight");
  await shows("This browser, record 301:");

  await page.evaluate(() => {
    const find = (/** @type {string} */ selector) => /** @type {HTMLElement} */ (document.querySelector(selector));
    for (let n = 0; n < 2; n++) find("[name=delete]").click();
    find(".lanes").dispatchEvent(new KeyboardEvent("keydown", { key: "Home" }));
    find(".segments button").click();
    find("tbody tr").click();
  });
  await said(region("Take it elsewhere"), "Deleted. The log is empty");
  await becomes(() => offsets(log), ["0", "0", "0"]);
  await page.locator(".picture").waitFor({ state: "hidden" });
  assert.deepEqual(complaints, []);
});

test("what marks the latencies in the chart is whole and apart, wherever they are", async () => {
  for (const ms of [0.1, 1, 9, 10, 95]) {
    const labels = await page.evaluate(async (ms) => {
      const from = "/latency.js";
      const { Latency } = await import(from);
      const section = /** @type {Element} */ (document.querySelector("section.latency"));
      const copy = /** @type {Element} */ (section.cloneNode(true));
      section.after(copy);
      const latency = new Latency(copy, () => {});
      for (let n = 0; n < 100; n++) latency.add("synced", ms);
      const find = () => [...copy.querySelectorAll(".chart text")].filter(({ textContent }) => /^p/.test(textContent ?? ""));
      while (find().length === 0) await new Promise((resolve) => setTimeout(resolve, 20));
      const chart = /** @type {Element} */ (copy.querySelector(".chart svg")).getBoundingClientRect();
      const at = find().map((label) => label.getBoundingClientRect()).map(({ top, bottom }) => ({ top: top - chart.top, bottom: bottom - chart.top }));
      copy.remove();
      return { at, height: chart.height };
    }, ms);
    const [p50, p99] = labels.at;
    assert.ok(p50 && p99 && p99.top >= 0 && p99.bottom <= p50.top + 1 && p50.bottom <= labels.height, `${ms} ms: ${JSON.stringify(labels)}`);
  }
});

test("the picture is of the files: the record under the pointer is the one whose bytes are shown", async () => {
  const log = region("This browser");
  await log.getByLabel("Value", { exact: true }).fill("x".repeat(400));
  for (let n = 1; n <= 3; n++) {
    await log.getByRole("button", { name: "Append 100" }).click();
    await said(log, `Appended 100 records from ${n * 100 - 100} on`);
  }
  await shows("This browser, record 299:");
  const segments = page.getByRole("group", { name: "The segments" }).getByRole("button");
  await segments.nth(1).waitFor();
  await segments.last().filter({ hasText: /active$/ }).waitFor();
  const bases = await segments.evaluateAll((buttons) => buttons.map((button) => Number(button.getAttribute("value"))));
  assert.ok(bases.length >= 2 && bases[0] === 0, `${bases}`);
  await segments.first().click();
  await shows("This browser, record 0: 427 bytes of 0.store from position 0 on");
  const stored = page.locator('[data-offset="3"] .stored');
  const [frame, entry] = await Promise.all([stored.boundingBox(), page.locator('[data-offset="3"] .entry').boundingBox()]);
  assert.ok(frame && entry && frame.width > 4 && entry.width > 4);
  await stored.hover();
  await shows("This browser, record 3: ");
  assert.match((await shownFrame()).entry, /^00000003/);
  await page.mouse.move(5, 5);
  await shows("This browser, record 0: ");

  // One that is not synced may not be in the index yet, and that is said.
  await log.getByLabel("buffered").check();
  await append(log, "lags", "");
  await said(log, "Appended record 300.");
  await shows("This browser, record 300:");
  assert.deepEqual(complaints, []);
});

for (const { name, width } of [{ name: "wide", width: 1440 }, { name: "phone", width: 390 }]) {
  test(`it is for everyone, ${name}: no violation for axe, light and dark, no wider than the screen`, async () => {
    const log = region("This browser");
    await append(log, "Grüße", "order-7");
    await said(log, "Appended record 0.");
    await log.getByRole("button", { name: "Append 100" }).click();
    await said(log, "Appended 100 records");
    await append(region("The server"), "hello", "order-8");
    await said(region("The server"), "Appended record 0.");
    await read(region("The server"), "9");
    await said(region("The server"), /404/);
    await page.getByRole("button", { name: "Pull the plug" }).click();
    await said(region("Pull the plug"), "acknowledged");
    await read(log, "0");
    await shows("This browser, record 0:");
    await page.setViewportSize({ width, height: 900 });
    const papers = [];
    for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      await page.screenshot({ path: join(screenshots, `${name}-${colorScheme}.png`), fullPage: true });
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(wide <= width, `${name} is ${wide} pixels wide`);
      papers.push(await page.evaluate(() => getComputedStyle(document.body).backgroundColor));
      await page.evaluate(AXE);
      const { violations, passes } = await page.evaluate(() => /** @type {any} */ (globalThis).axe.run());
      assert.deepEqual(violations.map((/** @type {any} */ { id, nodes }) => [id, nodes[0].html]), [], colorScheme);
      assert.ok(passes.length > 20);
    }
    assert.notEqual(papers[0], papers[1]);
    assert.equal(await page.locator(".row").first().locator(".digits span").count(), width > 700 ? 16 : 8);
  });
}

test("files come with their types, a policy, and a tag that saves sending them again", async () => {
  const types = {
    "main.js": "text/javascript; charset=utf-8",
    "src/worker.js": "text/javascript; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "dist/proglog.js": "text/javascript; charset=utf-8",
    "dist/proglog_bg.wasm": "application/wasm",
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
  assert.doesNotMatch(await index.text(), /<script>|<style|\sstyle=|\son[a-z]+=/);
  assert.equal((await fetch(`${server.url}main.ts`)).status, 404);
});

test("`npm run dev` serves the files as they are, and passes the rest on", async () => {
  const dev = spawn(process.execPath, [join(WWW, "dev.js")], {
    env: { ...process.env, PROGLOG_URL: server.url, PORT: "0" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  try {
    let url = "";
    for await (const line of createInterface({ input: dev.stdout })) {
      url = line.match(/http:\/\/127\.0\.0\.1:\d+/)?.[0] ?? assert.fail(line);
      break;
    }
    const script = await fetch(`${url}/main.js`);
    assert.equal(await script.text(), readFileSync(join(WWW, "main.js"), "utf8"));
    assert.match(script.headers.get("content-security-policy") ?? "", /default-src 'none'/);
    assert.equal((await fetch(`${url}/../package.json`)).status, 404);
    assert.equal((await fetch(`${url}/..%2fCargo.toml`)).status, 404);

    await page.close();
    page = await open(`${url}/`);
    await append(region("The server"), "through the proxy", "k");
    await said(region("The server"), "Appended record 0.");
    await append(region("This browser"), "beside it", "k");
    await said(region("This browser"), "Appended record 0.");
    assert.deepEqual(complaints, []);
  } finally {
    dev.kill();
  }
});

/** @param {string} name */
function region(name) {
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
  await log.getByRole("button", { name: "Append", exact: true }).click();
}

/**
 * @param {Locator} log
 * @param {string} offset
 */
async function read(log, offset) {
  await log.getByLabel("Offset", { exact: true }).fill(offset);
  await log.getByRole("button", { name: "Read", exact: true }).click();
}

/**
 * Waits until a section says this.
 *
 * @param {Locator} section
 * @param {string | RegExp} message
 */
async function said(section, message) {
  await section.getByRole("status").filter({ hasText: message }).waitFor();
}

/** Waits until the bytes of this record are shown. @param {string} about */
async function shows(about) {
  await region("On disk").locator(".about").filter({ hasText: about }).waitFor();
}

/** The offsets of the records in the list. @param {Locator} log */
function listed(log) {
  return log.locator("tbody tr td:first-child").allInnerTexts();
}

/** The lowest, the next and the durable offset. @param {Locator} log */
function offsets(log) {
  return log.locator(".offsets dd").allInnerTexts();
}

/**
 * Waits until what the page shows is this: what an action changes is not all drawn at once.
 *
 * @template T
 * @param {() => Promise<T>} shown
 * @param {T} expected
 */
async function becomes(shown, expected) {
  const until = Date.now() + SHOWN_MS_MAX;
  while (Date.now() < until && !isDeepStrictEqual(await shown(), expected)) await page.waitForTimeout(20);
  assert.deepEqual(await shown(), expected);
}

/** What has the focus: its name or its text. */
function focused() {
  return page.evaluate(() => {
    const element = document.activeElement;
    const label = element instanceof HTMLInputElement || element instanceof HTMLTextAreaElement ? element.labels?.[0] : undefined;
    return (element?.getAttribute("aria-label") ?? (label ?? element)?.textContent ?? "").trim();
  });
}

/** Goes on with the tab key until this has the focus, which can be seen. @param {string} name */
async function tabTo(name) {
  for (let n = 0; n < 120; n++) {
    await page.keyboard.press("Tab");
    if ((await focused()) !== name) continue;
    const outline = await page.evaluate(() => document.activeElement && getComputedStyle(document.activeElement).outlineStyle);
    assert.equal(outline, "solid", `the focus on ${name}`);
    return;
  }
  assert.fail(`the tab key does not lead to ${name}`);
}

/**
 * Goes to what has this name by the tab key, or for one of radio buttons by an arrow key, and presses a key there.
 *
 * @param {string} name
 * @param {string} key
 */
async function press(name, key) {
  if (name === "written") {
    await tabTo("synced");
    await page.keyboard.press("ArrowRight");
    return;
  }
  if (name === "synced") {
    await page.keyboard.press("Shift+Tab");
    await page.keyboard.press("Shift+Tab");
    assert.equal(await focused(), "written");
    await page.keyboard.press("ArrowLeft");
    return;
  }
  await tabTo(name);
  await page.keyboard.press(key);
}

/** The frame on the page: the digits it shows, the bytes it says there are, and its index entry. */
async function shownFrame() {
  const digits = (/** @type {string} */ of) =>
    page.locator(`${of} .digits`).evaluateAll((rows) => rows.map((row) => row.textContent).join(""));
  const bytes = (await region("On disk").locator(".about").innerText()).match(/: ([\d,]+) bytes/);
  return {
    hex: await digits(".of-store"),
    entry: await digits(".of-index"),
    bytes: Number(bytes?.[1]?.replaceAll(",", "")),
  };
}

/** The timestamp that the frame on the page holds. */
async function shownTimestamp() {
  const row = page.getByRole("row").filter({ hasText: "timestamp_ms" });
  return Date.parse((await row.getByRole("cell").last().innerText()).replace(" UTC", "Z"));
}
