"""Random small plans that are graphs: residual sums, concatenations, recalls, groups, norms and every activation.

`exact=True` leaves out what irrational or rounded numbers come of (norm, hardswish, gelu, means of other than a power
of two), so that small multiples of powers of two stay exact through a plan.
"""

from __future__ import annotations

from math import gcd, prod
from typing import Any, TypeAlias

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from wire.layers import (
    Activation,
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
    output_shape,
)
from wire.plan import Plan
from wire.ticket import Ticket

CLASSES = 3
CHANNELS = (1, 2, 3, 4, 6, 8)
Pool: TypeAlias = type[MaxPool] | type[AvgPool]
POOLS: st.SearchStrategy[Pool] = st.sampled_from([MaxPool, AvgPool])
WIDEST = 16  # channels that a concatenation may reach
FEWEST_NORMALISED = 4  # of one or two elements a norm leaves only signs, and gradients cancel to rounding


@st.composite
def graph_plans(draw: st.DrawFn, exact: bool = False) -> Plan:
    """A plan of up to six steps over 0, 1 or 2 spatial dimensions, then up to two hidden linear layers."""
    sides = draw(st.sampled_from([2, 1, 2, 1, 0]))
    shape = (draw(st.integers(1, 4)), *(draw(st.integers(4, 9)) for _ in range(sides)))
    net = _Drawn(draw, shape if sides else (draw(st.integers(4, 12)),), exact)
    kinds = ["weights", "weights", "activation", "residual", "join", "branch"] + ["norm"] * (not exact)
    if draw(st.sampled_from([True, True, False])):
        net.weights()
    for _ in range(draw(st.integers(1, 5))):
        match draw(st.sampled_from([*kinds, *["pool", "pool", "projection"] * (sides > 0)])):
            case "weights":
                net.weights()
                net.perhaps_activation()
            case "activation":
                net.activation()
            case "norm":
                net.norm()
            case "pool":
                net.pool()
            case "residual":
                net.residual()
            case "projection":
                net.projection()
            case "branch":
                net.branch()
            case "join":
                net.join()
    if sides:
        net.perhaps_global_mean()
        net.add(Flatten())
    for _ in range(draw(st.integers(0, 2))):
        net.add(Linear(out_features=draw(st.sampled_from([4, 5, 8]))))
        net.perhaps_activation()
    net.add(Linear(out_features=CLASSES))
    if draw(st.integers(0, 7)) == 7:
        net.activation()
    return Plan(name="drawn", input_shape=net.shapes[0], layers=tuple(net.layers))


def assert_gradients_close(ticket: Ticket, found: NDArray[Any], exact: NDArray[Any], single: NDArray[Any]) -> None:
    """Every layer's gradient is within 1e-5 of the layer's largest, or as near as float32 comes.

    Some drawn networks cancel: the gradient of the only weight before a norm is 0 but for the norm's epsilon. There
    torch's own float32 says what rounding does: four times its error, or a millionth of the largest gradient of all.

    Args:
        ticket: the network.
        found: gradients of the scores, (kept,).
        exact: torch's in float64.
        single: torch's in float32.
    """
    for layer in ticket.kept_layers:
        want = exact[layer.slice]
        rounding = max(4 * np.abs(single[layer.slice] - want).max(), 1e-6 * np.abs(exact).max())
        allowed = max(1e-5 * np.abs(want).max(), rounding)
        np.testing.assert_allclose(found[layer.slice], want, rtol=0, atol=allowed, err_msg=layer.shape.name)


