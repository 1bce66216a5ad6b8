"""Networks that rates are fitted to: drawn at random, so that all networks that people know by name are unseen.

Each is one of four kinds (plain, residual, depthwise-separable, dense), over images or over time, with channels,
windows, strides, norms, activations and pools by lot. `network(n)` is the same on every machine. Those from LARGE on
have tensors that no second-level cache holds.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from coordinator.deep_models import Net
from export.norms import norm_groups
from wire.layers import (
    Activation,
    Add,
    AvgPool,
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
from wire.plan import Plan

IMAGES = ((1, 28, 28), (3, 32, 32), (3, 24, 24), (1, 40, 20), (8, 16, 16))
SERIES = ((3, 200), (6, 96), (9, 128), (2, 256))
FLAT = ((784,), (256,), (1200,))
CHANNELS = (8, 12, 16, 24, 32, 48, 64, 96)
LARGE, LARGE_IMAGES, LARGE_CHANNELS = 20, ((3, 48, 48), (1, 64, 64), (16, 32, 32)), (24, 32, 48, 64, 64, 96, 96, 128)


def network(number: int) -> Plan:
    """One of them; any number from 0 on."""
    lots = random.Random(number)
    kind = ("plain", "residual", "separable", "plain", "dense")[number % 5]
    if kind == "dense":
        shape: tuple[int, ...] = lots.choice(FLAT)
        layers = [*_dense(lots, lots.randint(2, 3)), Linear(out_features=10)]
    else:
        large = number >= LARGE
        shape = lots.choice((LARGE_IMAGES if large else IMAGES) if lots.random() < 0.7 else SERIES)
        make = {"plain": _plain, "residual": _residual, "separable": _separable}[kind]
        layers = make(lots, shape, LARGE_CHANNELS if large else CHANNELS)
    return Plan(name=f"{kind}-{number}", input_shape=shape, layers=tuple(layers))


def _activation(lots: random.Random) -> Activation:
    return lots.choices((Relu(), Relu6(), Hardswish(), Gelu()), weights=(6, 2, 2, 1))[0]


def _dense(lots: random.Random, layers: int) -> list[Layer]:
    activation = _activation(lots)
    return [one for _ in range(layers) for one in (Linear(out_features=lots.choice((40, 100, 200, 400))), activation)]


def _plain(lots: random.Random, shape: Sequence[int], channels: Sequence[int]) -> list[Layer]:
    """Convolutions, some normed, and pools; then dense layers."""
    net, activation, sides = Net(tuple(shape)), _activation(lots), len(shape) - 1
    for _ in range(lots.randint(2, 4)):
        window = lots.choice((1, 3, 3, 5))
        conv = Conv(
            out_channels=lots.choice(channels), kernel=(window,) * sides, stride=(1,) * sides,
            padding=(window // 2 if lots.random() < 0.8 else 0,) * sides,
        )  # fmt: skip
        net.add(conv)
        if lots.random() < 0.4:
            net.add(Norm(groups=norm_groups(conv.out_channels)))
        net.add(activation)
        if min(net.shape[1:]) >= 8 and lots.random() < 0.6:
            pool = lots.choices((MaxPool, AvgPool), weights=(3, 1))[0]
            window = lots.choice((2, 2, 3))
            net.add(pool(kernel=(window,) * sides, stride=(2,) * sides))
    while max(net.shape[1:]) > 12 and min(net.shape[1:]) >= 4:
        net.add(MaxPool(kernel=(2,) * sides, stride=(2,) * sides))
    return [*net.layers, Flatten(), *_dense(lots, lots.randint(0, 2)), Linear(out_features=10)]


def _residual(lots: random.Random, shape: Sequence[int], channels: Sequence[int]) -> list[Layer]:
    """Blocks with a shortcut, some at half the size of the one before."""
    net, activation, window = Net(tuple(shape)), _activation(lots), lots.choice((3, 3, 5))
    net.conv(lots.choice(channels[:5]), window, stride=lots.choice((1, 2)))
    net.add(activation)
    for _ in range(lots.randint(1, 4)):
        start, entering = net.here, net.channels
        stride = 2 if lots.random() < 0.4 and min(net.shape[1:]) >= 8 else 1
        leaving = entering if lots.random() < 0.5 else lots.choice(channels[:7])
        net.conv(leaving, window, stride=stride)
        net.add(activation)
        net.conv(leaving, window)
        main = net.here
        if stride > 1 or leaving != entering:
            net.add(Recall(source=start))
            net.conv(leaving, 1, stride=stride)
            net.add(Add(source=main))
        else:
            net.add(Add(source=start))
        net.add(activation)
    return [*net.pooled(), Linear(out_features=10)]


def _separable(lots: random.Random, shape: Sequence[int], channels: Sequence[int]) -> list[Layer]:
    """A depthwise convolution and one of single places, again and again."""
    net, activation, window = Net(tuple(shape)), _activation(lots), lots.choice((3, 3, 5))
    net.conv(lots.choice(channels[:6]), 3, stride=lots.choice((1, 2)))
    net.add(activation)
    for _ in range(lots.randint(2, 5)):
        stride = 2 if lots.random() < 0.3 and min(net.shape[1:]) >= 8 else 1
        net.conv(net.channels, window, stride=stride, groups=net.channels)
        net.add(activation)
        net.conv(lots.choice(channels), 1)
        net.add(activation)
    return [*net.pooled(), Linear(out_features=10)]
