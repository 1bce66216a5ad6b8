"""Who is asked in a large round: a device finds it out from an announcement that is as long for any fleet."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator import rounds
from coordinator.draw import NAMED, Draw
from coordinator.rounds import Announce, Appeared, Close, MaskStored, Rounds, Schedule, Tick, Vanished
from tests.golden.make import MESSAGES
from wire import messages
from wire.federation_messages import Round
from wire.selection import LOTS, asked, lot

DRAW = Draw(b"s" * 32, b"the run!")
FLEET = [f"pi-{number:04}" for number in range(1_000)]
WANTED = 150
SCHEDULE = Schedule(rounds=2, per_round=WANTED, quorum=100, deadline_s=10.0, start_devices=500)
DRAWN = MESSAGES["round-drawn"]
assert isinstance(DRAWN, Round)


def announcement(number: int, selected: tuple[str, ...]) -> Round:
    """As a device hears it that says `draws`."""
    return replace(DRAWN, number=number, selected=(), draw=DRAW.key(number), below=DRAW.below(number, selected))


def opened(online: set[str]) -> tuple[Rounds, tuple[str, ...]]:
    """A run whose first round is open, and whom it waits for."""
    state = Rounds(schedule=SCHEDULE, online=online, draw=DRAW)
    (announce,) = rounds.handle(state, Tick(), 0.0)
    assert isinstance(announce, Announce)
    return state, announce.selected


def test_devices_find_the_same_selection_as_the_coordinator() -> None:
    """Of those that are online, exactly as many as are wanted; others in the next round."""
    online = set(FLEET[:700])
    state, selected = opened(online)
    assert len(selected) == WANTED
    heard = announcement(1, selected)
    assert {device for device in online if asked(heard, device)} == set(selected)
    for device in selected:
        actions = rounds.handle(state, MaskStored(device=device), 1.0)
    close, announce = actions
    assert close == Close(number=1)
    assert isinstance(announce, Announce)
    assert {device for device in online if asked(announcement(2, announce.selected), device)} == set(announce.selected)
    assert len(set(announce.selected) & set(selected)) < WANTED / 2


def test_an_announcement_does_not_grow_with_the_round() -> None:
    """Neither with the fleet."""
    sizes = {
        len(messages.encode(announcement(1, tuple(FLEET[:count])))) - len(DRAWN.votes) for count in (NAMED, len(FLEET))
    }
    assert max(sizes) < 100


def test_a_drawn_device_that_comes_later_is_heard_and_not_waited_for() -> None:
    """Its mask counts as any other; whoever is not drawn is not heard."""
    online = set(FLEET[:700])
    state, selected = opened(online)
    late = [device for device in FLEET[700:] if asked(announcement(1, selected), device)]
    others = [device for device in FLEET if not asked(announcement(1, selected), device)]
    assert late
    assert all(state.asks(device) for device in late)
    assert not any(state.asks(device) for device in others)
    online.add(late[0])
    assert rounds.handle(state, Appeared(device=late[0]), 1.0) == []
    assert rounds.handle(state, MaskStored(device=late[0]), 1.0) == []
    for device in selected:
        actions = rounds.handle(state, MaskStored(device=device), 1.0)
    assert actions[0] == Close(number=1)


def test_a_deadline_without_quorum_raises_the_limit() -> None:
    """Whoever was drawn still is; as many more are as masks are missing."""
    online = set(FLEET[:700])
    state, selected = opened(online)
    for device in selected[:20]:
        assert rounds.handle(state, MaskStored(device=device), 1.0) == []
    for device in selected[20:]:
        online.discard(device)
        rounds.handle(state, Vanished(device=device), 1.0)
    (announce,) = rounds.handle(state, Tick(), 10.0)
    assert isinstance(announce, Announce)
    assert announce.again
    heard = announcement(1, announce.selected)
    assert {device for device in online if asked(heard, device)} == set(announce.selected) & online
    assert len(announce.selected) == WANTED + WANTED - 20


def test_a_restarted_coordinator_waits_for_the_same_devices() -> None:
    """From their names alone, with the same key and limit."""
    _, selected = opened(set(FLEET[:700]))
    state = Rounds(schedule=SCHEDULE, online=set(), draw=Draw(b"s" * 32, b"the run!"))
    rounds.resume(state, number=1, selected=selected, arrived=[FLEET[0]], due=False, now_s=0.0)
    assert {device for device in FLEET if state.asks(device)} == {
        device for device in FLEET if asked(announcement(1, selected), device)
    }


def test_lots_follow_from_secret_run_and_round() -> None:
    """All of them, and are spread evenly."""
    keys = {DRAW.key(1), DRAW.key(2), Draw(b"t" * 32, b"the run!").key(1), Draw(b"s" * 32, b"another!").key(1)}
    assert len(keys) == 4
    assert DRAW.key(1) == Draw(b"s" * 32, b"the run!").key(1)
    lots = [lot(DRAW.key(1), device) for device in FLEET]
    assert 0.45 < sum(lots) / len(lots) / LOTS < 0.55
    assert "ssss" not in repr(DRAW)


@pytest.mark.parametrize(("device", "answer"), [("old-1", True), ("pi-07", False), ("phone-1", False)])
def test_named_devices_are_asked_whatever_their_lot(device: str, answer: bool) -> None:
    """And nobody is drawn where nothing is."""
    assert asked(replace(DRAWN, below=0), device) is answer
    assert asked(replace(DRAWN, draw=None, below=LOTS), device) is answer
    assert asked(replace(DRAWN, below=LOTS), device)
