"""The size of a random network's logits, and the last layer's scale set by it."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator.calibrate import logit_deviation
from coordinator.models import build_plan
from coordinator.prune import LOGIT_DEVIATION, prune
from tests.helpers import BRANCHES
from wire import bits
from wire.layers import Flatten, Linear, Relu
from wire.plan import Plan
from wire.ticket import Keep, Ticket

DEEP = Plan(
    name="deep",
    input_shape=(8, 4),
    layers=(Flatten(), Linear(out_features=64), Relu(), Linear(out_features=64), Relu(), Linear(out_features=5)),
)


def masked(kept: list[np.ndarray]) -> Ticket:
    """A ticket of `DEEP` with these keep masks, each bool (out, in), weights +-1/4."""
    layers = tuple(Keep(block=1, mask=bits.encode(mask.reshape(-1)), scale=0.25) for mask in kept)
    return Ticket(plan=DEEP, seed=1, magnitudes="constant", layers=layers, made={})


def test_one_layer_is_a_root_of_a_sum() -> None:
    """Four kept weights of 1/2 per class on inputs of mean square 1: sqrt(4 / 4)."""
    plan = Plan(name="one", input_shape=(4,), layers=(Linear(out_features=3),))
    ticket = Ticket(
        plan=plan,
        seed=0,
        magnitudes="constant",
        layers=(Keep(block=1, mask=bits.encode(np.ones(12, dtype=bool)), scale=0.5),),
        made={},
    )
    assert logit_deviation(ticket) == 1.0


def test_it_is_what_random_signs_come_to() -> None:
    """Over 2,000 draws of all signs, the logits' root mean square is within 5 % of it."""
    rng = np.random.default_rng(0)
    kept = [rng.random((64, 32)) < 0.5, rng.random((64, 64)) < 0.2, rng.random((5, 64)) < 0.5]
    x = rng.normal(size=(1, 32))
    x *= np.sqrt(32) / np.linalg.norm(x)
    squares = []
    for _ in range(2000):
        h = x
        for mask in kept[:-1]:
            h = np.maximum(h @ (mask * rng.choice([-0.25, 0.25], mask.shape)).T, 0)
        squares.append((h @ (kept[-1] * rng.choice([-0.25, 0.25], kept[-1].shape)).T) ** 2)
    assert logit_deviation(masked(kept)) == pytest.approx(float(np.sqrt(np.mean(squares))), rel=0.05)


def test_gathered_weights_make_larger_logits() -> None:
    """As many kept weights on a quarter of the units: the logits are larger, though Kaiming's rule is the same."""
    spread, gathered = np.zeros((64, 64), dtype=bool), np.zeros((64, 64), dtype=bool)
    spread[np.arange(64)[:, None], (np.arange(64)[:, None] + np.arange(4)) % 64] = True
    gathered[:16, :16] = True
    first = np.ones((64, 32), dtype=bool)
    last = np.zeros((5, 64), dtype=bool)
    last[:, :16] = True
    assert spread.sum() == gathered.sum()
    assert logit_deviation(masked([first, gathered, last])) > 1.5 * logit_deviation(masked([first, spread, last]))


@pytest.mark.slow
@pytest.mark.parametrize(("density", "magnitudes"), [(0.1, "constant"), (0.03, "constant"), (0.1, "normal")])
def test_pruning_sets_the_last_layer_by_it(density: float, magnitudes: str) -> None:
    """Whatever the density, the logits come out as asked; 0 leaves Kaiming's scale; other layers are not touched."""
    plan = build_plan("har-cnn", input_shape=(6, 128), classes=6)
    tickets = {
        wanted: prune(plan, density=density, seed=3, passes=5, magnitudes=magnitudes, logit_deviation=wanted)
        for wanted in (0.0, LOGIT_DEVIATION, 1.0)
    }
    assert logit_deviation(tickets[LOGIT_DEVIATION]) == pytest.approx(LOGIT_DEVIATION, rel=1e-6)
    assert logit_deviation(tickets[1.0]) == pytest.approx(1.0, rel=1e-6)
    assert logit_deviation(tickets[0.0]) > 1.2
    assert tickets[0.0].layers[:-1] == tickets[1.0].layers[:-1]
    assert tickets[0.0].layers[-1].mask == tickets[1.0].layers[-1].mask


def test_a_network_that_normalises_gets_larger_logits() -> None:
    """Its features cannot grow, so its logits start four times as large."""
    plan = build_plan("har-resnet")
    ticket = prune(plan, density=0.1, seed=3, passes=5, logit_deviation=0.25)
    assert logit_deviation(ticket) == pytest.approx(1.0, rel=1e-6)


def test_branches_norms_and_smooth_activations_by_random_signs() -> None:
    """Every kind of layer that changes the mean square: within 25 % of 300 draws of all signs in torch."""
    torch = pytest.importorskip("torch")
    from export.torch_net import TorchNet

    ticket = prune(BRANCHES, density=0.6, seed=1, passes=3, block=1, logit_deviation=0)
    net = TorchNet(ticket)
    generator = torch.Generator().manual_seed(0)
    squares = []
    with torch.no_grad():
        for _ in range(300):
            x = torch.randn(16, 6, 12, generator=generator)
            signs = torch.where(torch.rand(ticket.kept, generator=generator) < 0.5, -1.0, 1.0)
            squares.append(float((net.logits(signs, x) ** 2).mean()))
    assert logit_deviation(ticket) == pytest.approx(float(np.sqrt(np.mean(squares))), rel=0.25)
