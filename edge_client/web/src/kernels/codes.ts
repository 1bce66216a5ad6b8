/** A layer's kept weights as the kernels walk them: groups of output rows, and in a group input offsets. */
import type { KeptLayer } from "../wire/ticket";
import { paddingOf, pair, type Geometry } from "./schedule";

export const BLOCK = 4; // rows the kernels share a position between; other blocks become these or single rows
export const OFFSET_BITS = 28; // a code is an input offset in floats and 4 sign bits
export const CHUNK_FLOATS = 1024; // of an output gradient, 4 rows of which stay in a first-level cache of 32 KiB

/** `order` is the ticket-order number of every weight in kernel order. */
export interface Codes {
  block: number;
  rowStart: Uint32Array; // (rows + 1,), first code of every group
  offsets: Int32Array; // (blocks,), in floats
  order: Int32Array; // (kept,)
}

/**
 * A layer's kept blocks for the kernels: groups of rows in order, in a group by input offset.
 *
 * Rows of different groups of a convolution read different channels, so a block that reaches over the border of a
 * group becomes single rows.
 */
export function codesFor(kept: KeptLayer, source: Geometry, lanes: number): Codes {
  const { fanIn, layer, weightShape } = kept.shape;
  const outUnits = weightShape[0];
  const rowsTogether = outUnits / (layer.kind === "conv" ? layer.groups : 1);
  const block = kept.block % BLOCK === 0 && rowsTogether % BLOCK === 0 ? BLOCK : 1;
  const split = kept.block / block;
  const count = kept.blocks.length * split;
  const group = new Int32Array(count);
  const position = new Int32Array(count);
  kept.blocks.forEach((number, i) => {
    for (let part = 0; part < split; part++) {
      group[i * split + part] = Math.floor(number / fanIn) * split + part;
      position[i * split + part] = number % fanIn;
    }
  });
  const arranged = Int32Array.from({ length: count }, (_, i) => i);
  if (split > 1) arranged.sort((a, b) => group[a] - group[b] || position[a] - position[b] || a - b);
  const rowStart = new Uint32Array(outUnits / block + 1);
  for (const row of group) rowStart[row + 1]++;
  for (let row = 1; row < rowStart.length; row++) rowStart[row] += rowStart[row - 1];
  const starts = rowOffsets(kept, source);
  const offsets = new Int32Array(count);
  const order = new Int32Array(count * block);
  arranged.forEach((from, i) => {
    offsets[i] = starts[Math.floor((group[from] * block) / rowsTogether)][position[from]] * lanes;
    for (let row = 0; row < block; row++) order[i * block + row] = from * block + row;
  });
  return { block, rowStart, offsets, order };
}

/** Position of every element of a tensor in row-major (channel, row, column) order. */
export function featureOffsets(tensor: Geometry): Int32Array {
  const { channels, height, width, plane, interior, pitch } = tensor;
  const found = new Int32Array(channels * height * width);
  let at = 0;
  for (let c = 0; c < channels; c++)
    for (let h = 0; h < height; h++)
      for (let w = 0; w < width; w++) found[at++] = c * plane + interior + h * pitch + w;
  return found;
}

/** Input offset, in positions, that each weight of a row starts from: (groups, fan-in). */
function rowOffsets({ shape }: KeptLayer, source: Geometry): Int32Array[] {
  const { layer } = shape;
  if (layer.kind === "linear") return [featureOffsets(source)];
  const kernel = pair(layer.kernel, 1);
  const [strideH, strideW] = pair(layer.stride, 1);
  const [padH, padW] = paddingOf(layer); // another reader of the tensor may need more
  const start = (source.padH - padH) * source.pitch + source.padW - padW;
  const channels = shape.weightShape[1];
  return Array.from({ length: layer.groups }, (_, group) => {
    const found = new Int32Array(shape.fanIn);
    let at = 0;
    for (let c = group * channels; c < (group + 1) * channels; c++)
      for (let row = 0; row < kernel[0]; row++)
        for (let column = 0; column < kernel[1]; column++) {
          const plane = (c * strideH + (row % strideH)) * strideW + (column % strideW);
          found[at++] =
            plane * source.plane + Math.floor(row / strideH) * source.pitch + Math.floor(column / strideW) + start;
        }
    return found;
  });
}
