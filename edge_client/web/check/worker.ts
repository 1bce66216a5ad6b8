/** The kernels in a browser's worker: a request comes, an answer goes. */
import { exercise, type Request } from "./exercise";
import { time, type TimingRequest } from "./timing";

const module = WebAssembly.compileStreaming(fetch("kernels.wasm"));

onmessage = async ({ data }: MessageEvent<Request | TimingRequest>) =>
  postMessage(await ("warmup" in data ? time(await module, data) : exercise(await module, data)));
