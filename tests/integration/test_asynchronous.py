"""An asynchronous federation whose devices sleep and wake: real coordinator and clients, on a clock of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from benchmarks.sleepers import Clock, Habits, Scene, Sleeper, Watcher, sleepers
from coordinator import arrivals
from coordinator.announced import Announced
from coordinator.federation import Federation, prepare
from coordinator.keys import federation_key
from coordinator.report.summary import summarise
from coordinator.rounds import Schedule
from coordinator.steps import Asynchrony
from coordinator.store import Store
from edge_client.data import load
from edge_client.runtimes import registry
from tests.helpers import DEVICE_KEY, introduce
from tests.integration.fleet import write_person
from tests.integration.test_memory_federation import make_ticket, summary_run
from wire import bits, mask
from wire.channel import Channel, Received
from wire.federation_messages import MaskUpdate, Round
from wire.settings import Training
from wire.signing import public_key
from wire.topics import Topics
from wire.transport import MemoryBus

STEPS = 5
DEVICES = tuple(f"pi-{number}" for number in range(1, 7))
BUFFER, STALENESS, DECAY = 3, 2, 0.5
HABITS = Habits(awake_s=40.0, asleep_s=60.0, slowest=6.0)


def federation(**more: object) -> Federation:
    """Six devices, of which two or three are awake."""
    settings = {
        "name": "t",
        "ticket": make_ticket(),
        "training": Training(epochs=3),
        "schedule": Schedule(rounds=STEPS, per_round=3, quorum=3, deadline_s=1.0, start_devices=3),
        "runtimes": ("onnx", "sparse"),
        "asynchrony": Asynchrony(buffer=BUFFER, staleness=STALENESS, decay=DECAY),
    }
    return Federation(**(settings | more))  # type: ignore[arg-type]


@pytest.fixture
def scene(tmp_path: Path, request: pytest.FixtureRequest) -> Scene:  # type: ignore[misc]
    """The fleet, with made-up people's recordings."""
    data = {name: load(write_person(tmp_path / "data" / name, seed=sum(name.encode()))) for name in DEVICES}
    settings = federation(**getattr(request, "param", {}))
    with sleepers(settings, data, HABITS, tmp_path, runtime=registry.available()[0]) as made:
        yield made


def recount(scene: Scene, number: int) -> np.ndarray:
    """The mean vote after a step, from the stored masks alone and with nothing of the coordinator's arithmetic."""
    run, ends = summary_run(scene.store), scene.federation.ticket.ends
    announced = {one.number: mask.decode_votes(one.votes, ends) for one in scene.store.rounds(run)}
    total = weights = 0.0
    rows = scene.store.query("SELECT number, device, signs FROM mask WHERE run = ? AND counted = ?", run, number)
    for row in rows:
        signs = mask.as_multipliers(mask.decode_signs(row["signs"], announced[row["number"]], ends))
        weight = DECAY ** (number - row["number"])
        total, weights = total + weight * signs.astype(np.float64), weights + weight
    return scene.federation.memory * announced[number].mean + (1 - scene.federation.memory) * total / weights


def check_every_step(scene: Scene) -> Counter[int]:
    """Every step has its masks, each of another device, none too old, and its votes are theirs; how old they were."""
    run, ends = summary_run(scene.store), scene.federation.ticket.ends
    announced = {one.number: mask.decode_votes(one.votes, ends) for one in scene.store.rounds(run)}
    assert sorted(announced) == list(range(1, STEPS + 2))
    ages: Counter[int] = Counter()
    for number in range(1, STEPS + 1):
        rows = scene.store.query("SELECT number, device FROM mask WHERE run = ? AND counted = ?", run, number)
        assert len({row["device"] for row in rows}) == len(rows) == BUFFER
        ages.update(number - row["number"] for row in rows)
        after, exact = announced[number + 1], recount(scene, number)
        assert np.abs(after.mean - exact).max() <= 0.5 / 15 * 2 + 1e-6, "rounded to levels of 2 / 15"
        told = np.abs(exact) > 1e-6
        assert np.array_equal(after.signs[told], exact[told] > 0)
    assert min(ages) >= 0
    assert max(ages) <= STALENESS
    return ages


