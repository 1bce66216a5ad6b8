"""What a training step of the sparse runtime will take on a board nobody has measured: time and memory, *estimated*.

Time is that of the counted work (`coordinator.sparse_work`) at the core's rates (`coordinator.rates`). Memory is the
runtime's arena, from the schedule that devices execute too (`SparseRuntime.memory_plan()` has the exact one; a test
holds the two within 5 %), plus what a device's process takes (`coordinator.footprint`).

All of it is a constant plus a price per kept block, so each becomes a `Ceiling` to prune under.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coordinator import footprint, rates
from coordinator.ceiling import Ceiling
from coordinator.hardware import Profile
from coordinator.sparse_work import CODE_BYTES, codes, plan_work
from wire.errors import ConfigError
from wire.plan import LayerShape, Plan
from wire.ticket import Ticket

BATCH = 16


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
    core = rates.core_of(profile)
    if core is None:
        return None
    work, factor = plan_work(plan, tuple(blocks), batch), profile.calibration.get("sparse", 1.0)
    return StepCost(
        fixed=factor * rates.seconds(work.fixed, "sparse", core),
        prices=tuple(factor * rates.seconds(one, "sparse", core) for one in work.block),
    )


def arena_bytes(plan: Plan, blocks: Sequence[int], magnitudes: str = "constant", batch: int = BATCH) -> StepCost:
    """Bytes of the sparse runtime's arena, one thread, Adam.

    Args:
        plan: the network.
        blocks: rows per block of each weight layer.
        magnitudes: "constant", or "normal", whose weights are stored.
        batch: samples of a step.
    """
    weight = 4 + 4 + 8 + (8 if magnitudes == "normal" else 0)  # score, gradient, two moments
    indices = [codes(shape, block) for shape, block in zip(plan.weight_layers(), blocks, strict=True)]
    rows = [
        shape.out_units * index // block
        for shape, index, block in zip(plan.weight_layers(), indices, blocks, strict=True)
    ]
    return StepCost(
        fixed=plan_work(plan, tuple(blocks), batch).workspace + 4 * sum(rows) + 8 * plan.classes,
        prices=tuple(weight * block + CODE_BYTES * index for block, index in zip(blocks, indices, strict=True)),
    )


def process_bytes(
    plan: Plan,
    blocks: Sequence[int],
    magnitudes: str = "constant",
    batch: int = BATCH,
    profile: Profile | None = None,
) -> StepCost:
    """Bytes of the whole device process, without its recordings; without a profile, on an x86-64 PC."""
    arena = arena_bytes(plan, blocks, magnitudes, batch)
    prices = (price + footprint.TICKET_BYTES * block for price, block in zip(arena.prices, blocks, strict=True))
    return StepCost(fixed=arena.fixed + footprint.process(plan, "sparse", profile), prices=tuple(prices))


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
