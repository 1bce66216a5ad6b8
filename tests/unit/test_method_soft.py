"""What one bit costs: the estimate is unbiased, the unchanged takes nothing, and the bound is FedAvg itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.method_soft import SEED_BYTES, Dithered, SoftSettings, TicketFedAvg, Whole
from coordinator.baselines.dense_method import SGDSettings
from coordinator.baselines.fedavg import FedAvg
from coordinator.baselines.method import Task, Update
from tests.unit.test_baselines import PLAN, samples

TASK = Task(plan=PLAN, devices=("a", "b"), seed=1)


def method(cls: type[Whole], **settings: Any) -> Whole:
    """On the small network."""
    return cls(TASK, SoftSettings(**{"density": 0.5, "passes": 2, "epochs": 2, "batch": 8} | settings))


def test_a_dithered_bit_says_how_far_a_weight_has_moved() -> None:
    """In expectation over thresholds, whatever it was before, to the bounds themselves."""
    dithered, rng = method(Dithered), np.random.default_rng(1)
    before, trained = (rng.uniform(-1, 1, 40).astype(np.float32) for _ in range(2))
    trained[:2] = (-1, 1)
    read = np.mean([dithered.read(dithered.send(trained, before, seed), before) for seed in range(4_000)], axis=0)
    assert np.abs(read - trained).max() < 6 * 2 / np.sqrt(4_000)


def test_what_has_not_changed_takes_no_bits() -> None:
    """And what a device does change is a few of them."""
    dithered = method(Dithered)
    state = dithered.start()

    def size(payload: bytes) -> float:
        return dithered.ideal_bytes(state, Update(device="a", samples=1, payload=payload))

    same = dithered.send(state["mean"], state["mean"], 3)
    assert np.array_equal(dithered.read(same, state["mean"]), state["mean"])
    trained = dithered.train(dithered.announce(state, "a"), samples(), {}, 3)
    assert len(trained.up) == SEED_BYTES + -(-dithered.ticket.kept // 8)
    assert SEED_BYTES < size(same) < size(trained.up) < len(trained.up) + 40


def test_whole_and_dithered_train_alike() -> None:
    """They differ in what is sent: the same network of the device's own, within its bounds."""
    whole, dithered = (method(cls, learning_rate=0.3) for cls in (Whole, Dithered))
    local, other = (one.train(one.announce(one.start(), "a"), samples(), {}, 3) for one in (whole, dithered))
    assert np.array_equal(local.model.multipliers, other.model.multipliers)
    assert np.array_equal(whole.read(local.up, whole.start()["mean"]) * np.float32(2), local.model.multipliers)
    assert np.abs(local.model.multipliers).max() == 2


@pytest.mark.parametrize("room", [1.0, 2.0])
def test_the_bound_is_fedavg_on_the_ticket(room: float) -> None:
    """With every weight kept and Kaiming's magnitudes it is FedAvg."""
    settings: dict[str, Any] = {"density": 1.0, "block": 1, "magnitudes": "normal", "logit_deviation": 0.0}
    bound = method(TicketFedAvg, room=room, restrict=False, **settings)
    fedavg = FedAvg(TASK, SGDSettings(epochs=2, batch=8))
    down = fedavg.announce(fedavg.start(), "a")
    ours = bound.train(bound.announce(bound.start(), "a"), samples(), {}, 3)
    theirs = fedavg.train(down, samples(), {}, 3)
    initial = np.concatenate([layer.weights for layer in bound.ticket.kept_layers])
    assert not np.allclose(theirs.model, fedavg.model(down), atol=1e-3)
    assert np.allclose(ours.model.multipliers * initial, theirs.model, atol=1e-4)
