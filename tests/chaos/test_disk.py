"""No room left: on the disk of the coordinator and its broker, and on a device's card."""

from __future__ import annotations

import time

import pytest

from tests.chaos.disk import small_disk
from tests.chaos.fleet import COORDINATOR, Fleet
from tests.chaos.trial import judge, trial

pytestmark = pytest.mark.chaos

DEVICES = [f"pi-{number}" for number in range(1, 6)]
FULL_S = 4.0


def _ended(fleet: Fleet, name: str) -> bool:
    return any(f"{name} ended with exit code 25" in line for line in fleet.timeline.lines)


@pytest.mark.parametrize("kind", ["mosquitto", "nats"])
def test_full_disk_of_the_coordinator(kind: str, seed: int) -> None:
    """It and its broker write nothing for a while, are killed on top of it, and lose nothing."""
    with (
        small_disk(64 << 10) as disk,
        trial("full disk of the coordinator", kind, seed, DEVICES, rounds=25, per_round=5, hub=disk.path) as fleet,
    ):
        fleet.wait(lambda: fleet.round >= 5, 90, "five rounds")
        fleet.timeline.note("the coordinator's disk is full")
        fleet.wait(lambda: disk.fill() and _ended(fleet, COORDINATOR), 60, "the coordinator says that its disk is full")
        full = time.monotonic()
        fleet.wait(lambda: time.monotonic() > full + FULL_S, 60, "it stays so")
        fleet.kill("broker", 0.2)
        disk.empty()
        fleet.timeline.note("the coordinator's disk has room again")
        fleet.wait(lambda: fleet.over, 120, "the run is over")
        judge(fleet)


def test_full_card_of_a_device(seed: int) -> None:
    """The fleet goes on without the device; it takes part again when there is room."""
    with (
        small_disk(1 << 10) as card,
        trial(
            *("full card of a device", "mosquitto", seed, DEVICES),
            rounds=25,
            per_round=4,
            cards={DEVICES[0]: card.path / "state"},
        ) as fleet,
    ):
        fleet.wait(lambda: fleet.round >= 5, 90, "five rounds")
        fleet.timeline.note(f"the card of {DEVICES[0]} is full")
        fleet.wait(lambda: card.fill() and _ended(fleet, DEVICES[0]), 60, "the device says that its card is full")
        full, before = time.monotonic(), fleet.round
        fleet.wait(lambda: time.monotonic() > full + FULL_S, 60, "it stays so")
        assert fleet.round > before, "the others go on"
        card.empty()
        again = fleet.round
        fleet.timeline.note(f"the card of {DEVICES[0]} has room again")
        fleet.wait(lambda: fleet.over, 120, "the run is over")
        ledger = judge(fleet)
        assert any(device == DEVICES[0] and number > again for number, device in ledger.confirmed)
