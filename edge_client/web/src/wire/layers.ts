/** The kinds of layers a plan is made of, and the shapes that they make. */
import { list, whole, type Value } from "./cbor";
import { WireError } from "./errors";

export type Shape = readonly number[];

export interface Conv {
  kind: "conv";
  outChannels: number;
  kernel: Shape; // 1 or 2 dimensions
  stride: Shape;
  padding: Shape;
  groups: number;
}
export interface Linear {
  kind: "linear";
  outFeatures: number;
}
export interface Pool {
  kind: "maxpool" | "avgpool";
  kernel: Shape;
  stride: Shape;
}
export interface Norm {
  kind: "norm";
  groups: number;
}
export interface Plain {
  kind: "relu" | "relu6" | "hardswish" | "gelu" | "flatten";
}
/** Layers that read an earlier value: 0 is the network's input, k + 1 the output of layer k. */
export interface Joint {
  kind: "add" | "concat" | "recall";
  source: number;
}
export type Layer = Conv | Linear | Pool | Norm | Plain | Joint;

export const MAX_SIZE = 1 << 24; // of a side, of all weights, of the activations between two layers

export function product(shape: Shape): number {
  return shape.reduce((a, b) => a * b, 1); // a double: large ones are inexact, but never small again
}

function shapeOf(value: Value | undefined): Shape {
  const sides = list(value).map((side) => whole(side, MAX_SIZE));
  if (sides.length > 3) throw new WireError(`at most 3 dimensions expected, got ${sides.length}`);
  return sides;
}

/** A layer from `[kind, settings...]`. */
export function layerFromData(data: Value): Layer {
  const [kind, ...given] = list(data);
  const takes = (count: number) => {
    if (given.length !== count) throw new WireError(`layer '${String(kind)}' takes ${count} values`);
  };
  switch (kind) {
    case "conv": {
      if (given.length !== 5) takes(4);
      const [outChannels, kernel, stride, padding, groups] = given;
      return {
        kind, outChannels: whole(outChannels, MAX_SIZE), kernel: shapeOf(kernel), stride: shapeOf(stride),
        padding: shapeOf(padding), groups: groups === undefined ? 1 : whole(groups, MAX_SIZE, 2),
      };
    }
    case "linear":
      takes(1);
      return { kind, outFeatures: whole(given[0], MAX_SIZE) };
    case "maxpool":
    case "avgpool":
      takes(2);
      return { kind, kernel: shapeOf(given[0]), stride: shapeOf(given[1]) };
    case "norm":
      takes(1);
      return { kind, groups: whole(given[0], MAX_SIZE) };
    case "relu":
    case "relu6":
    case "hardswish":
    case "gelu":
    case "flatten":
      takes(0);
      return { kind };
    case "add":
    case "concat":
    case "recall":
      takes(1);
      return { kind, source: whole(given[0], MAX_SIZE) };
    default:
      throw new WireError("a layer of unknown kind");
  }
}

/** Numbers of the values that the layer at a position reads. */
export function sourcesOf(layer: Layer, position: number): number[] {
  if (layer.kind === "recall") return [layer.source];
  if (layer.kind === "add" || layer.kind === "concat") return [position, layer.source];
  return [position];
}

/**
 * Shape of a layer's output for one sample, from those of the values so far, the network's input first.
 *
 * @throws WireError if the layer does not fit.
 */
export function outputShape(layer: Layer, shapes: readonly Shape[]): Shape {
  const shape = shapes[shapes.length - 1];
  switch (layer.kind) {
    case "conv": {
      const sides = windows(shape, layer.kernel, layer.stride, layer.padding);
      if (layer.outChannels < 1 || shape[0] % layer.groups || layer.outChannels % layer.groups) {
        throw new WireError(`${shape[0]} channels to ${layer.outChannels} in ${layer.groups} groups`);
      }
      return [layer.outChannels, ...sides];
    }
    case "linear":
      if (shape.length !== 1 || layer.outFeatures < 1) throw new WireError(`a linear layer after shape ${shape}`);
      return [layer.outFeatures];
    case "maxpool":
    case "avgpool":
      return [shape[0], ...windows(shape, layer.kernel, layer.stride, layer.kernel.map(() => 0))];
    case "flatten":
      return [product(shape)];
    case "norm":
      if (layer.groups < 1 || shape[0] % layer.groups) throw new WireError(`${shape[0]} channels in ${layer.groups} groups`);
      return shape;
    case "add":
    case "concat":
    case "recall":
      return jointShape(layer, shapes);
    default:
      return shape;
  }
}

function jointShape(layer: Joint, shapes: readonly Shape[]): Shape {
  const shape = shapes[shapes.length - 1];
  const last = shapes.length - (layer.kind === "recall" ? 2 : 1);
  if (layer.source > last) throw new WireError(`a layer reads value ${layer.source}, one of 0..${last} expected`);
  const other = shapes[layer.source];
  if (layer.kind === "recall") return other;
  const from = layer.kind === "add" ? 0 : 1;
  if (shape.length !== other.length || shape.some((side, i) => i >= from && side !== other[i])) {
    throw new WireError(`shapes ${shape} and ${other} cannot meet`);
  }
  return layer.kind === "add" ? shape : [shape[0] + other[0], ...shape.slice(1)];
}

function windows(shape: Shape, kernel: Shape, stride: Shape, padding: Shape): number[] {
  const sides = kernel.length;
  const together = shape.length === sides + 1 && stride.length === sides && padding.length === sides;
  if (sides < 1 || sides > 2 || !together || [...kernel, ...stride].some((n) => n < 1)) {
    throw new WireError(`a window ${kernel} on shape ${shape}`);
  }
  return kernel.map((k, i) => {
    if (padding[i] >= k || shape[i + 1] + 2 * padding[i] < k) throw new WireError(`a window ${kernel} on shape ${shape}`);
    return Math.floor((shape[i + 1] + 2 * padding[i] - k) / stride[i]) + 1;
  });
}
