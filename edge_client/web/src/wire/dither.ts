/** Dithered bits of scores: whether each lies above a threshold that both sides know (docs/wire-format.md). */
import type { Training } from "./messages";
import { thresholds } from "./prng";
import type { Known, Votes } from "./votes";

const TOP = 15; // the highest level of an announced mean score
const BETWEEN = 17; // thresholds between two levels
const NEARNESS = [3, 7, 15, 27, 47, 87, 127]; // the distances from which on a bit is surer

/** Scores that a round starts with. */
export function startScores(votes: Votes, training: Training): Float32Array {
  if (!training.dither) return votes.startScores(training.start);
  return votes.mean().map((mean) => Math.fround(mean * Math.fround(training.dither)));
}

/** What is sent of scores, 1: set; their signs, or whether they lie above the thresholds of this round's training. */
export function signsOf(scores: Float32Array, training: Training, seed: bigint): Uint8Array {
  if (!training.dither) return Uint8Array.from(scores, (score) => Number(score >= 0));
  const drawn = thresholds(seed, scores.length);
  const scale = Math.fround(1 / training.dither);
  return Uint8Array.from(scores, (score, i) => {
    const units = Math.fround(Math.fround(Math.fround(score * scale) + 1) * 127.5);
    return Number(units > drawn[i] + 0.5);
  });
}

/** What both sides know of a mask before it is sent. */
export function known(votes: Votes, training: Training, seed: bigint): Known {
  if (!training.dither) return votes;
  const drawn = thresholds(seed, votes.signs.length);
  const signs = Uint8Array.from(drawn, (threshold, i) => Number(BETWEEN * votes.levels[i] > threshold));
  const levels = Uint8Array.from(drawn, (threshold, i) => {
    const beyond = BETWEEN * votes.levels[i] - threshold;
    const distance = signs[i] ? beyond - 1 : -beyond;
    const sure = NEARNESS.filter((from) => distance >= from).length;
    return signs[i] ? (TOP + 1) / 2 + sure : (TOP - 1) / 2 - sure;
  });
  return { signs, levels };
}
