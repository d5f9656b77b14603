// A log that is shipped to what is no `proglog serve`, or one that lies.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { getEventListeners } from "node:events";
import { createServer } from "node:http";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, test } from "node:test";

import { Log, ProglogError } from "../src/node.js";
import { ship } from "../src/ship.js";
import { Scratch } from "./program.js";
import { originOf } from "./site.js";

/** @typedef {import("node:http").IncomingMessage} Request */
/** @typedef {import("node:http").ServerResponse} Response */
/** @typedef {(request: Request, response: Response) => void} Answering */

/** A server asked so often has been told of enough. */
const ERRORS = 3;
const RECORDS = 20n;

// As if the network came back at once, whenever that is waited for.
globalThis.addEventListener = (/** @type {string} */ type, /** @type {any} */ call) => {
  if (type === "online") setTimeout(call, 1);
};

const scratch = new Scratch();
after(() => scratch.remove());

/** @param {string | Buffer} body */
const says = (body, status = 200, headers = {}) =>
  /** @type {Answering} */ ((_, response) => response.writeHead(status, headers).end(body));
/** To what has it been sent, and otherwise that it has nothing of the log. @param {Answering} answering @returns {Answering} */
const toRecords = (answering) => (request, response) =>
  request.method === "GET" ? says("{}", 404)(request, response) : answering(request, response);
/** @param {number} status @returns {Answering} */
const withoutEnd = (status) => (_, response) => {
  response.writeHead(status);
  const more = () => {
    while (!response.destroyed && response.write(Buffer.alloc(1 << 20, " ")));
  };
  response.on("drain", more);
  more();
};
/** @type {Answering} */
const cutOff = ({ socket }, response) => {
  response.writeHead(200).write('{"sequence":19');
  setTimeout(() => socket.destroy(), 10);
};

/** Those that may be a server again later: it is told, and tried again. @type {Record<string, [Answering, RegExp]>} */
const PASSING = {
  "no body": [says(""), /does not say which record/],
  "no body, and its status says so": [says("", 204), /does not say which record/],
  "no JSON": [says("{{sequence: 19"), /does not say which record/],
  "a page to log in": [says("<html>"), /does not say which record/],
  "zeros": [says(Buffer.alloc(1000)), /does not say which record/],
  "a number as a string": [says('{"sequence":"19"}'), /does not say which record/],
  "a number below 0": [says('{"sequence":-1}'), /does not say which record/],
  "a fraction": [says('{"sequence":19.5}'), /does not say which record/],
  "more than any offset": [says(`{"sequence":${"9".repeat(30)}}`), /does not say which record/],
  "more than that in its answer to records": [toRecords(says(`{"sequence":${2n ** 64n}}`)), /does not say which record/],
  "what it was never sent": [says('{"sequence":1000}'), /never sent/],
  "the largest offset": [says(`{"sequence":${2n ** 63n - 1n}}`), /never sent/],
  "less than before": [toRecords(says('{"sequence":0}')), /has records up to 0/],
  "an answer without end": [withoutEnd(200), /more than 65536 bytes/],
  "such an answer to records": [toRecords(withoutEnd(200)), /more than 65536 bytes/],
  "such an answer of a failure": [withoutEnd(503), /answers with 503/],
  "half an answer": [cutOff, /cut off/],
  "half an answer to records": [toRecords(cutOff), /cut off/],
  "nothing": [({ socket }) => void socket.destroy(), /cannot be reached/],
  "a way in a circle": [(request, response) => says("", 302, { location: request.url })(request, response), /redirects/],
  "a way elsewhere for records": [toRecords(says("", 307, { location: "http://127.0.0.1:1/" })), /redirects/],
  "a way for records that is none": [toRecords(says("", 301)), /redirects/],
};

/** Those that will not take it. @type {Record<string, Answering>} */
const REFUSING = {
  "a refusal": says("no", 400),
  "a refusal without end": withoutEnd(400),
  "too much, however little": toRecords(says("", 413)),
  "too much, without end": toRecords(withoutEnd(413)),
  "a place that is not there, for records": says("", 404),
};

for (const [what, [answering, message]] of Object.entries(PASSING)) {
  test(`a server that answers with ${what} is tried again, and nothing is told as sent`, async () => {
    const { failure, errors, shipped, log, memoryBytes } = await shipTo(answering, what);
    assert.equal(failure, undefined);
    assert.ok(errors.length >= ERRORS);
    for (const error of errors) {
      assert.ok(error instanceof ProglogError && error.kind === "Unavailable", `${error}`);
      assert.match(error.message, message);
    }
    // A server that claims to have them is believed, as one that took them and whose answer was lost.
    assert.ok(shipped === 0n || /never sent/.test(message.source), `${shipped}`);
    assert.ok(shipped <= RECORDS, `${shipped}`);
    assert.equal(log.lowestOffset, 0n);
    assert.ok(memoryBytes < 64 << 20, `${memoryBytes}`);
    await log.append("goes on");
    await log.close();
  });
}

