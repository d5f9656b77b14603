// The program under test: `proglog`, as the build made it.

import { fail } from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

export const PROGRAM =
  process.env["PROGLOG_BIN"] ?? fail("set PROGLOG_BIN to the program `proglog`, or run `make test`");

/** A new directory, for what a test file writes. */
export class Scratch {
  path = mkdtempSync(join(tmpdir(), "proglog-"));

  async remove() {
    // A browser's processes write for a moment after it has ended. What they still do is no failure of a test.
    const how = { recursive: true, force: true, maxRetries: 20, retryDelay: 100 };
    await rm(this.path, how).catch((error) => console.warn(`${this.path} stays: ${error}`));
  }
}

/** A `proglog serve` on a free port. */
export class Server {
  #process;
  #exited;

  /** Where it serves, with a slash at the end. */
  url = "";

  /**
   * Starts it, and waits until it listens.
   *
   * @param {string} directory of the log
   * @param {string[]} [args] more than it and the address
   * @param {string} [listen] the address
   */
  static async start(directory, args = [], listen = "127.0.0.1:0") {
    const server = new Server(directory, args, listen);
    for await (const line of createInterface({ input: server.#process.stdout })) {
      const url = line.match(/http:\/\/127\.0\.0\.1:\d+/);
      if (!url) continue;
      server.url = `${url[0]}/`;
      return server;
    }
    throw new Error(`proglog serve ended with ${await server.#exited} before it listened`);
  }

  /**
   * @param {string} directory
   * @param {string[]} args
   * @param {string} listen
   */
  constructor(directory, args, listen) {
    this.#process = spawn(PROGRAM, ["serve", "--dir", directory, "--listen", listen, ...args], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    this.#exited = once(this.#process, "exit");
  }

  /** Stops it, and gives its exit code once it has ended. */
  stop() {
    return this.#end("SIGTERM");
  }

  /** Ends it as it is. */
  kill() {
    return this.#end("SIGKILL");
  }

  /** @param {"SIGTERM" | "SIGKILL"} signal */
  async #end(signal) {
    this.#process.kill(signal);
    const [code] = await this.#exited;
    return code;
  }
}

/**
 * The store that the program writes natively for these records, each appended by itself.
 *
 * @param {string} directory a new one
 * @param {{ value: Uint8Array | string, key?: string, timestampMs: number }[]} records
 * @returns {Buffer}
 */
export function nativeStore(directory, records) {
  for (const { value, key, timestampMs } of records) {
    const input = Buffer.from(value);
    // Records end with a byte that is not in them.
    const isNull = input.includes("\n");
    const { status, stderr } = spawnSync(
      PROGRAM,
      ["append", directory, "--engine", "native", "--timestamp-ms", `${timestampMs}`]
        .concat(isNull ? ["--null"] : [])
        .concat(key ? ["--key", key] : []),
      { input: Buffer.concat([input, Buffer.from(isNull ? "\0" : "\n")]), encoding: "utf8" },
    );
    if (status !== 0) throw new Error(`proglog append ended with ${status}: ${stderr}`);
  }
  return readFileSync(join(directory, "0.store"));
}
