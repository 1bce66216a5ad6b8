"""Federations that add their masks up unseen: in memory against plain ones, and real processes that are killed."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coordinator.aggregate import MEMORY, remember
from coordinator.exchange import Exchange, replay
from coordinator.federation import Federation, prepare
from coordinator.fleet import Fleet
from coordinator.report.summary import summarise
from coordinator.rounds import Schedule
from coordinator.store import Store
from coordinator.unmask import count
from edge_client import data
from edge_client.agent import Device
from edge_client.client import Client
from edge_client.store import Store as DeviceStore
from edge_client.workshop import Workshop
from tests.helpers import federation_channel, introduce
from tests.integration.fleet import Processes, rows, wait_until, write_person
from tests.integration.test_memory_federation import DEVICES, Watcher, make_ticket, start_device
from wire import mask
from wire.channel import Channel
from wire.errors import JoinRefused
from wire.federation_messages import Welcome
from wire.mask import Votes
from wire.settings import Training
from wire.ticket import decode_ticket
from wire.topics import Topics
from wire.transport import MemoryBus

ROUNDS = 2
FEDERATION = Federation(
    name="t",
    ticket=make_ticket(),
    training=Training(epochs=2),
    schedule=Schedule(rounds=ROUNDS, per_round=3, quorum=3, deadline_s=60, start_devices=3),
    runtimes=("onnx",),
    defend=False,
)


def run(folder: Path, federation: Federation) -> tuple[Votes, Store, Watcher]:
    """A federation from start to end; its last votes, database and observer."""
    bus, watcher, store = MemoryBus(), Watcher(), Store(folder / "db")
    coordinator = prepare(federation, store=store, channel=federation_channel(bus), observer=watcher)
    threads = [start_device(bus, name, folder, "onnx") for name in DEVICES]
    votes = coordinator.serve()
    for thread in threads:
        thread.join(timeout=20)
        assert not thread.is_alive()
    return votes, store, watcher


@pytest.mark.slow
def test_the_outcome_is_that_of_the_same_masks_in_the_clear(tmp_path: Path) -> None:
    """The same devices, data and seed: votes are equal bit by bit, and the database holds no mask."""
    plain, _, _ = run(tmp_path / "plain", FEDERATION)
    secure, store, watcher = run(tmp_path / "secure", replace(FEDERATION, secure_aggregation=True))
    assert np.array_equal(plain.signs, secure.signs)
    assert np.array_equal(plain.dissent, secure.dissent)
    assert not [text for text in watcher.remarks if "ignored" in text]
    summary = summarise(store)
    assert [one.voters for one in summary.rounds] == [3] * ROUNDS
    assert summary.up_bytes > FEDERATION.ticket.kept * 2 / 8
    assert all(row["signs"] == b"" for row in store.query("SELECT signs FROM mask"))
    assert len(watcher.masks) == 3 * ROUNDS


NAMES = ["pi-1", "pi-2", "pi-3", "pi-4"]
CONFIG = """
federation:
  name: t
  method: uniform
  rounds: 3
  per_round: 4
  quorum: 3
  deadline_s: 15
  secure_aggregation: true
  training: {epochs: 6}
devices: {pi-1: {}, pi-2: {}, pi-3: {}, pi-4: {}}
"""


def recount(processes: Processes) -> None:
    """From what the database says was said: every round's sum, its voters, and the votes that were announced."""
    store = Store(processes.database)
    run = store.newest_run()
    assert run is not None
    ticket = decode_ticket(run.ticket)
    announced = {one.number: mask.decode_votes(one.votes, ticket.ends) for one in store.rounds(run.id)}
    for number in sorted(announced)[:-1]:
        attempt = store.newest_attempt(run.id, number)
        blank = Exchange(run=run.id, number=number, kept=ticket.kept, attempt=attempt)
        said = store.exchange(run.id, number, attempt)
        done = replay(blank, said)
        counts, voters = count(done), [done.names[place] for place in done.survivors]
        assert counts is not None
        assert sorted(store.masks(run.id, number)) == voters
        before = announced[number]
        fresh = mask.votes_of(counts.astype(np.uint32), len(voters), before.signs)
        assert remember(before, fresh, MEMORY).digest == announced[number + 1].digest
        for name in NAMES:
            if f"round {number}: mask confirmed" in processes.log(name):
                assert name in voters, f"{name} was told that its mask of round {number} is in the sum"
    store.close()


@pytest.mark.broker
def test_kill_with_mosquitto(processes: Processes, mosquitto: str) -> None:
    """Kill -9 a device after its masked signs were sent, then the coordinator among reveals: every sum is exact."""
    processes.serve(CONFIG, "--broker", mosquitto, password="secret")
    for name in NAMES:
        processes.edge(name, mosquitto, "--hide-among", "3", password="secret")
    wait_until(lambda: "round 1: masked signs sent" in processes.log("pi-2"), 60, "a device has masked its signs")
    processes.kill("pi-2")
    processes.edge("pi-2", mosquitto, password="secret")
    spoken = "SELECT 1 FROM exchange WHERE number = 2 AND device != ''"
    wait_until(lambda: len(rows(processes.database, spoken)) > 5, 60, "round 2's masks are being added up")
    processes.kill("coordinator")
    processes.serve(CONFIG, "--broker", mosquitto, password="secret")
    assert processes.wait("coordinator", 120) == 0
    for name in NAMES:
        assert processes.wait(name, 30) == 0, processes.log(name)[-2000:]
    assert "masks are added up unseen" in processes.log("coordinator")
    recount(processes)


@pytest.mark.slow
def test_a_device_that_hides_leaves_a_federation_that_does_not(tmp_path: Path) -> None:
    """It is told to before it has trained, with what to do."""
    bus = MemoryBus()
    coordinator = prepare(FEDERATION, store=Store(tmp_path / "db"), channel=federation_channel(bus), observer=Watcher())
    coordinator.attend(iter((False, True)).__next__)  # it hears that it is connected
    samples = data.load(write_person(tmp_path / "data", seed=1))
    with closing(DeviceStore(tmp_path / "state")) as store:
        hello = introduce("pi-1", "onnx", store.key(), secure_aggregation=True)
        channel = Channel(bus.connect(), store.key())
        client = Client(
            device=Device(name="pi-1", hello=hello), channel=channel, topics=Topics("t"), store=store,
            work=Workshop(device="pi-1", load=lambda: samples), hide_among=3,
        )  # fmt: skip
        with pytest.raises(JoinRefused, match="does not add masks up unseen, and 'pi-1' hides among 3"):
            client.run()


def test_a_device_that_cannot_hide_is_refused() -> None:
    """A phone, say: it is told why, and is never selected."""
    fleet = Fleet(allowed=frozenset(), runtimes=frozenset({"onnx"}), secure_aggregation=True)
    (refusal,) = fleet.hello("phone", introduce("a"))  # type: ignore[misc]
    assert refusal.code == "insecure"
    assert "test on 'phone' cannot" in refusal.reason
    assert fleet.online == set()
    assert isinstance(fleet.hello("pi-1", introduce("b", secure_aggregation=True)), Welcome)
