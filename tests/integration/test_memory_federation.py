"""A whole federation over the in-memory bus: real coordinator, real clients, real training, no sockets."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from coordinator import telemetry
from coordinator.aggregate import next_votes
from coordinator.federation import Federation, prepare
from coordinator.models import build_plan
from coordinator.observer import Observer
from coordinator.prune import prune
from coordinator.report.summary import summarise
from coordinator.rounds import Schedule
from coordinator.store import Store
from edge_client import data
from edge_client.agent import Device
from edge_client.client import Client
from edge_client.store import Store as DeviceStore
from edge_client.workshop import Workshop
from tests.helpers import federation_channel, introduce
from tests.integration.fleet import write_person
from wire import mask
from wire.channel import Channel
from wire.federation_messages import MaskUpdate
from wire.settings import Training
from wire.ticket import Ticket
from wire.topics import Topics
from wire.transport import MemoryBus

DEVICES = ("pi-1", "pi-2", "pi-3")
ROUNDS = 4


@dataclass
class Watcher(Observer):
    """An observer that remembers."""

    remarks: list[str] = field(default_factory=list)
    masks: list[tuple[str, int, int]] = field(default_factory=list)

    def mask(self, name: str, update: MaskUpdate, payload_bytes: int) -> None:
        """Note the bytes."""
        self.masks.append((name, update.number, payload_bytes))

    def remark(self, text: str) -> None:
        """Note what went wrong."""
        self.remarks.append(text)


def make_ticket() -> Ticket:
    """A small har-cnn."""
    plan = build_plan("har-cnn", input_shape=(6, 128), classes=6)
    return prune(plan, density=0.02, seed=1, method="uniform")


def start_device(bus: MemoryBus, name: str, folder: Path, runtime: str) -> threading.Thread:
    """A client on a thread, with one made-up person's recordings."""
    samples = data.load(write_person(folder / "data" / name, seed=sum(name.encode())))

    def take_part() -> None:
        with closing(DeviceStore(folder / "state" / name)) as store:
            hello = introduce(
                name, runtime, store.key(), started=store.count_start(), secure_aggregation=True, dithers=True
            )
            Client(
                device=Device(name=name, hello=hello, stay=False),
                # Small packets: bundles travel in parts.
                channel=Channel(bus.connect(), store.key(), packet_bytes=4096),
                topics=Topics("t"),
                store=store,
                work=Workshop(device=name, load=lambda: samples),
            ).run()

    thread = threading.Thread(target=take_part, daemon=True)
    thread.start()
    return thread


@pytest.fixture
def federation() -> Federation:
    """Three devices, all of them in every round."""
    return Federation(
        name="t",
        ticket=make_ticket(),
        training=Training(epochs=4),
        schedule=Schedule(rounds=ROUNDS, per_round=3, quorum=3, deadline_s=60, start_devices=3),
        runtimes=("onnx",),
    )


def test_federation_learns_and_counts_every_byte_and_vote(tmp_path: Path, federation: Federation) -> None:
    """Accuracy rises, votes are the stored masks', bytes are the payloads', and a garbled message changes nothing."""
    bus, watcher = MemoryBus(), Watcher()
    store = Store(tmp_path / "db")
    channel = federation_channel(bus, packet_bytes=4096)
    coordinator = prepare(federation, store=store, channel=channel, observer=watcher)
    threads = [start_device(bus, name, tmp_path, "onnx") for name in DEVICES]
    vandal = bus.connect()
    vandal.publish("hns/t/up/pi-1/mask", b"HN\x01\x08rubbish")
    vandal.publish("hns/t/up/pi-9/hello", b"")
    coordinator.serve()
    for thread in threads:
        thread.join(timeout=20)
        assert not thread.is_alive(), "a device leaves by itself when the run is over"

    summary = summarise(store)
    assert summary.finished
    assert [r.voters for r in summary.rounds] == [3] * ROUNDS
    first, last = summary.rounds[0], summary.rounds[-1]
    assert last.loss < first.loss * 0.9
    assert last.seen is not None
    assert last.seen > 2.0 / 6
    assert last.seen_devices == 3
    for number in range(1, ROUNDS + 1):
        rounds = {r.number: r for r in store.rounds(summary_run(store))}
        ends = federation.ticket.ends
        before, after = (mask.decode_votes(rounds[one].votes, ends) for one in (number, number + 1))
        coded = store.masks(summary_run(store), number).values()
        recount = next_votes(before, (mask.decode_signs(one, before, ends) for one in coded), federation.memory)
        assert np.array_equal(after.signs, recount.signs)
        assert np.array_equal(after.dissent, recount.dissent)
    told = {(one.device, one.spent.number): one.spent for one in telemetry.rounds(store, summary_run(store))}
    assert set(told) == {(device, number) for device, number, _ in watcher.masks}, "of every mask, what it cost"
    assert all(spent.steps and spent.step_p50_us and spent.sent_bytes for spent in told.values())
    assert {number for (_, number), spent in told.items() if spent.cold_start_ms is not None} == {1}
    assert sorted(watcher.masks)[0][2] == store.query("SELECT payload_bytes FROM mask ORDER BY device, number")[0][0]


def summary_run(store: Store) -> bytes:
    """Id of the only run."""
    run = store.newest_run()
    assert run is not None
    return run.id


@pytest.mark.slow
def test_same_seed_gives_the_same_run(tmp_path: Path, federation: Federation) -> None:
    """Two runs of one federation end in the same signs: nothing depends on who answers first."""
    outcomes = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        bus = MemoryBus()
        coordinator = prepare(
            federation, store=Store(folder / "db"), channel=federation_channel(bus), observer=Watcher()
        )
        threads = [start_device(bus, name, folder, "onnx") for name in DEVICES]
        outcomes.append(coordinator.serve())
        for thread in threads:
            thread.join(timeout=20)
    assert np.array_equal(outcomes[0].signs, outcomes[1].signs)
    assert np.array_equal(outcomes[0].dissent, outcomes[1].dissent)
    assert outcomes[0].signs.size == federation.ticket.kept
    assert not outcomes[0].signs.all(), "some signs have flipped"
