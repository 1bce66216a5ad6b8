"""Axes of charts: where values lie, and which ticks a person can read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

ROUND_STEPS = (1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis.

    Attributes:
        title: what it shows, with its unit.
        low, high: ends, in the unit of the values.
        ticks: values that get a grid line and a label.
        text: a tick's value -> its label.
        log: positions are logarithmic; then `low` is above 0.
    """

    title: str
    low: float
    high: float
    ticks: Sequence[float]
    text: Callable[[float], str]
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies between the ends, cut to [0, 1]."""
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(max(value, low))
        return min(max((at - low) / (high - low), 0.0), 1.0) if high > low else 0.5


def log_axis(title: str, values: Sequence[float], text: Callable[[float], str]) -> Axis:
    """A logarithmic axis around positive values: a tick at every power of ten, or more where that gives too few."""
    known = [value for value in values if value > 0] or [1.0]
    low = max(step for step in _round_steps(min(known)) if step <= min(known))
    most = 1.05 * max(known)  # the greatest value stays clear of the edge
    high = min(step for step in _round_steps(most) if step >= most)
    powers = [10.0**n for n in range(-9, 19)]
    ticks = [power for power in powers if low <= power <= high]
    if len(ticks) < 3:
        ticks = [power * step for power in powers for step in ROUND_STEPS[:3] if low <= power * step <= high]
    return Axis(title=title, low=low, high=high, ticks=ticks, text=text, log=True)


def share_axis(title: str, values: Sequence[float]) -> Axis:
    """An axis of shares in percent: up to 100 %, down to a round number below all values."""
    least = min([value for value in values if 0 <= value <= 1], default=0.0)
    step = next(step for step in (0.02, 0.05, 0.1, 0.2) if step == 0.2 or 1 - least <= 6 * step)
    low = max(math.floor(least / step - 1e-9) * step, 0.0)
    ticks = [max(1 - n * step, 0.0) for n in range(round((1 - low) / step) + 1)]
    return Axis(title=title, low=min(ticks), high=1.0, ticks=ticks[::-1], text=lambda value: f"{value:.0%}")


def amount_axis(title: str, most: float, text: Callable[[float], str]) -> Axis:
    """An axis from 0 up to a round number at or above the greatest value, with three to six ticks."""
    most = most or 1.0
    step = next(step for step in _round_steps(most / 5) if step >= most / 6)
    count = math.ceil(most / step - 1e-9)
    return Axis(title=title, low=0.0, high=count * step, ticks=[n * step for n in range(count + 1)], text=text)


def count_axis(title: str, last: int) -> Axis:
    """An axis 1, 2, ... `last` with at most twelve ticks or so."""
    step = next(base * 10**power for power in range(19) for base in (1, 5) if last <= 12 * base * 10**power)
    ticks = sorted({1, *range(step, last + 1, step)})
    return Axis(title=title, low=1, high=last, ticks=ticks, text=lambda value: f"{value:.0f}")


def _round_steps(value: float) -> list[float]:
    """1, 2, 5 and 10 times the power of ten at or below a positive value."""
    power = 10.0 ** math.floor(math.log10(value))
    return [power * step for step in ROUND_STEPS]
