/** What every check program needs: the compiled kernels, and lines from its input. */
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

/** `kernels.wasm` of this source tree. */
export function loadKernels(): WebAssembly.Module {
  return new WebAssembly.Module(readFileSync(new URL("../../src/kernels.wasm", import.meta.url)));
}

export async function answerLines(answer: (line: string) => Promise<string>): Promise<void> {
  for await (const line of createInterface({ input: process.stdin })) process.stdout.write(`${await answer(line)}\n`);
}
