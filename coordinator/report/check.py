"""A run held against the budgets of a devices.yaml: which device exceeded which limit, for CI."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from coordinator.budgets import UNITS
from coordinator.config import DevicesFile
from coordinator.report.spent import Spent


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A limit that was exceeded, or could not be checked: `value` is None where nothing was measured."""

    device: str
    metric: str
    value: float | None
    limit: float

    def __str__(self) -> str:
        unit = UNITS[self.metric]
        limit = f"limit {self.limit:,g} {unit}"
        if self.value is None:
            return f"{self.device}: {self.metric} not measured, {limit}"
        return f"{self.device}: {self.metric} {self.value:,.5g} {unit}, {limit}"


def check(devices: Iterable[Spent], file: DevicesFile) -> tuple[int, list[Finding]]:
    """How many limits apply, and those that a device exceeded or nothing was measured for, by device and metric."""
    applied, found = 0, []
    for device in devices:
        for metric, limit in sorted(file.budget_of(device.name, device.profile).limits()):
            applied += 1
            value = getattr(device, metric)
            if value is None or value > limit:
                found.append(Finding(device=device.name, metric=metric, value=value, limit=limit))
    return applied, found
