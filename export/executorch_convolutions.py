"""Convolutions as matrix products over gathered windows, for ExecuTorch; see `export.executorch_layers`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from export.executorch_windows import Pair, pair, spread, taps, windows_in
from wire.layers import Conv

MAX_WINDOWS = 1 << 21  # floats gathered at once; a convolution with more goes through its input channels in parts


@dataclass
class _Windows:
    """What both kinds of convolution do alike; `weight` is flat, in the order (out, in / groups, height, width)."""

    layer: Conv
    weight: Tensor

    def _read(self, x: Tensor) -> None:
        """Pad the input (in, n, height, width) and gather its windows, if all of them may be held at once."""
        _, _, (rows, columns) = self._geometry()
        self._shape = x.shape
        self._x = F.pad(x, (columns, columns, rows, rows)) if rows or columns else x
        self._out = windows_in(self._x, *self._geometry()[:2])
        parts = self._parts()
        self._kept = [self._gather(parts[0])] if len(parts) == 1 else []

    def _geometry(self) -> tuple[Pair, Pair, Pair]:
        return pair(self.layer.kernel, 1), pair(self.layer.stride, 1), pair(self.layer.padding, 0)

    def _parts(self) -> list[range]:
        """Input channels whose windows are gathered at once: whole groups, where there are any."""
        channels = self._shape[0]
        unit = channels // self.layer.groups if self.layer.groups > 1 else 1
        size = unit * prod(self.layer.kernel) * self._shape[1] * prod(self._out)
        step = unit * max(1, MAX_WINDOWS // size)
        return [range(i, min(i + step, channels)) for i in range(0, channels, step)]

    def _gather(self, part: range) -> Tensor:
        """Windows of some channels, (channels x kernel, n x height x width)."""
        kernel, stride, _ = self._geometry()
        x = self._x if len(part) == self._shape[0] else self._x[part.start : part.stop]
        seen = [tap.reshape(len(part), 1, -1, *self._out) for _, _, tap in taps(x, kernel, stride)]
        return _joined(seen, 1).reshape(len(part) * len(seen), -1)

    def _gathered(self) -> Iterator[tuple[range, Tensor]]:
        """Every part and its windows; several parts are gathered anew each time, which saves memory."""
        parts = self._parts()
        return zip(parts, self._kept or map(self._gather, parts), strict=True)

    def _scatter(self, windows: Tensor, part: range) -> Tensor:
        """The adjoint of `_gather`: (channels x kernel, n x height x width) -> (channels, n, height, width), padded."""
        kernel, stride, _ = self._geometry()
        windows = windows.reshape(len(part), prod(kernel), -1, *self._out)
        parts = [(i // kernel[1], i % kernel[1], windows[:, i]) for i in range(prod(kernel))]
        return spread(parts, stride, (self._x.shape[2], self._x.shape[3]))

    def _cropped(self, found: list[Tensor]) -> Tensor:
        """The gradients of all parts without the padding, (in, n, height, width)."""
        _, _, (rows, columns) = self._geometry()
        whole = _joined(found, 0)
        if not rows and not columns:
            return whole  # a slice of everything would copy it
        return whole[:, :, rows : rows + self._shape[2], columns : columns + self._shape[3]]


class ConvPass(_Windows):
    """A convolution without groups."""

    def forward(self, x: Tensor) -> Tensor:
        """(in, n, height, width) -> (out, n, height, width)."""
        self._read(x)
        y: Tensor | None = None
        for part, columns in self._gathered():
            some = torch.mm(self._weights_of(part), columns)
            y = some if y is None else y + some
        assert y is not None
        return y.reshape(self.layer.out_channels, x.shape[1], *self._out)

    def weight_gradient(self, dy: Tensor) -> Tensor:
        """Gradient of the weights in their flat order, (weights,)."""
        flat = dy.reshape(self.layer.out_channels, -1)
        return _joined([F.linear(flat, columns) for _, columns in self._gathered()], 1).reshape(-1)

    def input_gradient(self, dy: Tensor, number: int) -> Tensor:
        """(out, n, height, width) -> (in, n, height, width)."""
        flat = dy.reshape(self.layer.out_channels, -1)
        parts = self._parts()
        return self._cropped([self._scatter(torch.mm(self._weights_of(part).t(), flat), part) for part in parts])

    def _weights_of(self, part: range) -> Tensor:
        weight = self.weight.reshape(self.layer.out_channels, self._shape[0], -1)
        if len(part) < self._shape[0]:
            weight = weight[:, part.start : part.stop]
        return weight.reshape(self.layer.out_channels, -1)


class GroupedConvPass(_Windows):
    """A convolution whose channels do not all see each other: one product per group, many at once."""

    def forward(self, x: Tensor) -> Tensor:
        """(in, n, height, width) -> (out, n, height, width)."""
        self._read(x)
        found = [torch.bmm(self._weights_of(part), self._split(columns, part)) for part, columns in self._gathered()]
        return _joined(found, 0).reshape(self.layer.out_channels, x.shape[1], *self._out)

    def weight_gradient(self, dy: Tensor) -> Tensor:
        """Gradient of the weights in their flat order, (weights,)."""
        # bmm transposes nothing, and dy is a kernel's size smaller than the windows: dy is transposed, and the result.
        found = [
            torch.bmm(self._split(columns, part), _transposed(self._rows(dy, part)))
            for part, columns in self._gathered()
        ]
        return _transposed(_joined(found, 0)).reshape(-1)

    def input_gradient(self, dy: Tensor, number: int) -> Tensor:
        """(out, n, height, width) -> (in, n, height, width)."""
        if self._depthwise:
            return self._cropped([self._depthwise_gradient(dy)])
        found = []
        for part in self._parts():
            windows = torch.bmm(_transposed(self._weights_of(part)), self._rows(dy, part))
            found.append(self._scatter(windows.reshape(len(part) * prod(self.layer.kernel), -1), part))
        return self._cropped(found)

    @property
    def _depthwise(self) -> bool:
        return self.layer.groups == self.layer.out_channels == self._shape[0]

    def _depthwise_gradient(self, dy: Tensor) -> Tensor:
        """Gradient of the padded input where each channel sees only itself, (channels, n, height, width).

        A product of every channel with one weight at a time: no array of all windows, and half the time of bmm's.
        """
        kernel, stride, _ = self._geometry()
        rows, weight = dy.reshape(self.layer.groups, -1), self.weight.reshape(self.layer.groups, -1)
        products = [(rows * weight[:, i : i + 1]).reshape(dy.shape) for i in range(prod(kernel))]
        parts = [(i // kernel[1], i % kernel[1], one) for i, one in enumerate(products)]
        return spread(parts, stride, (self._x.shape[2], self._x.shape[3]))

    def _groups_of(self, part: range) -> slice:
        size = self._shape[0] // self.layer.groups
        return slice(part.start // size, part.stop // size)

    def _weights_of(self, part: range) -> Tensor:
        """(groups, out / groups, in / groups x kernel)."""
        groups = self.layer.groups
        weight = self.weight.reshape(groups, self.layer.out_channels // groups, -1)
        return weight if len(part) == self._shape[0] else weight[self._groups_of(part)]

    def _rows(self, dy: Tensor, part: range) -> Tensor:
        """(groups, out / groups, n x height x width)."""
        groups = self.layer.groups
        rows = dy.reshape(groups, self.layer.out_channels // groups, -1)
        return rows if len(part) == self._shape[0] else rows[self._groups_of(part)]

    def _split(self, columns: Tensor, part: range) -> Tensor:
        """Gathered windows, (groups, in / groups x kernel, n x height x width)."""
        groups = self._groups_of(part)
        return columns.reshape(groups.stop - groups.start, -1, columns.shape[1])


def _joined(parts: list[Tensor], axis: int) -> Tensor:
    return torch.cat(parts, axis) if len(parts) > 1 else parts[0]


def _transposed(matrices: Tensor) -> Tensor:
    """(groups, rows, columns) -> (groups, columns, rows); of vectors, as in a depthwise convolution, for nothing."""
    groups, rows, columns = matrices.shape
    return matrices.reshape(groups, columns, rows) if 1 in (rows, columns) else matrices.transpose(1, 2)
