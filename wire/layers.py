"""The kinds of layers a plan is made of: their settings, the shapes they make, and how they are written.

A layer reads the value before it; `Add`, `Concat` and `Recall` also read, or only read, an earlier value, by its
number: 0 is the network's input, k + 1 the output of layer k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from wire.errors import PlanError, WireError
from wire.safecbor import describe

MAX_DIMENSION = 1 << 24  # one side of anything; a plan is read from the network, so it is bounded
NORM_EPSILON = 1e-5  # added to a variance, as in torch

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Conv:
    """Convolution over 1 or 2 spatial dimensions; `kernel` says which by its length.

    Weight shape (out_channels, in_channels / groups, *kernel). As many groups as channels: depthwise.
    """

    out_channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    groups: int = 1


@dataclass(frozen=True, kw_only=True)
class Linear:
    """Fully connected layer, weight shape (out_features, in_features)."""

    out_features: int


@dataclass(frozen=True, kw_only=True)
class Relu:
    """max(x, 0); its gradient at 0 is 0, as in torch."""


@dataclass(frozen=True, kw_only=True)
class Relu6:
    """min(max(x, 0), 6); its gradient at 0 and at 6 is 0."""


@dataclass(frozen=True, kw_only=True)
class Hardswish:
    """x min(max(x + 3, 0), 6) / 6 (Howard et al. 2019, arXiv 1905.02244)."""


@dataclass(frozen=True, kw_only=True)
class Gelu:
    """x times the normal distribution's share below x (Hendrycks and Gimpel 2016, arXiv 1606.08415), exactly."""


@dataclass(frozen=True, kw_only=True)
class Norm:
    """Group normalisation without affine weights: (x - mean) / sqrt(variance + 1e-5) of one sample's group of channels.

    1 group: layer norm; as many as channels: instance norm. Nothing is kept between samples, so training and
    inference are the same function (Wu and He 2018, arXiv 1803.08494).
    """

    groups: int


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


@dataclass(frozen=True, kw_only=True)
class Add:
    """The value before plus an earlier one of the same shape."""

    source: int


@dataclass(frozen=True, kw_only=True)
class Concat:
    """The value before, and behind its channels (or features) those of an earlier one."""

    source: int


@dataclass(frozen=True, kw_only=True)
class Recall:
    """An earlier value again: where a branch starts."""

    source: int


Activation: TypeAlias = Relu | Relu6 | Hardswish | Gelu
Joint: TypeAlias = Add | Concat | Recall  # layers that read an earlier value
Layer: TypeAlias = Conv | Linear | Activation | Norm | MaxPool | AvgPool | Flatten | Joint
WeightLayer: TypeAlias = Conv | Linear
LAYER_TYPES: dict[str, type[Layer]] = {
    "conv": Conv,
    "linear": Linear,
    "relu": Relu,
    "relu6": Relu6,
    "hardswish": Hardswish,
    "gelu": Gelu,
    "norm": Norm,
    "maxpool": MaxPool,
    "avgpool": AvgPool,
    "flatten": Flatten,
    "add": Add,
    "concat": Concat,
    "recall": Recall,
}
KIND_OF = {cls: kind for kind, cls in LAYER_TYPES.items()}


def sources_of(layer: Layer, position: int) -> tuple[int, ...]:
    """Numbers of the values that the layer at a position reads."""
    match layer:
        case Recall():
            return (layer.source,)
        case Add() | Concat():
            return (position, layer.source)
    return (position,)


def output_shape(layer: Layer, shapes: Sequence[Shape]) -> Shape:
    """Shape of a layer's output for one sample.

    Args:
        layer: the layer.
        shapes: of the values so far, the network's input first; the last is the layer's input.

    Raises:
        PlanError: if the layer does not fit.
    """
    shape = shapes[-1]
    match layer:
        case Conv():
            return _conv_shape(layer, shape)
        case MaxPool() | AvgPool():
            return (shape[0], *_windows(shape, layer.kernel, layer.stride, (0,) * len(layer.kernel)))
        case Linear():
            if len(shape) != 1:
                raise PlanError(f"a linear layer needs flat input, got shape {shape}; put a flatten before it")
            if not positive((layer.out_features,)):
                raise PlanError(f"{layer.out_features} output features")
            return (layer.out_features,)
        case Flatten():
            return (prod(shape),)
        case Norm():
            if layer.groups < 1 or shape[0] % layer.groups:
                raise PlanError(f"{shape[0]} channels cannot be normalised in {layer.groups} groups")
            return shape
        case Add() | Concat() | Recall():
            return _joint_shape(layer, shapes)
        case Relu() | Relu6() | Hardswish() | Gelu():
            return shape
    raise PlanError(f"unknown layer {layer!r}")


