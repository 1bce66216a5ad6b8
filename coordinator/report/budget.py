"""A run held against limits: which device exceeded which, for CI."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from coordinator.config import NOT_YAML
from coordinator.report.spent import Spent
from wire.errors import ConfigError, did_you_mean

METRICS = {  # limit in the file -> unit
    "step_ms": "ms",
    "step_p95_ms": "ms",
    "round_s": "s",
    "round_j": "J",
    "peak_mb": "MB",
    "round_bytes": "bytes",
    "temperature_c": "°C",
}
Limits = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits; a device's own count before its profile's, those before everyone's."""

    everyone: Limits
    profiles: dict[str, Limits]
    devices: dict[str, Limits]

    def of(self, device: Spent) -> Limits:
        """The limits of one device."""
        return {**self.everyone, **self.profiles.get(device.profile, {}), **self.devices.get(device.name, {})}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A limit that was exceeded, or could not be checked: `value` is None where nothing was measured."""

    device: str
    metric: str
    value: float | None
    limit: float

    def __str__(self) -> str:
        unit = METRICS[self.metric]
        limit = f"limit {self.limit:,g} {unit}"
        if self.value is None:
            return f"{self.device}: {self.metric} not measured, {limit}"
        return f"{self.device}: {self.metric} {self.value:,.5g} {unit}, {limit}"


def check(devices: Iterable[Spent], budget: Budget) -> list[Finding]:
    """Every limit that a device exceeded, or that nothing was measured for, in order of device and metric."""
    found = []
    for device in devices:
        for metric, limit in sorted(budget.of(device).items()):
            value = getattr(device, metric)
            if value is None or value > limit:
                found.append(Finding(device=device.name, metric=metric, value=value, limit=limit))
    return found


def load(path: Path) -> Budget:
    """Read a budget file: mappings `everyone`, `profiles` and `devices` of limits.

    Raises:
        ConfigError: if it cannot be read, or a name or value in it is wrong.
    """
    try:
        tree = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", where=str(path)) from error
    except NOT_YAML as error:
        raise ConfigError(f"not YAML: {str(error).partition(chr(10))[0]:.200}", where=str(path)) from error
    top = _mapping(tree, str(path), ("everyone", "profiles", "devices"))
    if not any(top.values()):
        raise ConfigError("no limit in it", where=str(path), hint=f"Known limits: {', '.join(METRICS)}")
    return Budget(
        everyone=_limits(top.get("everyone"), f"{path}: everyone"),
        **{
            part: {
                str(name): _limits(limits, f"{path}: {part}.{name}")
                for name, limits in _mapping(top.get(part), f"{path}: {part}").items()
            }
            for part in ("profiles", "devices")
        },
    )


def _limits(tree: Any, where: str) -> Limits:
    found = _mapping(tree, where, tuple(METRICS))
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise ConfigError(f"{name}: found {value!r}, expected a number from 0 up", where=where)
    return {name: float(value) for name, value in found.items()}


def _mapping(tree: Any, where: str, names: tuple[str, ...] = ()) -> dict[Any, Any]:
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"found {tree!r:.80}, expected a mapping", where=where)
    for name in tree if names else ():
        if name not in names:
            raise ConfigError(f"{name}: no such setting", where=where, hint=did_you_mean(str(name), list(names)))
    return tree
