"""The work of the sparse runtime's training step, counted from the schedule that devices execute.

It is something fixed and something for every kept block, so that pruning can put a price on a block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from export.work import Counted, Work, far, total
from wire.arena import plan_workspace
from wire.layers import AvgPool, Gelu, MaxPool
from wire.lowering import make_schedule
from wire.plan import LayerShape, Plan
from wire.schedule import Kind, Operation, Schedule, lanes_for
from wire.ticket import Ticket

FLOAT = 4  # bytes
ROWS = 4  # output rows the kernels share an index between
CODE_BYTES = 5  # an index and its signs
UPDATE_BYTES = 32  # of a kept weight: score, gradient and Adam's two moments, read and written
VECTOR = 4  # floats: NEON's; wider ones change a few rows' padding
NEAR = 1e6  # bytes of values and gradients that an operation finds in a cache: half of 2 MB, for others were there too
# Of operations without weights: loops that take some cycles for every value. All others, "stream", only move them.
# "gelu" is a pointwise one of its own: 30 times the cycles.
LOOPS = {
    Kind.MAX_POOL: "max pool",
    Kind.AVERAGE_POOL: "average pool",
    Kind.PHASES: "phases",
    Kind.NORM: "norm",
    Kind.POINTWISE: "pointwise",
}


@dataclass(frozen=True, kw_only=True)
class PlanWork:
    """A training step of a plan, whatever its tickets keep.

    Attributes:
        fixed: the same for all tickets.
        operations: of it, that of each operation of the schedule.
        block: of one kept block of each layer with weights.
        workspace: bytes of a micro-batch's activations.
    """

    fixed: Mapping[str, Work]
    operations: tuple[Mapping[str, Work], ...]
    block: tuple[Mapping[str, Work], ...]
    workspace: int

    def of(self, ticket: Ticket) -> dict[str, Work]:
        """A ticket's whole step."""
        blocks = [layer.blocks.size for layer in ticket.kept_layers]
        return total([self.fixed, *(scaled(one, count) for one, count in zip(self.block, blocks, strict=True))])


def scaled(work: Mapping[str, Work], times: float) -> dict[str, Work]:
    """So many times the work."""
    return {kind: one * times for kind, one in work.items()}


def codes(shape: LayerShape, block: int) -> int:
    """Indices the kernels keep for a block; rows of different groups share none."""
    together = block % ROWS == 0 and shape.out_units // shape.groups % ROWS == 0
    return block // ROWS if together else block


def count(ticket: Ticket, batch: int) -> Counted:
    """Count a training step of a batch; what is alive is the workspace of one micro-batch, whatever the batch."""
    found = plan_work(ticket.plan, tuple(keep.block for keep in ticket.layers), batch)
    return Counted(work=found.of(ticket), alive=found.workspace, infer_alive=0)


@lru_cache(maxsize=8)  # asked for once for every board, and for every layer of a time budget
def plan_work(plan: Plan, blocks: Sequence[int], batch: int) -> PlanWork:
    """Count what a plan's tickets have in common.

    Args:
        plan: the network.
        blocks: rows per block of each layer with weights.
        batch: samples of a step.
    """
    schedule, shapes = schedule_of(plan, batch), plan.weight_layers()
    rounds = -(-batch // schedule.lanes)
    step = {"input": Work(values=batch * prod(plan.input_shape)), "step": Work(calls=1)}
    operations = tuple(
        total([_whatever_is_kept(operation, shapes, schedule, rounds), _far(operation, schedule, rounds)])
        for operation in schedule.operations
    )
    block: list[Mapping[str, Work]] = []
    for operation in schedule.operations:
        if operation.weights is not None:
            shape, rows = shapes[operation.weights], blocks[operation.weights]
            one = _block(shape, rows, operation, schedule, _passes(operation, schedule) * rounds)
            block.append({_kind(shape): one, "update": Work(moved=UPDATE_BYTES * rows)})
    return PlanWork(
        fixed=total([step, *operations]),
        operations=operations,
        block=tuple(block),
        workspace=plan_workspace(schedule).nbytes,
    )


def _whatever_is_kept(
    operation: Operation, shapes: Sequence[LayerShape], schedule: Schedule, rounds: int
) -> dict[str, Work]:
    """An operation's work on all micro-batches, forward and backward, but for that of kept weights."""
    lanes = rounds * schedule.lanes
    numbers = [*operation.reads, operation.output]
    moved = FLOAT * lanes * sum(schedule.tensors[number].geometry.positions for number in numbers)
    if operation.weights is not None:
        return {_kind(shapes[operation.weights]): Work(moved=_passes(operation, schedule) * moved)}
    if operation.kind not in LOOPS:
        return {"stream": Work(moved=2 * moved, calls=rounds)}
    of = operation.input if operation.kind == Kind.PHASES else operation.output
    geometry = schedule.tensors[of].geometry
    window = prod(operation.layer.kernel) if isinstance(operation.layer, AvgPool | MaxPool) else 1
    rows = geometry.channels * geometry.height
    kind = "gelu" if isinstance(operation.layer, Gelu) else LOOPS[operation.kind]
    return {kind: Work(values=lanes * rows * geometry.width * window, calls=rounds * rows)}


def _far(operation: Operation, schedule: Schedule, rounds: int) -> dict[str, Work]:
    """What an operation's micro-batches read and write beyond the caches: values forward, gradients too backward."""
    numbers = {*operation.reads, operation.output}
    passed = FLOAT * schedule.lanes * sum(schedule.tensors[number].geometry.positions for number in numbers)
    passes = rounds * (2 if operation.weights is None else 3)
    return scaled(far(2 * passed, NEAR), passes / 2)


def _kind(shape: LayerShape) -> str:
    return "linear" if shape.uses_per_weight == 1 else "convolution"


def _passes(operation: Operation, schedule: Schedule) -> int:
    """Walks over the kept weights: forward, weight gradient and, where it is needed, input gradient."""
    return 3 if schedule.tensors[operation.input].learns else 2


def _block(shape: LayerShape, block: int, operation: Operation, schedule: Schedule, walks: int) -> Work:
    """One kept block, met in so many walks: forward, weight and input gradient of every micro-batch."""
    indices = codes(shape, block)
    runs = 1 if operation.flat else schedule.tensors[operation.output].geometry.height
    return Work(
        flops=2 * walks * block * shape.uses_per_weight * schedule.lanes,
        moved=walks * CODE_BYTES * indices,
        calls=walks * indices * runs,
    )


@lru_cache(maxsize=8)
def schedule_of(plan: Plan, batch: int) -> Schedule:
    """What devices execute."""
    return make_schedule(plan, lanes=lanes_for(batch), width=VECTOR)
