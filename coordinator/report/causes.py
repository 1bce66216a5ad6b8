"""Why a device is slow: rules over what it measured, each with the evidence it was found by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from coordinator.report.spent import Spent, figure

SLOW = 1.2  # times the fleet's median step from which a cause is looked for
THROTTLED_NOW = 0xE  # frequency capped, throttled, soft temperature limit
LOW_VOLTAGE = 0x1
SINCE_BOOT = 16  # the same bits, shifted: at some time since the board started
HOT_C = 80.0  # a Raspberry Pi's firmware slows down from here on


@dataclass(frozen=True, kw_only=True)
class Cause:
    """A likely cause.

    Attributes:
        name: in a few words.
        evidence: what was measured, and what it is held against.
    """

    name: str
    evidence: str


Rule = Callable[[Spent, Sequence[Spent]], str | None]  # evidence, or None where the rule does not apply


def causes(device: Spent, fleet: Sequence[Spent]) -> list[Cause]:
    """Everything measured that may make a device slow, the likeliest first; empty if nothing does."""
    found = []
    for name, rule in RULES:
        evidence = rule(device, fleet)
        if evidence:
            found.append(Cause(name=name, evidence=evidence))
    return found


def slowest(fleet: Sequence[Spent], most: int) -> list[Spent]:
    """Devices whose median step is at least 1.2 times the fleet's, slowest first."""
    usual = _usual(fleet, "step_ms")
    slow = [one for one in fleet if one.step_ms is not None and usual and one.step_ms >= SLOW * usual]
    return sorted(slow, key=lambda one: (-(one.step_ms or 0), one.name))[:most]


def hottest(fleet: Sequence[Spent], most: int) -> list[Spent]:
    """Devices by their highest temperature."""
    known = [one for one in fleet if one.temperature_c is not None]
    return sorted(known, key=lambda one: (-(one.temperature_c or 0), one.name))[:most]


def _low_voltage(one: Spent, _: Sequence[Spent]) -> str | None:
    bits = one.throttled or 0
    return f"get_throttled 0x{bits:x}: under-voltage" if (bits | bits >> SINCE_BOOT) & LOW_VOLTAGE else None


def _throttled(one: Spent, _: Sequence[Spent]) -> str | None:
    bits = one.throttled or 0
    if bits & THROTTLED_NOW:
        return f"get_throttled 0x{bits:x}: slowed down when a round ended"
    if bits >> SINCE_BOOT & THROTTLED_NOW:
        return f"get_throttled 0x{bits:x}: slowed down at some time since it started"
    return None


def _hot(one: Spent, _: Sequence[Spent]) -> str | None:
    hot = one.temperature_c is not None and one.temperature_c >= HOT_C
    return f"{one.temperature_c:.0f} °C; boards slow down from about {HOT_C:.0f} °C" if hot else None


def _swapping(one: Spent, fleet: Sequence[Spent]) -> str | None:
    faults, usual = one.major_faults or 0, _usual(_others(one, fleet), "major_faults")
    far = faults > 100 * max(one.rounds, 1) and faults > 5 * (usual or 0)
    return f"{faults:,} page faults read from storage; others {usual or 0:,.0f}" if far else None


def _low_clock(one: Spent, fleet: Sequence[Spent]) -> str | None:
    usual = _usual([other for other in _others(one, fleet) if other.profile == one.profile], "frequency_mhz")
    low = one.frequency_mhz is not None and usual is not None and one.frequency_mhz < 0.85 * usual
    return f"{one.frequency_mhz:,.0f} MHz; others of its profile {usual:,.0f} MHz" if low else None


def _crowded(one: Spent, fleet: Sequence[Spent]) -> str | None:
    usual = _usual(_others(one, fleet), "involuntary_per_s") or 0.0
    rate = one.involuntary_per_s or 0.0
    far = rate > 50 and rate > 3 * usual
    return f"other processes took the processor {rate:,.0f} times a second; from others {usual:,.0f}" if far else None


def _runtime(one: Spent, fleet: Sequence[Spent]) -> str | None:
    others = [other for other in fleet if other.profile == one.profile and other.runtime != one.runtime]
    usual = _usual(others, "step_ms")
    if one.step_ms is None or usual is None or one.step_ms < SLOW * usual:
        return None
    return f"{one.runtime}: {one.step_ms:.1f} ms; other runtimes on its profile {usual:.1f} ms"


def _profile(one: Spent, fleet: Sequence[Spent]) -> str | None:
    same = _usual([other for other in _others(one, fleet) if other.profile == one.profile], "step_ms")
    rest = _usual([other for other in fleet if other.profile != one.profile], "step_ms")
    if one.step_ms is None or same is None or rest is None or one.step_ms > SLOW * same or same < SLOW * rest:
        return None
    return f"others of its profile take {same:.1f} ms too; other profiles {rest:.1f} ms"


RULES: tuple[tuple[str, Rule], ...] = (
    ("too little voltage", _low_voltage),
    ("throttled", _throttled),
    ("hot", _hot),
    ("swapping", _swapping),
    ("low clock", _low_clock),
    ("busy with other work", _crowded),
    ("its runtime", _runtime),
    ("its kind of board", _profile),
)


def _others(one: Spent, fleet: Sequence[Spent]) -> list[Spent]:
    return [other for other in fleet if other.name != one.name]


def _usual(fleet: Sequence[Spent], attribute: str) -> float | None:
    return figure(median, fleet, attribute)
