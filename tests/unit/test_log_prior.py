"""The log prior of a device's classes: what it is, and what training with it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest

from edge_client.runtimes import registry
from edge_client.trainer import ABSENT, count_correct, log_prior, train
from export.bundle import make_bundle
from tests.helpers import INSTALLED_RUNTIMES, SMALL, random_ticket
from wire.settings import Training

TICKET = random_ticket(SMALL, 0.5, seed=1, block=1)
RNG = np.random.default_rng(0)
Y = np.repeat([1, 3], 20)
X = (RNG.standard_normal((40, 2, 16)) + (Y == 3)[:, None, None]).astype(np.float32)


def test_classes_that_are_there_and_others() -> None:
    """Nothing for a class of the samples, next to no probability for another."""
    prior = log_prior(np.array([0, 0, 0, 2]), 4)
    assert prior.dtype == np.float32
    assert prior.tolist() == [0, ABSENT, 0, ABSENT]
    assert not log_prior(np.arange(6), 6).any()


@pytest.mark.parametrize("name", INSTALLED_RUNTIMES)
@pytest.mark.parametrize("known", [True, False])
def test_what_a_device_has_never_seen_it_leaves_alone(name: str, known: bool) -> None:
    """With two of five classes the last layer's other rows are flipped by the plain loss only."""
    training = Training(epochs=6, batch=8, learning_rate=0.03)
    runtime = registry.open_runtime(make_bundle(TICKET, name, training), training)
    start = np.full(TICKET.kept, 0.1, dtype=np.float32)
    prior = log_prior(Y, 5) if known else np.zeros(5, dtype=np.float32)
    *_, trained = train(runtime, X, Y, prior=prior, training=training, start=start, seed=3)
    assert trained is not None
    last = TICKET.kept_layers[-1]
    flipped = np.bincount(last.indices // last.shape.fan_in, weights=~trained.signs[last.slice], minlength=5)
    assert flipped[[1, 3]].all()
    assert flipped[[0, 2, 4]].any() != known
    assert count_correct(runtime, X, Y, prior) >= 36
