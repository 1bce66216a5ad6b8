"""What the sparse runtime does with a plan: operations over tensors, one micro-batch of samples ("lanes") at a time.

Devices execute it, coordinators estimate time and memory from it, so both know it. It is a function of (plan, lanes,
vector width) alone; the keep mask plays no part. `wire.lowering` makes it, `wire.arena` gives its tensors memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from wire.layers import Conv, Layer

LANES = ((1, 1), (4, 4))  # largest batch, lanes; 8 beyond: they fill a vector and keep activations in cache


class Kind(IntEnum):
    """What an operation does; the kernels' numbers (network.h)."""

    SPARSE = 0  # a convolution of stride 1, or a linear layer
    MAX_POOL = 1
    AVERAGE_POOL = 2
    PHASES = 3  # takes the input of a strided convolution apart, so that its stride is 1
    ADD = 4
    CONCAT = 5
    POINTWISE = 6
    NORM = 7
    COPY = 8  # to a tensor of other sides
    SPLIT = 9  # forward nothing; backward adds the gradient of a view


NEEDS_INPUT = (Kind.SPARSE, Kind.POINTWISE, Kind.NORM)  # their backward pass reads their input


@dataclass(kw_only=True)
class Geometry:
    """Sides and padding of a tensor, in positions (a position is one float per lane).

    The padding right of a row is the padding left of the next, so a row takes `pitch` >= width + pad_w.
    """

    channels: int
    height: int
    width: int
    pad_h: int = 0
    pad_w: int = 0
    pitch: int = 0

    @property
    def plane(self) -> int:
        """Positions of one channel."""
        return (self.height + 2 * self.pad_h) * self.pitch + self.pad_w

    @property
    def interior(self) -> int:
        """Positions before a channel's first element."""
        return self.pad_h * self.pitch + self.pad_w

    @property
    def positions(self) -> int:
        """Positions of all channels."""
        return self.channels * self.plane


@dataclass(kw_only=True)
class Tensor:
    """One activation.

    Attributes:
        geometry: shared by a tensor and its views.
        view_of: number of the tensor whose values these are; None: its own.
        learns: weights lie before it, so its gradient is computed.
        cut: it is the output of a ReLU: its gradient is 0 where it is not positive.
    """

    geometry: Geometry
    view_of: int | None = None
    learns: bool = False
    cut: bool = False


@dataclass(kw_only=True)
class Operation:
    """One kernel's work.

    Attributes:
        kind: what it does.
        layer: of the plan.
        input: number of the tensor it reads.
        second: of the other one it reads (or, of a SPLIT, the view), else None.
        output: of the tensor it writes; of a SPLIT, its input.
        relu: max(., 0) on the output.
        weights: number among the layers with weights, of a SPARSE one.
        flat: one run over all rows, across their padding, instead of one per row.
    """

    kind: Kind
    layer: Layer
    input: int
    output: int
    second: int | None = None
    relu: bool = False
    weights: int | None = None
    flat: bool = False

    @property
    def reads(self) -> list[int]:
        """Tensors it reads; none of a SPLIT."""
        return [t for t in (self.input, self.second) if t is not None] if self.kind != Kind.SPLIT else []


@dataclass(kw_only=True)
class Schedule:
    """Operations in order.

    Attributes:
        operations: what to do.
        tensors: what they work on; 0 is the input.
        logits: number of the last layer's tensor.
        lanes: samples of a micro-batch.
        input_relu: the input is cut by a ReLU as it is read.
    """

    lanes: int
    operations: list[Operation] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    logits: int = 0
    input_relu: bool = False


def lanes_for(batch: int) -> int:
    """Samples of a micro-batch."""
    return next((lanes for largest, lanes in LANES if batch <= largest), 8)


def padding_of(layer: Layer) -> tuple[int, int]:
    """Padding that an operation's input needs; a strided convolution's is inside its phases."""
    if isinstance(layer, Conv) and pair(layer.stride, 1) == (1, 1):
        return pair(layer.padding, 0)
    return (0, 0)


def pair(values: tuple[int, ...], default: int) -> tuple[int, int]:
    """(height, width) of a 1- or 2-dimensional setting."""
    return (values[0], values[1]) if len(values) == 2 else (default, values[0])


def sides(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(channels, height, width) of one sample."""
    return (shape[0], *pair(shape[1:], 1)) if len(shape) > 1 else (shape[0], 1, 1)
