/** Sign masks and votes as bytes, coded in the context of votes that both sides hold (docs/wire-format.md). */
import type { Coder } from "../kernels/module";
import * as bits from "./bits";
import { concat, sha256, view, type Bytes } from "./bytes";
import { WireError } from "./errors";

const RAW = 0;
const FLIPS = 1;
const LEVELS = 16;
const LEVEL_BITS = 4;
const VOTERS_BYTES = 2;
const DIGEST_BYTES = 8;

/** What both sides hold before a mask is sent: its likely signs, and how sure they are: 0 surely not set, 15 surely set. */
export interface Known {
  readonly signs: Uint8Array;
  readonly levels: Uint8Array;
}

/** The outcome of a round: every kept weight's agreed sign (1: +1), and how many of the voters were against it. */
export class Votes {
  /** The voters for +1 in sixteen steps: 0 none, 15 all; 8 and more where the agreed sign is +1. */
  readonly levels: Uint8Array;

  constructor(readonly signs: Uint8Array, readonly dissent: Uint16Array, readonly voters: number) {
    this.levels = Uint8Array.from(signs, (sign, i) => {
      const against = Math.floor((dissent[i] * LEVELS) / (voters + 1));
      return sign ? LEVELS - 1 - against : against;
    });
  }

  /** Before the first round: every sign +1, which leaves the random network as it is. */
  static unanimous(kept: number): Votes {
    return new Votes(new Uint8Array(kept).fill(1), new Uint16Array(kept), 1);
  }

  /** The first 8 bytes of the SHA-256 of the votes: what two sides compare. */
  async digest(): Promise<Bytes> {
    const whole = new Uint8Array(VOTERS_BYTES + 2 * this.dissent.length);
    const packed = bits.pack(this.signs);
    view(whole).setUint16(0, this.voters, true);
    this.dissent.forEach((count, i) => view(whole).setUint16(VOTERS_BYTES + 2 * i, count, true));
    const ordered = concat(whole.subarray(0, VOTERS_BYTES), packed, whole.subarray(VOTERS_BYTES));
    return (await sha256(ordered)).slice(0, DIGEST_BYTES);
  }

  /** Mean of the voters' signs, in [-1, 1]. */
  mean(): Float32Array {
    return Float32Array.from(this.signs, (sign, i) => {
      const margin = 1 - Math.fround(Math.fround(2 * this.dissent[i]) / this.voters);
      return sign ? margin : -margin;
    });
  }

  /** Scores a round starts with: `start` x mean vote; a tie gets half of the smallest margin on its agreed side. */
  startScores(start: number): Float32Array {
    const smallest = Math.fround(0.5 / this.voters);
    return this.mean().map((mean, i) => {
      const margin = Math.fround(Math.max(Math.abs(mean), smallest) * Math.fround(start));
      return this.signs[i] ? margin : -margin;
    });
  }
}

/**
 * Read u16 voters, planes of bits, and the levels' code in the context of `known` votes.
 *
 * Sixteen levels tell up to 15 voters apart; of more, the planes hold what the levels leave open, highest first.
 *
 * @throws WireError if they are no votes of so many weights.
 */
export function decodeVotes(coder: Coder, data: Uint8Array, ends: readonly number[], known: Votes | null): Votes {
  const kept = ends[ends.length - 1];
  if (data.length < VOTERS_BYTES) throw new WireError(`votes of ${data.length} bytes`);
  const voters = view(data).getUint16(0, true);
  if (voters < 1) throw new WireError("votes of no voters");
  const size = Math.ceil(kept / 8);
  const planes = 32 - Math.clz32(Math.floor((voters + LEVELS) / LEVELS) - 1);
  const code = VOTERS_BYTES + planes * size;
  if (data.length < code) throw new WireError("votes end within a plane");
  if (data.length > code + kept * 8 + 8) throw new WireError(`votes of ${data.length} bytes are too long`);
  const context = (known ?? Votes.unanimous(kept)).levels;
  if (context.length !== kept) throw new WireError("votes in the context of another network's");
  const levels = coder.decode(data.subarray(code), context, ends, LEVEL_BITS);
  if (!levels) throw new WireError("bytes left over after the votes");
  const dissent = new Uint16Array(kept);
  for (let at = VOTERS_BYTES; at < code; at += size) {
    const plane = bits.unpack(data.subarray(at, at + size), kept);
    for (let i = 0; i < kept; i++) dissent[i] = 2 * dissent[i] + plane[i];
  }
  for (let i = 0; i < kept; i++) dissent[i] += leastDissent(levels[i], voters);
  const votes = new Votes(levels.map((level) => Number(level >= LEVELS / 2)), dissent, voters);
  if (dissent.some((count) => count > voters / 2)) throw new WireError(`more than half of ${voters} voters dissent`);
  if (votes.levels.some((level, i) => level !== levels[i])) throw new WireError(`levels that ${voters} voters cannot make`);
  return votes;
}

/** The smallest dissent that makes a level. */
function leastDissent(level: number, voters: number): number {
  const against = level >= LEVELS / 2 ? LEVELS - 1 - level : level;
  return Math.floor((against * (voters + 1) + LEVELS - 1) / LEVELS);
}

/** A sign mask (1: +1) as its flips against the agreed signs: coded, or raw where that is no longer. */
export function encodeSigns(coder: Coder, signs: Uint8Array, known: Known, ends: readonly number[]): Bytes {
  const flips = flip(signs, known.signs);
  const raw = bits.pack(flips);
  const coded = coder.encode(flips, known.levels, ends, 1);
  const short = coded.length <= Math.max(raw.length - 1, 0);
  return concat(Uint8Array.of(short ? FLIPS : RAW), short ? coded : raw);
}

/** Inverse of `encodeSigns`. */
export function decodeSigns(coder: Coder, data: Uint8Array, votes: Votes, ends: readonly number[]): Uint8Array {
  const n = votes.signs.length;
  if (data.length < 1 || data.length > 1 + Math.ceil(n / 8)) throw new WireError(`${data.length} bytes for a mask of ${n} signs`);
  const rest = data.subarray(1);
  if (data[0] !== RAW && data[0] !== FLIPS) throw new WireError(`sign mask of unknown kind ${data[0]}`);
  const flips = data[0] === RAW ? bits.unpack(rest, n) : coder.decode(rest, votes.levels, ends, 1);
  if (!flips) throw new WireError("bytes left over after the mask");
  return flip(votes.signs, flips);
}

function flip(a: Uint8Array, b: Uint8Array): Uint8Array {
  return a.map((bit, i) => bit ^ b[i]);
}
