"""Forward and backward passes of a plan's layers in plain tensor operations that ExecuTorch's kernels run well.

Nothing here calls a convolution, a pooling operator or autograd: ExecuTorch 1.5.1 lacks some of their backward
kernels, gets the one of max pooling wrong without an error, and its convolutions are naive loops. Convolutions are
matrix products over gathered windows.

Feature maps are (channels, n, height, width), so that no product needs a large operand transposed; 1-D maps have
height 1. Flat activations are (n, features). All float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from export.executorch_activations import GeluPass, HardswishPass, NormPass, Relu6Pass, ReluPass
from export.executorch_convolutions import ConvPass, GroupedConvPass
from export.executorch_windows import Part, pair, spread, taps
from wire.errors import ExportError
from wire.layers import (
    Add,
    AvgPool,
    Concat,
    Conv,
    Flatten,
    Gelu,
    Hardswish,
    Layer,
    Linear,
    MaxPool,
    Norm,
    Recall,
    Relu,
    Relu6,
)


class Pass(Protocol):
    """One layer on one batch: `forward` first, then the gradients, each at most once."""

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output."""

    def input_gradient(self, dy: Tensor, number: int) -> Tensor:
        """Gradient of the layer's input from that of its output; `number` is 0."""


class JointPass(Protocol):
    """One layer that reads two values, or passes an earlier one on."""

    def forward(self, *read: Tensor) -> Tensor:
        """The layer's output."""

    def input_gradient(self, dy: Tensor, number: int) -> Tensor:
        """Gradient of the first (0) or second (1) input from that of the output."""


class WeightPass(Pass, Protocol):
    """One layer with weights."""

    def weight_gradient(self, dy: Tensor) -> Tensor:
        """Gradient of the weights in their flat order, (weights,)."""


@dataclass
class LinearPass:
    """A linear layer; `weight` is flat, in the order (out, in)."""

    layer: Linear
    weight: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(n, in) -> (n, out)."""
        self._x = x
        self._weight = self.weight.reshape(self.layer.out_features, -1)
        return F.linear(x, self._weight)

    def weight_gradient(self, dy: Tensor) -> Tensor:
        """Gradient of the weights in their flat order, (weights,)."""
        return torch.mm(dy.t(), self._x).reshape(-1)

    def input_gradient(self, dy: Tensor, number: int) -> Tensor:
        """(n, out) -> (n, in)."""
        return torch.mm(dy, self._weight)


@dataclass
class FlattenPass:
    """(channels, n, height, width) -> (n, channels x height x width); flat activations stay as they are."""

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        self._shape = x.shape
        return x if x.dim() == 2 else x.transpose(0, 1).reshape(x.shape[1], -1)

    def input_gradient(self, dy: Tensor, number: int) -> Tensor:
        """The inverse."""
        if len(self._shape) == 2:
            return dy
        channels, n, height, width = self._shape
        return dy.reshape(n, channels, height, width).transpose(0, 1).contiguous()


@dataclass
class PoolPass:
    """Maximum or mean of windows without padding."""

    layer: MaxPool | AvgPool

    def forward(self, x: Tensor) -> Tensor:
        """(channels, n, height, width) -> the same with fewer windows."""
        self._size = (x.shape[2], x.shape[3])
        kernel, self._stride = pair(self.layer.kernel, 1), pair(self.layer.stride, 1)
        self._taps = list(taps(x, kernel, self._stride))
        values = [tap for _, _, tap in self._taps]
        y = values[0]
        for value in values[1:]:
            y = torch.maximum(y, value) if isinstance(self.layer, MaxPool) else y + value
        self._y = y if isinstance(self.layer, MaxPool) else y * (1 / len(values))
        return self._y

    def input_gradient(self, dy: Tensor, number: int) -> Tensor:
        """Gradient to the first maximum of each window (torch's rule), or an equal share to every element."""
        parts: list[Part] = []
        if isinstance(self.layer, AvgPool):
            share = dy * (1 / len(self._taps))
            parts = [(row, column, share) for row, column, _ in self._taps]
        else:
            left = dy  # what no element has taken yet
            for row, column, value in self._taps:
                passed_on = left * torch.sign(self._y - value)  # the sign is 0 where the value is the maximum, else 1
                parts.append((row, column, left - passed_on))
                left = passed_on
        return spread(parts, self._stride, self._size)


class GlobalMeanPass:
    """Mean of whole maps, as deep networks end in: an average pool with one window, without its hundreds of slices."""

    def forward(self, x: Tensor) -> Tensor:
        """(channels, n, height, width) -> (channels, n, 1, 1)."""
        self._shape = x.shape
        return x.reshape(x.shape[0] * x.shape[1], -1).mean(1).reshape(x.shape[0], x.shape[1], 1, 1)

    def input_gradient(self, dy: Tensor, number: int) -> Tensor:
        """An equal share to every element."""
        size = self._shape[2] * self._shape[3]
        return torch.mm(dy.reshape(-1, 1), torch.full((1, size), 1 / size)).reshape(self._shape)


class AddPass:
    """Any number of inputs, added up: two of a sum, one of a recall."""

    def forward(self, *read: Tensor) -> Tensor:
        """All of one shape."""
        return read[0] if len(read) == 1 else read[0] + read[1]

    def input_gradient(self, dy: Tensor, number: int) -> Tensor:
        """The same for each."""
        return dy


class ConcatPass:
    """Channels, or features, one behind the other: maps have them first, flat activations last."""

    def forward(self, *read: Tensor) -> Tensor:
        """(channels, n, height, width) or (n, features)."""
        self._axis = 0 if read[0].dim() == 4 else 1
        self._sizes = [value.shape[self._axis] for value in read]
        return torch.cat(read, self._axis)

    def input_gradient(self, dy: Tensor, number: int) -> Tensor:
        """An input's part."""
        return dy.narrow(self._axis, number * self._sizes[0], self._sizes[number])


def make_pass(layer: Layer, before: tuple[int, ...], weight: Tensor | None) -> Pass | JointPass:
    """A layer's pass.

    Args:
        layer: the layer.
        before: one sample's shape of its first input.
        weight: flat, for layers that have any.

    Raises:
        ExportError: if the layer has no form here.
    """
    match layer:
        case Conv() if weight is not None:
            return ConvPass(layer, weight) if layer.groups == 1 else GroupedConvPass(layer, weight)
        case Linear() if weight is not None:
            return LinearPass(layer, weight)
        case Relu():
            return ReluPass()
        case Relu6():
            return Relu6Pass()
        case Hardswish():
            return HardswishPass()
        case Gelu():
            return GeluPass()
        case Norm():
            return NormPass(layer)
        case Flatten():
            return FlattenPass()
        case AvgPool() if layer.kernel == before[1:]:
            return GlobalMeanPass()
        case MaxPool() | AvgPool():
            return PoolPass(layer)
        case Add() | Recall():
            return AddPass()
        case Concat():
            return ConcatPass()
    raise ExportError(f"no ExecuTorch form of layer {layer!r}")


def to_maps(x: Tensor) -> Tensor:
    """Samples (n, channels, height, width), (n, channels, length) or (n, features) in the layout of this module."""
    if x.dim() == 2:
        return x
    x = x if x.dim() == 4 else x.unsqueeze(2)
    n, channels, height, width = x.shape
    return x.reshape(1, n, height, width) if channels == 1 else x.transpose(0, 1).contiguous()
