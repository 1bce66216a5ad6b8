"""What was predicted for every kind of board and runtime of a run, beside what its devices measured."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import median
from typing import Any, get_args

from coordinator.budgets import Budget
from coordinator.hardware import Profile, Runtime
from coordinator.planner import Cost, Load, Planner
from coordinator.report.spent import Spent, figure
from wire.errors import ExportError
from wire.settings import Training
from wire.ticket import Ticket

RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
UNKNOWN = Profile(title="unknown", cores=1, ram_mb=1)  # memory can be predicted without knowing the board


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One figure, estimated before and measured after; None: not known.

    Attributes:
        estimated: by `hidenseek plan`.
        measured: by the devices.
    """

    estimated: float | None
    measured: float | None

    @property
    def error(self) -> float | None:
        """How much too high the estimate is: 0.1 for a tenth; None where one of the two is missing."""
        if self.estimated is None or not self.measured:
            return None
        return self.estimated / self.measured - 1


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """All devices of one profile and runtime: a median step, the largest memory, the largest arena.

    Attributes:
        profile, runtime: theirs.
        devices: how many.
        step_ms, peak_mb, arena_mb: estimated and measured.
    """

    profile: str
    runtime: str
    devices: int
    step_ms: Prediction
    peak_mb: Prediction
    arena_mb: Prediction

    def as_row(self) -> dict[str, Any]:
        """For CSV and JSON."""
        row: dict[str, Any] = {"profile": self.profile, "runtime": self.runtime, "devices": self.devices}
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, Prediction):
                row |= {
                    f"{one.name}_estimated": value.estimated,
                    f"{one.name}_measured": value.measured,
                    f"{one.name}_error": value.error,
                }
        return row


def training_of(settings: str) -> Training:
    """How a run's devices trained, from its stored settings; what a setting does not say is the default."""
    return Training(**json.loads(settings).get("training", {}))


def predict(
    ticket: Ticket, training: Training, devices: Iterable[Spent], known: Mapping[str, Profile]
) -> list[Predicted]:
    """What was to be expected of a run's devices, by profile and runtime in this order.

    Args:
        ticket: what they trained.
        training: their batch counts.
        devices: what they measured.
        known: profiles by name; of a device with another one only memory is predicted.
    """
    together: dict[tuple[str, str], list[Spent]] = defaultdict(list)
    for one in devices:
        if one.runtime in RUNTIMES:
            together[one.profile, one.runtime].append(one)
    return [
        _predicted(ticket, training, members, known.get(profile)) for (profile, _), members in sorted(together.items())
    ]


def _predicted(ticket: Ticket, training: Training, members: Sequence[Spent], profile: Profile | None) -> Predicted:
    first = members[0]
    cost = _cost(ticket, training, members, profile)
    arena = first.runtime == "sparse" and cost is not None  # the runtime that says what it has planned
    return Predicted(
        profile=first.profile,
        runtime=first.runtime,
        devices=len(members),
        step_ms=Prediction(
            estimated=cost.step_ms if cost and profile else None, measured=figure(median, members, "step_ms")
        ),
        peak_mb=Prediction(estimated=cost.peak_mb if cost else None, measured=figure(max, members, "peak_mb")),
        arena_mb=Prediction(
            estimated=cost.arena_mb if cost and arena else None, measured=figure(max, members, "arena_mb")
        ),
    )


def _cost(ticket: Ticket, training: Training, members: Sequence[Spent], profile: Profile | None) -> Cost | None:
    """Of the device with the most samples; None where the work cannot be counted here."""
    runtime = next(name for name in RUNTIMES if name == members[0].runtime)
    load = Load(training=training, samples=max(one.train_samples for one in members))
    try:
        return Planner(ticket=ticket, load=load).cost(profile or UNKNOWN, runtime, Budget(), training.batch)
    except (ExportError, ImportError):
        return None
