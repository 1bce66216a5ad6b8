/** The kernels in a browser's worker: a request comes, an answer goes. */
import { exercise, type Request } from "./exercise";

const module = WebAssembly.compileStreaming(fetch("kernels.wasm"));

onmessage = async ({ data }: MessageEvent<Request>) => postMessage(await exercise(await module, data));
