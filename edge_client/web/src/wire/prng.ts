/** Random numbers that are the same everywhere: raw words of Philox 4x64 with 10 rounds (Salmon et al. 2011). */
import { concat, sha256, utf8, view } from "./bytes";

const STREAM_SIGN = 1;
const STREAM_MAGNITUDE = 2;
const STREAM_KEEP = 3;
const STREAM_ORDER = 4;
const STREAM_DITHER = 5;

const ROUNDS = 10;
// Low and high halves: a product of BigInts takes a hundred times as long as four of halves.
const MULTIPLIERS = [0xe14c6c93, 0xd2e7470e, 0x95121157, 0xca5a8263] as const;
const WEYL = [0x9e3779b97f4a7c15n, 0xbb67ae8584caa73bn] as const;

/** `count` uniform 64-bit words for (seed, stream, index); each is two numbers of 32 bits, the lower first. */
function words(seed: bigint, stream: number, index: number, count: number): Uint32Array {
  const blocks = Math.ceil(count / 4);
  const out = new Uint32Array(8 * blocks);
  const keys = new Uint32Array(4 * ROUNDS);
  for (let turn = 0; turn < ROUNDS; turn++) {
    const pair = [seed + BigInt(turn) * WEYL[0], ((BigInt(stream) << 32n) | BigInt(index)) + BigInt(turn) * WEYL[1]];
    pair.forEach((key, i) => {
      keys[4 * turn + 2 * i] = Number(key & 0xffff_ffffn);
      keys[4 * turn + 2 * i + 1] = Number((key >> 32n) & 0xffff_ffffn);
    });
  }
  for (let block = 0; block < blocks; block++) philox(block + 1, keys, out, 8 * block);
  return out.subarray(0, 2 * count);
}

/** Upper 32 bits of the product of two numbers of 32 bits. */
function high32(x: number, y: number): number {
  const xLow = x & 0xffff;
  const xHigh = x >>> 16;
  const yLow = y & 0xffff;
  const yHigh = y >>> 16;
  const middle = xHigh * yLow + ((xLow * yLow) >>> 16); // below 2^32: no rounding
  const cross = xLow * yHigh + (middle & 0xffff);
  return (xHigh * yHigh + Math.floor(middle / 65536) + Math.floor(cross / 65536)) >>> 0;
}

const product = new Uint32Array(4); // of `multiply`, lowest first

/** The 128-bit product of two words, by halves. */
function multiply(low: number, high: number, factorLow: number, factorHigh: number): void {
  const a = high32(low, factorLow);
  const b = Math.imul(high, factorLow) >>> 0;
  const c = Math.imul(low, factorHigh) >>> 0;
  const second = a + b + c;
  const third =
    high32(high, factorLow) + high32(low, factorHigh) + (Math.imul(high, factorHigh) >>> 0) +
    Math.floor(second / 4294967296);
  product[0] = Math.imul(low, factorLow);
  product[1] = second; // modulo 2^32, as the array keeps them
  product[2] = third;
  product[3] = high32(high, factorHigh) + Math.floor(third / 4294967296);
}

function philox(counter: number, keys: Uint32Array, out: Uint32Array, at: number): void {
  let [a, aHigh, b, bHigh, c, cHigh, d, dHigh] = [counter, 0, 0, 0, 0, 0, 0, 0];
  for (let turn = 0; turn < ROUNDS; turn++) {
    multiply(a, aHigh, MULTIPLIERS[0], MULTIPLIERS[1]);
    const low0 = product[0];
    const low1 = product[1];
    const high0 = product[2];
    const high1 = product[3];
    multiply(c, cHigh, MULTIPLIERS[2], MULTIPLIERS[3]);
    a = (product[2] ^ b ^ keys[4 * turn]) >>> 0;
    aHigh = (product[3] ^ bHigh ^ keys[4 * turn + 1]) >>> 0;
    b = product[0];
    bHigh = product[1];
    c = (high0 ^ d ^ keys[4 * turn + 2]) >>> 0;
    cHigh = (high1 ^ dHigh ^ keys[4 * turn + 3]) >>> 0;
    d = low0;
    dHigh = low1;
  }
  out.set([a, aHigh, b, bHigh, c, cHigh, d, dHigh], at);
}

/** The same words as whole numbers. */
function wholeWords(halves: Uint32Array): BigUint64Array {
  return new BigUint64Array(halves.buffer, halves.byteOffset, halves.length / 2); // little-endian, as WebAssembly is
}

/** Signs of a layer's initial weights, 1 for +1: `count` bits for the layer number `index`. */
export function signs(seed: bigint, index: number, count: number): Uint8Array {
  const halves = words(seed, STREAM_SIGN, index, Math.ceil(count / 64));
  const found = new Uint8Array(count);
  for (let i = 0; i < count; i++) {
    const bit = (Math.floor((i % 64) / 8) * 8 + 7 - (i % 8)) | 0; // of a byte the highest bit is the first
    found[i] = (halves[2 * Math.floor(i / 64) + (bit >> 5)] >>> (bit & 31)) & 1;
  }
  return found;
}

/** The magnitudes |N(0, 1)| at the positions `at` of `count`, by Box and Muller. */
export function normals(seed: bigint, index: number, count: number, at: Int32Array): Float64Array {
  const halves = words(seed, STREAM_MAGNITUDE, index, 2 * count);
  const uniform = (i: number) => (halves[2 * i + 1] * 2097152 + (halves[2 * i] >>> 11) + 0.5) * 2 ** -53;
  return Float64Array.from(at, (i) =>
    Math.abs(Math.sqrt(-2 * Math.log(uniform(i))) * Math.cos(2 * Math.PI * uniform(count + i))),
  );
}

/** `count` positions out of `total`, ascending: those of the smallest words, of equal ones the first. */
export function kept(seed: bigint, index: number, total: number, count: number): Int32Array {
  const found = new Int32Array(count);
  if (count === 0) return found;
  const drawn = wholeWords(words(seed, STREAM_KEEP, index, total));
  const sorted = drawn.slice().sort();
  const largest = sorted[count - 1];
  let ties = 1; // how many of the words equal to the largest belong to it
  while (ties < count && sorted[count - 1 - ties] === largest) ties++;
  let at = 0;
  for (let i = 0; i < total; i++) {
    if (drawn[i] < largest || (drawn[i] === largest && ties-- > 0)) found[at++] = i;
  }
  return found;
}

/** The order in which `count` samples are seen in an epoch. */
export function permutation(seed: bigint, epoch: number, count: number): Int32Array {
  const drawn = wholeWords(words(seed, STREAM_ORDER, epoch, count));
  const order = Int32Array.from({ length: count }, (_, i) => i);
  return order.sort((i, j) => (drawn[i] < drawn[j] ? -1 : drawn[i] > drawn[j] ? 1 : i - j));
}

/** Thresholds of dithered scores, 0 .. 255: the words' bytes, lowest first. */
export function thresholds(seed: bigint, count: number): Uint8Array {
  const halves = words(seed, STREAM_DITHER, 0, Math.ceil(count / 8)); // little-endian, as WebAssembly is
  return new Uint8Array(halves.buffer, halves.byteOffset, count);
}

/** A seed that depends on every part, in order. */
export async function mix(...parts: (number | bigint | string)[]): Promise<bigint> {
  const tagged = parts.map((part) => {
    const body = utf8(String(part));
    const head = new Uint8Array(5);
    view(head).setUint32(0, body.length, true);
    head[4] = (typeof part === "string" ? "s" : "i").charCodeAt(0);
    return concat(head, body);
  });
  return view(await sha256(concat(...tagged))).getBigUint64(0, true);
}
