"""Forward and backward passes of a plan's layers in plain tensor operations that ExecuTorch's kernels run well.

Nothing here calls a convolution, a pooling operator or autograd: ExecuTorch 1.5.1 lacks some of their backward
kernels, gets the one of max pooling wrong without an error, and its convolutions are naive loops. Convolutions are
matrix products over gathered windows; masks are products with `sign`, which costs a tenth of a `where` there.

Feature maps are (channels, n, height, width), so that no product needs a large operand transposed; 1-D maps have
height 1. Flat activations are (n, features). All float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from wire.errors import ExportError
from wire.plan import AvgPool, Conv, Flatten, Layer, Linear, MaxPool, Relu

MAX_WINDOWS = 1 << 21  # floats gathered at once; a convolution with more goes through its input channels in groups

Pair = tuple[int, int]
Part = tuple[int, int, Tensor]  # row and column in a window, and one value per window


class Pass(Protocol):
    """One layer on one batch: `forward` first, then the gradients, each at most once."""

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output."""

    def input_gradient(self, dy: Tensor) -> Tensor:
        """Gradient of the layer's input from that of its output."""


class WeightPass(Pass, Protocol):
    """One layer with weights."""

    def weight_gradient(self, dy: Tensor) -> Tensor:
        """Gradient of the weights in their flat order, (weights,)."""


@dataclass
class ConvPass:
    """A convolution; `weight` is flat, in the order (out, in, height, width)."""

    layer: Conv
    weight: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(in, n, height, width) -> (out, n, height, width)."""
        kernel, stride, (rows, columns) = self._geometry()
        self._shape = x.shape
        self._x = F.pad(x, (columns, columns, rows, rows))
        self._out = _windows_in(self._x, kernel, stride)
        self._kept = [self._gather(group) for group in self._groups()] if len(self._groups()) == 1 else []
        y: Tensor | None = None
        for group, columns_of in self._gathered():
            part = torch.mm(self._weights_of(group), columns_of)
            y = part if y is None else y + part
        assert y is not None
        return y.reshape(self.layer.out_channels, x.shape[1], *self._out)

    def weight_gradient(self, dy: Tensor) -> Tensor:
        """Gradient of the weights in their flat order, (weights,)."""
        flat = dy.reshape(self.layer.out_channels, -1)
        found = [F.linear(flat, columns) for _, columns in self._gathered()]
        return (torch.cat(found, 1) if len(found) > 1 else found[0]).reshape(-1)

    def input_gradient(self, dy: Tensor) -> Tensor:
        """(out, n, height, width) -> (in, n, height, width)."""
        kernel, stride, (rows, columns) = self._geometry()
        flat = dy.reshape(self.layer.out_channels, -1)
        found = []
        for group in self._groups():
            windows = torch.mm(self._weights_of(group).t(), flat).reshape(len(group), prod(kernel), -1, *self._out)
            parts = [(i // kernel[1], i % kernel[1], windows[:, i]) for i in range(prod(kernel))]
            found.append(_spread(parts, stride, (self._x.shape[2], self._x.shape[3])))
        whole = torch.cat(found) if len(found) > 1 else found[0]
        return whole[:, :, rows : rows + self._shape[2], columns : columns + self._shape[3]]

    def _geometry(self) -> tuple[Pair, Pair, Pair]:
        return _pair(self.layer.kernel, 1), _pair(self.layer.stride, 1), _pair(self.layer.padding, 0)

    def _groups(self) -> list[range]:
        """Input channels whose windows are gathered at once."""
        channels = self._shape[0]
        size = prod(self.layer.kernel) * self._shape[1] * prod(self._out)
        step = max(1, min(channels, MAX_WINDOWS // size))
        return [range(i, min(i + step, channels)) for i in range(0, channels, step)]

    def _weights_of(self, group: range) -> Tensor:
        weight = self.weight.reshape(self.layer.out_channels, self._shape[0], -1)
        if len(group) < self._shape[0]:
            weight = weight[:, group.start : group.stop]
        return weight.reshape(self.layer.out_channels, -1)

    def _gather(self, group: range) -> Tensor:
        """Windows of a group of channels, (channels x kernel, n x height x width)."""
        kernel, stride, _ = self._geometry()
        x = self._x if len(group) == self._shape[0] else self._x[group.start : group.stop]
        taps = [tap.unsqueeze(1) for _, _, tap in _taps(x, kernel, stride)]
        return torch.cat(taps, 1).reshape(len(group) * len(taps), -1)

    def _gathered(self) -> Iterator[tuple[range, Tensor]]:
        """Every group and its windows; several groups are gathered anew each time, which saves memory."""
        groups = self._groups()
        return zip(groups, self._kept or map(self._gather, groups), strict=True)


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

    def input_gradient(self, dy: Tensor) -> Tensor:
        """(n, out) -> (n, in)."""
        return torch.mm(dy, self._weight)


class ReluPass:
    """max(x, 0); its gradient at 0 is 0."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        self._y = torch.relu(x)
        return self._y

    def input_gradient(self, dy: Tensor) -> Tensor:
        """Any shape."""
        return dy * torch.sign(self._y)


