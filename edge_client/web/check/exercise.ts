/** What the tests have the kernels do, in node and in a browser's worker alike. */
import { planWorkspace } from "../src/kernels/arena";
import { makeSchedule } from "../src/kernels/lowering";
import { checkSamples, SparseRuntime, type Samples } from "../src/kernels/runtime";
import type { Training } from "../src/wire/messages";
import { fromHex, toHex } from "../src/wire/bytes";
import * as bits from "../src/wire/bits";
import { decodeTicket } from "../src/wire/ticket";

/** `x` is little-endian float32 in hexadecimal. */
export interface Request {
  ask: "schedule" | "train";
  ticket: string;
  lanes?: number;
  training?: Training;
  x?: string;
  y?: number[];
  start?: string;
  steps?: number;
}

export async function exercise(module: WebAssembly.Module, request: Request): Promise<unknown> {
  const ticket = await decodeTicket(fromHex(request.ticket));
  if (request.ask === "schedule") {
    const schedule = makeSchedule(ticket.plan, request.lanes!, 4);
    const { values, gradients, extras, nbytes } = planWorkspace(schedule);
    return {
      operations: schedule.operations.map((o) => [o.kind, o.input, o.second, o.output, o.relu, o.weights, o.flat]),
      tensors: schedule.tensors.map(({ geometry: g, viewOf, learns, cut }) =>
        [g.channels, g.height, g.width, g.padH, g.padW, g.pitch, viewOf, learns, cut]),
      logits: schedule.logits,
      inputRelu: schedule.inputRelu,
      offsets: [values, gradients, extras].map((buffers) => buffers.map((buffer) => buffer?.offset ?? null)),
      nbytes,
    };
  }
  const runtime = new SparseRuntime(module, ticket, request.training!);
  const samples: Samples = { x: floats(request.x!), y: Int32Array.from(request.y!) };
  checkSamples(samples, ticket);
  runtime.setScores(floats(request.start!));
  const { batch } = request.training!;
  const count = samples.y.length;
  const losses: number[] = [];
  const gradient = runtime.gradient(samples, chosen(0, batch, count)).gradient;
  for (let step = 0; step < request.steps!; step++) {
    losses.push(runtime.step(samples, chosen(step, batch, count)).loss);
  }
  const correct = runtime.countCorrect(Float32Array.from(runtime.signs(), (sign) => 2 * sign - 1), samples);
  const hex = (values: Float32Array) => toHex(new Uint8Array(values.buffer));
  return { losses, correct, signs: toHex(bits.pack(runtime.signs())), scores: hex(runtime.scores()), gradient: hex(gradient) };
}

/** Batch after batch of the samples, and again from the first. */
function chosen(step: number, batch: number, count: number): Int32Array {
  return Int32Array.from({ length: Math.min(batch, count) }, (_, i) => (step * batch + i) % count);
}

function floats(hex: string): Float32Array {
  return new Float32Array(fromHex(hex).buffer);
}
