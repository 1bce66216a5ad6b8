/**
 * One array of bits (0 or 1 a byte in memory) as a few bytes: raw, or the gaps between its set bits in Rice code.
 *
 *     byte 0   0: raw, 1 + k: Rice gaps with k remainder bits (k = 0..24), 64 + the same: inverted first
 *     raw      ceil(n / 8) bytes, first bit in the lowest bit, spare bits zero
 *     Rice     u32 count of set bits; remainders (k bits each, lowest first); quotients in unary
 *
 * The number of bits is known to both sides and not stored.
 */
import { concat, view, type Bytes } from "./bytes";
import { WireError } from "./errors";

const MAX_K = 24;
const INVERTED = 64;
const COUNT_BYTES = 4;

export function pack(bits: Uint8Array): Bytes {
  const packed = new Uint8Array(Math.ceil(bits.length / 8));
  for (let i = 0; i < bits.length; i++) packed[i >> 3] |= bits[i] << (i & 7);
  return packed;
}

/** @throws WireError if `data` is not exactly n bits, spare ones zero. */
export function unpack(data: Uint8Array, n: number): Uint8Array {
  if (data.length !== Math.ceil(n / 8)) throw new WireError(`${n} packed bits in ${data.length} bytes`);
  for (let i = n; i < 8 * data.length; i++) {
    if (bit(data, i)) throw new WireError(`spare bits after ${n} packed bits are not zero`);
  }
  const bits = new Uint8Array(n);
  for (let i = 0; i < n; i++) bits[i] = bit(data, i);
  return bits;
}

/** The shorter of the raw and the Rice form, one leading byte included. */
export function encode(bits: Uint8Array): Bytes {
  const n = bits.length;
  const ones = bits.reduce((sum, one) => sum + one, 0);
  const inverted = ones > n - ones;
  const raw = concat(Uint8Array.of(0), pack(bits));
  if (Math.min(ones, n - ones) * 2 >= n) return raw;
  const gaps = gapsOf(bits, inverted ? 0 : 1);
  const k = bestK(gaps, n);
  const stream = rice(gaps, k);
  if (1 + COUNT_BYTES + stream.length >= raw.length) return raw;
  const head = new Uint8Array(1 + COUNT_BYTES);
  head[0] = 1 + k + (inverted ? INVERTED : 0);
  view(head).setUint32(1, gaps.length, true);
  return concat(head, stream);
}

/**
 * Inverse of `encode`.
 *
 * @throws WireError if `data` is no code of `n` bits.
 */
export function decode(data: Uint8Array, n: number): Uint8Array {
  if (data.length === 0) throw new WireError("bit array of no bytes");
  if (data.length > 1 + Math.ceil(n / 8)) throw new WireError(`${data.length} bytes for a code of ${n} bits`);
  const first = data[0];
  const rest = data.subarray(1);
  if (first === 0) return unpack(rest, n);
  const inverted = first >= INVERTED ? 1 : 0;
  const kind = first % INVERTED;
  if (kind < 1 || kind > 1 + MAX_K || first >= 2 * INVERTED) throw new WireError(`bit array of unknown kind ${first}`);
  const bits = new Uint8Array(n).fill(inverted);
  for (const position of unrice(rest, kind - 1, n)) bits[position] = 1 - inverted;
  return bits;
}

function bit(data: Uint8Array, i: number): number {
  return (data[i >> 3] >> (i & 7)) & 1;
}

/** Number of bits unlike `wanted` before each one like it. */
function gapsOf(bits: Uint8Array, wanted: number): number[] {
  const gaps: number[] = [];
  let last = -1;
  bits.forEach((found, i) => {
    if (found !== wanted) return;
    gaps.push(i - last - 1);
    last = i;
  });
  return gaps;
}

/** Remainder width near log2 of the mean gap, the better of the two neighbours as well. */
function bestK(gaps: number[], n: number): number {
  const mean = gaps.length ? n / gaps.length : 1;
  const guess = Math.min(Math.trunc(Math.log2(Math.max(mean * 0.69, 1))), MAX_K);
  let best = Math.max(guess - 1, 0);
  for (let k = best + 1; k <= Math.min(guess + 1, MAX_K); k++) if (riceBits(gaps, k) < riceBits(gaps, best)) best = k;
  return best;
}

function riceBits(gaps: number[], k: number): number {
  return gaps.reduce((sum, gap) => sum + (gap >> k), gaps.length * (k + 1));
}

function rice(gaps: number[], k: number): Uint8Array {
  const stream = new Uint8Array(riceBits(gaps, k));
  let at = 0;
  for (const gap of gaps) for (let i = 0; i < k; i++) stream[at++] = (gap >> i) & 1;
  for (const gap of gaps) {
    at += gap >> k;
    stream[at++] = 1;
  }
  return pack(stream);
}

/** Positions of the set bits, ascending; every length is checked before it is believed. */
function unrice(data: Uint8Array, k: number, n: number): number[] {
  if (data.length < COUNT_BYTES) throw new WireError(`bit array header of ${data.length} bytes`);
  const count = view(data).getUint32(0, true);
  const stream = data.subarray(COUNT_BYTES);
  const total = 8 * stream.length;
  if (count > n || count * (k + 1) > total) throw new WireError(`${count} coded gaps in ${stream.length} bytes`);
  const found: number[] = [];
  let at = count * k; // of the quotients
  let position = -1;
  for (let i = 0; i < count; i++) {
    const from = at;
    while (at < total && !bit(stream, at)) at++;
    if (at === total) throw new WireError(`${count} coded gaps announced, ${i} found`);
    let remainder = 0;
    for (let j = 0; j < k; j++) remainder |= bit(stream, i * k + j) << j;
    position += (at++ - from) * 2 ** k + remainder + 1;
    if (position >= n) throw new WireError(`coded position beyond ${n} bits`);
    found.push(position);
  }
  if (stream.length !== Math.ceil(at / 8)) throw new WireError(`bytes left over after ${count} coded gaps`);
  while (at < total) if (bit(stream, at++)) throw new WireError(`spare bits after ${count} coded gaps are not zero`);
  return found;
}