@dataclass
class FlattenPass:
    """(channels, n, height, width) -> (n, channels x height x width); flat activations stay as they are."""

    def forward(self, x: Tensor) -> Tensor:
        """As the class says."""
        self._shape = x.shape
        return x if x.dim() == 2 else x.transpose(0, 1).reshape(x.shape[1], -1)

    def input_gradient(self, dy: Tensor) -> Tensor:
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
        kernel, self._stride = _pair(self.layer.kernel, 1), _pair(self.layer.stride, 1)
        self._taps = list(_taps(x, kernel, self._stride))
        values = [tap for _, _, tap in self._taps]
        y = values[0]
        for value in values[1:]:
            y = torch.maximum(y, value) if isinstance(self.layer, MaxPool) else y + value
        self._y = y if isinstance(self.layer, MaxPool) else y * (1 / len(values))
        return self._y

    def input_gradient(self, dy: Tensor) -> Tensor:
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
        return _spread(parts, self._stride, self._size)


def make_pass(layer: Layer, weight: Tensor | None) -> Pass:
    """A layer's pass; `weight` is flat, for layers that have any.

    Raises:
        ExportError: if the layer has no form here.
    """
    match layer:
        case Conv() if weight is not None:
            return ConvPass(layer, weight)
        case Linear() if weight is not None:
            return LinearPass(layer, weight)
        case Relu():
            return ReluPass()
        case Flatten():
            return FlattenPass()
        case MaxPool() | AvgPool():
            return PoolPass(layer)
    raise ExportError(f"no ExecuTorch form of layer {layer!r}")


def to_maps(x: Tensor) -> Tensor:
    """Samples (n, channels, height, width), (n, channels, length) or (n, features) in the layout of this module."""
    if x.dim() == 2:
        return x
    x = x if x.dim() == 4 else x.unsqueeze(2)
    n, channels, height, width = x.shape
    return x.reshape(1, n, height, width) if channels == 1 else x.transpose(0, 1).contiguous()


def _pair(values: Sequence[int], missing: int) -> Pair:
    """Height and width of a window; a 1-D one has only a width."""
    return (missing, values[0]) if len(values) == 1 else (values[0], values[1])


def _windows_in(x: Tensor, kernel: Pair, stride: Pair) -> Pair:
    """How many windows fit on (channels, n, height, width)."""
    height, width = ((x.shape[2 + i] - kernel[i]) // stride[i] + 1 for i in (0, 1))
    return height, width


def _taps(x: Tensor, kernel: Pair, stride: Pair) -> Iterator[Part]:
    """Every element of a window, of all windows at once: (channels, n, windows down, windows across)."""
    height, width = _windows_in(x, kernel, stride)
    for row in range(kernel[0]):
        rows = x[:, :, row : row + (height - 1) * stride[0] + 1 : stride[0]]
        for column in range(kernel[1]):
            yield row, column, rows[:, :, :, column : column + (width - 1) * stride[1] + 1 : stride[1]]


def _spread(parts: Sequence[Part], stride: Pair, size: Pair) -> Tensor:
    """The adjoint of `_taps`: add every part to the elements it was taken from, (channels, n, height, width)."""
    rows = [
        (row, _along(3, [(column, part) for r, column, part in parts if r == row], stride[1], size[1]))
        for row in sorted({row for row, _, _ in parts})
    ]
    return _along(2, rows, stride[0], size[0])


def _along(axis: int, parts: Sequence[tuple[int, Tensor]], stride: int, size: int) -> Tensor:
    """Add parts up along one axis: element i of a part that starts at s belongs at s + i x stride of `size`."""
    length = -(-size // stride)  # elements of one phase; those past the end are cut off below
    phases: list[Tensor | None] = [None] * stride
    for start, part in parts:
        before = start // stride
        placed = _pad(part, axis, before, length - before - part.shape[axis])
        present = phases[start % stride]
        phases[start % stride] = placed if present is None else present + placed
    some = next(phase for phase in phases if phase is not None)
    if stride == 1:
        return some
    empty = torch.zeros_like(some)
    spread = torch.stack([empty if phase is None else phase for phase in phases], axis + 1)
    shape = list(some.shape)
    shape[axis] = length * stride
    return spread.reshape(shape).narrow(axis, 0, size)


def _pad(x: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Zeros around one axis."""
    if not before and not after:
        return x
    return F.pad(x, (0, 0) * (x.dim() - 1 - axis) + (before, after))
