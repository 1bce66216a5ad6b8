"""A plan lowered to the sparse runtime's schedule.

ReLUs become part of the operation before them, flattening and recalling become other names of a tensor. A tensor
that several operations read, and through which a gradient flows, gets a view for each further reader: the same
values, a gradient of its own, and a `SPLIT` that adds that one to the tensor's on the way back.
"""

from __future__ import annotations

from math import prod

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
from wire.plan import Plan
from wire.schedule import Geometry, Kind, Operation, Schedule, Tensor, padding_of, pair, sides

KINDS: dict[type[Layer], Kind] = {
    Conv: Kind.SPARSE,
    Linear: Kind.SPARSE,
    MaxPool: Kind.MAX_POOL,
    AvgPool: Kind.AVERAGE_POOL,
    Add: Kind.ADD,
    Concat: Kind.CONCAT,
    Norm: Kind.NORM,
    Relu: Kind.POINTWISE,
    Relu6: Kind.POINTWISE,
    Hardswish: Kind.POINTWISE,
    Gelu: Kind.POINTWISE,
}


def make_schedule(plan: Plan, *, lanes: int, width: int) -> Schedule:
    """Turn a plan into operations and tensors.

    Args:
        plan: the network.
        lanes: samples of a micro-batch.
        width: floats of the processor's vectors; decides between runs over rows and over planes.
    """
    builder = _Builder(plan, lanes)
    for position in range(len(plan.layers)):
        builder.add(position)
    schedule = builder.schedule
    schedule.logits = builder.tensor_of[-1]
    _give_views(schedule)
    _lay_out(schedule, width)
    return schedule


