"""A network as plain data: the ordered layers every runtime, exporter and pruner reads.

A plan has no biases and no affine normalisation: in a sign-mask network a weight is all there is.
Layers with weights (`Conv`, `Linear`) are numbered 0, 1, ... in order; that number is the
layer index everywhere else (tickets, scores, reports). What flows between layers are values:
0 is the input, k + 1 the output of layer k; branches name the values they read (`wire.layers`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from wire.errors import PlanError, WireError
from wire.layers import (
    KIND_OF,
    Conv,
    Layer,
    Linear,
    WeightLayer,
    integers,
    layer_from_data,
    layer_to_data,
    output_shape,
    positive,
    sources_of,
)

MAX_LAYERS = 256
MAX_WEIGHTS = 1 << 24  # unpacking a ticket takes up to 20 bytes for each
MAX_ACTIVATIONS = 1 << 24  # numbers between two layers, for one sample
MAX_NAME = 64


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """What one weight layer looks like once the plan's shapes are known."""

    index: int  # number among the weight layers
    position: int  # number among all layers of the plan
    layer: WeightLayer
    weight_shape: tuple[int, ...]  # (out, in) or (out, in / groups, *kernel)
    input_shape: tuple[int, ...]  # one sample, without the batch dimension
    output_shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """`conv0`, `linear2`: the kind and the layer index."""
        return f"{KIND_OF[type(self.layer)]}{self.index}"

    @property
    def groups(self) -> int:
        """Parts of the layer that share no input; 1 for most."""
        return self.layer.groups if isinstance(self.layer, Conv) else 1

    @property
    def out_units(self) -> int:
        """Output channels or features."""
        return self.weight_shape[0]

    @property
    def fan_in(self) -> int:
        """Weights that feed one output unit before pruning."""
        return prod(self.weight_shape[1:])

    @property
    def weights(self) -> int:
        """Number of weights before pruning."""
        return prod(self.weight_shape)

    @property
    def uses_per_weight(self) -> int:
        """Multiply-adds one weight costs in one sample's forward pass (1 in a linear layer)."""
        return prod(self.output_shape[1:])

    @property
    def macs(self) -> int:
        """Multiply-adds of one sample's forward pass, before pruning."""
        return self.weights * self.uses_per_weight


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A network: its name, one sample's shape, and its layers in order.

    Raises:
        PlanError: if a layer does not fit what it reads, or nothing reads a layer's output.
    """

    name: str
    input_shape: tuple[int, ...]  # (channels, height, width), (channels, length) or (features,)
    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        if len(self.name) > MAX_NAME:
            raise PlanError(f"plan '{self.name[:MAX_NAME]}…' has a name longer than {MAX_NAME} characters")
        if not 1 <= len(self.layers) <= MAX_LAYERS:
            raise PlanError(f"plan '{self.name}' has {len(self.layers)} layers, 1..{MAX_LAYERS} expected")
        if not 1 <= len(self.input_shape) <= 3 or not positive(self.input_shape):
            raise PlanError(f"plan '{self.name}' has input shape {self.input_shape}")
        shapes = self.shapes()
        if max(map(prod, shapes)) > MAX_ACTIVATIONS:
            raise PlanError(f"plan '{self.name}' has more than {MAX_ACTIVATIONS} activations between two layers")
        if not self.weight_layers():
            raise PlanError(f"plan '{self.name}' has no layer with weights")
        read = {source for sources in self.sources() for source in sources}
        unread = set(range(len(self.layers))) - read
        if unread:
            raise PlanError(f"plan '{self.name}': nothing reads {self.describe_value(min(unread))}")
        if len(shapes[-1]) != 1:
            raise PlanError(f"plan '{self.name}' ends in shape {shapes[-1]}, one row of class scores expected")

    def shapes(self) -> list[tuple[int, ...]]:
        """Shape of one sample before every layer and after the last: len(layers) + 1 tuples."""
        shapes = [self.input_shape]
        for position, layer in enumerate(self.layers):
            try:
                shapes.append(output_shape(layer, shapes))
            except PlanError as error:
                raise PlanError(
                    error.what, where=f"plan '{self.name}', layer {position} ({KIND_OF[type(layer)]})"
                ) from None
        return shapes

    def sources(self) -> list[tuple[int, ...]]:
        """Numbers of the values that every layer reads."""
        return [sources_of(layer, position) for position, layer in enumerate(self.layers)]

    def learns(self) -> list[bool]:
        """Of every value, whether any weights lie before it, so that its gradient is needed."""
        found = [False]
        for layer, sources in zip(self.layers, self.sources(), strict=True):
            found.append(isinstance(layer, Conv | Linear) or any(found[source] for source in sources))
        return found

    def describe_value(self, number: int) -> str:
        """A value in words."""
        return f"the output of layer {number - 1} ({KIND_OF[type(self.layers[number - 1])]})" if number else "the input"

    def weight_layers(self) -> list[LayerShape]:
        """The layers that have weights, in order, with their shapes."""
        shapes = self.shapes()
        found: list[LayerShape] = []
        for position, layer in enumerate(self.layers):
            if not isinstance(layer, Conv | Linear):
                continue
            entering, leaving = shapes[position], shapes[position + 1]
            weight_shape: tuple[int, ...] = (leaving[0], entering[0])
            if isinstance(layer, Conv):
                weight_shape = (leaving[0], entering[0] // layer.groups, *layer.kernel)
            found.append(
                LayerShape(
                    index=len(found),
                    position=position,
                    layer=layer,
                    weight_shape=weight_shape,
                    input_shape=entering,
                    output_shape=leaving,
                )
            )
        if sum(shape.weights for shape in found) > MAX_WEIGHTS:
            raise PlanError(f"plan '{self.name}' has more than {MAX_WEIGHTS} weights")
        return found

    @property
    def classes(self) -> int:
        """Width of the last layer."""
        return self.shapes()[-1][0]

    @property
    def weights(self) -> int:
        """All weights before pruning."""
        return sum(shape.weights for shape in self.weight_layers())


def plan_to_data(plan: Plan) -> list[object]:
    """Plan -> lists, strings and ints only, ready for CBOR."""
    return [plan.name, list(plan.input_shape), [layer_to_data(layer) for layer in plan.layers]]


def plan_from_data(data: object) -> Plan:
    """Inverse of `plan_to_data`.

    Raises:
        WireError: if `data` is not what `plan_to_data` writes.
        PlanError: if the shapes do not fit.
    """
    match data:
        case [str() as name, list() as input_shape, list() as layers]:
            return Plan(name=name, input_shape=integers(input_shape), layers=tuple(map(layer_from_data, layers)))
    raise WireError("a plan is [name, input shape, layers]")