for (const [what, answering] of Object.entries(REFUSING)) {
  test(`a server that answers with ${what} ends it`, async () => {
    const { failure, shipped, log } = await shipTo(answering, what);
    assert.ok(failure instanceof ProglogError && failure.kind === "Refused", `${failure}`);
    assert.equal(shipped, 0n);
    assert.equal(log.lowestOffset, 0n);
    await log.close();
  });
}

test("a server that does not answer, or not to the end, is given up after a while, whatever is collected meanwhile", async () => {
  for (const answering of [() => {}, (/** @type {Request} */ _, /** @type {Response} */ response) => void response.writeHead(200).write("{")]) {
    const server = await serve(answering);
    // Times are shorter in this process by a factor of 200.
    const source = `import { Log } from ${JSON.stringify(new URL("../src/node.js", import.meta.url).href)};
const [later, timeout] = [setTimeout, AbortSignal.timeout];
globalThis.setTimeout = (call, ms, ...args) => later(call, ms / 200, ...args);
AbortSignal.timeout = (ms) => timeout.call(AbortSignal, ms / 200);
const log = await Log.open(${JSON.stringify(join(scratch.path, `${server.port}`))});
await log.append("x");
setInterval(gc, 20);
log.syncTo(${JSON.stringify(server.url)}, { onProgress: ({ error }) => error && console.log(error.kind) });`;
    const child = spawn(process.execPath, ["--expose-gc", "--input-type=module", "-e", source], { stdio: ["ignore", "pipe", "inherit"] });
    const giveUp = setTimeout(() => child.kill(), 20_000);
    /** @type {string[]} */
    const lines = [];
    for await (const line of createInterface({ input: child.stdout })) {
      lines.push(line);
      if (lines.length === 2) child.kill();
    }
    clearTimeout(giveUp);
    server.close();
    assert.deepEqual(lines, ["Unavailable", "Unavailable"]);
  }
});

test("a signal that outlives many attempts has nothing left on it", async () => {
  const abort = new AbortController();
  /** @type {Error[]} */
  const warnings = [];
  process.on("warning", (warning) => warnings.push(warning));
  const { log } = await shipTo(says("", 503), "often", { abort, errorsMax: 30 });
  await log.close();
  assert.deepEqual(warnings, []);
  assert.equal(getEventListeners(abort.signal, "abort").length, 0);
});

test("nothing is told once it is over, whatever was under way", async () => {
  const server = await serve(toRecords(says('{"sequence":0}')));
  const abort = new AbortController();
  /** @type {Record<string, () => any>} */
  const answers = {
    sources: () => [{ id: new Uint8Array(16), from: 0n }],
    shipment: () => ({ frames: Uint8Array.of(1), batches: 1, next: 1n, last: 0n, isLast: false }),
    removeSegmentsBelow: () => {
      abort.abort();
      return new Promise((resolve) => setTimeout(resolve, 20));
    },
  };
  const calls = /** @type {import("../src/base.js").Calls} */ (/** @type {unknown} */ ({
    name: "log",
    offsets: { lowestOffset: 0n, nextOffset: 1n, durableOffset: 1n },
    connection: new AbortController().signal,
    call: async (/** @type {string} */ call) => answers[call]?.(),
    alone: (/** @type {string} */ _, /** @type {AbortSignal} */ _signal, /** @type {() => Promise<void>} */ run) => run(),
  }));
  /** @type {string[]} */
  const told = [];
  await ship(calls, server.url, { signal: abort.signal, retain: true, onProgress: () => told.push("progress") });
  told.push("over");
  await new Promise((resolve) => setTimeout(resolve, 100));
  server.close();
  assert.deepEqual(told, ["progress", "over"]);
});

/**
 * Ships a log to a server that answers so, until it has failed a few times.
 *
 * @param {Answering} answering
 * @param {string} what
 */
async function shipTo(answering, what, { abort = new AbortController(), errorsMax = ERRORS } = {}) {
  const server = await serve(answering);
  const log = await Log.open(join(scratch.path, encodeURIComponent(what)), { segmentBytesMax: 200 });
  for (let n = 0; n < RECORDS; n++) await log.append(`record ${n}`);
  const before = process.memoryUsage().rss;
  /** @type {(ProglogError | undefined)[]} */
  const errors = [];
  let shipped = 0n;
  let failure;
  try {
    await log.syncTo(server.url, {
      signal: abort.signal,
      batchBytes: 200,
      retain: true,
      onProgress: ({ shippedOffset, error }) => {
        if (shippedOffset > shipped) shipped = shippedOffset;
        if (error) errors.push(error);
        if (errors.length >= errorsMax) abort.abort();
      },
    });
  } catch (error) {
    failure = error;
  }
  const memoryBytes = process.memoryUsage().rss - before;
  server.close();
  return { failure, errors, shipped, log, memoryBytes };
}

/** @param {Answering} answering */
async function serve(answering) {
  const server = createServer((request, response) => {
    request.resume();
    // What is sent to it is taken first, as a server does that answers.
    request.on("end", () => answering(request, response));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
  const url = originOf(server);
  const close = () => {
    server.closeAllConnections();
    server.close();
  };
  return { url, port: new URL(url).port, close };
}
