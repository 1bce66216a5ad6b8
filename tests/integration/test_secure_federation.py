"""Federations that add their masks up unseen: in memory against plain ones, and real processes that are killed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from coordinator.federation import Federation, prepare
from coordinator.report.summary import summarise
from coordinator.rounds import Schedule
from coordinator.store import Store
from tests.helpers import federation_channel
from tests.integration.test_memory_federation import DEVICES, Watcher, make_ticket, start_device
from wire.mask import Votes
from wire.settings import Training
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
