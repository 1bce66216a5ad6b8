/**
 * What the sparse kernels do with a plan: operations over tensors, one micro-batch of samples ("lanes") at a time.
 *
 * The same as wire/schedule.py, wire/lowering.py and wire/arena.py: tests compare the two for every model.
 */
import type { Conv, Layer, Shape } from "../wire/layers";

/** What an operation does; the kernels' numbers (network.h). */
export const Kind = {
  SPARSE: 0, // a convolution of stride 1, or a linear layer
  MAX_POOL: 1,
  AVERAGE_POOL: 2,
  PHASES: 3, // takes the input of a strided convolution apart, so that its stride is 1
  ADD: 4,
  CONCAT: 5,
  POINTWISE: 6,
  NORM: 7,
  COPY: 8, // to a tensor of other sides
  SPLIT: 9, // forward nothing; backward adds the gradient of a view
} as const;

/**
 * Sides and padding of a tensor, in positions (one float per lane).
 *
 * The padding right of a row is the padding left of the next, so a row takes `pitch` >= width + padW.
 */
export class Geometry {
  padH = 0;
  padW = 0;
  pitch = 0;

  constructor(readonly channels: number, readonly height: number, readonly width: number) {}

  get plane(): number {
    return (this.height + 2 * this.padH) * this.pitch + this.padW;
  }

  /** Positions before a channel's first element. */
  get interior(): number {
    return this.padH * this.pitch + this.padW;
  }

  get positions(): number {
    return this.channels * this.plane;
  }
}

/** One activation. A view shares its tensor's values; `cut`: it is the output of a ReLU; `learns`: it has a gradient. */
export interface Tensor {
  geometry: Geometry;
  viewOf: number | null;
  learns: boolean;
  cut: boolean;
}

/** One kernel's work; numbers of tensors. `flat`: one run over all rows, across their padding, instead of one per row. */
export interface Operation {
  kind: number;
  layer: Layer;
  input: number;
  second: number | null; // also read (or, of a SPLIT, the view)
  output: number;
  relu: boolean;
  weights: number | null; // number among the layers with weights, of a SPARSE one
  flat: boolean;
}

export interface Schedule {
  lanes: number;
  operations: Operation[];
  tensors: Tensor[];
  logits: number;
  inputRelu: boolean;
}

/** Samples of a micro-batch; 8 fill a vector and keep activations in cache. */
export function lanesFor(batch: number): number {
  return batch <= 1 ? 1 : batch <= 4 ? 4 : 8;
}

/** (height, width) of a 1- or 2-dimensional setting. */
export function pair(values: Shape, otherwise: number): [number, number] {
  return values.length === 2 ? [values[0], values[1]] : [otherwise, values[0]];
}

/** (channels, height, width) of one sample. */
export function sides(shape: Shape): [number, number, number] {
  return shape.length > 1 ? [shape[0], ...pair(shape.slice(1), 1)] : [shape[0], 1, 1];
}

export function isStrided(layer: Layer): layer is Conv {
  return layer.kind === "conv" && layer.stride.some((step) => step !== 1);
}

/** Padding that an operation's input needs; a strided convolution's is inside its phases. */
export function paddingOf(layer: Layer): [number, number] {
  return layer.kind === "conv" && layer.stride.every((step) => step === 1) ? pair(layer.padding, 0) : [0, 0];
}
