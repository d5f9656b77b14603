// The package in a real Chromium, served from a site of its own.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { dirname, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

const WWW = join(dirname(fileURLToPath(import.meta.url)), "..");
/** @type {Record<string, string>} */
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm" };
const CHROMIUM = process.env["CHROMIUM"] ?? "/usr/bin/chromium";
const ARGS = [
  ...(process.getuid?.() === 0 ? ["--no-sandbox"] : []),
  "--headless",
  "--disable-gpu",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** A site and a browser on it, whose pages share what they keep. */
export class Site {
  #server;
  #browser;
  #context;
  #process;
  origin;

  static async start() {
    const server = await serve();
    const browser = await launch();
    return new Site(server, browser, await browser.newContext());
  }

  /**
   * With a browser as people have it, whose pages can be hidden: others are all made to look as if they were in front.
   *
   * @param {string} profile a directory for it
   */
  static async startPlain(profile) {
    const server = await serve();
    const args = [...ARGS, "--remote-debugging-port=0", `--user-data-dir=${profile}`, "about:blank"];
    const process = spawn(CHROMIUM, args, { stdio: "ignore" });
    const port = await portOf(profile);
    const browser = await chromium.connectOverCDP(`http://127.0.0.1:${port}`, { noDefaults: true });
    const [context] = browser.contexts();
    if (!context) throw new Error("Chromium has no context");
    return new Site(server, browser, context, process);
  }

  /**
   * @param {import("node:http").Server} server
   * @param {import("playwright-core").Browser} browser
   * @param {import("playwright-core").BrowserContext} context
   * @param {import("node:child_process").ChildProcess} [process]
   */
  constructor(server, browser, context, process) {
    this.#server = server;
    this.#browser = browser;
    this.#context = context;
    this.#process = process;
    this.origin = originOf(server);
  }

  async stop() {
    await this.#browser.close();
    if (this.#process && this.#process.exitCode === null) {
      const exited = once(this.#process, "exit");
      this.#process.kill();
      await exited;
    }
    this.#server.close();
  }

  /** A tab, with the package in `proglog` and what tests share in `shared`. */
  async newPage() {
    const page = await this.#context.newPage();
    page.setDefaultTimeout(60_000);
    page.on("pageerror", (error) => console.error(error));
    await page.goto(this.origin);
    await page.evaluate(async () => {
      const load = (/** @type {string} */ path) => import(path);
      Object.assign(globalThis, { proglog: await load("/src/index.js"), shared: await load("/test/vectors.js") });
    });
    return page;
  }

  /** The browser's name and version. */
  get version() {
    return `${this.#browser.browserType().name()} ${this.#browser.version()}`;
  }

  /** @param {import("playwright-core").Page} page */
  session(page) {
    return this.#context.newCDPSession(page);
  }

  /** Closes all pages. */
  async closePages() {
    await Promise.all(this.#context.pages().map((page) => page.close()));
  }
}

export function launch() {
  return chromium.launch({ executablePath: CHROMIUM, args: ARGS });
}

/**
 * A server of a directory's files, with a page of no content at `/`.
 *
 * @param {string} [directory]
 * @param {Record<string, string>} [headers]
 */
export async function serve(directory = WWW, headers = {}) {
  const server = createServer(({ url = "/" }, response) => {
    const path = normalize(new URL(url, "http://localhost").pathname);
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
    if (path === "/") return response.setHeader("content-type", "text/html").end("<!doctype html><title>proglog</title>");
    try {
      const bytes = readFileSync(join(directory, path));
      return response.setHeader("content-type", TYPES[extname(path)] ?? "application/octet-stream").end(bytes);
    } catch {
      return response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
  return server;
}

/** @param {import("node:http").Server} server */
export function originOf(server) {
  const address = server.address();
  return `http://127.0.0.1:${typeof address === "object" && address?.port}`;
}

/**
 * The port that a browser listens at, once it does.
 *
 * @param {string} profile
 */
async function portOf(profile) {
  const until = Date.now() + 30_000;
  for (;;) {
    try {
      const [port] = readFileSync(join(profile, "DevToolsActivePort"), "utf8").split("\n");
      if (port) return port;
    } catch (error) {
      if (Date.now() > until) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
