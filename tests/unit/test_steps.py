"""The state machine of an asynchronous run: what closes a step, where a mask counts, restarts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator import steps
from coordinator.rounds import Action, Announce, Close, Finish
from coordinator.steps import Asynchrony, Steps, place, stored
from wire.errors import ConfigError, WireError
from wire.federation_messages import EVERYONE
from wire.topics import check_name

RULES = Asynchrony(buffer=2, staleness=2, decay=0.5)


def opened(number: int = 1, rounds: int = 5, **counted: int) -> Steps:
    """A run whose step `number` is open; devices and the step in which they have a vote."""
    by_step: dict[int, frozenset[str]] = {}
    for device, step in counted.items():
        by_step[step] = by_step.get(step, frozenset()) | {device}
    return steps.resume(Steps(rounds=rounds, asynchrony=RULES), number=number, counted=by_step)[0]


def announcement(number: int, *, again: bool = False) -> Announce:
    """A step open to all."""
    return Announce(number=number, selected=(EVERYONE,), again=again)


def test_everyone_is_no_device() -> None:
    """No device id can be taken for it."""
    with pytest.raises(ConfigError):
        check_name(EVERYONE, "device id")


def test_first_step_is_announced_once_to_everyone() -> None:
    """Nobody needs to be there: the announcement waits at the broker."""
    state, actions = steps.begin(Steps(rounds=5, asynchrony=RULES))
    assert actions == [announcement(1)]
    assert steps.begin(state) == (state, [])


def test_a_step_closes_with_its_last_mask_and_not_before() -> None:
    """Whoever sent it."""
    state, actions = stored(opened(), "a", 1)
    assert actions == []
    state, actions = stored(state, "b", 1)
    assert actions == [Close(number=1), announcement(2)]
    assert state.number == 2


def test_the_last_step_ends_the_run() -> None:
    """After it no mask is wanted."""
    state, actions = stored(opened(5, a=5), "b", 5)
    assert actions == [Close(number=5), Finish()]
    with pytest.raises(WireError, match="not open"):
        place(state, "c", 5)


def test_late_masks_count_until_they_are_too_old() -> None:
    """Of step 3, 4 and 5 in step 5; not of step 2."""
    state = opened(5)
    assert [place(state, "a", began) for began in (3, 4, 5)] == [5, 5, 5]
    with pytest.raises(WireError, match=r"too old.* step 3 or later"):
        place(state, "a", 2)


@pytest.mark.parametrize("began", [0, 6, 2**53])
def test_masks_of_steps_that_never_were_are_refused(began: int) -> None:
    """Whatever number a hostile device makes up."""
    with pytest.raises(WireError, match="not open"):
        place(opened(5), "a", began)


def test_before_the_first_step_nothing_is_wanted() -> None:
    """A run that is not resumed yet does not know what it has."""
    with pytest.raises(WireError, match="not open"):
        place(Steps(rounds=5, asynchrony=RULES), "a", 1)


def test_a_second_mask_counts_in_the_next_step() -> None:
    """Nobody has two votes in one step, and the mask is not lost; a third would be too old."""
    state = opened(3, rounds=9, a=3)
    assert place(state, "a", 3) == 4
    state, actions = stored(state, "a", 4)
    assert actions == []
    assert place(state, "a", 3) == 5
    with pytest.raises(WireError, match="too old"):
        place(state, "a", 2)
    assert place(state, "b", 2) == 3


def test_a_second_mask_in_the_last_step_is_refused() -> None:
    """It would count in none."""
    with pytest.raises(WireError, match="no step is left"):
        place(opened(5, a=5), "a", 4)


def test_a_step_that_has_its_masks_early_closes_at_once() -> None:
    """Both votes of step 2 were there before it opened."""
    state = opened(1, a=1, b=2, c=2)
    state, actions = stored(state, "d", 1)
    assert actions == [Close(number=1), announcement(2), Close(number=2), announcement(3)]
    assert state.number == 3


def test_resumed_step_is_announced_again() -> None:
    """With the masks that it has."""
    state, actions = steps.resume(Steps(rounds=5, asynchrony=RULES), number=2, counted={2: frozenset("a")})
    assert actions == [announcement(2, again=True)]
    assert stored(state, "b", 2)[1] == [Close(number=2), announcement(3)]


def test_resumed_step_with_all_its_masks_closes_at_once() -> None:
    """Killed after the last mask was stored, before or after the step was closed."""
    _, actions = steps.resume(Steps(rounds=5, asynchrony=RULES), number=2, counted={2: frozenset("ab")})
    assert actions == [Close(number=2), announcement(3)]


def test_resumed_after_its_end_it_is_over() -> None:
    """The final announcement is said again."""
    state, actions = steps.resume(Steps(rounds=5, asynchrony=RULES), number=6, counted={})
    assert (state.over, actions) == (True, [Finish()])


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(-1, 8)), max_size=60), st.integers(0, 60))
def test_in_any_order_everything_counts_once_and_a_restart_changes_nothing(
    sent: list[tuple[str, int]], killed_after: int
) -> None:
    """One vote a device and step, none too old, `buffer` in every closed step; as if there had been no restart."""
    state, actions = steps.begin(Steps(rounds=6, asynchrony=RULES))
    kept: dict[tuple[str, int], int] = {}
    closed: list[Action] = []
    for at, (device, began) in enumerate(sent):
        if at == killed_after:
            later = {n: frozenset(d for (d, _), where in kept.items() if where == n) for n in kept.values()}
            later = {n: devices for n, devices in later.items() if n >= state.number}
            again, actions = steps.resume(Steps(rounds=6, asynchrony=RULES), number=state.number, counted=later)
            assert [action for action in actions if isinstance(action, Close)] == []
            assert (again.number, again.counted, again.over) == (state.number, state.counted, state.over)
            state = again
        if (device, began) in kept:
            continue
        try:
            number = place(state, device, began)
        except WireError:
            continue
        kept[device, began] = number
        state, actions = stored(state, device, number)
        closed += [action for action in actions if isinstance(action, Close)]
    votes = [(device, number) for (device, _), number in kept.items()]
    assert len(votes) == len(set(votes))
    assert all(0 <= number - began <= RULES.staleness for (_, began), number in kept.items())
    for number in range(1, len(closed) + 1):
        assert sum(where == number for where in kept.values()) == RULES.buffer
    assert closed == [Close(number=number) for number in range(1, len(closed) + 1)]


@pytest.mark.parametrize(
    "wrong", [{"buffer": 0}, {"staleness": -1}, {"staleness": 101}, {"decay": 0.0}, {"decay": 1.1}, {"decay": 0.001}]
)
def test_impossible_rules_are_refused(wrong: dict[str, float]) -> None:
    """Each names the setting."""
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Asynchrony(**({"buffer": 2} | wrong))  # type: ignore[arg-type]


def test_held_steps_do_not_close_and_lose_no_mask() -> None:
    """Once let go, all that have their masks close at the next tick, in order; the first is not announced meanwhile."""
    held = Steps(rounds=5, asynchrony=RULES, held=True)
    assert steps.begin(held) == (held, [])
    state = replace(opened(a=1), held=True)
    for device, number in (("b", 1), ("a", 2), ("b", 2)):
        state, actions = stored(state, device, number)
        assert actions == []
    assert steps.begin(state) == (state, [])
    state, actions = steps.begin(replace(state, held=False))
    assert actions == [Close(number=1), announcement(2), Close(number=2), announcement(3)]
    assert steps.begin(state) == (state, [])
