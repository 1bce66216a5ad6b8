"""What a training step of the sparse runtime will take on a board nobody has measured: time and memory, *estimated*.

Time of a step on one core, a sum because small cores hardly overlap the two::

    2 x multiply-adds / (KERNEL_EFFICIENCY x clock x flops per cycle) + bytes / bandwidth + STEP_CYCLES / clock

A kept weight is used three times per sample: forward, weight gradient, input gradient (not in the first layer).
Memory is the runtime's arena, from the schedule that devices execute too (`SparseRuntime.memory_plan()` has the exact
one; a test holds the two within 5 %), plus what a Python process takes. The device's recordings come on top.

All of it is a constant plus a price per kept block, so each becomes a `Ceiling` to prune under.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from coordinator.ceiling import Ceiling
from coordinator.hardware import Profile
from wire.arena import plan_workspace
from wire.errors import ConfigError
from wire.lowering import make_schedule
from wire.plan import LayerShape, Plan
from wire.schedule import Schedule, lanes_for
from wire.ticket import Ticket

BATCH = 16
# Share of a core's peak that the kernels reach on kept weights. On x86, one core, ten tickets (five nets, density
# 0.10 and 0.02): 0.7-0.8 in convolutions with 128-bit vectors and no fused multiply-add, 0.3-0.6 with 256-bit
# ones; with 0.5 the whole estimate is 0.7-1.6 times the measured step. On ARM it is assumed.
KERNEL_EFFICIENCY = 0.5
STEP_CYCLES = 300_000  # Python around a step: 0.1 ms at 2.7 GHz on x86, `mlp` at density 0.02; on ARM assumed
# Python, numpy, paho and the client, kernels loaded, without a network. On x86-64 Linux the whole estimate is
# within 3 % of the measured peak of those ten; on ARM it is assumed.
PROCESS_BYTES = 40_000_000
TICKET_BYTES = 8  # a kept weight takes outside the arena: the unpacked ticket
CODE_BYTES = 5  # a block's index and signs
UPDATE_BYTES = 32  # score, gradient and Adam's two moments, read and written once a step
ACTIVATION_USES = 6  # an activation is written and read twice, and so is its gradient
ROWS = 4  # output rows the kernels share an index between
VECTOR = 4  # floats of a vector: NEON's; wider ones change a few rows' padding


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """What a training step takes: something fixed, and something for every kept block.

    Attributes:
        fixed: units whatever is kept.
        prices: units per block of each layer.
    """

    fixed: float
    prices: tuple[float, ...]

    def of(self, ticket: Ticket) -> float:
        """Units of a whole step."""
        blocks = [layer.blocks.size for layer in ticket.kept_layers]
        return self.fixed + sum(count * price for count, price in zip(blocks, self.prices, strict=True))


def step_seconds(plan: Plan, blocks: Sequence[int], profile: Profile, batch: int = BATCH) -> StepCost | None:
    """Seconds of a step on one core of a kind of hardware; None if the profile lacks a figure for it.

    Args:
        plan: the network.
        blocks: rows per block of each weight layer.
        profile: the hardware.
        batch: samples of a step.
    """
    if profile.clock_ghz is None or profile.flops_per_cycle is None or profile.memory_gb_s is None:
        return None
    flops = KERNEL_EFFICIENCY * profile.clock_ghz * 1e9 * profile.flops_per_cycle
    bandwidth = profile.memory_gb_s * 1e9
    schedule = _schedule(plan, batch)
    lanes = schedule.lanes
    rounds = -(-batch // lanes)
    prices = []
    for shape, block in zip(plan.weight_layers(), blocks, strict=True):
        operations = 2 * _training_uses(shape) * block * rounds * lanes
        moved = UPDATE_BYTES * block + CODE_BYTES * _codes(shape, block) * _passes(shape) * rounds
        prices.append(operations / flops + moved / bandwidth)
    stored = sum(tensor.geometry.positions for tensor in schedule.tensors if tensor.view_of is None)
    activations = 4 * rounds * lanes * stored
    fixed = ACTIVATION_USES * activations / bandwidth + STEP_CYCLES / (profile.clock_ghz * 1e9)
    return StepCost(fixed=fixed, prices=tuple(prices))


def arena_bytes(plan: Plan, blocks: Sequence[int], magnitudes: str = "constant", batch: int = BATCH) -> StepCost:
    """Bytes of the sparse runtime's arena, one thread, Adam.

    Args:
        plan: the network.
        blocks: rows per block of each weight layer.
        magnitudes: "constant", or "normal", whose weights are stored.
        batch: samples of a step.
    """
    weight = 4 + 4 + 8 + (8 if magnitudes == "normal" else 0)  # score, gradient, two moments
    codes = [_codes(shape, block) for shape, block in zip(plan.weight_layers(), blocks, strict=True)]
    rows = [
        shape.out_units * code // block for shape, code, block in zip(plan.weight_layers(), codes, blocks, strict=True)
    ]
    return StepCost(
        fixed=plan_workspace(_schedule(plan, batch)).nbytes + 4 * sum(rows) + 8 * plan.classes,
        prices=tuple(weight * block + CODE_BYTES * code for block, code in zip(blocks, codes, strict=True)),
    )


def process_bytes(plan: Plan, blocks: Sequence[int], magnitudes: str = "constant", batch: int = BATCH) -> StepCost:
    """Bytes of the whole device process, without its recordings."""
    arena = arena_bytes(plan, blocks, magnitudes, batch)
    prices = (price + TICKET_BYTES * block for price, block in zip(arena.prices, blocks, strict=True))
    return StepCost(fixed=arena.fixed + PROCESS_BYTES, prices=tuple(prices))


def macs_budget(macs: int) -> Ceiling:
    """At most `macs` multiply-adds in one sample's forward pass."""
    _positive(macs, "--budget-macs")
    return Ceiling(
        option="--budget-macs",
        limit=macs,
        fixed=0,
        price=lambda shape, block: shape.uses_per_weight * block,
        what="{} multiply-adds",
        notes={"budget-macs": macs},
    )


