"""Where everything lies: a ticket's layers as kernel operations, their tensors, and one arena for all of it.

Everything here happens once, at load, and is a function of (ticket, batch): what a training step
will touch is known, to the byte, before the first one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

from edge_client.kernels import library
from wire.errors import PlanError
from wire.plan import AvgPool, Conv, Flatten, Linear, MaxPool, Plan, Relu
from wire.ticket import KeptLayer, Ticket

BLOCK = 4  # rows the kernels share a position between; other blocks become these or single rows
ALIGN = 64  # bytes: a cache line, and the widest vector
OFFSET_BITS = 28  # a code is an input offset in floats and 4 sign bits
CHUNK_FLOATS = 1024  # of an output gradient, 4 rows of which stay in a first-level cache of 32 KiB


@dataclass(kw_only=True)
class Geometry:
    """One activation's shape and padding, in positions (a position is one float per lane).

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

    def feature_offsets(self) -> NDArray[np.int64]:
        """Position of every element in row-major (channel, row, column) order, int64 (elements,)."""
        c, h, w = np.indices((self.channels, self.height, self.width), dtype=np.int64).reshape(3, -1)
        return c * self.plane + self.interior + h * self.pitch + w


@dataclass(kw_only=True)
class Step:
    """One kernel operation: reads tensor `number`, writes tensor `number + 1`."""

    kind: int
    layer: Conv | Linear | MaxPool | AvgPool
    relu: bool = False
    kept: KeptLayer | None = None
    flat: bool = False  # one run over all rows, across their padding, instead of one per row


@dataclass(kw_only=True)
class Codes:
    """A layer's kept weights as the kernels walk them.

    Attributes:
        block: rows per group, 4 or 1.
        row_start: uint32 (rows + 1,), first code of every group.
        offsets: int64 (blocks,), input offset of every block, in floats.
        order: ticket-order number of every weight in kernel order, int64 (kept,).
    """

    block: int
    row_start: NDArray[np.uint32]
    offsets: NDArray[np.int64]
    order: NDArray[np.int64]


@dataclass(kw_only=True)
class Layout:
    """A plan as kernel operations.

    Attributes:
        steps: operations in order.
        tensors: len(steps) + 1 activations.
        lanes: samples of a micro-batch.
        input_relu: the plan starts with a ReLU on its input.
    """

    steps: list[Step]
    tensors: list[Geometry]
    lanes: int
    input_relu: bool

    def needs_gradient(self, tensor: int) -> bool:
        """Whether any weights lie before a tensor."""
        return any(step.kind == library.SPARSE for step in self.steps[:tensor])


def lanes_for(batch: int) -> int:
    """Samples of a micro-batch: 8 fill a vector and keep a layer's activations in cache; small batches take fewer."""
    return next((lanes for lanes in (1, 4) if batch <= lanes), 8)


def plan_layout(ticket: Ticket, *, lanes: int, width: int) -> Layout:
    """Turn a ticket's plan into operations and tensors.

    Args:
        ticket: the network.
        lanes: samples of a micro-batch.
        width: floats of the processor's vectors; decides between runs over rows and over planes.
    """
    plan = ticket.plan
    steps, shapes, input_relu = _steps(plan, ticket.kept_layers)
    tensors = [Geometry(channels=c, height=h, width=w) for c, h, w in shapes]
    for step, tensor in zip(steps, tensors, strict=False):
        if step.kind == library.SPARSE and isinstance(step.layer, Conv) and _strides(step.layer) == (1, 1):
            tensor.pad_h, tensor.pad_w = pair(step.layer.padding, 0)
    tensors[0].pitch = tensors[0].width + tensors[0].pad_w
    for step, source, target in zip(steps, tensors, tensors[1:], strict=False):
        target.pitch = target.width + target.pad_w
        if step.kind == library.SPARSE and isinstance(step.layer, Conv) and source.pitch >= target.pitch:
            rows = target.height * _vectors(target.width * lanes, width)
            plane = _vectors(((target.height - 1) * source.pitch + target.width) * lanes, width)
            step.flat = target.height > 1 and plane <= rows
            if step.flat:
                target.pitch = source.pitch
    if max(tensor.positions for tensor in tensors) * lanes >= 1 << OFFSET_BITS:
        raise PlanError(f"plan '{plan.name}' has an activation too large for the sparse kernels")
    return Layout(steps=steps, tensors=tensors, lanes=lanes, input_relu=input_relu)


