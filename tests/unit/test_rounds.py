"""The coordinator's state machine: selection, quorum, deadlines, restarts."""

from __future__ import annotations

import pytest

from coordinator import rounds
from coordinator.rounds import Announce, Appeared, Close, Finish, GiveUp, MaskStored, Rounds, Schedule, Tick, Vanished
from wire.errors import ConfigError

SCHEDULE = Schedule(rounds=2, per_round=3, quorum=2, deadline_s=10.0, start_devices=4, attempts=3)


def step(state: Rounds, event: rounds.Event, now_s: float) -> tuple[Rounds, list[rounds.Action]]:
    """Something happens; the same state, later, and what is to be done."""
    assert isinstance(state.online, set)
    match event:
        case Appeared():
            state.online.add(event.device)
        case Vanished():
            state.online.discard(event.device)
    return state, rounds.handle(state, event, now_s)


def gather(*devices: str, schedule: Schedule = SCHEDULE) -> tuple[Rounds, list[rounds.Action]]:
    """Bring devices online one after the other; return the state and all actions."""
    state, actions = Rounds(schedule=schedule, online=set()), list[rounds.Action]()
    for device in devices:
        state, more = step(state, Appeared(device=device), 0.0)
        actions += more
    return state, actions


def opened() -> Rounds:
    """A run whose first round is open."""
    state, _ = gather("a", "b", "c", "d")
    assert state.open
    return state


def test_nothing_opens_before_enough_devices_are_online() -> None:
    """start_devices gates the first round only."""
    assert gather("a", "b", "c")[1] == []
    state, actions = gather("a", "b", "c", "d")
    assert actions == [Announce(number=1, selected=state.selected, again=False)]
    assert len(state.selected) == 3


def test_selection_is_fixed_by_the_seed() -> None:
    """The same fleet draws the same devices, another seed others (some time)."""
    fleet = [f"d{i:02}" for i in range(30)]
    draws = {
        seed: gather(*fleet, schedule=Schedule(
            rounds=1, per_round=5, quorum=1, deadline_s=1, start_devices=30, seed=seed))[0].selected
        for seed in range(5)
    }  # fmt: skip
    assert len(set(draws.values())) == 5
    again = gather(*reversed(fleet), schedule=Schedule(
        rounds=1, per_round=5, quorum=1, deadline_s=1, start_devices=30, seed=3))[0]  # fmt: skip
    assert again.selected == draws[3]


def test_round_closes_when_every_selected_mask_is_in() -> None:
    """No waiting for a deadline when nobody is missing."""
    state = opened()
    first, second, third = state.selected
    for device in (first, second):
        state, actions = step(state, MaskStored(device=device), 1.0)
        assert actions == []
    state, actions = step(state, MaskStored(device=third), 1.0)
    assert actions == [Close(number=1), Announce(number=2, selected=state.selected, again=False)]


def test_deadline_closes_with_a_quorum() -> None:
    """Two of three are enough when the time is up, not before."""
    state = opened()
    for device in state.selected[:2]:
        state, _ = step(state, MaskStored(device=device), 1.0)
    assert step(state, Tick(), 9.9)[1] == []
    state, actions = step(state, Tick(), 10.0)
    assert actions[0] == Close(number=1)
    assert state.number == 2


def test_deadline_without_quorum_asks_other_devices_and_keeps_what_is_in() -> None:
    """The stored mask still counts; the round is announced again with more devices."""
    state = opened()
    state, _ = step(state, MaskStored(device=state.selected[0]), 1.0)
    before = state.selected
    state, actions = step(state, Tick(), 10.0)
    assert actions == [Announce(number=1, selected=state.selected, again=True)]
    assert set(state.selected) == {"a", "b", "c", "d"}
    assert state.arrived == {before[0]}
    state, actions = step(state, MaskStored(device=(set("abcd") - set(before)).pop()), 11.0)
    assert actions == []
    assert step(state, Tick(), 20.0)[1][0] == Close(number=1)


