/**
 * Phones for the tests: lines of JSON in and out, each phone a browser context of its own in a real Chromium.
 *
 *     {"phone": "a", "do": "open", "url": ...}       and "reload", "close"
 *     {"phone": "a", "do": "wait", "text": "regular expression of the page's visible text", "timeout": 30000}
 *     {"phone": "a", "do": "click" | "choose" | "check" | "press", "what": selector or keys, "file": path}
 *     {"phone": "a", "do": "offline", "on": true}
 *     {"phone": "a", "do": "init", "code": script}    that every page opened from now on runs before its own
 *     {"phone": "a", "do": "sleep", "on": true}       as a phone does with a page that is not seen: it is frozen
 *     {"phone": "a", "do": "installable"}             what keeps the page from being installed as an app
 *     {"phone": "a", "do": "script", "code": expression}         and "scheme", "light" or "dark"
 *     {"phone": "a", "do": "axe"}                     what is wrong for people who cannot see or use a mouse
 *     {"phone": "a", "do": "picture", "path": ..., "width": 390, "height": 844, "scheme": "dark"}
 */
import { createRequire } from "node:module";

import { chromium, type BrowserContext, type CDPSession, type Page } from "playwright-core";

import { answerLines } from "./files";

interface Ask {
  phone: string;
  do: string;
  url: string;
  text: string;
  timeout?: number;
  what: string;
  file: string;
  on: boolean;
  code: string;
  path: string;
  width: number;
  height: number;
  scheme: "light" | "dark";
}

const executablePath = process.env["CHROMIUM"] ?? "/usr/bin/chromium";
const args = ["--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
// The broker's certificate is signed by an authority of the test's own.
args.push("--ignore-certificate-errors", ...(process.getuid?.() === 0 ? ["--no-sandbox"] : []));
const browser = await chromium.launch({ executablePath, args });
const phones = new Map<string, { context: BrowserContext; page: Page; said: string[] }>();
const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

async function phone(name: string): Promise<{ context: BrowserContext; page: Page; said: string[] }> {
  const known = phones.get(name);
  if (known) return known;
  // axe is a script of the test's: the page's own policy would not let it in.
  const context = await browser.newContext({ viewport: { width: 390, height: 844 }, bypassCSP: name.startsWith("axe") });
  const page = await context.newPage();
  const found = { context, page, said: [] as string[] };
  page.on("console", (message) => found.said.push(message.text()));
  page.on("pageerror", (error) => found.said.push(`error: ${error.message}`));
  phones.set(name, found);
  return found;
}

function inspector(page: Page): Promise<CDPSession> {
  return page.context().newCDPSession(page);
}

async function answer(ask: Ask): Promise<unknown> {
  const { context, page, said } = await phone(ask.phone);
  switch (ask.do) {
    case "open":
      await page.goto(ask.url);
      return null;
    case "reload":
      await page.reload();
      return null;
    case "close":
      await context.close();
      phones.delete(ask.phone);
      return null;
    case "wait":
      try {
        await page.waitForFunction((text) => new RegExp(text).test(document.body.innerText), ask.text, { timeout: ask.timeout ?? 30_000 });
        return null;
      } catch (error) {
        const log = await page.evaluate(() => document.body.innerText + document.getElementById("log")?.textContent);
        throw new Error(`not seen: ${ask.text}\n${String(error)}\n${log}\n${said.join("\n")}`);
      }
    case "click":
      await page.click(ask.what);
      return null;
    case "check":
      await page.check(ask.what);
      return null;
    case "press":
      await page.keyboard.press(ask.what);
      return null;
    case "choose":
      await page.setInputFiles(ask.what, ask.file);
      return null;
    case "offline":
      await context.setOffline(ask.on);
      return null;
    case "init":
      await context.addInitScript(ask.code);
      return null;
    case "sleep":
      await (await inspector(page)).send("Page.setWebLifecycleState", { state: ask.on ? "frozen" : "active" });
      return null;
    case "installable": {
      const session = await inspector(page);
      const { errors } = await session.send("Page.getAppManifest");
      const { installabilityErrors } = await session.send("Page.getInstallabilityErrors");
      return [...errors.map(({ message }) => message), ...installabilityErrors.map(({ errorId }) => errorId)];
    }
    case "scheme":
      await page.emulateMedia({ colorScheme: ask.scheme });
      return null;
    case "script":
      return page.evaluate(ask.code);
    case "axe": {
      await page.addScriptTag({ path: axe });
      const found = await page.evaluate(() => (globalThis as unknown as { axe: { run(): Promise<{ violations: { id: string; nodes: { html: string }[] }[] }> } }).axe.run());
      return found.violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`);
    }
    case "picture":
      await page.setViewportSize({ width: ask.width, height: ask.height });
      await page.emulateMedia({ colorScheme: ask.scheme });
      await page.screenshot({ path: ask.path, fullPage: true });
      return null;
    default:
      throw new Error(`no such thing to do: ${ask.do}`);
  }
}

await answerLines(async (line) => {
  try {
    return JSON.stringify({ found: (await answer(JSON.parse(line))) ?? null });
  } catch (error) {
    return JSON.stringify({ error: String(error) });
  }
});
await browser.close();
