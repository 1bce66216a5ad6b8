/**
 * Lines of JSON in and out: the kernels in a worker of a real Chromium (`$CHROMIUM`, else Debian's).
 *
 * An argument is the folder of onnxruntime-web's files, for benchmarks/web.py.
 */
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { resolve } from "node:path";

import { chromium } from "playwright-core";

import { answerLines } from "./files";

const FILES: Record<string, [string, string]> = {
  "/worker.js": ["worker.js", "text/javascript"],
  "/kernels.wasm": ["../../src/kernels.wasm", "application/wasm"],
};
const rival = process.argv[2];
if (rival) {
  FILES["/ort/ort.wasm.min.mjs"] = [`${rival}/ort.wasm.min.mjs`, "text/javascript"];
  FILES["/ort/ort-wasm-simd-threaded.mjs"] = [`${rival}/ort-wasm-simd-threaded.mjs`, "text/javascript"];
  FILES["/ort/ort-wasm-simd-threaded.wasm"] = [`${rival}/ort-wasm-simd-threaded.wasm`, "application/wasm"];
}

const server = createServer((request, response) => {
  const [path, type] = FILES[request.url ?? ""] ?? [];
  if (!path) {
    response.setHeader("content-type", "text/html").end("<!doctype html><title>check</title>");
    return;
  }
  void readFile(resolve(import.meta.dirname, path)).then((data) => response.setHeader("content-type", type!).end(data));
});
await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));

const executablePath = process.env["CHROMIUM"] ?? "/usr/bin/chromium";
const browser = await chromium.launch({ executablePath, args: process.getuid?.() === 0 ? ["--no-sandbox"] : [] });
const page = await browser.newPage();
await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
await page.evaluate(() => {
  const worker = new Worker("worker.js", { type: "module" });
  (globalThis as unknown as { ask: unknown }).ask = (request: unknown) =>
    new Promise((done, fail) => {
      worker.onmessage = ({ data }) => done(data);
      worker.onerror = ({ message }) => fail(new Error(message));
      worker.postMessage(request);
    });
});
await answerLines(async (line) =>
  JSON.stringify(
    await page.evaluate(
      (request) => (globalThis as unknown as { ask: (request: unknown) => Promise<unknown> }).ask(request),
      JSON.parse(line),
    ),
  ),
);
await browser.close();
server.close();
