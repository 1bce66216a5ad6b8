/** A network before pruning: its ordered layers, and the shapes between them. */
import { list, text, whole, type Value } from "./cbor";
import { WireError } from "./errors";
import { layerFromData, MAX_SIZE, outputShape, product, sourcesOf, type Conv, type Layer, type Linear, type Shape } from "./layers";

const MAX_LAYERS = 256;

/** One layer with weights; weightShape is (out, in) or (out, in / groups, ...kernel). */
export interface WeightLayer {
  layer: Conv | Linear;
  weightShape: Shape;
  fanIn: number;
  weights: number;
}

export interface Plan {
  name: string;
  inputShape: Shape;
  layers: readonly Layer[];
  shapes: readonly Shape[]; // of the values: 0 the input, k + 1 the output of layer k
  sources: readonly number[][]; // numbers of the values that every layer reads
  weightLayers: readonly WeightLayer[];
  classes: number;
}

/**
 * A plan from `[name, input shape, layers]`.
 *
 * @throws WireError if it is none, or its shapes do not fit.
 */
export function planFromData(data: Value): Plan {
  const [name, input, given] = list(data, 3);
  const inputShape = list(input).map((side) => whole(side, MAX_SIZE, 1));
  const layers = list(given).map(layerFromData);
  if (layers.length < 1 || layers.length > MAX_LAYERS || inputShape.length < 1 || inputShape.length > 3) {
    throw new WireError(`a plan of ${layers.length} layers on shape ${inputShape}`);
  }
  const shapes: Shape[] = [inputShape];
  const weightLayers: WeightLayer[] = [];
  for (const layer of layers) {
    const entering = shapes[shapes.length - 1];
    const leaving = outputShape(layer, shapes);
    if (product(leaving) > MAX_SIZE) throw new WireError(`an output of shape ${leaving}`);
    shapes.push(leaving);
    if (layer.kind === "conv" || layer.kind === "linear") {
      const groups = layer.kind === "conv" ? layer.groups : 1;
      const kernel = layer.kind === "conv" ? layer.kernel : [];
      const weightShape = [leaving[0], entering[0] / groups, ...kernel];
      weightLayers.push({ layer, weightShape, fanIn: product(weightShape.slice(1)), weights: product(weightShape) });
    }
  }
  const last = shapes[shapes.length - 1];
  const sources = layers.map(sourcesOf);
  const read = new Set(sources.flat());
  const weights = weightLayers.reduce((sum, { weights }) => sum + weights, 0);
  if (weights < 1 || weights > MAX_SIZE || last.length !== 1 || layers.some((_, value) => !read.has(value))) {
    throw new WireError("a plan that is no network");
  }
  return { name: text(name, 64), inputShape, layers, shapes, sources, weightLayers, classes: last[0] };
}