def _vectors(run: int, width: int) -> float:
    """Cost of a run in vectors; a rest shorter than a vector costs one."""
    return -(-run // width) + 0.5  # starting a run costs about half a vector more


def pair(values: tuple[int, ...], default: int) -> tuple[int, int]:
    """(height, width) of a 1- or 2-dimensional setting."""
    return (values[0], values[1]) if len(values) == 2 else (default, values[0])


def _strides(layer: Conv) -> tuple[int, int]:
    return pair(layer.stride, 1)


def _steps(plan: Plan, kept: Sequence[KeptLayer]) -> tuple[list[Step], list[tuple[int, int, int]], bool]:
    """Operations, the (channels, height, width) of their tensors, and whether the input is cut by a ReLU."""
    shape = plan.input_shape
    shapes = [(shape[0], 1, 1) if len(shape) == 1 else (shape[0], 1, shape[1]) if len(shape) == 2 else shape[:3]]
    steps: list[Step] = []
    input_relu = False
    weights = iter(kept)
    for layer, out in zip(plan.layers, plan.shapes()[1:], strict=True):
        leaving = (out[0], *pair(out[1:], 1)) if len(out) > 1 else (out[0], 1, 1)
        match layer:
            case Flatten():
                continue  # a view: the linear layer's offsets know where the elements lie
            case Relu() if not steps:
                input_relu = True
                continue
            case Relu():
                steps[-1].relu = True
                continue
            case Conv():
                stride, padding = _strides(layer), pair(layer.padding, 0)
                if stride != (1, 1):
                    c, h, w = shapes[-1]
                    phases = (-(-(h + 2 * padding[0]) // stride[0]), -(-(w + 2 * padding[1]) // stride[1]))
                    steps.append(Step(kind=library.PHASES, layer=layer))
                    shapes.append((c * stride[0] * stride[1], *phases))
                steps.append(Step(kind=library.SPARSE, layer=layer, kept=next(weights)))
            case Linear():
                steps.append(Step(kind=library.SPARSE, layer=layer, kept=next(weights)))
            case MaxPool():
                steps.append(Step(kind=library.MAX_POOL, layer=layer))
            case AvgPool():
                steps.append(Step(kind=library.AVERAGE_POOL, layer=layer))
        shapes.append(leaving)
    return steps, shapes, input_relu  # type: ignore[return-value]


def codes_for(kept: KeptLayer, source: Geometry, lanes: int) -> Codes:
    """Arrange a layer's kept blocks for the kernels: groups of rows in order, in a group by input offset."""
    fan_in = kept.shape.fan_in
    group, position = np.divmod(kept.blocks.astype(np.int64), fan_in)
    block = BLOCK if kept.block % BLOCK == 0 else 1
    split = kept.block // block
    group = (group[:, None] * split + np.arange(split)).reshape(-1)
    position = np.repeat(position, split)
    first = np.arange(group.size, dtype=np.int64) * block  # ticket-order number of the block's first weight
    arranged = np.lexsort((position, group)) if split > 1 else slice(None)
    group, position, first = group[arranged], position[arranged], first[arranged]
    rows = kept.shape.out_units // block
    row_start = np.zeros(rows + 1, dtype=np.uint32)
    np.cumsum(np.bincount(group.astype(np.intp), minlength=rows), out=row_start[1:])
    return Codes(
        block=block,
        row_start=row_start,
        offsets=_position_offsets(kept, source)[position] * lanes,
        order=(first[:, None] + np.arange(block)).reshape(-1),
    )


def _position_offsets(kept: KeptLayer, source: Geometry) -> NDArray[np.int64]:
    """Input offset, in positions, that each of a layer's `fan_in` weight positions starts from."""
    layer = kept.shape.layer
    if isinstance(layer, Linear):
        return source.feature_offsets()
    kernel, (stride_h, stride_w) = pair(layer.kernel, 1), _strides(layer)
    channels = kept.shape.fan_in // prod(kernel)
    c, row, column = np.indices((channels, *kernel), dtype=np.int64).reshape(3, -1)
    plane = (c * stride_h + row % stride_h) * stride_w + column % stride_w
    return plane * source.plane + row // stride_h * source.pitch + column // stride_w


@dataclass(kw_only=True)
class Buffer:
    """Bytes needed from the first to the last tick of their life; `offset` is where the planner put them."""

    nbytes: int
    born: int
    dies: int
    offset: int = field(default=-1)


def place(buffers: Sequence[Buffer]) -> int:
    """Give buffers offsets so that no two alive at the same tick overlap; return the bytes of the whole.

    Largest first, each at the lowest gap that holds it: within a few percent of the lower bound on
    chains of layers, and the same every time.
    """
    placed: list[Buffer] = []
    for buffer in sorted(buffers, key=lambda b: (-b.nbytes, b.born)):
        size = -(-buffer.nbytes // ALIGN) * ALIGN
        offset = 0
        for other in sorted(placed, key=lambda b: b.offset):
            if other.dies < buffer.born or buffer.dies < other.born:
                continue
            if offset + size <= other.offset:
                break
            offset = max(offset, other.offset + -(-other.nbytes // ALIGN) * ALIGN)
        buffer.offset = offset
        placed.append(buffer)
    return max((b.offset + -(-b.nbytes // ALIGN) * ALIGN for b in placed), default=0)


@dataclass(kw_only=True)
class Workspace:
    """Where the activations of one micro-batch lie, in bytes.

    Attributes:
        values: one buffer per tensor.
        gradients: one per tensor, None where no gradient is needed.
        argmax: one per step, None where it is no max pool.
        nbytes: of the whole.
    """

    values: list[Buffer]
    gradients: list[Buffer | None]
    argmax: list[Buffer | None]
    nbytes: int


def plan_workspace(layout: Layout) -> Workspace:
    """Work out when every activation is born and dies, and share memory between those that never meet.

    Tick 0 packs the input, tick i + 1 runs step i forward, tick n + 1 is the loss, tick 2 n + 1 - i runs
    step i backward.
    """
    n = len(layout.steps)

    def backward(i: int) -> int:
        return 2 * n + 1 - i

    values: list[Buffer] = []
    gradients: list[Buffer | None] = []
    argmax: list[Buffer | None] = []
    for i, tensor in enumerate(layout.tensors):
        nbytes = tensor.positions * layout.lanes * 4
        dies = n + 1 if i == n else i + 1
        cut = i > 0 and layout.steps[i - 1].relu  # its own ReLU: backward must know where it was positive
        if i < n and (layout.steps[i].kind == library.SPARSE or (cut and layout.steps[i].kind != library.MAX_POOL)):
            dies = backward(i)
        if i > 0 and layout.steps[i - 1].kind == library.MAX_POOL:
            dies = max(dies, backward(i - 1))  # it tells the pool's backward where its input was positive
        values.append(Buffer(nbytes=nbytes, born=i, dies=dies))
        needed = layout.needs_gradient(i)
        gradients.append(Buffer(nbytes=nbytes, born=backward(i), dies=backward(i - 1)) if needed else None)
    for i, step in enumerate(layout.steps):
        pool = step.kind == library.MAX_POOL
        target = layout.tensors[i + 1]
        count = target.channels * target.height * target.width * layout.lanes * argmax_size(step.layer) if pool else 0
        argmax.append(Buffer(nbytes=count, born=i + 1, dies=backward(i)) if pool else None)
    everything = [b for b in (*values, *gradients, *argmax) if b is not None]
    return Workspace(values=values, gradients=gradients, argmax=argmax, nbytes=place(everything))


def argmax_size(layer: object) -> int:
    """Bytes that hold a place in a pooling window."""
    window = prod(layer.kernel) if isinstance(layer, MaxPool) else 1
    return 1 if window <= 1 << 8 else 2 if window <= 1 << 16 else 4
