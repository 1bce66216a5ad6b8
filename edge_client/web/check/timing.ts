/** For benchmarks/web.py: how long training steps take here, by our kernels and by onnxruntime-web. */
import { SparseRuntime, type Samples } from "../src/kernels/runtime";
import { fromHex } from "../src/wire/bytes";
import type { Training } from "../src/wire/messages";
import { decodeTicket, type Ticket } from "../src/wire/ticket";

/** `x` is little-endian float32, `graph` train.onnx, both in hexadecimal; times are of `blocks` times `steps` steps. */
export interface TimingRequest {
  ask: "time kernels" | "time onnx";
  ticket: string;
  training: Training;
  x: string;
  y: number[];
  graph?: string;
  warmup: number;
  blocks: number;
  steps: number;
}

const ORT = "/ort/ort.wasm.min.mjs"; // served by chromium.ts; no bundler is to look into it

/** As much of onnxruntime-web as is used here: the page is built without it. */
interface OrtTensor {
  data: ArrayLike<number>;
}
interface Ort {
  env: { wasm: { numThreads: number; wasmPaths: string } };
  Tensor: {
    new (type: "float32", data: Float32Array, dims: readonly number[]): OrtTensor;
    new (type: "int64", data: BigInt64Array, dims: readonly number[]): OrtTensor;
  };
  InferenceSession: {
    create(graph: Uint8Array, options: { executionProviders: string[] }): Promise<{
      run(feeds: Record<string, OrtTensor>, fetches: string[]): Promise<Record<string, OrtTensor>>;
    }>;
  };
}

/** Milliseconds a step, of every block; and the loss of the last step. */
export async function time(module: WebAssembly.Module, request: TimingRequest): Promise<{ ms: number[]; loss: number }> {
  const ticket = await decodeTicket(fromHex(request.ticket));
  const samples = { x: new Float32Array(fromHex(request.x).buffer), y: Int32Array.from(request.y) };
  const step = request.ask === "time onnx" ? await rival(ticket, samples, request) : ours(module, ticket, samples, request);
  let loss = 0;
  for (let i = 0; i < request.warmup; i++) loss = await step();
  const ms: number[] = [];
  for (let block = 0; block < request.blocks; block++) {
    const start = performance.now();
    for (let i = 0; i < request.steps; i++) {
      const answer = step();
      loss = typeof answer === "number" ? answer : await answer;
    }
    ms.push((performance.now() - start) / request.steps);
  }
  return { ms, loss };
}

function ours(module: WebAssembly.Module, ticket: Ticket, samples: Samples, { training }: TimingRequest): () => number {
  const runtime = new SparseRuntime(module, ticket, training);
  const chosen = Int32Array.from(samples.y, (_, i) => i);
  return () => runtime.step(samples, chosen).loss;
}

/** The exported graph of a training step, as edge_client/runtimes/onnx.py runs it: one thread, the wasm backend. */
async function rival(
  ticket: Ticket, samples: Samples, { training, graph }: TimingRequest,
): Promise<() => Promise<number>> {
  const ort = (await import(ORT)) as Ort;
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = "/ort/";
  const session = await ort.InferenceSession.create(fromHex(graph!), { executionProviders: ["wasm"] });
  const n = samples.y.length;
  const tensor = (values: Float32Array, dims: number[]) => new ort.Tensor("float32", values, dims);
  const scalar = (value: number) => tensor(Float32Array.of(value), []);
  const kept = (value: number) => tensor(new Float32Array(ticket.kept).fill(value), [ticket.kept]);
  const fixed = {
    x: tensor(samples.x, [n, ...ticket.plan.inputShape]),
    y: new ort.Tensor("int64", BigInt64Array.from(samples.y, BigInt), [n]),
    weight: tensor(new Float32Array(n).fill(1), [n]),
    log_prior: tensor(new Float32Array(ticket.plan.classes), [ticket.plan.classes]),
    learning_rate: scalar(training.learningRate),
    beta1: scalar(training.beta1),
    beta2: scalar(training.beta2),
    epsilon: scalar(training.epsilon),
    clip: scalar(training.clip),
  };
  let [scores, m, v] = [kept(training.start), kept(0), kept(0)] as OrtTensor[];
  let steps = 0;
  return async () => {
    const t = scalar(++steps);
    const found = await session.run({ ...fixed, t, scores, m, v }, ["loss", "new_scores", "new_m", "new_v"]);
    [scores, m, v] = [found["new_scores"], found["new_m"], found["new_v"]];
    return Number(found["loss"].data[0]);
  };
}
