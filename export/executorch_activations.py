"""Activations and normalisation for ExecuTorch; see `export.executorch_layers`.

Masks are products with `sign`, which costs a tenth of a `where` there.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt

import torch
from torch import Tensor

from wire.layers import NORM_EPSILON, Norm


class ReluPass:
    """max(x, 0); its gradient at 0 is 0."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        self._y = torch.relu(x)
        return self._y

    def input_gradient(self, dy: Tensor, number: int) -> Tensor:
        """Any shape."""
        return dy * torch.sign(self._y)


class Relu6Pass:
    """min(max(x, 0), 6); its gradient at 0 and 6 is 0."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        self._y = torch.clamp(x, 0.0, 6.0)
        return self._y

    def input_gradient(self, dy: Tensor, number: int) -> Tensor:
        """Any shape."""
        return dy * _inside(self._y, 6.0)


class HardswishPass:
    """x min(max(x + 3.0, 0), 6) / 6; its gradient is 0 at -3 and 1 at 3, as in torch."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        self._x = x
        self._share = torch.clamp(x + 3.0, 0.0, 6.0) * (1 / 6)
        return x * self._share

    def input_gradient(self, dy: Tensor, number: int) -> Tensor:
        """Any shape."""
        # Between the kinks the share is x / 6 + 1 / 2, so that the slope x / 3 + 1 / 2 is x / 6 more.
        return dy * (self._share + self._x * (1 / 6) * _inside(self._share, 1.0))


class GeluPass:
    """x times the normal distribution's share below x."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        self._x = x
        self._share = (torch.erf(x * (1 / sqrt(2))) + 1.0) * 0.5
        return x * self._share

    def input_gradient(self, dy: Tensor, number: int) -> Tensor:
        """Any shape."""
        density = torch.exp(self._x * self._x * -0.5) * (1 / sqrt(2 * pi))
        return dy * (self._share + self._x * density)


@dataclass
class NormPass:
    """Group normalisation without affine weights.

    Sums over several dimensions, and products that repeat one operand along others than the last, are slow there: maps
    are rows (channels x n, height x width), whose sums are added up by groups, and flat activations (n x groups, ...).
    """

    layer: Norm

    def forward(self, x: Tensor) -> Tensor:
        """(channels, n, height, width) or (n, features)."""
        self._shape = x.shape
        rows = self._rows(x)
        centred = rows - self._means(rows)
        self._scale = torch.rsqrt(self._means(centred * centred) + NORM_EPSILON)
        self._normal = centred * self._scale
        return self._normal.reshape(x.shape)

    def input_gradient(self, dy: Tensor, number: int) -> Tensor:
        """(dy - mean(dy) - y mean(dy y)) / deviation, the means over each group."""
        rows = self._rows(dy)
        along = self._normal * self._means(rows * self._normal)
        return ((rows - self._means(rows) - along) * self._scale).reshape(self._shape)

    def _rows(self, x: Tensor) -> Tensor:
        if x.dim() == 2:
            return x.reshape(x.shape[0] * self.layer.groups, -1)
        return x.reshape(x.shape[0] * x.shape[1], -1)

    def _means(self, rows: Tensor) -> Tensor:
        """Mean of every row's group, (rows, 1)."""
        means = rows.mean(1, keepdim=True)
        if len(self._shape) == 2:
            return means
        channels, n = self._shape[0] // self.layer.groups, self._shape[1]
        each = means.reshape(self.layer.groups, channels, n).mean(1, keepdim=True)
        return torch.cat([each] * channels, 1).reshape(-1, 1)


def _inside(value: Tensor, top: float) -> Tensor:
    """1 where a value from 0 to `top` is neither of both, else 0; the product cannot round to 0."""
    return torch.sign(value * (top - value))
