/** The compiled C: one instance is one memory, with the kernels and the coder of masks beside it. */
import { NETWORK, OPERATION, RESULT, TENSOR } from "./structs";

interface Exports {
  memory: WebAssembly.Memory;
  __heap_base: WebAssembly.Global;
  _initialize(): void;
  hs_vector_width(): bigint;
  hs_struct_bytes(which: bigint): bigint;
  hs_check(network: number): bigint;
  hs_load_scores(network: number): void;
  hs_step(network: number, x: number, y: number, weights: number, n: bigint, result: number): bigint;
  hs_gradient(
    network: number, x: number, y: number, weights: number, n: bigint, result: number, gradient: number,
  ): bigint;
  hs_logits(network: number, x: number, n: bigint, logits: number): void;
  hs_adaptive_encode(
    symbols: number, contexts: number, ends: number, layers: bigint, bits: bigint, out: number,
  ): bigint;
  hs_adaptive_decode(
    data: number, size: bigint, contexts: number, ends: number, layers: bigint, bits: bigint, symbols: number,
  ): bigint;
}

const PAGE_BYTES = 65536;
const ALIGN = 64;

/** An instance and its memory, which is handed out from the bottom and never taken back but all at once. */
export class Machine {
  readonly run: Exports;
  private next: number;

  /** @throws Error if the module was built from other sources. */
  constructor(module: WebAssembly.Module) {
    const imports = { wasi_snapshot_preview1: { clock_time_get: this.clock } };
    this.run = new WebAssembly.Instance(module, imports).exports as unknown as Exports;
    this.run._initialize();
    this.next = this.heap;
    [TENSOR, OPERATION, NETWORK, RESULT].forEach(({ nbytes }, which) => {
      const built = Number(this.run.hs_struct_bytes(BigInt(which)));
      if (built !== nbytes) throw new Error(`kernels.wasm was built from other sources: struct ${which} has ${built} bytes`);
    });
  }

  private get heap(): number {
    return this.run.__heap_base.value as number;
  }

  /** Take back all memory. */
  clear(): void {
    this.next = this.heap;
  }

  /**
   * An address of so many bytes, zeros at first, at the border of a cache line.
   *
   * @throws RangeError if the browser has no more memory; views from before may have to be made again.
   */
  take(nbytes: number): number {
    const at = Math.ceil(this.next / ALIGN) * ALIGN;
    const missing = at + nbytes - this.run.memory.buffer.byteLength;
    if (missing > 0) this.run.memory.grow(Math.ceil(missing / PAGE_BYTES));
    this.next = at + nbytes;
    this.u8(at, nbytes).fill(0);
    return at;
  }

  get view(): DataView {
    return new DataView(this.run.memory.buffer);
  }

  u8(at: number, count: number): Uint8Array {
    return new Uint8Array(this.run.memory.buffer, at, count);
  }

  u32(at: number, count: number): Uint32Array {
    return new Uint32Array(this.run.memory.buffer, at, count);
  }

  f32(at: number, count: number): Float32Array {
    return new Float32Array(this.run.memory.buffer, at, count);
  }

  i64(at: number, count: number): BigInt64Array {
    return new BigInt64Array(this.run.memory.buffer, at, count);
  }

  /** What the kernels ask when layers are timed. */
  private readonly clock = (_id: number, _precision: bigint, to: number): number => {
    this.view.setBigUint64(to, BigInt(Math.round(performance.now() * 1e6)), true);
    return 0;
  };
}

/** The coder of masks and votes (wire/adaptive.py), on an instance of its own. */
export class Coder {
  private readonly machine: Machine;

  constructor(module: WebAssembly.Module) {
    this.machine = new Machine(module);
  }

  /** Code symbols of `bits` bits (1 to 4) in contexts below 16; `ends` says where each layer ends. */
  encode(symbols: Uint8Array, contexts: Uint8Array, ends: readonly number[], bits: number): Uint8Array<ArrayBuffer> {
    const n = symbols.length;
    const [from, context, layers] = this.put(symbols, contexts, ends);
    const out = this.machine.take(2 * n * bits + 8);
    const size = Number(
      this.machine.run.hs_adaptive_encode(from, context, layers, BigInt(ends.length), BigInt(bits), out),
    );
    return this.machine.u8(out, size).slice() as Uint8Array<ArrayBuffer>;
  }

  /** Inverse; null if bytes are left over. Any bytes are safe. */
  decode(data: Uint8Array, contexts: Uint8Array, ends: readonly number[], bits: number): Uint8Array | null {
    const n = contexts.length;
    const [from, context, layers] = this.put(data, contexts, ends);
    const symbols = this.machine.take(n);
    const { run } = this.machine;
    const fault = run.hs_adaptive_decode(
      from, BigInt(data.length), context, layers, BigInt(ends.length), BigInt(bits), symbols,
    );
    return fault || data[data.length - 1] === 0 ? null : this.machine.u8(symbols, n).slice();
  }

  private put(first: Uint8Array, contexts: Uint8Array, ends: readonly number[]): [number, number, number] {
    const { machine } = this;
    machine.clear();
    const at = [machine.take(first.length), machine.take(contexts.length), machine.take(8 * ends.length)] as const;
    machine.u8(at[0], first.length).set(first);
    machine.u8(at[1], contexts.length).set(contexts);
    machine.i64(at[2], ends.length).set(ends.map(BigInt));
    return [...at];
  }
}
