"""Pruning at initialisation: densities, blocks, floors, refusals, and bytes that never change."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from coordinator.models import build_plan
from coordinator.prune import METHODS, prune
from coordinator.saliency import initial_magnitudes, synaptic_flow
from wire.errors import PruneError, UnknownName
from wire.layers import Linear, Relu
from wire.plan import Plan
from wire.ticket import decode_ticket

LENET = build_plan("lenet", input_shape=(1, 28, 28), classes=10)
HAR = build_plan("har-cnn", input_shape=(6, 128), classes=6)
TINY = Plan(
    name="tiny",
    input_shape=(8,),
    layers=(Linear(out_features=8), Relu(), Linear(out_features=8), Relu(), Linear(out_features=3)),
)
RANDOM = [name for name in METHODS if name in ("uniform", "erk") or name.startswith("random-")]

# SHA-256 of lenet tickets, density 0.1, seed 7, 20 passes. They change only when tickets or pruning are meant to.
KNOWN = {
    "synflow": "f9c81ac7396eeea14069797aaf6881730578f82ce87cebedefd43c81e2584068",
    "magnitude": "c374beeb5f320f2fa8e3400315f018d74fc3a158861e0b9fa1d6c3794c6b50c5",
    "erk": "a70ca374ca1545d47ee8f832c7bdbe056b12502ec0c3652e05ec9b1b32bb4158",
    "random-synflow-oneshot": "04179e30754b56030000bf5efd01c56846c645baad9914f29d009585ccaaef00",
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_the_density_asked_for(method: str) -> None:
    """Within a block of 0.10 for global rankings, within rounding per layer for layer densities."""
    ticket = prune(LENET, density=0.1, seed=0, method=method, passes=5)
    assert ticket.density == pytest.approx(0.1, abs=5e-4)
    assert decode_ticket(ticket.encoded).id == ticket.id
    assert ticket.made["method"] == method


@pytest.mark.parametrize("method", RANDOM)
def test_seeded_random_masks_cost_under_a_kilobyte(method: str) -> None:
    """A mask that is a seed is not listed."""
    assert len(prune(HAR, density=0.1, seed=3, method=method, passes=2).encoded) < 1000


@pytest.mark.parametrize("method", KNOWN)
def test_same_options_give_the_same_bytes_for_ever(method: str) -> None:
    """The identity of a ticket is pinned: another machine or release makes the same bytes."""
    assert prune(LENET, density=0.1, seed=7, method=method, passes=20, logit_deviation=0).id.hex() == KNOWN[method]


def test_another_seed_gives_another_ticket() -> None:
    """Seeds matter for weights and for masks."""
    assert len({prune(LENET, density=0.1, seed=seed, method="uniform").id for seed in range(4)}) == 4


def test_blocks_share_positions_where_the_width_allows() -> None:
    """conv0 of lenet has 6 rows and linear4 has 10: blocks of 1 there, of 4 elsewhere."""
    ticket = prune(LENET, density=0.2, seed=0, method="magnitude", block=4)
    assert [layer.block for layer in ticket.kept_layers] == [1, 4, 4, 4, 1]
    layer = ticket.kept_layers[1]
    mask = np.zeros(layer.shape.weights, bool)
    mask[layer.indices] = True
    rows = mask.reshape(4, 4, -1)
    assert (rows == rows[:, :1]).all()


def test_block_one_takes_the_largest_weights() -> None:
    """Magnitude with free-form masks is the plain global ranking, apart from the layers' floors."""
    ticket = prune(TINY, density=0.5, seed=0, method="magnitude", block=1)
    weights = np.concatenate([w.reshape(-1) for w in initial_magnitudes(TINY, 0)])
    kept = np.concatenate([
        np.isin(np.arange(layer.shape.weights), layer.indices) for layer in ticket.kept_layers
    ])  # fmt: skip
    assert kept.sum() == round(0.5 * weights.size)
    assert weights[kept].min() >= weights[~kept].max()


