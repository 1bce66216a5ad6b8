/** One round's local training, a step at a time so that the caller can listen meanwhile. */
import type { Samples, SparseRuntime } from "../kernels/runtime";
import { permutation } from "../wire/prng";

export interface Trained {
  signs: Uint8Array;
  loss: number; // mean of the last epoch, nats
  trainS: number;
  stepMs: number; // median
}

const ABSENT = -20; // e^-20 is nothing to a softmax

/** Added to the logits (classes,): 0 for the classes that the device has samples of, `ABSENT` for others. */
export function logPrior(labels: Int32Array, classes: number): Float32Array {
  return Float32Array.from({ length: classes }, (_, label) => (labels.includes(label) ? 0 : ABSENT));
}

export class Trainer {
  private readonly durationsMs: number[] = [];
  private epoch = 0;
  private at = 0;
  private order: Int32Array;
  private lossSum = 0;

  constructor(
    private readonly runtime: SparseRuntime, private readonly samples: Samples, start: Float32Array, private readonly seed: bigint,
  ) {
    this.order = permutation(seed, 0, samples.y.length);
    runtime.setLogPrior(logPrior(samples.y, runtime.ticket.plan.classes));
    runtime.setScores(start);
  }

  /** Make one step; the result if it was the last. */
  step(): Trained | null {
    const { batch, epochs } = this.runtime.training;
    const count = this.order.length;
    const chosen = this.order.slice(this.at, this.at + batch);
    const began = performance.now();
    const { loss } = this.runtime.step(this.samples, chosen);
    this.durationsMs.push(performance.now() - began);
    this.lossSum += loss * chosen.length;
    this.at += chosen.length;
    if (this.at < count) return null;
    if (++this.epoch === epochs) return this.finished(count);
    this.at = 0;
    this.order = permutation(this.seed, this.epoch, count);
    this.lossSum = 0;
    return null;
  }

  private finished(count: number): Trained {
    const sorted = [...this.durationsMs].sort((a, b) => a - b);
    const stepMs = (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
    const trainS = sorted.reduce((sum, one) => sum + one, 0) / 1000;
    return { signs: this.runtime.signs(), loss: this.lossSum / count, trainS, stepMs };
  }
}
