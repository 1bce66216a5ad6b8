/**
 * Randomised response (Warner 1965): signs are turned at random before they are sent (docs/privacy.md).
 *
 * A mask is turned once and sent again as it is: the mean of several answers to one question gives it away.
 */
const CHANCES = 2 ** 32; // a chance is a whole number of 2^-32, drawn in whole numbers
const QUOTA_WORDS = 16384; // that one call of the browser's generator gives

/** Signs as they are sent: each turned with chance 1 / (1 + e^epsilon); 0: none. `words`: u32 random numbers, for tests. */
export function randomise(signs: Uint8Array, epsilon: number, words?: Uint32Array): Uint8Array {
  if (epsilon === 0) return signs;
  const below = Math.ceil(CHANCES / (1 + Math.exp(epsilon)));
  const drawn = words ?? draw(signs.length);
  return signs.map((sign, i) => sign ^ Number(drawn[i] < below));
}

function draw(count: number): Uint32Array {
  const drawn = new Uint32Array(count);
  for (let at = 0; at < count; at += QUOTA_WORDS) crypto.getRandomValues(drawn.subarray(at, at + QUOTA_WORDS));
  return drawn;
}
