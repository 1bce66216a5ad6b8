"""An update that goes from share to share of the fleet, and stops where it fails; on the memory bus."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator import rollout, rollout_watch
from coordinator.rollout import Rollout
from coordinator.rollout_watch import Watch
from coordinator.store import Store
from tests.helpers import DEVICE_KEY, introduce
from wire import signing
from wire import update as rules
from wire.channel import Channel, Received
from wire.errors import ConfigError, UpdateStopped
from wire.federation_messages import INSTANCE_BYTES, State
from wire.topics import Topics
from wire.transport import MemoryBus
from wire.update import Update

TOPICS = Topics("t")
KEY = bytes(range(32))
UPDATE = Update(version="2.0", issued=1000, wheels={}, sizes=(), share=2500, seed=bytes(range(16)))
NAMES = [f"pi-{number}" for number in range(40)]
CANARIES = frozenset(name for name in NAMES if rules.is_meant(UPDATE, name))
OLD, NEW, BACK = "hidenseek-edge 1.0", "hidenseek-edge 2.0", "hidenseek-edge 1.0 (2.0 failed)"


def began(**more: object) -> Rollout:
    """A roll-out to a quarter, then to all."""
    wanted: dict[str, object] = {"offered": UPDATE, "stages": (25.0, 100.0), "stop_after": 2, "wait_s": 600.0}
    return Rollout(**wanted | {"began_s": 0.0} | more)  # type: ignore[arg-type]


def test_devices_are_told_apart_by_what_they_say_they_run() -> None:
    """Only those that are meant count; a newer one is no failure, one of another name has it not yet."""
    one, two, three, four = sorted(CANARIES)[:4]
    said = {one: OLD, two: NEW, three: BACK, four: "hidenseek-edge 3.0"} | dict.fromkeys(set(NAMES) - CANARIES, OLD)
    found = rollout.standing(UPDATE, said)
    assert (found.waiting, found.done, found.failed) == ({one}, {two, four}, {three})
    for text in ("my own client", f"{NEW} (on trial)"):
        assert rollout.standing(UPDATE, {one: text}).waiting == {one}


def test_a_stage_is_over_when_those_that_are_there_have_followed() -> None:
    """Who is away is not waited for; the next share has all of the first in it, and the last is the last."""
    one = began()
    away, *rest = sorted(CANARIES)
    assert not one.is_over(one.look(dict.fromkeys(NAMES, OLD), frozenset(rest), 1))
    followed = dict.fromkeys(NAMES, OLD) | dict.fromkeys(rest, NEW)
    now = one.look(followed, frozenset(rest), 2)
    assert one.is_over(now)
    assert not one.is_to_stop(now)
    said = one.next_stage(2000, 3)
    assert said == replace(UPDATE, share=10_000, issued=2000)
    assert one.look(followed, frozenset(NAMES), 4).waiting == {away} | (set(NAMES) - CANARIES)
    assert one.next_stage(3000, 5) is None


def test_it_stops_after_so_many_failures_or_if_it_works_nowhere() -> None:
    """One that does not come back in time has failed too, until it does."""
    one = began()
    a, b, *rest = sorted(CANARIES)
    said = dict.fromkeys(rest, NEW)
    assert not one.is_to_stop(one.look(said | {a: BACK, b: OLD}, frozenset({b}), 1))
    assert one.is_to_stop(one.look(said | {a: BACK, b: BACK}, frozenset(), 2))
    late = one.look(said | {a: BACK, b: OLD}, frozenset(), 601)
    assert late.failed == {a, b}
    assert one.look(said | {a: BACK, b: NEW}, frozenset(), 602).failed == {a}
    alone = began(stop_after=9)
    assert alone.is_to_stop(alone.look({a: BACK}, frozenset({a}), 1))


@pytest.mark.parametrize("text", ["", "5,,9", "50,10", "0,5", "5,101", "5,5", "nan", "x"])
def test_shares_that_do_not_grow_are_refused(text: str) -> None:
    """With what was found."""
    with pytest.raises(ConfigError, match="each larger than the one before"):
        rollout.stages(text)
    assert rollout.stages("0.5,25,100") == (0.5, 25.0, 100.0)


@pytest.mark.parametrize("bad", [0, 2])
def test_a_fleet_is_led_through_or_spared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: int) -> None:
    """Every device follows what is announced at once; with bad ones among the canaries the others never hear of it."""
    monkeypatch.setattr(rollout_watch, "LOOK_S", 0.01)
    monkeypatch.setattr(rollout_watch, "SETTLE_S", 0.0)
    bus, told = MemoryBus(), list[str]()
    hello = introduce("x", "sparse")
    with closing(Store(tmp_path / "db")) as store:
        for name in NAMES:
            store.save_device(name, replace(hello, software=OLD, key=signing.public_key(DEVICE_KEY)))
            state = State(instance=bytes(INSTANCE_BYTES), online=True, connection=1)
            Channel(bus.connect(), DEVICE_KEY).send(TOPICS.up(name, "state"), state, retain=True)

        def follow(text: str) -> None:
            """As devices do."""
            told.append(text)
            if "is to get" in text:
                name = text.split()[0]
                broken = name in sorted(CANARIES)[:bad]
                store.save_device(name, replace(store.devices()[name], software=BACK if broken else NEW))

        watch = Watch(began(began_s=time.monotonic()), Channel(bus.connect(), KEY), TOPICS, store, follow)
        if bad:
            with pytest.raises(UpdateStopped, match=f"2.0 has failed on .*works on {len(CANARIES) - bad} devices"):
                watch.run()
        else:
            assert watch.run().done == set(NAMES)
        asked = {text.split()[0] for text in told if "is to get" in text}
    assert asked == (CANARIES if bad else set(NAMES))
    assert len([text for text in told if "has tried" in text]) == bad
    announced = Channel(bus.connect(), DEVICE_KEY, trust=lambda topic, message: signing.public_key(KEY))
    announced.subscribe(TOPICS.update)
    (last,) = [one.message for one in (announced.receive(0) for _ in range(3)) if isinstance(one, Received)]
    assert isinstance(last, Update)
    assert last.share == (0 if bad else 10_000)