def test_devices_that_sleep_are_counted_when_they_wake(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody trains twice for a step, late masks count, and the network learns."""
    trained: Counter[tuple[str, int]] = Counter()
    start = Sleeper._start_training

    def counting(device: Sleeper, announced: Round) -> None:
        trained[device.device.name, announced.number] += 1
        start(device, announced)

    monkeypatch.setattr(Sleeper, "_start_training", counting)
    votes = scene.coordinator().serve()
    ages = check_every_step(scene)
    assert ages[0]
    assert sum(ages.values()) > ages[0], "some masks came late"
    assert set(trained.values()) == {1}
    voted = {row["device"] for row in scene.store.query("SELECT device FROM mask")}
    assert len(voted) > BUFFER, "not always the same devices"
    summary = summarise(scene.store)
    assert [r.voters for r in summary.rounds] == [BUFFER] * STEPS
    assert summary.rounds[-1].loss < summary.rounds[0].loss
    assert not votes.signs.all()
    # what a device was told is safe is in the database
    for device in scene.fleet.devices:
        confirmed = device.store.load_confirmed()
        assert confirmed is None or scene.store.has_mask(*confirmed, device.device.name)


def test_masks_that_are_not_wanted_are_refused_and_no_device_votes_twice_in_a_step(tmp_path: Path) -> None:
    """Steps that never were or are too long ago, masks of another length, repetitions, and one who sends for two."""
    settings, watcher = federation(asynchrony=Asynchrony(buffer=2, staleness=1), evaluate=False), Watcher(Clock())
    bus, topics, ticket = MemoryBus(), Topics("t"), settings.ticket
    transport = bus.connect()
    edge = Channel(bus.connect(), DEVICE_KEY, trust=lambda topic, message: public_key(federation_key()))
    flat = bytes([mask.RAW]) + bits.pack(np.zeros(ticket.kept, bool))
    spent = {"train_samples": 1, "loss": 1.0, "correct": 0, "test_samples": 1, "train_s": 1.0, "step_ms": 1.0}

    def sends(device: str, number: int, signs: bytes = flat) -> None:
        about = {"run": coordinator.run, "peak_memory_kb": 0} | spent
        edge.send(topics.up(device, "mask"), MaskUpdate(number=number, signs=signs, **about))  # type: ignore[arg-type]

    def told() -> list[str]:
        events = iter(lambda: edge.receive(0.0), None)
        return [type(event.message).__name__ for event in events if isinstance(event, Received)]

    def script() -> Iterator[None]:
        """What devices do; the coordinator has heard it all when this goes on."""
        for device in ("a", "b", "c"):
            edge.subscribe(topics.down(device))
            edge.send(topics.up(device, "hello"), introduce(device))
        yield
        told()
        for number, signs in ((0, flat), (2, flat), (2**53, flat), (1, flat + b"x"), (1, b"")):
            sends("a", number, signs)
        yield
        assert told() == ["Refusal"] * 5
        # Closed in turn are step 1; step 2; step 3, with a late mask; step 4, with one for which step 3 had no place;
        # step 5, the same. What is sent again was counted long ago.
        for device, number in (("a", 1), ("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", 3), ("a", 2), ("a", 1)):
            sends(device, number)
            yield
        assert told() == ["Receipt"] * 8
        sends("c", 1)  # two steps late
        yield
        assert told() == ["Refusal"]
        for device, number in (("c", 2), ("c", 3), ("c", 4), ("c", 2), ("b", 4), ("a", 5)):
            sends(device, number)
            yield
        assert told() == ["Receipt"] * 6
        yield from [None] * 100  # no more, or it waits for something that never comes

    events = script()

    def watch() -> None:
        if transport.inbox.empty():
            next(events)

    with closing(Store(tmp_path / "db")) as store, mock.patch.object(arrivals, "TICK_S", 0.0):
        channel = Channel(transport, federation_key())
        coordinator = prepare(settings, store=store, channel=channel, observer=watcher)
        coordinator.watch = watch
        coordinator.serve()
        votes = store.query("SELECT counted, device, number FROM mask ORDER BY counted, device")
    assert [tuple(row) for row in votes] == [
        (1, "a", 1), (1, "b", 1), (2, "a", 2), (2, "b", 2), (3, "a", 3), (3, "c", 2), (4, "b", 4), (4, "c", 3),
        (5, "a", 5), (5, "c", 4),
    ]  # fmt: skip
    said = " ".join(watcher.remarks)
    assert said.count("a step that is not open") == 3
    assert said.count("mask too old") == 1


class Crash(Exception):
    """The coordinator dies."""


@pytest.mark.parametrize("scene", [{"defend": False}], indirect=True)
def test_a_restarted_coordinator_comes_to_the_same_votes(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """It dies after a step is closed, before the next is open: the same masks are counted again, to the same bytes."""
    opened, died = Announced.open, list[bytes]()

    def dies(self: Announced, number: int, *rest: object, **more: object) -> Round:
        if number == 4 and not died:
            died.append(self[number].digest)
            raise Crash
        return opened(self, number, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Announced, "open", dies)
    with pytest.raises(Crash):
        scene.coordinator().serve()
    run = summary_run(scene.store)
    assert [one.number for one in scene.store.rounds(run)] == [1, 2, 3]
    assert scene.store.rounds(run)[-1].closed_s is not None
    scene.coordinator().serve()
    check_every_step(scene)
    again = mask.decode_votes(scene.store.rounds(run)[3].votes, scene.federation.ticket.ends)
    assert [again.digest] == died
