"""What training a ticket will take on a kind of board with every runtime, whether it may, and how it fits: *estimated*.

Counted work and tensors (`export.onnx_work`, `export.executorch_work`, `coordinator.sparse_work`), a core's rates
(`coordinator.rates`), a process's memory (`coordinator.footprint`), a board's power: no device is asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from coordinator import estimate, footprint, rates
from coordinator.budgets import Budget
from coordinator.hardware import Profile, Runtime
from export.work import Counted
from wire.settings import Training
from wire.ticket import Ticket

FLOAT = 4  # bytes
MESSAGE_BYTES = 200  # a message beside its mask: signature, names, counts; the announcements of tests/golden
MEBI = 1.048576  # MB in a MiB


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a federation asks of a device.

    Attributes:
        training: its batch and epochs count.
        samples: that a device trains on; a fifth more to test with.
        per_round: devices whose votes are announced with every round.
        rounds_per_day: that a device takes part in.
    """

    training: Training = field(default_factory=Training)
    samples: int = 300
    per_round: int = 10
    rounds_per_day: float = 24

    @property
    def steps(self) -> int:
        """Of a round."""
        return self.training.epochs * math.ceil(self.samples / self.training.batch)


@dataclass(frozen=True, kw_only=True)
class Excess:
    """A limit that an estimate does not keep."""

    limit: str
    value: float
    allowed: float

    @property
    def share(self) -> float:
        """By how much: 0.25 for a quarter."""
        return self.value / self.allowed - 1 if self.allowed else math.inf


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A ticket on a kind of board with one runtime. None: the profile lacks a figure for it.

    Attributes:
        runtime: its name.
        batch: samples of a step.
        arena_mb: tensors alive at once in a training step, 1e6 bytes.
        peak_mb: largest resident memory of the process, samples included; of an app, only what it adds.
        step_ms: milliseconds of a training step on one core.
        round_s: seconds of local training in a round.
        round_j: joules of the whole board in that time, idle power included.
        round_bytes: sent up in a round, at most: a raw mask.
        day_bytes: sent and received in a day, at most.
        excess: limits that are not kept; empty: it fits.
    """

    runtime: Runtime
    batch: int
    arena_mb: float
    peak_mb: float
    step_ms: float | None
    round_s: float | None
    round_j: float | None
    round_bytes: int
    day_bytes: int
    excess: tuple[Excess, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether all limits are kept."""
        return not self.excess


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What to do on one kind of board.

    Attributes:
        costs: of every runtime that it has, for the batch chosen.
        pick: the fastest that fits; if none does, the one that is least above a limit.
        batch: the federation's, or the largest of its halves that fits.
        density: the largest share of kept weights, scaled evenly, at which the sparse runtime fits; None if it never
            does, or is not there. What is above 1 is 1.
    """

    costs: tuple[Cost, ...]
    pick: Cost
    density: float | None

    @property
    def batch(self) -> int:
        """Samples of a step."""
        return self.pick.batch


@dataclass
class Planner:
    """Estimates for one ticket; counts each runtime's work once.

    Args:
        ticket: what is trained.
        load: what is asked of devices.
        runtimes: to look at.
    """

    ticket: Ticket
    load: Load
    runtimes: Sequence[Runtime] = ("sparse", "onnx", "executorch")
    _counted: dict[tuple[Runtime, int], Counted] = field(default_factory=dict)

    def choose(self, profile: Profile, budget: Budget) -> Choice | None:
        """The best there is on a kind of board; None if it has none of the runtimes."""
        names = [name for name in self.runtimes if name in profile.runtimes]
        if not names:
            return None
        batch, found = self.load.training.batch, []
        while True:
            found.append([self.cost(profile, name, budget, batch) for name in names])
            if batch == 1 or any(cost.fits for cost in found[-1]):
                break
            batch //= 2
        costs = found[-1] if any(cost.fits for cost in found[-1]) else found[0]
        return Choice(
            costs=tuple(costs), pick=min(costs, key=_order), density=self._density(profile, budget, costs[0].batch)
        )

    def cost(self, profile: Profile, runtime: Runtime, budget: Budget, batch: int) -> Cost:
        """One runtime on one kind of board."""
        ticket, load = self.ticket, self._load(batch)
        samples = FLOAT * math.prod(ticket.plan.input_shape) * (load.samples + load.samples // 5)
        core = rates.core_of(profile)
        if runtime == "sparse":
            blocks = [keep.block for keep in ticket.layers]
            arena = estimate.arena_bytes(ticket.plan, blocks, ticket.magnitudes, batch).of(ticket)
            process = estimate.process_bytes(ticket.plan, blocks, ticket.magnitudes, batch, profile).of(ticket)
            timed = estimate.step_seconds(ticket.plan, blocks, profile, batch)
            step_s = timed.of(ticket) if timed else None
        else:
            counted = self.count(runtime, batch)
            arena = counted.alive
            process = footprint.process(ticket.plan, runtime, profile) + footprint.peak(counted, ticket.kept, runtime)
            step_s = rates.seconds(counted.work, runtime, core) if core else None
            if step_s is not None:
                step_s *= profile.calibration.get(runtime, 1.0)
        round_s = None if step_s is None else step_s * load.steps
        up = math.ceil(ticket.kept / 8) + MESSAGE_BYTES
        down = math.ceil(ticket.kept * math.log2(load.per_round + 1) / 8) + MESSAGE_BYTES
        watts = _watts(profile)
        cost = Cost(
            runtime=runtime,
            batch=batch,
            arena_mb=arena / 1e6,
            peak_mb=(process + samples) / 1e6,
            step_ms=None if step_s is None else step_s * 1e3,
            round_s=round_s,
            round_j=None if round_s is None or watts is None else watts * round_s,
            round_bytes=up,
            day_bytes=math.ceil((up + down) * load.rounds_per_day),
        )
        return replace(cost, excess=tuple(_excess(cost, profile, budget)))

    def count(self, runtime: Runtime, batch: int) -> Counted:
        """The work of a graph runtime; ExecuTorch's takes seconds.

        Raises:
            ExportError: if the runtime cannot express the plan.
        """
        if (runtime, batch) not in self._counted:
            self._counted[runtime, batch] = self._count(runtime, batch)
        return self._counted[runtime, batch]

    def _count(self, runtime: Runtime, batch: int) -> Counted:
        if runtime == "onnx":
            from export import onnx_work

            return onnx_work.count(self.ticket, self._load(batch).training, footprint.EVALUATION_BATCH)
        from export import executorch_work

        return executorch_work.count(self.ticket.plan, self.ticket.kept, batch)

    def _load(self, batch: int) -> Load:
        return replace(self.load, training=replace(self.load.training, batch=batch))

    def _density(self, profile: Profile, budget: Budget, batch: int) -> float | None:
        """See `Choice.density`: time, energy and memory are a constant and a price for every kept block."""
        if "sparse" not in profile.runtimes or "sparse" not in self.runtimes:
            return None
        ticket, load = self.ticket, self._load(batch)
        blocks = [keep.block for keep in ticket.layers]
        memory = estimate.process_bytes(ticket.plan, blocks, ticket.magnitudes, batch, profile)
        samples = self.cost(profile, "sparse", Budget(), batch).peak_mb * 1e6 - memory.of(ticket)
        costs = [(memory, _least(budget.peak_mb, profile.usable_ram_mb), 1e-6, samples)]
        timed, watts = estimate.step_seconds(ticket.plan, blocks, profile, batch), _watts(profile)
        if timed is not None:
            costs += [(timed, budget.step_ms, 1e3, 0.0), (timed, budget.round_s, load.steps, 0.0)]
            costs += [(timed, budget.round_j, load.steps * watts, 0.0)] if watts else []
        scale = 1 / ticket.density
        for cost, limit, unit, more in costs:
            if limit is not None:
                free, used = limit / unit - more - cost.fixed, cost.of(ticket) - cost.fixed
                scale = min(scale, free / used if used else scale)
        return ticket.density * scale if scale > 0 else None


def _order(cost: Cost) -> tuple[float, float]:
    """Those that fit first, the faster the better; then by the largest excess."""
    worst = max((one.share for one in cost.excess), default=-math.inf)
    return worst, cost.step_ms if cost.step_ms is not None else math.inf


def _watts(profile: Profile) -> float | None:
    """Of a board with one core at work; where nobody has measured it idle, what it takes with all of them."""
    if profile.load_w is None or profile.idle_w is None:
        return profile.load_w
    return profile.idle_w + (profile.load_w - profile.idle_w) / profile.cores


def _least(*limits: float | None) -> float | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _excess(cost: Cost, profile: Profile, budget: Budget) -> list[Excess]:
    found = [
        Excess(limit=limit, value=value, allowed=allowed)
        for limit, allowed in budget.limits()
        if (value := getattr(cost, limit, None)) is not None and value > allowed
    ]
    memory = profile.usable_ram_mb or profile.ram_mb * MEBI
    if profile.system == "linux" and cost.peak_mb > memory:
        found.append(Excess(limit="memory of the board", value=cost.peak_mb, allowed=memory))
    return found