def _conv_shape(layer: Conv, shape: Shape) -> Shape:
    spatial = _windows(shape, layer.kernel, layer.stride, layer.padding)
    if not positive((layer.out_channels,)):
        raise PlanError(f"{layer.out_channels} output channels")
    if layer.groups < 1 or shape[0] % layer.groups or layer.out_channels % layer.groups:
        raise PlanError(f"{shape[0]} channels to {layer.out_channels} cannot be split into {layer.groups} groups")
    return (layer.out_channels, *spatial)


def _joint_shape(layer: Joint, shapes: Sequence[Shape]) -> Shape:
    last = len(shapes) - (2 if isinstance(layer, Recall) else 1)  # recalling the value before would do nothing
    if not 0 <= layer.source <= last:
        raise PlanError(f"it reads value {layer.source}, one of 0..{last} expected")
    shape, other = shapes[-1], shapes[layer.source]
    match layer:
        case Recall():
            return other
        case Add():
            if shape != other:
                raise PlanError(f"shapes {shape} and {other} cannot be added")
            return shape
        case Concat():
            if shape[1:] != other[1:]:
                raise PlanError(f"shapes {shape} and {other} differ in more than their channels")
            return (shape[0] + other[0], *shape[1:])


def _windows(shape: Shape, kernel: Shape, stride: Shape, padding: Shape) -> Shape:
    """Spatial output size: floor((size + 2*padding - kernel) / stride) + 1 per dimension."""
    sides = len(kernel)
    if not 1 <= sides <= 2 or len(shape) != sides + 1:
        raise PlanError(f"a {sides}-dimensional window cannot slide over shape {shape}")
    if len(stride) != sides or len(padding) != sides or not positive(kernel) or not positive(stride):
        raise PlanError(f"kernel {kernel}, stride {stride} and padding {padding} do not belong together")
    out = []
    for size, k, s, p in zip(shape[1:], kernel, stride, padding, strict=True):
        if p >= k:
            raise PlanError(f"padding {p} must be smaller than kernel {k}")
        if size + 2 * p < k:
            raise PlanError(f"kernel {kernel} with padding {padding} is larger than the input {shape[1:]}")
        out.append((size + 2 * p - k) // s + 1)
    return tuple(out)


def positive(values: Shape) -> bool:
    """Whether all are sizes of something."""
    return all(0 < value <= MAX_DIMENSION for value in values)


def layer_to_data(layer: Layer) -> list[object]:
    """A layer's kind and settings, ready for CBOR; `groups` of a convolution only where it is not 1."""
    values = [list(value) if isinstance(value, tuple) else value for value in vars(layer).values()]
    if isinstance(layer, Conv) and layer.groups == 1:
        values.pop()
    return [KIND_OF[type(layer)], *values]


def layer_from_data(data: object) -> Layer:
    """Inverse of `layer_to_data`.

    Raises:
        WireError: if `data` is not what it writes.
    """
    if not isinstance(data, list) or not data or not isinstance(data[0], str) or data[0] not in LAYER_TYPES:
        raise WireError(f"a layer starts with one of {', '.join(LAYER_TYPES)}")
    kind, *given = data
    cls = LAYER_TYPES[kind]
    fields = cls.__dataclass_fields__
    wanted = len(fields) - (cls is Conv and len(given) < len(fields))
    if wanted != len(given):
        raise WireError(f"layer '{kind}' takes {wanted} values, got {len(given)}")
    values = {
        name: integers(v) if isinstance(v, list) else integers([v])[0] for name, v in zip(fields, given, strict=False)
    }
    for name, value in values.items():
        if isinstance(value, tuple) != (fields[name].type == "tuple[int, ...]"):
            raise WireError(f"layer '{kind}': {name} has the wrong type")
    if values.get("groups") == 1 and cls is Conv:
        raise WireError("layer 'conv': groups of 1 are not written")
    return cls(**values)  # type: ignore[arg-type]  # each value was checked against its field above


def integers(values: list[object]) -> Shape:
    """Up to 3 sizes, checked.

    Raises:
        WireError: if there are more, or one is no whole number from 0 to `MAX_DIMENSION`.
    """
    if len(values) > 3:
        raise WireError(f"at most 3 dimensions expected, got {len(values)}")
    for value in values:
        if type(value) is not int or not 0 <= value <= MAX_DIMENSION:
            raise WireError(f"a whole number in 0..{MAX_DIMENSION} expected, got {describe(value)}")
    return tuple(values)  # type: ignore[arg-type]