class _Builder:
    """Operations in the plan's order, before views and padding."""

    def __init__(self, plan: Plan, lanes: int) -> None:
        self._plan, self._shapes, self._sources = plan, plan.shapes(), plan.sources()
        self.schedule = Schedule(lanes=lanes)
        self.tensor_of = [self._tensor(sides(plan.input_shape), learns=False)]  # of every value so far
        self._weights = 0
        roots = list(range(len(plan.layers) + 1))
        for position, layer in enumerate(plan.layers):
            if isinstance(layer, Flatten | Recall):
                roots[position + 1] = roots[self._sources[position][0]]
        readers = [
            roots[source]
            for layer, sources in zip(plan.layers, self._sources, strict=True)
            for source in sources
            if not isinstance(layer, Flatten | Recall)
        ]
        self._alone = [readers.count(root) == 1 for root in roots]  # one layer reads the value

    def add(self, position: int) -> None:
        """Append what a layer does."""
        layer, sources = self._plan.layers[position], self._sources[position]
        source = self.tensor_of[sources[0]]
        leaving = sides(self._shapes[position + 1])
        if isinstance(layer, Flatten | Recall) or (
            isinstance(layer, Relu) and self._alone[sources[0]] and self._cut(source)
        ):
            self.tensor_of.append(source)
            return
        kind = KINDS[type(layer)]
        if isinstance(layer, Conv) and pair(layer.stride, 1) != (1, 1):
            source = self._phases(layer, source)
        if kind == Kind.POINTWISE:  # whatever sides a flattened tensor still has
            leaving = self._sides_of(source)
        if kind in (Kind.ADD, Kind.CONCAT, Kind.NORM):
            self.tensor_of[sources[0]] = source = self._with_sides(layer, sources[0])
        second = self._with_sides(layer, layer.source) if isinstance(layer, Add | Concat) else None
        self.tensor_of.append(self._operate(kind, layer, source, leaving, second))

    def _phases(self, layer: Conv, source: int) -> int:
        """The input of a strided convolution, taken apart."""
        (channels, *before), padding, stride = self._sides_of(source), pair(layer.padding, 0), pair(layer.stride, 1)
        height, width = (-(-(n + 2 * p) // s) for n, p, s in zip(before, padding, stride, strict=True))
        return self._operate(Kind.PHASES, layer, source, (channels * prod(stride), height, width))

    def _with_sides(self, layer: Layer, value: int) -> int:
        """The tensor of a value, copied if a flattened one still has the sides from before."""
        tensor, wanted = self.tensor_of[value], sides(self._shapes[value])
        if self._sides_of(tensor) != wanted:
            tensor = self.tensor_of[value] = self._operate(Kind.COPY, layer, tensor, wanted)
        return tensor

    def _cut(self, tensor: int) -> bool:
        """Let the operation that makes a tensor apply a ReLU to it; whether it can."""
        made = next((o for o in reversed(self.schedule.operations) if o.output == tensor), None)
        if made is None:
            self.schedule.input_relu = True
        elif made.kind in (Kind.POINTWISE, Kind.CONCAT, Kind.COPY):
            return False
        else:
            made.relu = True
        self.schedule.tensors[tensor].cut = True
        return True

    def _operate(
        self, kind: Kind, layer: Layer, source: int, leaving: tuple[int, int, int], second: int | None = None
    ) -> int:
        tensors = self.schedule.tensors
        read = [source] if second is None else [source, second]
        target = self._tensor(leaving, learns=kind == Kind.SPARSE or any(tensors[t].learns for t in read))
        weights = None
        if kind == Kind.SPARSE:
            weights, self._weights = self._weights, self._weights + 1
        self.schedule.operations.append(
            Operation(kind=kind, layer=layer, input=source, second=second, output=target, weights=weights)
        )
        return target

    def _tensor(self, size: tuple[int, int, int], *, learns: bool) -> int:
        geometry = Geometry(channels=size[0], height=size[1], width=size[2])
        self.schedule.tensors.append(Tensor(geometry=geometry, learns=learns))
        return len(self.schedule.tensors) - 1

    def _sides_of(self, tensor: int) -> tuple[int, int, int]:
        geometry = self.schedule.tensors[tensor].geometry
        return geometry.channels, geometry.height, geometry.width


def _give_views(schedule: Schedule) -> None:
    """A view for every reader of a learning tensor but its first, and their SPLITs behind the tensor's maker."""
    taken: set[int] = set()
    splits: dict[int, list[Operation]] = {}
    for operation in schedule.operations:
        for slot in ("input", "second"):
            number = getattr(operation, slot)
            if number is None or not schedule.tensors[number].learns:
                continue
            if number not in taken:
                taken.add(number)
                continue
            whole = schedule.tensors[number]
            schedule.tensors.append(Tensor(geometry=whole.geometry, view_of=number, learns=True, cut=whole.cut))
            view = len(schedule.tensors) - 1
            setattr(operation, slot, view)
            splits.setdefault(number, []).append(
                Operation(kind=Kind.SPLIT, layer=operation.layer, input=number, second=view, output=number)
            )
    ordered = []
    for operation in schedule.operations:
        ordered += [operation, *splits.get(operation.output, [])]
    schedule.operations = ordered


def _lay_out(schedule: Schedule, width: int) -> None:
    """Padding for the convolutions that read a tensor, and the distance between its rows."""
    tensors, lanes = schedule.tensors, schedule.lanes
    for operation in schedule.operations:
        if operation.kind == Kind.SPARSE and (padding := padding_of(operation.layer)) != (0, 0):
            source = tensors[operation.input].geometry
            source.pad_h, source.pad_w = max(source.pad_h, padding[0]), max(source.pad_w, padding[1])
    tensors[0].geometry.pitch = tensors[0].geometry.width + tensors[0].geometry.pad_w
    for operation in schedule.operations:
        if operation.kind == Kind.SPLIT:
            continue
        source, target = tensors[operation.input].geometry, tensors[operation.output].geometry
        target.pitch = target.width + target.pad_w
        if operation.kind == Kind.SPARSE and isinstance(operation.layer, Conv) and source.pitch >= target.pitch:
            rows = target.height * _vectors(target.width * lanes, width)
            plane = _vectors(((target.height - 1) * source.pitch + target.width) * lanes, width)
            operation.flat = target.height > 1 and plane <= rows
            if operation.flat:
                target.pitch = source.pitch


def _vectors(run: int, width: int) -> float:
    """Cost of a run in vectors; a rest shorter than a vector costs one."""
    return -(-run // width) + 0.5  # starting a run costs about half a vector more
