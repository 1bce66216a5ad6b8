"""The work of the sparse runtime's training step, counted from the schedule that devices execute.

It is something fixed and something for every kept block, so that pruning can put a price on a block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from export.work import Counted, Work, total
from wire.arena import plan_workspace
from wire.lowering import make_schedule
from wire.plan import LayerShape, Plan
from wire.schedule import Kind, Operation, Schedule, lanes_for
from wire.ticket import Ticket

FLOAT = 4  # bytes
ROWS = 4  # output rows the kernels share an index between
CODE_BYTES = 5  # an index and its signs
UPDATE_BYTES = 32  # of a kept weight: score, gradient and Adam's two moments, read and written
VECTOR = 4  # floats: NEON's; wider ones change a few rows' padding
KINDS = {Kind.MAX_POOL: "pool", Kind.NORM: "norm", Kind.POINTWISE: "pointwise"}  # all others: "stream"


@dataclass(frozen=True, kw_only=True)
class PlanWork:
    """A training step of a plan, whatever its tickets keep.

    Attributes:
        fixed: the same for all tickets.
        block: of one kept block of each layer with weights.
        workspace: bytes of a micro-batch's activations.
    """

    fixed: Mapping[str, Work]
    block: tuple[Mapping[str, Work], ...]
    workspace: int

    def of(self, ticket: Ticket) -> dict[str, Work]:
        """A ticket's whole step."""
        blocks = [layer.blocks.size for layer in ticket.kept_layers]
        return total([self.fixed, *(scaled(one, count) for one, count in zip(self.block, blocks, strict=True))])


def scaled(work: Mapping[str, Work], times: float) -> dict[str, Work]:
    """So many times the work."""
    return {
        kind: Work(flops=one.flops * times, moved=one.moved * times, calls=one.calls * times)
        for kind, one in work.items()
    }


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
    schedule = schedule_of(plan, batch)
    rounds = -(-batch // schedule.lanes)
    lanes = FLOAT * rounds * schedule.lanes  # bytes of a position, of all micro-batches
    samples = Work(moved=2 * lanes * schedule.tensors[0].geometry.positions, calls=rounds)
    fixed: list[Mapping[str, Work]] = [{"stream": samples, "step": Work(calls=1)}]
    block: list[Mapping[str, Work]] = []
    shapes = plan.weight_layers()
    for operation in schedule.operations:
        numbers = [*operation.reads, operation.output]
        positions = sum(schedule.tensors[number].geometry.positions for number in numbers)
        if operation.kind != Kind.SPARSE:
            kind = KINDS.get(operation.kind, "stream")
            fixed.append({kind: Work(moved=2 * lanes * positions, calls=rounds)})
            continue
        assert operation.weights is not None
        shape, passes = shapes[operation.weights], 3 if schedule.tensors[operation.input].learns else 2
        kind = "convolution" if shape.uses_per_weight > 1 else "linear"
        fixed.append({kind: Work(moved=passes * lanes * positions)})
        one = _block(shape, blocks[operation.weights], operation, schedule, passes * rounds)
        block.append({kind: one, "update": Work(moved=UPDATE_BYTES * blocks[operation.weights])})
    return PlanWork(fixed=total(fixed), block=tuple(block), workspace=plan_workspace(schedule).nbytes)


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
