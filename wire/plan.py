"""A network as plain data: the ordered layers every runtime, exporter and pruner reads.

A plan has no biases and no normalisation: in a sign-mask network a weight is all there is.
Layers with weights (`Conv`, `Linear`) are numbered 0, 1, ... in order; that number is the
layer index everywhere else (tickets, scores, reports).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from wire.errors import PlanError, WireError
from wire.safecbor import describe

MAX_LAYERS = 256
MAX_DIMENSION = 1 << 24  # one side of anything; a plan is read from the network, so it is bounded
MAX_WEIGHTS = 1 << 24  # unpacking a ticket takes up to 20 bytes for each
MAX_ACTIVATIONS = 1 << 24  # numbers between two layers, for one sample
MAX_NAME = 64


@dataclass(frozen=True, kw_only=True)
class Conv:
    """Convolution over 1 or 2 spatial dimensions; `kernel` says which by its length.

    Weight shape (out_channels, in_channels, *kernel).
    """

    out_channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Linear:
    """Fully connected layer, weight shape (out_features, in_features)."""

    out_features: int


@dataclass(frozen=True, kw_only=True)
class Relu:
    """max(x, 0); its gradient at 0 is 0, as in torch."""


@dataclass(frozen=True, kw_only=True)
class MaxPool:
    """Maximum over windows without padding; a tie's gradient goes to the first element."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class AvgPool:
    """Mean over windows without padding."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Flatten:
    """(channels, *spatial) -> (features,), row-major."""


Layer: TypeAlias = Conv | Linear | Relu | MaxPool | AvgPool | Flatten
WeightLayer: TypeAlias = Conv | Linear
LAYER_TYPES: dict[str, type[Layer]] = {
    "conv": Conv,
    "linear": Linear,
    "relu": Relu,
    "maxpool": MaxPool,
    "avgpool": AvgPool,
    "flatten": Flatten,
}
_KIND_OF = {cls: kind for kind, cls in LAYER_TYPES.items()}


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """What one weight layer looks like once the plan's shapes are known."""

    index: int  # number among the weight layers
    position: int  # number among all layers of the plan
    layer: WeightLayer
    weight_shape: tuple[int, ...]  # (out, in) or (out, in, *kernel)
    input_shape: tuple[int, ...]  # one sample, without the batch dimension
    output_shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """`conv0`, `linear2`: the kind and the layer index."""
        return f"{_KIND_OF[type(self.layer)]}{self.index}"

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
        PlanError: if a layer does not fit the output of the one before it.
    """

    name: str
    input_shape: tuple[int, ...]  # (channels, height, width), (channels, length) or (features,)
    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        if len(self.name) > MAX_NAME:
            raise PlanError(f"plan '{self.name[:MAX_NAME]}…' has a name longer than {MAX_NAME} characters")
        if not 1 <= len(self.layers) <= MAX_LAYERS:
            raise PlanError(f"plan '{self.name}' has {len(self.layers)} layers, 1..{MAX_LAYERS} expected")
        if not 1 <= len(self.input_shape) <= 3 or not _positive(self.input_shape):
            raise PlanError(f"plan '{self.name}' has input shape {self.input_shape}")
        shapes = self.shapes()
        if max(map(prod, shapes)) > MAX_ACTIVATIONS:
            raise PlanError(f"plan '{self.name}' has more than {MAX_ACTIVATIONS} activations between two layers")
        if not self.weight_layers():
            raise PlanError(f"plan '{self.name}' has no layer with weights")
        if len(shapes[-1]) != 1:
            raise PlanError(f"plan '{self.name}' ends in shape {shapes[-1]}, one row of class scores expected")

    def shapes(self) -> list[tuple[int, ...]]:
        """Shape of one sample before every layer and after the last: len(layers) + 1 tuples."""
        shapes = [self.input_shape]
        for position, layer in enumerate(self.layers):
            try:
                shapes.append(_output_shape(layer, shapes[-1]))
            except PlanError as error:
                raise PlanError(
                    error.what, where=f"plan '{self.name}', layer {position} ({_KIND_OF[type(layer)]})"
                ) from None
        return shapes

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
                weight_shape += layer.kernel
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
    layers = [[_KIND_OF[type(layer)], *(_plain(v) for v in vars(layer).values())] for layer in plan.layers]
    return [plan.name, list(plan.input_shape), layers]


def plan_from_data(data: object) -> Plan:
    """Inverse of `plan_to_data`.

    Raises:
        WireError: if `data` is not what `plan_to_data` writes.
        PlanError: if the shapes do not fit.
    """
    match data:
        case [str() as name, list() as input_shape, list() as layers]:
            return Plan(name=name, input_shape=_ints(input_shape), layers=tuple(map(_layer_from_data, layers)))
    raise WireError("a plan is [name, input shape, layers]")


def _layer_from_data(data: object) -> Layer:
    if not isinstance(data, list) or not data or not isinstance(data[0], str) or data[0] not in LAYER_TYPES:
        raise WireError(f"a layer starts with one of {', '.join(LAYER_TYPES)}")
    cls = LAYER_TYPES[data[0]]
    names = list(cls.__dataclass_fields__)
    if len(names) != len(data) - 1:
        raise WireError(f"layer '{data[0]}' takes {len(names)} values, got {len(data) - 1}")
    values = {name: _ints(v) if isinstance(v, list) else _ints([v])[0] for name, v in zip(names, data[1:], strict=True)}
    for name, value in values.items():
        if isinstance(value, tuple) != (name not in ("out_channels", "out_features")):
            raise WireError(f"layer '{data[0]}': {name} has the wrong type")
    return cls(**values)  # type: ignore[arg-type]  # each value was checked against its field above


def _ints(values: list[object]) -> tuple[int, ...]:
    if len(values) > 3:
        raise WireError(f"at most 3 dimensions expected, got {len(values)}")
    for value in values:
        if type(value) is not int or not 0 <= value <= MAX_DIMENSION:
            raise WireError(f"a whole number in 0..{MAX_DIMENSION} expected, got {describe(value)}")
    return tuple(values)  # type: ignore[arg-type]


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _positive(values: tuple[int, ...]) -> bool:
    return all(0 < value <= MAX_DIMENSION for value in values)


def _output_shape(layer: Layer, shape: tuple[int, ...]) -> tuple[int, ...]:
    match layer:
        case Conv():
            spatial = _windows(shape, layer.kernel, layer.stride, layer.padding)
            if not _positive((layer.out_channels,)):
                raise PlanError(f"{layer.out_channels} output channels")
            return (layer.out_channels, *spatial)
        case MaxPool() | AvgPool():
            return (shape[0], *_windows(shape, layer.kernel, layer.stride, (0,) * len(layer.kernel)))
        case Linear():
            if len(shape) != 1:
                raise PlanError(f"a linear layer needs flat input, got shape {shape}; put a flatten before it")
            if not _positive((layer.out_features,)):
                raise PlanError(f"{layer.out_features} output features")
            return (layer.out_features,)
        case Flatten():
            return (prod(shape),)
        case Relu():
            return shape
    raise PlanError(f"unknown layer {layer!r}")


def _windows(
    shape: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]
) -> tuple[int, ...]:
    """Spatial output size: floor((size + 2*padding - kernel) / stride) + 1 per dimension."""
    sides = len(kernel)
    if not 1 <= sides <= 2 or len(shape) != sides + 1:
        raise PlanError(f"a {sides}-dimensional window cannot slide over shape {shape}")
    if len(stride) != sides or len(padding) != sides or not _positive(kernel) or not _positive(stride):
        raise PlanError(f"kernel {kernel}, stride {stride} and padding {padding} do not belong together")
    out = []
    for size, k, s, p in zip(shape[1:], kernel, stride, padding, strict=True):
        if p >= k:
            raise PlanError(f"padding {p} must be smaller than kernel {k}")
        if size + 2 * p < k:
            raise PlanError(f"kernel {kernel} with padding {padding} is larger than the input {shape[1:]}")
        out.append((size + 2 * p - k) // s + 1)
    return tuple(out)
