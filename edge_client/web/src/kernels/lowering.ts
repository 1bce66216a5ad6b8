/**
 * A plan lowered to a schedule.
 *
 * ReLUs become part of the operation before them, flattening and recalling become other names of a tensor. A tensor
 * that several operations read, and through which a gradient flows, gets a view for each further reader: the same
 * values, a gradient of its own, and a SPLIT that adds that one to the tensor's on the way back.
 */
import type { Conv, Layer } from "../wire/layers";
import type { Plan } from "../wire/plan";
import { Geometry, isStrided, Kind, paddingOf, pair, sides, type Operation, type Schedule, type Tensor } from "./schedule";

const KINDS: Partial<Record<Layer["kind"], number>> = {
  conv: Kind.SPARSE,
  linear: Kind.SPARSE,
  maxpool: Kind.MAX_POOL,
  avgpool: Kind.AVERAGE_POOL,
  add: Kind.ADD,
  concat: Kind.CONCAT,
  norm: Kind.NORM,
  relu: Kind.POINTWISE,
  relu6: Kind.POINTWISE,
  hardswish: Kind.POINTWISE,
  gelu: Kind.POINTWISE,
};
type Sides = [number, number, number];

/** Operations and tensors of a plan; `width` is how many floats the processor's vectors have. */
export function makeSchedule(plan: Plan, lanes: number, width: number): Schedule {
  const builder = new Builder(plan, lanes);
  plan.layers.forEach((_, position) => builder.add(position));
  const { schedule } = builder;
  schedule.logits = builder.tensorOf[builder.tensorOf.length - 1];
  giveViews(schedule);
  layOut(schedule, width);
  return schedule;
}

function renames(layer: Layer): boolean {
  return layer.kind === "flatten" || layer.kind === "recall";
}

/** Operations in the plan's order, before views and padding. */
class Builder {
  readonly schedule: Schedule;
  readonly tensorOf: number[]; // of every value so far
  private weights = 0;
  private readonly alone: boolean[]; // one layer reads the value

  constructor(private readonly plan: Plan, lanes: number) {
    this.schedule = { lanes, operations: [], tensors: [], logits: 0, inputRelu: false };
    this.tensorOf = [this.tensor(sides(plan.inputShape), false)];
    const roots = [0, ...plan.layers.map((_, i) => i + 1)];
    plan.layers.forEach((layer, i) => {
      if (renames(layer)) roots[i + 1] = roots[plan.sources[i][0]];
    });
    const readers = new Map<number, number>();
    plan.layers.forEach((layer, i) => {
      if (!renames(layer)) for (const source of plan.sources[i]) count(readers, roots[source]);
    });
    this.alone = roots.map((root) => readers.get(root) === 1);
  }

  /** Append what a layer does. */
  add(position: number): void {
    const layer = this.plan.layers[position];
    const from = this.plan.sources[position][0];
    let source = this.tensorOf[from];
    if (renames(layer) || (layer.kind === "relu" && this.alone[from] && this.cut(source))) {
      this.tensorOf.push(source);
      return;
    }
    let leaving = sides(this.plan.shapes[position + 1]);
    const kind = KINDS[layer.kind]!;
    if (isStrided(layer)) source = this.phases(layer, source);
    if (kind === Kind.POINTWISE) leaving = this.sidesOf(source); // whatever sides a flattened tensor still has
    if (kind === Kind.ADD || kind === Kind.CONCAT || kind === Kind.NORM) {
      this.tensorOf[from] = source = this.withSides(layer, from);
    }
    const second = layer.kind === "add" || layer.kind === "concat" ? this.withSides(layer, layer.source) : null;
    this.tensorOf.push(this.operate(kind, layer, source, leaving, second));
  }

  /** The input of a strided convolution, taken apart. */
  private phases(layer: Conv, source: number): number {
    const [channels, ...before] = this.sidesOf(source);
    const padding = pair(layer.padding, 0);
    const stride = pair(layer.stride, 1);
    const [height, width] = before.map((n, i) => Math.ceil((n + 2 * padding[i]) / stride[i]));
    return this.operate(Kind.PHASES, layer, source, [channels * stride[0] * stride[1], height, width], null);
  }

