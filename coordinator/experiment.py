"""One method on one task with one seed: everything that makes a simulation, as plain values; and what it came to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any

from coordinator import baselines, simulate
from coordinator.baselines.method import Task, make_settings
from coordinator.datasets import FederatedData, load, split
from coordinator.datasets.reduce import limit, validation
from coordinator.journal import Row
from coordinator.models import build_plan
from coordinator.rounds import Schedule
from coordinator.simulate import LAST_ROUNDS, Report
from wire.errors import ConfigError
from wire.plan import Plan, plan_to_data

SMOOTH = 3  # rounds whose mean must reach an accuracy for it to count as reached


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Who holds what; see `coordinator.datasets`.

    Attributes:
        name: of the data set.
        how: "natural", "shards", "dirichlet" or "iid".
        devices: how many; all people for "natural".
        classes_per_device: for "shards".
        alpha: for "dirichlet".
        limit: most training and test samples a device; None: all.
        validate: share of the training samples that trains; the others test instead of the test samples. False: no.
    """

    name: str = "har"
    how: str = "natural"
    devices: int = 100
    classes_per_device: int = 2
    alpha: float = 0.3
    limit: tuple[int, int] | None = None
    validate: float = False  # not 0.0: so runs on record say it, whose folders are named after a hash of it

    @property
    def title(self) -> str:
        """Short, for tables and folders."""
        detail = {"shards": f"-{self.classes_per_device}", "dirichlet": f"-{self.alpha:g}"}.get(self.how, "")
        return f"{self.name}-{self.how}{detail}" + (f"-later-{self.validate:g}" if self.validate else "")

    def load(self, seed: int) -> FederatedData:
        """Load the data set and share it out."""
        data = split(
            _dataset(self.name),
            self.how,
            devices=self.devices,
            classes_per_device=self.classes_per_device,
            alpha=self.alpha,
            seed=seed,
        )
        if self.limit is not None:
            data = limit(data, train=self.limit[0], test=self.limit[1], seed=seed)
        return validation(data, self.validate) if self.validate else data


def _plan(model: str, data: FederatedData) -> Plan:
    """The network for a data set."""
    if ":" not in model:
        return build_plan(model, input_shape=data.input_shape, classes=data.classes)
    from export.plan_from_torch import plan_from_module
    from export.user_module import load_module

    module, name = load_module(model)
    plan, _ = plan_from_module(module, data.input_shape, name)
    if plan.classes != data.classes:
        raise ConfigError(
            f"{model} tells {plan.classes} classes apart, {data.name} has {data.classes}", where="--model"
        )
    return plan


@lru_cache(maxsize=1)
def _dataset(name: str) -> Any:
    return load(name)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A simulation, but for its seed.

    Attributes:
        method: a name of `coordinator.baselines`, or "module:Class".
        settings: of the method; others have its defaults.
        data: who holds what.
        model: the network's name, or "module:Name" for an nn.Module of one's own; "" for the data set's usual one.
        rounds: how many.
        per_round: devices selected for a round.
        evaluate_every: rounds between two evaluations of the global network.
    """

    method: str = "hidenseek"
    settings: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    data: DataSettings = field(default_factory=DataSettings)
    model: str = ""
    rounds: int = 60
    per_round: int = 10
    evaluate_every: int = 5

    def about(self) -> dict[str, Any]:
        """All that makes the result, defaults filled in, as JSON values."""
        settings = asdict(make_settings(baselines.get(self.method).Config, self.settings))
        return {**asdict(self), "settings": settings, "model": self._model()}

    @property
    def folder(self) -> str:
        """A name for its folder: the same settings, the same folder."""
        digest = hashlib.sha256(json.dumps(self.about(), sort_keys=True).encode()).hexdigest()[:8]
        return f"{self.method.replace(':', '-')}-{self.data.title}-{digest}"

    def _model(self) -> str:
        return self.model or ("har-cnn" if self.data.name == "har" else "conv2")

    def run(self, seed: int, *, out: Path, workers: int, report: Report = lambda row: None) -> list[Row]:
        """Simulate, or go on with, the run in `out/<folder>/seed-<seed>`; return a row a round.

        Raises:
            HidenseekError: as loading, pruning and simulating do.
        """
        cls = baselines.get(self.method)
        data = self.data.load(seed)
        plan = _plan(self._model(), data)
        schedule = Schedule(
            rounds=self.rounds,
            per_round=self.per_round,
            quorum=self.per_round,
            deadline_s=1.0,
            start_devices=len(data.devices),
            seed=seed,
        )
        settings = make_settings(cls.Config, self.settings)
        task = Task(plan=plan, devices=tuple(data.devices), seed=seed)
        return simulate.run(
            lambda: cls(task, settings),
            data,
            simulate.Plan(schedule=schedule, evaluate_every=self.evaluate_every, workers=workers),
            folder=out / self.folder / f"seed-{seed}",
            about={**self.about(), "seed": seed, **({"plan": plan_to_data(plan)} if ":" in self._model() else {})},
            report=report,
        )

    def finished(self, seed: int, out: Path) -> list[Row] | None:
        """The rows of a run in `out` that is done, or None."""
        path = out / self.folder / f"seed-{seed}" / "rounds.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return rows if len(rows) == self.rounds else None

    def result(self, seed: int, rows: Sequence[Row]) -> dict[str, Any]:
        """What a run came to, accuracies as means of its last five rounds."""
        sent = sum(row["selected"] for row in rows)
        last = rows[-LAST_ROUNDS:]
        return {
            "data": self.data.title,
            "method": self.method,
            "settings": dict(self.settings),
            "model": self._model(),
            "seed": seed,
            **{name: mean_of(last, name) for name in ("seen", "unseen", "personalised")},
            "up_bytes_per_device_round": sum(row["up_bytes"] for row in rows) / sent,
            "down_bytes_per_device_round": sum(row["down_bytes"] for row in rows) / sent,
            "ideal_up_bytes_per_device_round": sum(row["ideal_up_bytes"] for row in rows) / sent,
            "rounds": len(rows),
            "cpu_seconds": round(sum(row["cpu_s"] for row in rows), 2),
            "peak_kb": max(row["peak_kb"] for row in rows),
        }


def mean_of(rows: Sequence[Row], name: str) -> float | None:
    """Mean of a column, or None if it was not taken in every row."""
    values = [row[name] for row in rows]
    return None if None in values or not values else round(fmean(values), 4)


def reach(rows: Sequence[Row], accuracy: float, name: str = "personalised") -> dict[str, float] | None:
    """What it took until the mean of three rounds in a row first reached an accuracy; None if it never did.

    Returns:
        rounds; bytes both ways, of all devices; cpu_seconds of local training, of all devices.
    """
    taken = [row for row in rows if row[name] is not None]
    for end in range(SMOOTH, len(taken) + 1):
        if fmean(row[name] for row in taken[end - SMOOTH : end]) >= accuracy:
            until = [row for row in rows if row["round"] <= taken[end - 1]["round"]]
            return {
                "rounds": len(until),
                "bytes": sum(row["up_bytes"] + row["down_bytes"] for row in until),
                "cpu_seconds": round(sum(row["cpu_s"] for row in until), 2),
            }
    return None