def test_run_gives_up_after_its_attempts() -> None:
    """No quorum, three times: the run stops and says how far it came."""
    state = opened()
    for now_s in (10.0, 20.0):
        state, actions = step(state, Tick(), now_s)
        assert isinstance(actions[0], Announce)
    state, actions = step(state, Tick(), 30.0)
    assert isinstance(actions[0], GiveUp)
    assert "round 1 has 0 of 2" in str(actions[0].error)
    assert step(state, Tick(), 99.0)[1] == []


def test_last_round_finishes_the_run() -> None:
    """After round 2 of 2 nothing opens."""
    state = opened()
    for number in (1, 2):
        for device in state.selected:
            state, actions = step(state, MaskStored(device=device), float(number))
    assert actions == [Close(number=2), Finish()]
    assert state.over
    assert not state.open


def test_mask_of_a_device_that_was_not_asked_changes_nothing() -> None:
    """Only selected devices bring a round nearer to its end."""
    state = opened()
    (outsider,) = set("abcd") - set(state.selected)
    assert step(state, MaskStored(device=outsider), 1.0)[1] == []
    assert not state.arrived


def test_vanished_devices_are_not_selected() -> None:
    """Who is offline when a round opens is not asked."""
    state = opened()
    gone = state.selected[0]
    state, _ = step(state, Vanished(device=gone), 1.0)
    for device in state.selected:
        state, _ = step(state, MaskStored(device=device), 2.0)
    assert state.number == 2
    assert gone not in state.selected
    assert len(state.selected) == 3


def test_later_round_waits_a_deadline_for_devices_to_come_back() -> None:
    """After an outage a round does not open with the first device alone."""
    state = opened()
    selected = state.selected
    for device in "abcd":
        state, _ = step(state, Vanished(device=device), 1.0)
    for device in selected:
        state, actions = step(state, MaskStored(device=device), 2.0)
    assert actions == [Close(number=1)]
    state, actions = step(state, Appeared(device="a"), 3.0)
    assert actions == []
    state, actions = step(state, Tick(), 12.0)
    assert actions == [Announce(number=2, selected=("a",), again=False)]


def test_resumed_round_is_announced_again_with_a_whole_deadline() -> None:
    """A restarted coordinator goes on with the masks it has."""
    state = Rounds(schedule=SCHEDULE, online=set())
    actions = rounds.resume(state, number=2, selected=("a", "b", "c"), arrived=frozenset("a"), due=False, now_s=100.0)
    assert actions == [Announce(number=2, selected=("a", "b", "c"), again=True)]
    assert step(state, Tick(), 109.9)[1] == []
    for device in "bc":
        state, actions = step(state, MaskStored(device=device), 101.0)
    assert actions == [Close(number=2), Finish()]


@pytest.mark.parametrize("due", [True, False])
def test_resumed_round_with_all_masks_closes_at_once(due: bool) -> None:
    """Killed after the last mask was stored, before or after the round was closed: the outcome is the same."""
    actions = rounds.resume(
        Rounds(schedule=SCHEDULE), number=2, selected=("a", "b"), arrived=frozenset("ab"), due=due, now_s=0.0
    )
    assert actions == [Close(number=2), Finish()]


@pytest.mark.parametrize(
    "wrong", [{"rounds": 0}, {"quorum": 4}, {"deadline_s": 0.0}, {"per_round": 0, "quorum": 0}, {"start_devices": 0}]
)
def test_contradictory_schedules_are_refused(wrong: dict[str, float]) -> None:
    """Each names the setting."""
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Schedule(**{"rounds": 2, "per_round": 3, "quorum": 2, "deadline_s": 1.0, "start_devices": 1} | wrong)  # type: ignore[arg-type]


def test_held_rounds_do_not_open_and_the_open_one_goes_on() -> None:
    """The first neither; once let go, the next opens at the next tick."""
    state, actions = gather()
    state.held = True
    for device in ("a", "b", "c", "d"):
        state, actions = step(state, Appeared(device=device), 0.0)
        assert actions == []
    state = opened()
    state.held = True
    asked = state.selected
    for device in asked:
        state, actions = step(state, MaskStored(device=device), 1.0)
    assert actions == [Close(number=1)]
    state, actions = step(state, Tick(), 1000.0)
    assert actions == []
    state.held = False
    state, actions = step(state, Tick(), 1001.0)
    assert [action.number for action in actions if isinstance(action, Announce)] == [2]
