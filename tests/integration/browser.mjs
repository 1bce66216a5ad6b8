// A real Chromium at the other end of a pipe. A line is JSON: `view`, options of a new window, if there is to be one, and
// `script`, the body of an async function that sees `page`, `axe` and `errors`; the answer is what that returns.
// Usage: node browser.mjs FOLDER-OF-node_modules
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(`${process.argv[2]}/package.json`);
const { chromium } = require("playwright-core");
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--disable-gpu", "--disable-background-networking", ...(process.getuid() === 0 ? ["--no-sandbox"] : [])],
});
let context, page;
const errors = []; // what pages complain of: refused by their own policy, for one

async function open(options) {
  await context?.close();
  context = await browser.newContext({ ignoreHTTPSErrors: true, ...options });
  page = await context.newPage();
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("dialog", (dialog) => dialog.accept());
}

/** Rules of axe that a page breaks, and where. */
async function axe() {
  const inspector = await context.newCDPSession(page); // not a script of the page, which would refuse it
  await inspector.send("Runtime.evaluate", { expression: readFileSync(require.resolve("axe-core/axe.min.js"), "utf8") });
  const found = await page.evaluate(() => globalThis.axe.run({ resultTypes: ["violations"] }));
  return found.violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target.join(" ")).join(", ")}`);
}

const AsyncFunction = open.constructor;
for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    const { view, script } = JSON.parse(line);
    if (view) await open(view);
    answer = { result: (await new AsyncFunction("page", "axe", "errors", script)(page, axe, errors)) ?? null };
  } catch (error) {
    answer = { error: String(error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