class _Drawn:
    """Layers as they are drawn, and the shapes of the values so far."""

    def __init__(self, draw: st.DrawFn, shape: tuple[int, ...], exact: bool) -> None:
        self.layers: list[Layer] = []
        self.shapes = [shape]
        self._draw = draw
        self._exact = exact

    @property
    def here(self) -> int:
        """Number of the value that the next layer reads."""
        return len(self.layers)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.shapes[-1]

    def add(self, layer: Layer) -> None:
        self.shapes.append(output_shape(layer, self.shapes))
        self.layers.append(layer)

    def activation(self) -> None:
        kinds: list[type[Activation]] = [Relu, Relu6] if self._exact else [Relu, Relu6, Hardswish, Gelu]
        self.add(self._draw(st.sampled_from(kinds))())

    def perhaps_activation(self) -> None:
        if self._draw(st.booleans()):
            self.activation()

    def weights(self) -> None:
        """A convolution of any geometry and groups, or a linear layer."""
        sizes = self.shape[1:]
        if not sizes:
            self.add(Linear(out_features=self._draw(st.sampled_from([4, 6, 8]))))
            return
        kernel = tuple(self._draw(st.integers(1, min(4, size))) for size in sizes)
        stride = tuple(self._draw(st.integers(1, 2)) for _ in sizes)
        padding = tuple(self._draw(st.integers(0, min(2, k - 1))) for k in kernel)
        self._conv(self._draw(st.sampled_from(CHANNELS)), kernel, stride, padding)

    def same(self, channels: int) -> None:
        """Weights that keep the size, and here give so many channels or features."""
        sizes = self.shape[1:]
        if not sizes:
            self.add(Linear(out_features=channels))
            return
        kernel = tuple(self._draw(st.sampled_from([1, 3])) for _ in sizes)
        self._conv(channels, kernel, (1,) * len(sizes), tuple(k // 2 for k in kernel))

    def _conv(self, channels: int, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]) -> None:
        common = gcd(channels, self.shape[0])
        groups = self._draw(st.sampled_from([g for g in range(1, common + 1) if common % g == 0]))
        self.add(Conv(out_channels=channels, kernel=kernel, stride=stride, padding=padding, groups=groups))

    def norm(self) -> None:
        """A norm, where a group has enough elements, and an activation: a mean right behind a norm is nothing."""
        channels, size = self.shape[0], prod(self.shape)
        fitting = [g for g in range(1, channels + 1) if channels % g == 0 and size // g >= FEWEST_NORMALISED]
        if fitting:
            self.add(Norm(groups=self._draw(st.sampled_from(fitting))))
        self.activation()

    def pool(self) -> None:
        """A max or average pool, windows apart or overlapping; before it a ReLU, often."""
        if self._draw(st.booleans()):
            self.add(Relu())
        kernel, stride = self._window()
        self.add(self._pool_of(self._draw(POOLS), kernel, stride))

    def residual(self) -> None:
        """Weights, perhaps a norm, and what went in added to it or put behind it."""
        start = self.here
        self.same(self.shape[0])
        if not self._exact and self._draw(st.booleans()):
            self.norm()
        self._joined(start)

    def projection(self) -> None:
        """Two strided convolutions of the same value, added up: a residual block that changes shape."""
        start, sides, channels = self.here, len(self.shape) - 1, self._draw(st.sampled_from(CHANNELS))
        stride = (2,) * sides
        kernel = tuple(3 if size > 1 else 1 for size in self.shape[1:])
        self._conv(channels, kernel, stride, tuple(k // 2 for k in kernel))
        self.perhaps_activation()
        main = self.here
        self.add(Recall(source=start))
        self._conv(channels, (1,) * sides, stride, (0,) * sides)
        self._joined(main)

    def branch(self) -> None:
        """An activation read twice: by a max pool (or weights) and by another layer; then both joined."""
        if self._draw(st.booleans()):
            self.add(Relu())
        else:
            self.activation()
        start = self.here
        if self.shape[1:]:
            kernel, stride = self._window()
            self.add(self._pool_of(MaxPool, kernel, stride))
            main = self.here
            self.add(Recall(source=start))
            self.add(self._pool_of(self._draw(POOLS), kernel, stride))
        else:
            self.same(self.shape[0])
            main = self.here
            self.add(Recall(source=start))
            self.activation()
        self._joined(main)

    def join(self) -> None:
        """Any value that fits, even the layer's own input a second time, added or put behind."""
        found = [number for number, shape in enumerate(self.shapes) if shape == self.shape]
        if self._draw(st.booleans()):
            wider = [number for number, shape in enumerate(self.shapes) if shape[1:] == self.shape[1:]]
            found = [number for number in wider if self.shapes[number][0] + self.shape[0] <= WIDEST]
            if found:
                self.add(Concat(source=self._draw(st.sampled_from(found))))
            return
        self.add(Add(source=self._draw(st.sampled_from(found))))

    def perhaps_global_mean(self) -> None:
        sizes = self.shape[1:]
        if self._draw(st.booleans()) and (not self._exact or prod(sizes) & (prod(sizes) - 1) == 0):
            self.add(AvgPool(kernel=sizes, stride=sizes))

    def _joined(self, source: int) -> None:
        fits = self.shape[0] + self.shapes[source][0] <= WIDEST
        self.add((Concat if fits and self._draw(st.booleans()) else Add)(source=source))

    def _window(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        sizes = self.shape[1:]
        kernel = tuple(self._draw(st.integers(1, min(3, size))) for size in sizes)
        return kernel, self._draw(st.sampled_from([kernel, tuple(self._draw(st.integers(1, 3)) for _ in sizes)]))

    def _pool_of(self, kind: Pool, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Layer:
        """The pool; a maximum instead of a mean that would round."""
        rounds = kind is AvgPool and self._exact and prod(kernel) & (prod(kernel) - 1) != 0
        return (MaxPool if rounds else kind)(kernel=kernel, stride=stride)
