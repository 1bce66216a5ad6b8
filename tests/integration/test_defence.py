"""Over the whole way: a hostile device is not counted, and a person is told; randomised signs leave a device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coordinator.aggregate import next_votes
from coordinator.federation import Federation, prepare
from coordinator.rounds import Schedule
from coordinator.store import Store
from edge_client.trainer import Trained
from edge_client.work import Finished
from edge_client.workshop import Workshop
from tests.helpers import federation_channel
from tests.integration.test_memory_federation import DEVICES, Watcher, make_ticket, start_device, summary_run
from wire import mask
from wire.settings import Training
from wire.state_folder import read_learned
from wire.transport import MemoryBus

ROUNDS = 3


def run(folder: Path, training: Training, *, defend: bool) -> tuple[Federation, Store, Watcher, mask.Votes]:
    """A federation of three, played to its end."""
    federation = Federation(
        name="t",
        ticket=make_ticket(),
        training=training,
        schedule=Schedule(rounds=ROUNDS, per_round=3, quorum=3, deadline_s=60, start_devices=3),
        runtimes=("onnx",),
        defend=defend,
    )
    bus, store, watcher = MemoryBus(), Store(folder / "db"), Watcher()
    coordinator = prepare(federation, store=store, channel=federation_channel(bus), observer=watcher)
    threads = [start_device(bus, name, folder, "onnx") for name in DEVICES]
    outcome = coordinator.serve()
    for thread in threads:
        thread.join(timeout=20)
    return federation, store, watcher, outcome


def sent(federation: Federation, store: Store, number: int) -> tuple[mask.Votes, dict[str, mask.Signs]]:
    """A round's announced votes, and the masks that came."""
    ends, identity = federation.ticket.ends, summary_run(store)
    votes = mask.decode_votes(store.rounds(identity)[number - 1].votes, ends)
    return votes, {name: mask.decode_signs(one, votes, ends) for name, one in store.masks(identity, number).items()}


@pytest.mark.parametrize("defend", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_hostile_device_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, defend: bool) -> None:
    """It takes part in every round and is told no other; defended, the votes are those of the others."""
    finish = Workshop._finish

    def hostile(self: Workshop, trained: Trained) -> Finished:
        turned = replace(trained, signs=~trained.signs, scores=-mask.as_multipliers(trained.signs))
        return finish(self, turned if self.device == DEVICES[0] else trained)

    monkeypatch.setattr(Workshop, "_finish", hostile)
    federation, store, watcher, outcome = run(tmp_path, Training(epochs=2), defend=defend)
    votes, masks = sent(federation, store, ROUNDS)
    assert sorted(masks) == list(DEVICES)
    counted = list(masks.values())[1:] if defend else list(masks.values())
    assert np.array_equal(outcome.mean, next_votes(votes, counted, federation.memory).mean)
    blamed = [text for text in watcher.remarks if "is not counted" in text]
    assert len(blamed) == (ROUNDS if defend else 0)
    assert all(text.startswith(f"{DEVICES[0]} is not counted: its mask turns") for text in blamed)


@pytest.mark.slow
def test_what_leaves_a_device_is_turned_at_random(tmp_path: Path) -> None:
    """About one in eight signs, others on every device and in every round; its own network has none of it."""
    training = Training(epochs=2, privacy_epsilon=2.0)
    federation, store, _, outcome = run(tmp_path, training, defend=True)
    votes, masks = sent(federation, store, ROUNDS)
    expected = next_votes(votes, masks.values(), federation.memory, training.flip_chance)
    assert np.array_equal(outcome.mean, expected.mean)
    turned = {}
    for name in DEVICES:
        learned = read_learned(tmp_path / "state" / name)
        assert learned.personal.number == ROUNDS
        turned[name] = learned.personal.signs ^ masks[name]
        assert turned[name].mean() == pytest.approx(training.flip_chance, abs=0.03)
    assert len({places.tobytes() for places in turned.values()}) == len(DEVICES)