  /** The tensor of a value, copied if a flattened one still has the sides from before. */
  private withSides(layer: Layer, value: number): number {
    const wanted = sides(this.plan.shapes[value]);
    if (this.sidesOf(this.tensorOf[value]).some((side, i) => side !== wanted[i])) {
      this.tensorOf[value] = this.operate(Kind.COPY, layer, this.tensorOf[value], wanted, null);
    }
    return this.tensorOf[value];
  }

  /** Let the operation that makes a tensor apply a ReLU to it; whether it can. */
  private cut(tensor: number): boolean {
    const made = this.schedule.operations.findLast((operation) => operation.output === tensor);
    if (!made) this.schedule.inputRelu = true;
    else if (made.kind === Kind.POINTWISE || made.kind === Kind.CONCAT || made.kind === Kind.COPY) return false;
    else made.relu = true;
    this.schedule.tensors[tensor].cut = true;
    return true;
  }

  private operate(kind: number, layer: Layer, input: number, leaving: Sides, second: number | null): number {
    const learns = [input, second].some((t) => t !== null && this.schedule.tensors[t].learns);
    const output = this.tensor(leaving, kind === Kind.SPARSE || learns);
    const weights = kind === Kind.SPARSE ? this.weights++ : null;
    this.schedule.operations.push({ kind, layer, input, second, output, relu: false, weights, flat: false });
    return output;
  }

  private tensor([channels, height, width]: Sides, learns: boolean): number {
    this.schedule.tensors.push({ geometry: new Geometry(channels, height, width), viewOf: null, learns, cut: false });
    return this.schedule.tensors.length - 1;
  }

  private sidesOf(tensor: number): Sides {
    const { channels, height, width } = this.schedule.tensors[tensor].geometry;
    return [channels, height, width];
  }
}

function count(counts: Map<number, number>, key: number): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

/** A view for every reader of a learning tensor but its first, and their SPLITs behind the tensor's maker. */
function giveViews(schedule: Schedule): void {
  const { tensors } = schedule;
  const taken = new Set<number>();
  const splits = new Map<number, Operation[]>();
  const viewFor = (operation: Operation, number: number | null): number | null => {
    if (number === null || !tensors[number].learns) return number;
    if (!taken.has(number)) {
      taken.add(number);
      return number;
    }
    const whole: Tensor = tensors[number];
    const second = tensors.push({ geometry: whole.geometry, viewOf: number, learns: true, cut: whole.cut }) - 1;
    splits.set(number, [
      ...(splits.get(number) ?? []),
      { kind: Kind.SPLIT, layer: operation.layer, input: number, second, output: number, relu: false, weights: null, flat: false },
    ]);
    return second;
  };
  for (const operation of schedule.operations) {
    operation.input = viewFor(operation, operation.input)!;
    operation.second = viewFor(operation, operation.second);
  }
  schedule.operations = schedule.operations.flatMap((operation) => [operation, ...(splits.get(operation.output) ?? [])]);
}

/** Padding for the convolutions that read a tensor, and the distance between its rows. */
function layOut(schedule: Schedule, width: number): void {
  const { tensors, lanes } = schedule;
  for (const operation of schedule.operations) {
    if (operation.kind !== Kind.SPARSE) continue;
    const [padH, padW] = paddingOf(operation.layer);
    const source = tensors[operation.input].geometry;
    source.padH = Math.max(source.padH, padH);
    source.padW = Math.max(source.padW, padW);
  }
  const first = tensors[0].geometry;
  first.pitch = first.width + first.padW;
  for (const operation of schedule.operations) {
    if (operation.kind === Kind.SPLIT) continue;
    const source = tensors[operation.input].geometry;
    const target = tensors[operation.output].geometry;
    target.pitch = target.width + target.padW;
    if (operation.layer.kind !== "conv" || operation.kind !== Kind.SPARSE || source.pitch < target.pitch) continue;
    const rows = target.height * vectors(target.width * lanes, width);
    const plane = vectors(((target.height - 1) * source.pitch + target.width) * lanes, width);
    operation.flat = target.height > 1 && plane <= rows;
    if (operation.flat) target.pitch = source.pitch;
  }
}

/** Cost of a run in vectors; a rest shorter than a vector costs one, and starting a run about half of one more. */
function vectors(run: number, width: number): number {
  return Math.ceil(run / width) + 0.5;
}
