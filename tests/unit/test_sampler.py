"""What a round costs, measured on the runtimes themselves."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator.models import MODELS, build_plan
from coordinator.prune import prune
from edge_client.runtimes import registry
from edge_client.runtimes.sparse import SparseRuntime
from edge_client.sampler import LAYERS_EVERY, Sampler
from edge_client.trainer import Trained, train
from export.bundle import make_bundle
from wire.settings import Training

TRAINING = Training(epochs=2, batch=8)


def trained(name: str, sampler_of: str = "sparse") -> tuple[Sampler, Trained, int]:
    """A few steps with a sampler beside them."""
    plan = build_plan(name)
    bundle = make_bundle(prune(plan, density=0.05, seed=0, method="uniform"), sampler_of, TRAINING)
    runtime = registry.open_runtime(bundle, TRAINING)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((24, *plan.input_shape), dtype=np.float32)
    y = rng.integers(0, plan.classes, 24)
    start = np.full(bundle.ticket.kept, 0.1, dtype=np.float32)
    sampler, last = Sampler(runtime), None
    steps = train(runtime, x, y, prior=np.zeros(plan.classes, np.float32), training=TRAINING, start=start, seed=1)
    sampler.start()
    while last is None:
        sampler.before_step()
        last = next(steps)
    return sampler, last, len(plan.layers)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * name.startswith("conv")) for name in MODELS]
)
def test_every_layer_has_its_share_of_a_step(name: str) -> None:
    """Every network of the zoo: times of all layers, together no longer than a step; the arena is used as planned."""
    sampler, last, layers = trained(name)
    spent = sampler.finish(3, last)
    assert (spent.number, spent.steps) == (3, len(last.steps_s)) == (3, 6)
    assert len(spent.forward_us) == len(spent.backward_us) == layers
    in_layers = sum(spent.forward_us) + sum(spent.backward_us)
    assert 0 < in_layers <= 1.1 * last.steps_s[0] * 1e6 + layers
    assert spent.step_p50_us is not None
    assert spent.step_max_us is not None
    assert spent.step_p50_us <= spent.step_max_us
    assert sum(spent.bucket_counts) == spent.steps
    assert spent.arena_planned_bytes is not None
    assert spent.arena_used_bytes is not None
    assert spent.arena_planned_bytes / 4 < spent.arena_used_bytes <= spent.arena_planned_bytes


def test_only_one_step_in_so_many_is_timed_layer_by_layer() -> None:
    """The clock is off for all others."""
    sampler, _, _ = trained("har-cnn")
    runtime = sampler.runtime
    assert isinstance(runtime, SparseRuntime)
    sampler.start()
    on = []
    for _ in range(LAYERS_EVERY + 2):
        sampler.before_step()
        on.append(bool(runtime._network.seconds))
    assert on == [True] + [False] * (LAYERS_EVERY - 1) + [True, False]


def test_a_runtime_without_a_clock_leaves_its_layers_unknown() -> None:
    """Its steps are known all the same."""
    sampler, last, _ = trained("har-cnn", "onnx")
    spent = sampler.finish(1, last)
    assert spent.forward_us == ()
    assert spent.arena_planned_bytes is None
    assert spent.steps == 6
    assert spent.step_p95_us
