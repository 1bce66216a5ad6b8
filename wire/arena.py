"""Where a schedule's activations lie: every buffer's life, and one block of memory shared by those that never meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from wire.layers import Layer, MaxPool, Norm
from wire.schedule import NEEDS_INPUT, Geometry, Kind, Operation, Schedule

ALIGN = 64  # bytes: a cache line, and the widest vector
FLOAT = 4  # bytes


@dataclass(kw_only=True)
class Buffer:
    """Bytes needed from the first to the last tick of their life; `offset` is where the planner put them."""

    nbytes: int
    born: int
    dies: int
    offset: int = field(default=-1)


@dataclass(kw_only=True)
class Workspace:
    """Where the activations of one micro-batch lie, in bytes.

    Attributes:
        values: one buffer per tensor; a view's is that of its tensor.
        gradients: one per tensor, None where no gradient is needed.
        extras: one per operation, None where its backward pass needs nothing besides tensors: the places of a max
            pool's winners, a normalisation's means and deviations.
        nbytes: of the whole.
    """

    values: list[Buffer]
    gradients: list[Buffer | None]
    extras: list[Buffer | None]
    nbytes: int


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


def plan_workspace(schedule: Schedule) -> Workspace:
    """Work out when every activation is born and dies, and share memory between those that never meet.

    Tick 0 packs the input, tick i + 1 runs operation i forward, tick n + 1 is the loss, tick 2 n + 1 - i runs
    operation i backward.
    """
    tensors, operations = schedule.tensors, schedule.operations
    n = len(operations)
    sizes = [FLOAT * schedule.lanes * tensor.geometry.positions for tensor in tensors]
    values = [Buffer(nbytes=size, born=0, dies=0) for size in sizes]
    gradients = [
        Buffer(nbytes=size, born=n + 1, dies=n + 1) if tensor.learns else None
        for size, tensor in zip(sizes, tensors, strict=True)
    ]
    extras: list[Buffer | None] = []
    for number, tensor in enumerate(tensors):
        if tensor.view_of is not None:
            values[number] = values[tensor.view_of]
    values[schedule.logits].dies = n + 1
    for i, operation in enumerate(operations):
        backward = 2 * n + 1 - i
        extra = _extra_bytes(operation, tensors[operation.output].geometry, schedule.lanes)
        extras.append(Buffer(nbytes=extra, born=i + 1, dies=backward) if extra else None)
        for number in operation.reads:
            again = operation.kind in NEEDS_INPUT or (tensors[number].cut and operation.kind != Kind.MAX_POOL)
            values[number].dies = max(values[number].dies, backward if again else i + 1)
            if (gradient := gradients[number]) is not None:
                gradient.born = backward
        made = operation.second if operation.kind == Kind.SPLIT else operation.output
        assert made is not None
        if (gradient := gradients[made]) is not None:
            gradient.dies = backward
        if operation.kind == Kind.SPLIT:
            continue
        values[made].born = i + 1
        if operation.kind == Kind.MAX_POOL:  # its output says where its input was positive
            values[made].dies = max(values[made].dies, backward)
    own = [value for value, tensor in zip(values, tensors, strict=True) if tensor.view_of is None]
    everything = [b for b in (*own, *gradients, *extras) if b is not None]
    return Workspace(values=values, gradients=gradients, extras=extras, nbytes=place(everything))


def place_bytes(layer: Layer) -> int:
    """Bytes that hold a place in a pooling window."""
    window = prod(layer.kernel) if isinstance(layer, MaxPool) else 1
    return 1 if window <= 1 << 8 else 2 if window <= 1 << 16 else 4


def _extra_bytes(operation: Operation, target: Geometry, lanes: int) -> int:
    match operation.layer:
        case MaxPool() if operation.kind == Kind.MAX_POOL:
            return target.channels * target.height * target.width * lanes * place_bytes(operation.layer)
        case Norm() if operation.kind == Kind.NORM:
            return 2 * FLOAT * operation.layer.groups * lanes
    return 0