def time_budget(plan: Plan, milliseconds: float, name: str, profile: Profile) -> Ceiling:
    """At most `milliseconds` for a training step of 16 on one core, as estimated.

    Raises:
        ConfigError: if the profile lacks a figure.
    """
    _positive(milliseconds, "--budget-ms")
    empty = step_seconds(plan, [1] * len(plan.weight_layers()), profile)
    if empty is None:
        raise ConfigError(f"profile '{name}' lacks figures", where="--profile")

    def price(shape: LayerShape, block: int) -> int:
        cost = step_seconds(plan, [block] * len(plan.weight_layers()), profile)
        assert cost is not None  # as above
        return round(cost.prices[shape.index] * 1e12)

    return Ceiling(
        option="--budget-ms",
        limit=round(milliseconds * 1e9),
        fixed=round(empty.fixed * 1e12),
        price=price,
        what=f"{{}} ms on {name}",
        scale=10**9,
        decimals=2,
        notes={
            "budget-ms": float(milliseconds),
            "profile": f"{name} ({figures(profile)})",
        },
    )


def memory_budget(plan: Plan, megabytes: float, blocks: Sequence[int], magnitudes: str = "constant") -> Ceiling:
    """At most `megabytes` (1e6 bytes) for the device process that trains, as estimated."""
    _positive(megabytes, "--budget-mb")
    cost = process_bytes(plan, blocks, magnitudes)
    return Ceiling(
        option="--budget-mb",
        limit=round(megabytes * 1e6),
        fixed=round(cost.fixed),
        price=lambda shape, _: round(cost.prices[shape.index]),
        what="{} MB",
        scale=10**6,
        decimals=2,
        notes={"budget-mb": float(megabytes)},
    )


def figures(profile: Profile) -> str:
    """What an estimate of time starts from, for people."""
    if not profile.has_figures:
        return "no figures"
    return f"{profile.clock_ghz:g} GHz x {profile.flops_per_cycle:g} flop/cycle, {profile.memory_gb_s:g} GB/s"


def _positive(value: float, option: str) -> None:
    if not 0 < value < 1e12:
        raise ConfigError(f"{value:g} found, a number above 0 and below 1e12 expected", where=option)


def _passes(shape: LayerShape) -> int:
    """Walks over a layer's kept weights in a step: the first layer's input needs no gradient."""
    return 3 if shape.index else 2


def _training_uses(shape: LayerShape) -> int:
    return _passes(shape) * shape.uses_per_weight


def _codes(shape: LayerShape, block: int) -> int:
    """Indices the kernels keep for a block; rows of different groups share none."""
    together = block % ROWS == 0 and shape.out_units // shape.groups % ROWS == 0
    return block // ROWS if together else block


@lru_cache(maxsize=4)  # asked for once for every board, and for every layer of a time budget
def _schedule(plan: Plan, batch: int) -> Schedule:
    return make_schedule(plan, lanes=lanes_for(batch), width=VECTOR)
