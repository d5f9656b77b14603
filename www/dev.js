// Serves the page from its files, and passes all else on to a `proglog serve`: what is saved shows with a reload.
// `npm run dev`, with PROGLOG_URL (http://127.0.0.1:8080) and PORT (8081) in the environment where they are others.

import { readFile } from "node:fs/promises";
import { createServer, request } from "node:http";
import { dirname, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

/** @type {Record<string, string>} */
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
};
/** What the server says about its page, this one says too: what its policy forbids fails here already. */
const PASSED_ON = ["content-security-policy", "referrer-policy", "x-content-type-options"];

const here = dirname(fileURLToPath(import.meta.url));
const target = new URL(process.env["PROGLOG_URL"] ?? "http://127.0.0.1:8080");
const port = Number(process.env["PORT"] ?? 8081);

/** @param {import("node:http").IncomingMessage} message */
async function fileOf({ method, url = "/", headers }) {
  const { pathname, search } = new URL(url, target);
  if (method !== "GET" || search) return undefined;
  const path = pathname === "/" && headers.accept?.includes("text/html") ? "/index.html" : normalize(pathname);
  const type = TYPES[extname(path)];
  if (!type || path.includes("node_modules")) return undefined;
  const bytes = await readFile(join(here, path)).catch(() => undefined);
  return bytes && { type, bytes };
}

const server = createServer(async (message, response) => {
  const file = await fileOf(message);
  if (file) {
    const page = await fetch(new URL("/style.css", target)).catch(() => undefined);
    for (const name of PASSED_ON) {
      const value = page?.headers.get(name);
      if (value) response.setHeader(name, value);
    }
    response.setHeader("content-type", file.type).setHeader("cache-control", "no-store").end(file.bytes);
    return;
  }
  const { method, url, headers } = message;
  // To the server it is its own page that asks.
  const sent = { ...headers, host: target.host, ...(headers.origin && { origin: target.origin }) };
  const passed = request(new URL(url ?? "/", target), { method, headers: sent }, (answer) => {
    response.writeHead(answer.statusCode ?? 502, answer.headers);
    answer.pipe(response);
  });
  passed.on("error", () => {
    if (response.headersSent) return response.destroy();
    const error = `no server answers at ${target.origin}: run \`make run\`, or set PROGLOG_URL`;
    return response.writeHead(502, { "content-type": "application/json" }).end(JSON.stringify({ error }));
  });
  response.on("close", () => passed.destroy());
  message.pipe(passed);
});

server.on("error", ({ message }) => {
  console.error(`The page cannot be served: ${message}; set PORT to another port`);
  process.exit(1);
});
server.listen(port, "127.0.0.1", () => {
  const address = server.address();
  const bound = typeof address === "object" ? address?.port : port;
  console.log(`The page is on http://127.0.0.1:${bound}, before ${target.origin}`);
});
