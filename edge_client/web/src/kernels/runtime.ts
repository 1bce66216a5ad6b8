/** The sparse runtime in a browser: trains a ticket with the same C kernels as the boards. */
import { WireError } from "../wire/errors";
import type { Training } from "../wire/messages";
import { initialWeights, type Ticket } from "../wire/ticket";
import { assemble, type Assembly } from "./assembly";
import { Machine } from "./module";

export interface StepResult {
  loss: number; // mean over the batch, nats
  correct: number;
}

/** Samples x (n, ...input shape) one after the other, and their labels. */
export interface Samples {
  x: Float32Array;
  y: Int32Array;
}

/** @throws WireError if the network cannot take them: the kernels trust their inputs. */
export function checkSamples({ x, y }: Samples, { plan }: Ticket): void {
  const size = plan.inputShape.reduce((a, b) => a * b, 1);
  if (x.length !== size * y.length) throw new WireError(`${x.length} numbers for ${y.length} samples of ${size} each`);
  if (y.some((label) => label < 0 || label >= plan.classes)) throw new WireError(`labels 0..${plan.classes - 1} expected`);
  if (x.some((value) => !Number.isFinite(value))) throw new WireError("a sample holds what is no finite number");
}

export class SparseRuntime {
  private readonly machine: Machine;
  private readonly parts: Assembly;
  private readonly sample: number;

  /** Scores are all `training.start` at first. */
  constructor(module: WebAssembly.Module, readonly ticket: Ticket, readonly training: Training) {
    this.machine = new Machine(module);
    this.parts = assemble(this.machine, ticket, training);
    this.sample = ticket.plan.inputShape.reduce((a, b) => a * b, 1);
    this.setScores(new Float32Array(ticket.kept).fill(training.start));
  }

  /** Copy scores (kept,) in and clear the optimiser's state. */
  setScores(scores: Float32Array): void {
    const to = this.machine.f32(this.parts.scores, this.ticket.kept);
    this.parts.order.forEach((number, i) => (to[i] = scores[number]));
    this.machine.run.hs_load_scores(this.parts.network);
  }

  scores(): Float32Array {
    return this.inTicketOrder(this.machine.f32(this.parts.scores, this.ticket.kept));
  }

  /** Signs of the scores, 1 for +1; sign(0) is +1. */
  signs(): Uint8Array {
    return Uint8Array.from(this.scores(), (score) => Number(score >= 0));
  }

  /** Add these (classes,) to the logits whose loss is trained. */
  setLogPrior(logPrior: Float32Array): void {
    this.machine.f32(this.parts.logPrior, this.ticket.plan.classes).set(logPrior);
  }

  /** Forward, backward and one optimiser step over the samples chosen, at most a batch of them. */
  step(samples: Samples, chosen: Int32Array): StepResult {
    this.put(samples, chosen);
    const { network, x, y, weights, result } = this.parts;
    this.refuse(this.machine.run.hs_step(network, x, y, weights, BigInt(chosen.length), result));
    return this.result();
  }

  /** Forward and backward only; the gradient of every score. */
  gradient(samples: Samples, chosen: Int32Array): StepResult & { gradient: Float32Array } {
    this.put(samples, chosen);
    const { network, x, y, weights, result, gradient } = this.parts;
    this.refuse(this.machine.run.hs_gradient(network, x, y, weights, BigInt(chosen.length), result, gradient));
    return { ...this.result(), gradient: this.inTicketOrder(this.machine.f32(gradient, this.ticket.kept)) };
  }

  /** How many samples get their label, with weights multipliers (kept,) x initial. */
  countCorrect(multipliers: Float32Array, samples: Samples, logPrior?: Float32Array): number {
    const initial = this.ticket.layers.flatMap((layer) => Array.from(initialWeights(layer)));
    const free = this.machine.f32(this.parts.freeWeights, this.ticket.kept);
    this.parts.order.forEach((number, i) => (free[i] = multipliers[number] * initial[number]));
    const { classes } = this.ticket.plan;
    let correct = 0;
    for (let from = 0; from < samples.y.length; from += this.training.batch) {
      const n = Math.min(this.training.batch, samples.y.length - from);
      this.put(samples, Int32Array.from({ length: n }, (_, i) => from + i));
      const { freeNetwork, x, logits } = this.parts;
      this.machine.run.hs_logits(freeNetwork, x, BigInt(n), logits);
      const found = this.machine.f32(logits, n * classes);
      for (let i = 0; i < n; i++) {
        let best = 0;
        const score = (k: number) => found[i * classes + k] + (logPrior?.[k] ?? 0);
        for (let k = 1; k < classes; k++) if (score(k) > score(best)) best = k;
        if (best === samples.y[from + i]) correct++;
      }
    }
    return correct;
  }

  private put({ x, y }: Samples, chosen: Int32Array): void {
    const n = chosen.length;
    if (n < 1 || n > this.training.batch) throw new RangeError(`${n} samples, 1..${this.training.batch} expected`);
    const to = this.machine.f32(this.parts.x, n * this.sample);
    const labels = this.machine.i64(this.parts.y, n);
    chosen.forEach((number, i) => {
      to.set(x.subarray(number * this.sample, (number + 1) * this.sample), i * this.sample);
      labels[i] = BigInt(y[number]);
    });
    this.machine.f32(this.parts.weights, n).fill(1);
  }

  private result(): StepResult {
    const { view } = this.machine;
    return { loss: view.getFloat64(this.parts.result, true), correct: view.getFloat64(this.parts.result + 8, true) };
  }

  private refuse(fault: bigint): void {
    if (fault) throw new WireError(fault === 1n ? `a label outside 0..${this.ticket.plan.classes - 1}` : "sample weights");
  }

  private inTicketOrder(values: Float32Array): Float32Array {
    const arranged = new Float32Array(values.length);
    this.parts.order.forEach((number, i) => (arranged[number] = values[i]));
    return arranged;
  }
}
