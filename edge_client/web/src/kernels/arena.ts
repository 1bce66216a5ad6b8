/** Where a schedule's activations lie: every buffer's life, and one block of memory shared by those that never meet. */
import type { Layer } from "../wire/layers";
import { Kind, type Geometry, type Operation, type Schedule } from "./schedule";

export const ALIGN = 64; // bytes: a cache line, and the widest vector
const FLOAT = 4; // bytes
const NEEDS_INPUT: readonly number[] = [Kind.SPARSE, Kind.POINTWISE, Kind.NORM]; // their backward pass reads it

/** Bytes needed from the first to the last tick of their life; `offset` is where the planner put them. */
export interface Buffer {
  nbytes: number;
  born: number;
  dies: number;
  offset: number;
}

/** Of one micro-batch: a value a tensor (a view's is its tensor's), its gradient, and what an operation needs besides. */
export interface Workspace {
  values: Buffer[];
  gradients: (Buffer | null)[];
  extras: (Buffer | null)[];
  nbytes: number;
}

export function aligned(nbytes: number): number {
  return Math.ceil(nbytes / ALIGN) * ALIGN;
}

/** Give buffers offsets so that no two alive at the same tick overlap: largest first, at the lowest gap; the whole's bytes. */
function place(buffers: Buffer[]): number {
  const placed: Buffer[] = [];
  for (const buffer of [...buffers].sort((a, b) => b.nbytes - a.nbytes || a.born - b.born)) {
    const size = aligned(buffer.nbytes);
    let offset = 0;
    for (const other of [...placed].sort((a, b) => a.offset - b.offset)) {
      if (other.dies < buffer.born || buffer.dies < other.born) continue;
      if (offset + size <= other.offset) break;
      offset = Math.max(offset, other.offset + aligned(other.nbytes));
    }
    buffer.offset = offset;
    placed.push(buffer);
  }
  return Math.max(0, ...placed.map((buffer) => buffer.offset + aligned(buffer.nbytes)));
}

/**
 * When every activation is born and dies, and where it lies.
 *
 * Tick 0 packs the input, tick i + 1 runs operation i forward, tick n + 1 is the loss, tick 2 n + 1 - i runs operation
 * i backward.
 */
export function planWorkspace(schedule: Schedule): Workspace {
  const { tensors, operations, lanes } = schedule;
  const n = operations.length;
  const buffer = (nbytes: number, born: number, dies: number): Buffer => ({ nbytes, born, dies, offset: -1 });
  const sizes = tensors.map(({ geometry }) => FLOAT * lanes * geometry.positions);
  const values = sizes.map((size) => buffer(size, 0, 0));
  const gradients = tensors.map((tensor, i) => (tensor.learns ? buffer(sizes[i], n + 1, n + 1) : null));
  const extras: (Buffer | null)[] = [];
  tensors.forEach(({ viewOf }, i) => {
    if (viewOf !== null) values[i] = values[viewOf];
  });
  values[schedule.logits].dies = n + 1;
  operations.forEach((operation, i) => {
    const backward = 2 * n + 1 - i;
    const extra = extraBytes(operation, tensors[operation.output].geometry, lanes);
    extras.push(extra ? buffer(extra, i + 1, backward) : null);
    const read = operation.kind === Kind.SPLIT ? [] : [operation.input, operation.second];
    for (const number of read) {
      if (number === null) continue;
      const again = NEEDS_INPUT.includes(operation.kind) || (tensors[number].cut && operation.kind !== Kind.MAX_POOL);
      values[number].dies = Math.max(values[number].dies, again ? backward : i + 1);
      const gradient = gradients[number];
      if (gradient) gradient.born = backward;
    }
    const made = operation.kind === Kind.SPLIT ? operation.second! : operation.output;
    const gradient = gradients[made];
    if (gradient) gradient.dies = backward;
    if (operation.kind === Kind.SPLIT) return;
    values[made].born = i + 1;
    // A max pool's output says where its input was positive.
    if (operation.kind === Kind.MAX_POOL) values[made].dies = Math.max(values[made].dies, backward);
  });
  const own = values.filter((_, i) => tensors[i].viewOf === null);
  const nbytes = place([...own, ...gradients, ...extras].filter((b) => b !== null));
  return { values, gradients, extras, nbytes };
}

/** Bytes that hold a place in a pooling window. */
export function placeBytes(layer: Layer): number {
  const window = layer.kind === "maxpool" ? layer.kernel.reduce((a, b) => a * b, 1) : 1;
  return window <= 1 << 8 ? 1 : window <= 1 << 16 ? 2 : 4;
}

function extraBytes({ kind, layer }: Operation, target: Geometry, lanes: number): number {
  if (kind === Kind.MAX_POOL) return target.channels * target.height * target.width * lanes * placeBytes(layer);
  if (kind === Kind.NORM && layer.kind === "norm") return 2 * FLOAT * layer.groups * lanes;
  return 0;
}
