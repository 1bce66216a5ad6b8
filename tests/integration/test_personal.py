"""From training to use: what devices learn in a federation is on them, predicts as reported, and freezes to ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from coordinator.cli import main as workstation
from coordinator.federation import Federation, prepare
from coordinator.rounds import Schedule
from coordinator.store import Store
from edge_client.predict import predict
from tests.helpers import federation_channel
from tests.integration.test_memory_federation import DEVICES, Watcher, make_ticket, start_device, summary_run
from wire import mask
from wire.settings import Training
from wire.state_folder import read_learned
from wire.transport import MemoryBus

ROUNDS = 2


@pytest.mark.parametrize("runtime", ["sparse", pytest.param("onnx", marks=pytest.mark.slow)])
def test_what_was_learned_can_be_used(tmp_path: Path, runtime: str) -> None:
    """Personal signs are those last sent, predict and freeze count as many right as the device reported."""
    federation = Federation(
        name="t",
        ticket=make_ticket(),
        training=Training(epochs=3, learning_rate=0.05),  # large steps: signs are to flip
        schedule=Schedule(rounds=ROUNDS, per_round=3, quorum=3, deadline_s=60, start_devices=3),
        runtimes=(runtime,),
    )
    bus, store = MemoryBus(), Store(tmp_path / "coordinator.db")
    coordinator = prepare(federation, store=store, channel=federation_channel(bus), observer=Watcher())
    threads = [start_device(bus, name, tmp_path, runtime) for name in DEVICES]
    outcome = coordinator.serve()
    for thread in threads:
        thread.join(timeout=20)

    run = summary_run(store)
    ends = federation.ticket.ends
    votes = mask.decode_votes(store.rounds(run)[ROUNDS - 1].votes, ends)
    sent = {name: mask.decode_signs(coded, votes, ends) for name, coded in store.masks(run, ROUNDS).items()}
    mine = {row["device"]: row["correct"] for row in store.query(f"SELECT * FROM mask WHERE number = {ROUNDS}")}
    ours = {row["device"]: row["correct"] for row in store.query(f"SELECT * FROM evaluation WHERE number > {ROUNDS}")}
    store.close()
    assert workstation(["freeze", "--run", str(tmp_path), "-o", str(tmp_path / "global.onnx")]) == 0
    assert len({signs.tobytes() for signs in [*sent.values(), outcome.signs]}) == 4, "everyone has signs of their own"
    for name in DEVICES:
        learned = read_learned(tmp_path / "state" / name)
        assert (learned.personal.ticket, learned.personal.run) == (federation.ticket.id, run)
        assert learned.personal.number == ROUNDS
        assert np.array_equal(learned.personal.signs, sent[name])
        (found,) = predict(learned, tmp_path / "data" / name / "test.npz")
        assert found.correct == mine[name]
        own = tmp_path / f"{name}.onnx"
        assert workstation(["freeze", "--state", str(tmp_path / "state" / name), "-o", str(own)]) == 0
        assert np.array_equal(classes(own, tmp_path / "data" / name), found.classes)
        right = classes(tmp_path / "global.onnx", tmp_path / "data" / name) == found.labels
        assert int(np.count_nonzero(right)) == ours[name]


def classes(model: Path, data: Path) -> np.ndarray:
    """What a frozen model says of a device's test samples, int64 (n,)."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    with np.load(data / "test.npz") as archive:
        return session.run(["logits"], {"x": archive["x"]})[0].argmax(axis=1)
