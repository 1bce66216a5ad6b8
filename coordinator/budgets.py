"""What a device may spend: limits in devices.yaml, for everyone, for a kind of hardware, for one board."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from coordinator.yaml_file import Strict

UNITS = {  # of every limit
    "peak_mb": "MB",
    "step_ms": "ms",
    "step_p95_ms": "ms",
    "round_s": "s",
    "round_j": "J",
    "round_bytes": "bytes",
    "day_bytes": "bytes",
    "temperature_c": "°C",
}


def _limit(description: str) -> float | None:
    found: float | None = Field(default=None, ge=0, description=description)
    return found


class Budget(Strict):
    """Limits; None: none. The planner holds estimates against them, `hidenseek report check` what devices measured."""

    peak_mb: float | None = _limit("largest resident memory of the training process, 1e6 bytes")
    step_ms: float | None = _limit("a training step (the median one), milliseconds")
    step_p95_ms: float | None = _limit("95 of 100 training steps take no longer, milliseconds")
    round_s: float | None = _limit("local training of a round, seconds")
    round_j: float | None = _limit("energy of a round's training, joules")
    round_bytes: float | None = _limit("payload bytes sent up in a round")
    day_bytes: float | None = _limit("payload bytes sent and received in a day (UTC)")
    temperature_c: float | None = _limit("of the processor when a round's training ends, degrees Celsius")

    def limits(self) -> Iterator[tuple[str, float]]:
        """Names of the limits that are set, and the limits."""
        for name in UNITS:
            if (value := getattr(self, name)) is not None:
                yield name, value

    def over(self, narrower: Budget | None) -> Budget:
        """These limits, but for those that a narrower budget sets itself."""
        return self if narrower is None else Budget(**{**dict(self.limits()), **dict(narrower.limits())})
