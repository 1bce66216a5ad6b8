"""Twenty devices, a broker and a coordinator in a storm of kill -9, bad weather, cuts, stalls and wrong clocks."""

from __future__ import annotations

import pytest

from tests.chaos.fleet import COORDINATOR
from tests.chaos.storm import Storm, plan
from tests.chaos.trial import judge, tell, trial

pytestmark = pytest.mark.chaos

DEVICES = [f"pi-{number:02}" for number in range(1, 21)]
KILLS = 55  # drawn for either storm; the few that find nobody to kill do not count
ROUNDS = 35  # more than the storm lasts


@pytest.mark.parametrize("kind", ["mosquitto", "nats"])
def test_nothing_acknowledged_is_lost_and_nothing_counted_twice(kind: str, seed: int) -> None:
    """Kill anything at any time: the run comes to its end, and the two sides' records agree."""
    with trial("storm", kind, seed, DEVICES, rounds=ROUNDS, per_round=8) as fleet:
        fleet.wait(lambda: fleet.masks > 0, 90, "the first mask is stored")
        Storm(fleet, plan(seed, DEVICES, KILLS, pause_s=0.1)).blow()
        tell(fleet.timeline.lines[-1])
        fleet.wait(lambda: fleet.announced_end, 180, "all rounds are done in fair weather")
        fleet.kill(COORDINATOR, 0.3)
        fleet.wait(lambda: fleet.over, 60, "everybody has heard the end")
        judge(fleet)
        assert sum(fleet.kills.values()) >= 50
