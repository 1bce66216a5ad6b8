"""The deeper named networks: residual blocks, depthwise convolutions, normalisation.

Where the originals have batch normalisation these have group normalisation, by the rule of `export.norms`, which
says why. A shortcut that changes shape is a 1x1 convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from export.norms import norm_groups
from wire.layers import (
    Add,
    AvgPool,
    Conv,
    Flatten,
    Layer,
    Norm,
    Recall,
    Relu,
    Relu6,
    output_shape,
)

Shape = tuple[int, ...]


def resnet8(shape: Shape) -> list[Layer]:
    """Banbury et al. 2021 (arXiv 2106.07597), image classification."""
    return _resnet(shape, stem=(3, 1), stages=[(16, 1), (32, 1), (64, 1)])


def resnet20(shape: Shape) -> list[Layer]:
    """He et al. 2015 (arXiv 1512.03385), section 4.2, with n = 3."""
    return _resnet(shape, stem=(3, 1), stages=[(16, 3), (32, 3), (64, 3)])


def har_resnet(shape: Shape) -> list[Layer]:
    """The same over time: a wide window first, then residual blocks of window 5."""
    return _resnet(shape, stem=(7, 2), stages=[(32, 1), (64, 1), (64, 1)], kernel=5)


def mobilenet_v2_tiny(shape: Shape) -> list[Layer]:
    """Sandler et al. 2018 (arXiv 1801.04381), table 2, narrowed for images of 32 x 32."""
    net = Net(shape)
    net.conv(16, 3)
    net.add(Relu6())
    for channels, expansion, stride in [(8, 1, 1), (16, 6, 2), (16, 6, 1), (24, 6, 2), (24, 6, 1), (48, 6, 2)]:
        start, entering = net.here, net.channels
        if expansion > 1:
            net.conv(entering * expansion, 1)
            net.add(Relu6())
        net.conv(net.channels, 3, stride=stride, groups=net.channels)
        net.add(Relu6())
        net.conv(channels, 1)  # linear: no activation on the narrow side
        if stride == 1 and channels == entering:
            net.add(Add(source=start))
    net.conv(128, 1)
    net.add(Relu6())
    return net.pooled()


def ds_cnn(shape: Shape) -> list[Layer]:
    """Zhang et al. 2017 (arXiv 1711.07128), the small one, as MLPerf Tiny has it (arXiv 2106.07597)."""
    net = Net(shape)
    net.add(Conv(out_channels=64, kernel=(10, 4), stride=(2, 2), padding=(5, 1)))
    net.add(Norm(groups=norm_groups(64)), Relu())
    for _ in range(4):
        net.conv(64, 3, groups=64)
        net.add(Relu())
        net.conv(64, 1)
        net.add(Relu())
    return net.pooled()


def _resnet(shape: Shape, *, stem: tuple[int, int], stages: Sequence[tuple[int, int]], kernel: int = 3) -> list[Layer]:
    """A stem (kernel, stride), then stages (channels, blocks), all but the first at half the size of the one before."""
    net = Net(shape)
    net.conv(stages[0][0], stem[0], stride=stem[1])
    net.add(Relu())
    for number, (channels, blocks) in enumerate(stages):
        for block in range(blocks):
            stride = 2 if number and not block else 1
            start, entering = net.here, net.channels
            net.conv(channels, kernel, stride=stride)
            net.add(Relu())
            net.conv(channels, kernel)
            main = net.here
            if stride > 1 or channels != entering:
                net.add(Recall(source=start))
                net.conv(channels, 1, stride=stride)
                net.add(Add(source=main))
            else:
                net.add(Add(source=start))
            net.add(Relu())
    return net.pooled()


class Net:
    """Layers as they are added, and the shapes between them."""

    def __init__(self, shape: Shape) -> None:
        self.layers: list[Layer] = []
        self._shapes = [shape]

    @property
    def here(self) -> int:
        """Number of the value that the next layer reads."""
        return len(self.layers)

    @property
    def shape(self) -> Shape:
        """Of that value."""
        return self._shapes[-1]

    @property
    def channels(self) -> int:
        """Of that value."""
        return self.shape[0]

    def add(self, *layers: Layer) -> None:
        """Layers, one after the other."""
        for layer in layers:
            self._shapes.append(output_shape(layer, self._shapes))
            self.layers.append(layer)

    def conv(self, channels: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        """A convolution that keeps the size but for its stride, and its normalisation."""
        sides = len(self._shapes[0]) - 1
        conv = Conv(
            out_channels=channels,
            kernel=(kernel,) * sides,
            stride=(stride,) * sides,
            padding=(kernel // 2,) * sides,
            groups=groups,
        )
        self.add(conv, Norm(groups=norm_groups(channels)))

    def pooled(self) -> list[Layer]:
        """All layers, ended by the mean over all positions."""
        sides = self._shapes[-1][1:]
        assert prod(sides) > 1
        self.add(AvgPool(kernel=sides, stride=sides), Flatten())
        return self.layers
