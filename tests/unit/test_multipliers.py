"""Inference with multipliers of the initial weights (mean votes): every runtime, against torch in float64."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator.models import build_plan
from edge_client.kernels import library
from edge_client.runtimes.base import Floats, Runtime
from edge_client.runtimes.registry import open_runtime
from export.bundle import make_bundle
from export.torch_net import TorchNet, forward
from tests.helpers import random_ticket
from wire.errors import DataError
from wire.mask import as_multipliers
from wire.settings import Training
from wire.ticket import Ticket

torch = pytest.importorskip("torch")
RUNTIMES = [
    pytest.param("sparse", marks=pytest.mark.skipif(library.library_path() is None, reason="kernels not built")),
    "onnx",
]
HAR = build_plan("har-cnn", input_shape=(6, 128), classes=6)
X = np.random.default_rng(0).normal(size=(11, 6, 128)).astype(np.float32)
Y = np.arange(11) % 6


def expected(ticket: Ticket, multipliers: Floats) -> np.ndarray:
    """Logits by torch, float64."""
    net = TorchNet(ticket, dtype=torch.float64)
    weights = net.multiplied(torch.from_numpy(multipliers).double())
    return forward(ticket.plan, weights, torch.from_numpy(X).double()).numpy()


def opened(name: str, ticket: Ticket) -> Runtime:
    """A runtime with its scores all +0.1."""
    training = Training(batch=11)
    return open_runtime(make_bundle(ticket, name, training), training)


def close(found: Floats, wanted: np.ndarray) -> bool:
    """Within 1e-5 of the largest logit."""
    return bool(np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize(("block", "magnitudes"), [(4, "constant"), (4, "normal"), (1, "constant"), (8, "constant")])
def test_multipliers_scale_the_initial_weights(name: str, block: int, magnitudes: str) -> None:
    """Any multipliers in [-1, 1], 0 too, one set after another on one loaded runtime."""
    ticket = random_ticket(HAR, 0.1, seed=2, block=block, magnitudes=magnitudes)
    runtime = opened(name, ticket)
    for seed in (0, 1):
        multipliers = np.random.default_rng(seed).uniform(-1, 1, ticket.kept).astype(np.float32)
        multipliers[::7] = 0
        runtime.set_multipliers(multipliers)
        assert close(runtime.logits(X), expected(ticket, multipliers))


@pytest.mark.parametrize("name", RUNTIMES)
def test_multipliers_do_not_touch_training(name: str) -> None:
    """They hold for inference until scores are set or trained; a step then is what it is without them."""
    ticket = random_ticket(HAR, 0.1, seed=2)
    start = np.linspace(-0.1, 0.1, ticket.kept).astype(np.float32)
    ones = np.ones(11, dtype=np.float32)
    plain, used = opened(name, ticket), opened(name, ticket)
    for runtime in (plain, used):
        runtime.set_scores(start)
    used.set_multipliers(np.zeros(ticket.kept, dtype=np.float32))
    assert not used.logits(X).any()
    assert np.array_equal(used.scores(), start)
    plain.step(X, Y, ones)
    used.step(X, Y, ones)
    assert np.array_equal(used.scores(), plain.scores())
    assert np.array_equal(used.logits(X), plain.logits(X))
    assert close(used.logits(X), expected(ticket, as_multipliers(used.scores() >= 0)))
    used.set_multipliers(np.zeros(ticket.kept, dtype=np.float32))
    used.set_scores(start)
    assert close(used.logits(X), expected(ticket, as_multipliers(start >= 0)))


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_wrong_number_is_refused(name: str) -> None:
    """One multiplier for every kept weight, one prior for every class."""
    runtime = opened(name, random_ticket(HAR, 0.1, seed=2))
    with pytest.raises(DataError, match=r"multipliers .*\(3,\)"):
        runtime.set_multipliers(np.zeros(3, dtype=np.float32))
    with pytest.raises(DataError, match=r"log prior .*\(3,\)"):
        runtime.set_log_prior(np.zeros(3, dtype=np.float32))
