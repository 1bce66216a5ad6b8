"""The vectors for clients in other languages: what torch, our runtimes and our codecs say today."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edge_client.runtimes import registry
from edge_client.trainer import train
from export.bundle import make_bundle
from tests.golden import vectors
from tests.helpers import INSTALLED_RUNTIMES
from wire import mask, messages
from wire.federation_messages import MaskUpdate
from wire.prng import mix
from wire.settings import Training
from wire.ticket import decode_ticket

FOUND = json.loads(vectors.PATH.read_text())
TICKET = decode_ticket(bytes.fromhex(FOUND["ticket"]))
TRAINING = Training(**FOUND["training"])
X, Y = np.array(FOUND["x"], np.float32), np.array(FOUND["y"])


def test_they_are_what_torch_and_the_codecs_say() -> None:
    """All bytes and signs exactly, all numbers to the last digits."""
    made = json.loads(json.dumps(vectors.make()))
    numbers = ("x", "log_prior", "start_scores", "votes_mean", "layers", "steps")
    for name in made.keys() - set(numbers):
        assert made[name] == FOUND[name], name
    for name in ("x", "log_prior", "start_scores", "votes_mean"):
        assert np.allclose(made[name], FOUND[name], rtol=1e-7, atol=0), name
    for now, then in zip(made["steps"], FOUND["steps"], strict=True):
        assert now["samples"] == then["samples"]
        assert np.allclose(now["gradient"], then["gradient"], rtol=1e-6, atol=1e-9)
        assert np.allclose(now["scores"], then["scores"], rtol=1e-6, atol=1e-9)
    assert len(vectors.PATH.read_bytes()) < 50_000


@pytest.mark.parametrize("name", INSTALLED_RUNTIMES)
def test_our_runtimes_agree_with_every_step(name: str) -> None:
    """Loss, hits and gradient at the vectors' scores, and the same signs and bytes after a whole round."""
    runtime = registry.open_runtime(make_bundle(TICKET, name, TRAINING), TRAINING)
    runtime.set_log_prior(np.array(FOUND["log_prior"], np.float32))
    scores = np.array(FOUND["start_scores"], np.float32)
    for step in FOUND["steps"]:
        runtime.set_scores(scores)
        chosen = step["samples"]
        result, gradient = runtime.gradient(X[chosen], Y[chosen], np.ones(len(chosen), np.float32))
        assert result.loss == pytest.approx(step["loss"], rel=1e-5)
        assert result.correct == step["correct"]
        expected = np.array(step["gradient"])
        for layer in TICKET.kept_layers:
            error = np.abs(gradient[layer.slice] - expected[layer.slice]).max()
            assert error <= 1e-5 * np.abs(expected[layer.slice]).max()
        scores = np.array(step["scores"], np.float32)
    votes = mask.decode_votes(bytes.fromhex(FOUND["votes"]), TICKET.ends)
    assert votes.signs.astype(int).tolist() == FOUND["votes_signs"]
    order = FOUND["order"]
    *_, trained = train(
        runtime,
        X,
        Y,
        prior=np.array(FOUND["log_prior"], np.float32),
        training=TRAINING,
        start=votes.start_scores(TRAINING.start),
        seed=mix(order["federation_seed"], order["round"], order["device"]),
    )
    assert trained is not None
    assert trained.signs.astype(int).tolist() == FOUND["signs"]
    assert mask.encode_signs(trained.signs, votes, TICKET.ends).hex() == FOUND["mask"]


def test_the_message_carries_the_mask() -> None:
    """It decodes to an update with the coded mask, and the mask flips some signs but not most."""
    update = messages.decode(bytes.fromhex(FOUND["message"]))
    assert isinstance(update, MaskUpdate)
    assert update.signs.hex() == FOUND["mask"]
    flips = np.array(FOUND["signs"]) != np.array(FOUND["votes_signs"])
    assert 0 < flips.sum() < TICKET.kept / 2