def test_saliency_is_the_synaptic_flow_of_the_paper() -> None:
    """On a linear chain the score of a weight is the sum over all paths through it of the product of |w|."""
    rng = np.random.default_rng(0)
    plan = Plan(name="chain", input_shape=(3,), layers=(Linear(out_features=2), Linear(out_features=4)))
    first, second = rng.random((2, 3)), rng.random((4, 2))
    (score_1, score_2), flow = synaptic_flow(plan, [first, second], [np.ones((2, 3), bool), np.ones((4, 2), bool)])
    assert flow == pytest.approx(second @ first @ np.ones(3))
    assert score_1 == pytest.approx(first * second.sum(axis=0)[:, None])
    assert score_2 == pytest.approx(second * first.sum(axis=1)[None, :])


def test_saliency_is_conserved_from_layer_to_layer() -> None:
    """The scores of every layer add up to the same flow (Tanaka et al. 2020, theorem 1)."""
    masks = [np.ones((s.out_units, s.fan_in), bool) for s in LENET.weight_layers()]
    scores, flow = synaptic_flow(LENET, initial_magnitudes(LENET, 0), masks)
    assert [score.sum() for score in scores] == pytest.approx([flow.sum()] * len(scores))


def test_iterative_synflow_spares_layers_that_one_pass_empties() -> None:
    """METHOD.md: at density 0.1 one pass starves a layer to its floor, 100 passes keep several per cent."""
    least = {}
    for method in ("synflow", "synflow-oneshot"):
        layers = prune(LENET, density=0.1, seed=0, method=method).kept_layers
        least[method] = min(layer.kept / layer.shape.weights for layer in layers)
    assert least["synflow-oneshot"] < 0.01 < 0.03 < least["synflow"]


def test_every_layer_keeps_its_floor() -> None:
    """One weight per output unit on average, however low the scores."""
    ticket = prune(LENET, density=0.05, seed=0, method="synflow-oneshot")
    for layer in ticket.kept_layers:
        assert layer.kept >= layer.shape.out_units


def test_too_low_a_density_is_refused_with_the_least_that_works() -> None:
    """The refusal says how much is needed."""
    with pytest.raises(PruneError, match=r"density 0\.001 is too low: at least 0\.0\d+ is needed"):
        prune(LENET, density=0.001, seed=0, method="magnitude")


def test_ticket_without_a_path_to_a_class_is_refused() -> None:
    """A random mask can cut a class off; the message names it and what to try."""
    with pytest.raises(PruneError, match=r"no path from the input reaches class|would carry nothing") as caught:
        prune(TINY, density=0.15, seed=0, method="uniform", block=1)
    assert "seed" in caught.value.hint


@pytest.mark.parametrize("density", [0.0, -1.0, 1.5, float("nan")])
def test_impossible_densities_are_refused(density: float) -> None:
    """Only (0, 1] makes sense."""
    with pytest.raises(PruneError, match="density is"):
        prune(LENET, density=density, seed=0)


def test_unknown_method_is_refused_with_a_suggestion() -> None:
    """A misspelling is met with the nearest name."""
    with pytest.raises(UnknownName, match="Did you mean 'synflow'"):
        prune(LENET, density=0.1, seed=0, method="sinflow")


def test_scale_keeps_the_signal_through_the_layers() -> None:
    """Scaled by sqrt(2 / kept fan-in), the kept network's activations stay of the input's order of magnitude."""
    from export.torch_net import TorchNet

    net = TorchNet(prune(HAR, density=0.1, seed=0, method="uniform"))
    x = torch.randn(64, 6, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = net.logits(torch.ones(net.ticket.kept), x)
    assert 0.2 < float(logits.std()) < 5.0


def test_densities_of_erk_average_to_the_density() -> None:
    """Small layers are kept whole, the rest shares what is left."""
    ticket = prune(HAR, density=0.1, seed=0, method="erk")
    densities = [layer.kept / layer.shape.weights for layer in ticket.kept_layers]
    assert densities[3] == 1.0
    assert densities[1] == pytest.approx(0.0459, abs=5e-4)  # a sixth of SynFlow's: METHOD.md item 4
    assert ticket.mac_density == pytest.approx(0.085, abs=2e-3)
