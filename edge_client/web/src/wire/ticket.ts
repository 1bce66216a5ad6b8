/** A pruned random network, unpacked from the few bytes that travel. */
import * as bits from "./bits";
import { same, sha256, startsWith, type Bytes } from "./bytes";
import { bytes, decode, finite, list, whole, type Value } from "./cbor";
import { WireError } from "./errors";
import { MAX_SIZE } from "./layers";
import { planFromData, type Plan, type WeightLayer } from "./plan";
import * as prng from "./prng";

const HEADER_BYTES = 5; // "HNST", version
const DIGEST_BYTES = 32;
const MAX_TICKET_BYTES = 64 << 20;
const MAX_SCALE = 2 ** 64;

/**
 * One layer's kept weights in ticket order: blocks in row-major order, in a block its rows.
 *
 * `blocks` are flat numbers in (out / block, fan-in); `signs` are 1 for +1; `magnitudes` has one number where all
 * weights are of the same size; `start` is the first weight's place in the score vector.
 */
export interface KeptLayer {
  shape: WeightLayer;
  block: number;
  blocks: Int32Array;
  indices: Int32Array; // flat, in the dense weight array
  signs: Uint8Array;
  magnitudes: Float32Array;
  start: number;
}

export interface Ticket {
  id: Bytes; // SHA-256
  plan: Plan;
  constant: boolean; // weights are +-scale
  layers: KeptLayer[];
  kept: number; // weights: the length of every mask and score vector
  ends: number[]; // where each layer ends among them
}

/**
 * Read a ticket.
 *
 * @throws WireError if it is truncated, altered, of another version or does not fit together.
 */
export async function decodeTicket(data: Uint8Array): Promise<Ticket> {
  const size = data.length - DIGEST_BYTES;
  if (size < HEADER_BYTES || size > MAX_TICKET_BYTES || !startsWith(data, "HNST")) throw new WireError("no ticket");
  const id = data.slice(size);
  if (!same(await sha256(data.subarray(0, size)), id)) throw new WireError("ticket corrupt or truncated");
  if (data[4] !== 1) throw new WireError(`ticket version ${data[4]}, this page reads version 1`);
  const [planData, seed, magnitudes, keeps] = list(decode(data.subarray(HEADER_BYTES, size)), 5);
  if (typeof seed !== "number" && typeof seed !== "bigint") throw new WireError("a ticket without seed");
  if (magnitudes !== "constant" && magnitudes !== "normal") throw new WireError("a ticket without magnitudes");
  if (seed < 0) throw new WireError("a ticket with a negative seed");
  const plan = planFromData(planData);
  const layers: KeptLayer[] = [];
  const ends: number[] = [];
  let kept = 0;
  list(keeps, plan.weightLayers.length).forEach((keep, index) => {
    const layer = unpack(BigInt(seed), magnitudes === "normal", index, plan.weightLayers[index], list(keep, 3), kept);
    layers.push(layer);
    ends.push((kept += layer.indices.length));
  });
  return { id, plan, constant: magnitudes === "constant", layers, kept, ends };
}

function unpack(
  seed: bigint, normal: boolean, index: number, shape: WeightLayer, keep: Value[], start: number,
): KeptLayer {
  const block = whole(keep[0], MAX_SIZE, 1);
  const scale = finite(keep[2]);
  const rows = shape.weightShape[0];
  if (rows % block) throw new WireError(`${rows} rows do not divide into blocks of ${block}`);
  if (!(scale > 0 && scale <= MAX_SCALE && Math.fround(scale) === scale)) throw new WireError(`scale ${scale}`);
  const blocks = keptBlocks(seed, index, shape.weights / block, keep[1]);
  const { fanIn, weights } = shape;
  const indices = new Int32Array(blocks.length * block);
  blocks.forEach((number, i) => {
    const [group, position] = [Math.floor(number / fanIn), number % fanIn];
    for (let row = 0; row < block; row++) indices[i * block + row] = (group * block + row) * fanIn + position;
  });
  const drawn = prng.signs(seed, index, weights);
  const magnitudes = normal
    ? Float32Array.from(prng.normals(seed, index, weights, indices), (size) => scale * size)
    : Float32Array.of(scale);
  return { shape, block, blocks, indices, signs: Uint8Array.from(indices, (i) => drawn[i]), magnitudes, start };
}

/** Numbers of the kept blocks, ascending: as many as the ticket says, drawn from the seed, or spelt out. */
function keptBlocks(seed: bigint, index: number, total: number, mask: Value): Int32Array {
  if (typeof mask === "number") return prng.kept(seed, index, total, whole(mask, total));
  const found: number[] = [];
  bits.decode(bytes(mask), total).forEach((one, i) => one && found.push(i));
  return Int32Array.from(found);
}

/** Initial weights of a layer, in ticket order. */
export function initialWeights(layer: KeptLayer): Float32Array {
  const { signs, magnitudes } = layer;
  return Float32Array.from(signs, (sign, i) => {
    const size = magnitudes.length === 1 ? magnitudes[0] : magnitudes[i];
    return sign ? size : -size;
  });
}
