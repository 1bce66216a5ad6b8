"""Every rule for why a device is slow, on a case made for it, and none on an ordinary fleet."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.report.causes import RULES, causes, hottest, slowest
from coordinator.report.spent import Spent

USUAL = Spent(
    name="pi-00", profile="pi-4", runtime="sparse", train_samples=100, rounds=3, step_ms=10.0, major_faults=2,
    involuntary_per_s=5.0, frequency_mhz=1800, temperature_c=55.0, throttled=0,
)  # fmt: skip
FLEET = [replace(USUAL, name=f"pi-{number:02}") for number in range(6)]
CASES = {
    "too little voltage": ({"throttled": 0x1}, "get_throttled 0x1"),
    "throttled": ({"throttled": 0x40000}, "at some time since it started"),
    "hot": ({"temperature_c": 84.0}, "84 °C"),
    "swapping": ({"major_faults": 5000}, "5,000 page faults read from storage; others 2"),
    "low clock": ({"frequency_mhz": 600}, "600 MHz; others of its profile 1,800 MHz"),
    "busy with other work": ({"involuntary_per_s": 400.0}, "400 times a second; from others 5"),
    "its runtime": ({"runtime": "onnx"}, "onnx: 30.0 ms; other runtimes on its profile 10.0 ms"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_cause_is_found_alone_with_its_evidence(name: str) -> None:
    """One thing differs, one cause is named."""
    other, evidence = CASES[name]
    slow = replace(USUAL, name="pi-99", step_ms=30.0, **other)  # type: ignore[arg-type]
    (cause,) = causes(slow, [*FLEET, slow])
    assert cause.name == name
    assert evidence in cause.evidence


def test_a_weak_board_is_slow_like_its_kind() -> None:
    """Two of them, against a fleet of faster ones."""
    weak = [replace(USUAL, name=name, profile="zero", step_ms=40.0, frequency_mhz=1000) for name in ("z-1", "z-2")]
    (cause,) = causes(weak[0], [*FLEET, *weak])
    assert (cause.name, cause.evidence) == (
        "its kind of board",
        "others of its profile take 40.0 ms too; other profiles 10.0 ms",
    )


def test_an_ordinary_device_has_no_cause_and_every_rule_has_a_case() -> None:
    """Nor has one that measured nothing."""
    nothing = Spent(name="x", profile="pi-4", runtime="sparse", train_samples=0)
    assert causes(FLEET[0], [*FLEET, nothing]) == []
    assert causes(nothing, [*FLEET, nothing]) == []
    assert {name for name, _ in RULES} == {*CASES, "its kind of board"}


def test_slow_is_held_against_the_fleet_and_hot_is_sorted() -> None:
    """The slowest first; nobody in an even fleet; those without a temperature are left out."""
    fleet = [*FLEET, replace(USUAL, name="b", step_ms=20.0, temperature_c=90.0), replace(USUAL, name="c", step_ms=30.0)]
    assert [one.name for one in slowest(fleet, 5)] == ["c", "b"]
    assert slowest(FLEET, 5) == []
    assert hottest([*fleet, replace(USUAL, name="d", temperature_c=None)], 1)[0].name == "b"
