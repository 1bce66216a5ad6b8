"""The sparse runtime: what the contract of runtimes promises, and what its memory plan does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.models import build_plan
from edge_client.kernels import library
from edge_client.runtimes.base import Floats, Labels
from edge_client.runtimes.sparse import SparseRuntime
from tests.helpers import random_ticket
from wire.arena import Buffer, place
from wire.bundle import Bundle
from wire.errors import ConfigError, DataError, RuntimeMissing
from wire.layers import Conv, Flatten, Linear, MaxPool, Relu
from wire.plan import Plan
from wire.settings import Training
from wire.ticket import Keep, Ticket

needs_kernels = pytest.mark.skipif(library.library_path() is None, reason="kernels not built")
HAR = build_plan("har-cnn", input_shape=(6, 128), classes=6)
Batch = tuple[Floats, Labels, Floats]


def _runtime(ticket: Ticket, *, threads: int = 1, **training: object) -> SparseRuntime:
    return SparseRuntime(Bundle(runtime="sparse", ticket=ticket), Training(**training), threads=threads)  # type: ignore[arg-type]


def _batch(plan: Plan, n: int, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, *plan.input_shape)).astype(np.float32)
    return x, rng.integers(0, plan.classes, n), rng.uniform(0.5, 2, n).astype(np.float32)


@needs_kernels
@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_steps_are_those_of_torch_optim(optimiser: str) -> None:
    """Given the same gradients, five steps move every score as torch.optim and a clamp do."""
    pytest.importorskip("torch")
    from export.torch_net import TorchReference

    ticket = random_ticket(HAR, 0.1, seed=3)
    settings = Training(optimiser=optimiser, learning_rate=0.05, clip=0.15, batch=12)
    runtime, reference = (
        SparseRuntime(Bundle(runtime="sparse", ticket=ticket), settings),
        TorchReference(ticket, settings),
    )
    for seed in range(5):
        batch = _batch(HAR, 12, seed)
        _, gradient = runtime.gradient(*batch)
        runtime.step(*batch)
        reference.apply(gradient)
        np.testing.assert_allclose(runtime.scores(), reference.scores(), rtol=0, atol=2e-7)
    assert np.abs(runtime.scores()).max() == np.float32(0.15)


@needs_kernels
@pytest.mark.parametrize(
    "name", ["har-cnn", "lenet", *(pytest.param(name, marks=pytest.mark.slow) for name in ("conv2", "conv4"))]
)
@pytest.mark.parametrize("block", [4, 1])
def test_every_model_agrees_with_autograd(name: str, block: int) -> None:
    """Gradients and logits are within 1e-5 of float64 autograd's, per layer; magnitudes differ, so no sums tie."""
    torch = pytest.importorskip("torch")
    from export.torch_net import TorchReference

    plan = build_plan(name, input_shape=(6, 128) if name == "har-cnn" else (1, 28, 28), classes=10)
    ticket = random_ticket(plan, 0.07, seed=5, block=block, magnitudes="normal")
    runtime = _runtime(ticket, batch=9)
    reference = TorchReference(ticket, Training(batch=9), dtype=torch.float64)
    batch = _batch(plan, 9)
    _, gradient = runtime.gradient(*batch)
    _, _, expected = reference.gradient(*batch)
    for layer in ticket.kept_layers:
        want, got = expected[layer.slice], gradient[layer.slice]
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()
    logits = reference.logits(batch[0])
    assert np.abs(runtime.logits(batch[0]) - logits).max() <= 1e-5 * np.abs(logits).max()


@needs_kernels
def test_repeating_a_gradient_repeats_its_bits() -> None:
    """Nothing of an earlier call is left in the arena that a later one reads."""
    runtime = _runtime(random_ticket(HAR, 0.1, seed=1), batch=16)
    batch = _batch(HAR, 16)
    first = runtime.gradient(*batch)[1]
    runtime.logits(np.full((3, 6, 128), np.inf, dtype=np.float32))
    assert np.array_equal(runtime.gradient(*batch)[1], first)


@needs_kernels
def test_a_sample_of_weight_zero_changes_nothing() -> None:
    """Padding may hold anything, not-a-number included."""
    runtime = _runtime(random_ticket(HAR, 0.1, seed=1), batch=16)
    x, y, weights = _batch(HAR, 5)
    result, gradient = runtime.gradient(x, y, weights)
    padded = np.concatenate([x, np.full((4, 6, 128), np.nan, dtype=np.float32)])
    more = np.concatenate([weights, np.zeros(4, dtype=np.float32)])
    same, again = runtime.gradient(padded, np.concatenate([y, np.zeros(4, dtype=np.int64)]), more)
    assert same.correct == result.correct
    np.testing.assert_allclose(again, gradient, rtol=1e-4, atol=1e-7)


@needs_kernels
def test_micro_batches_add_up_to_the_batch() -> None:
    """A batch of 32 gives the weighted mean of its samples' own gradients."""
    ticket = random_ticket(HAR, 0.1, seed=2)
    x, y, weights = _batch(HAR, 32)
    whole = _runtime(ticket, batch=32).gradient(x, y, weights)[1]
    single = _runtime(ticket, batch=1)
    parts = [single.gradient(x[i : i + 1], y[i : i + 1], weights[i : i + 1])[1] * weights[i] for i in range(32)]
    np.testing.assert_allclose(whole, np.sum(parts, axis=0) / weights.sum(), rtol=0, atol=2e-5 * np.abs(whole).max())


@needs_kernels
def test_threads_give_the_same_gradient() -> None:
    """Threads share a batch's micro-batches; the sums differ by rounding only, and not from run to run."""
    ticket = random_ticket(HAR, 0.1, seed=2)
    batch = _batch(HAR, 30)
    alone, team = _runtime(ticket, batch=32), _runtime(ticket, batch=32, threads=3)
    expected, gradient = alone.gradient(*batch)[1], team.gradient(*batch)[1]
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert np.array_equal(team.gradient(*batch)[1], gradient)
    assert team.memory_plan()["activations"] == 3 * alone.memory_plan()["activations"]


@needs_kernels
@pytest.mark.parametrize("kernel", [(2, 2), (1, 2), (3, 3)])
@pytest.mark.parametrize("batch", [1, 3, 8])  # micro-batches of 1, 4 and 8 lanes take different paths
def test_ties_in_a_max_pool_go_to_the_first(batch: int, kernel: tuple[int, int]) -> None:
    """Among equal elements of a window the first in row-major order gets the gradient, as in torch."""
    torch = pytest.importorskip("torch")
    from export.torch_net import TorchReference

    conv = Conv(out_channels=4, kernel=(3, 3), stride=(1, 1), padding=(1, 1))
    layers = (conv, MaxPool(kernel=kernel, stride=kernel), Flatten(), Linear(out_features=4))
    plan = Plan(name="ties", input_shape=(1, 18, 18), layers=layers)
    keep = (Keep(block=4, mask=2, scale=0.5), Keep(block=4, mask=30, scale=0.5))
    ticket = Ticket(plan=plan, seed=1, magnitudes="constant", layers=keep)
    rng = np.random.default_rng(0)
    x = (rng.integers(-1, 2, (batch, 1, 18, 18)) / 8).astype(np.float32)  # three values: most windows tie
    y, weights = rng.integers(0, 4, batch), np.ones(batch, dtype=np.float32)
    reference = TorchReference(ticket, Training(batch=batch), dtype=torch.float64)
    _, gradient = _runtime(ticket, batch=batch).gradient(x, y, weights)
    expected = reference.gradient(x, y, weights)[2]
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-5 * np.abs(expected[:8]).max())


@needs_kernels
def test_scores_of_zero_are_positive_and_are_copied() -> None:
    """sign(0) = +1; the runtime keeps a copy and hands out copies."""
    ticket = random_ticket(HAR, 0.1, seed=1, block=8)  # a block the kernels rearrange
    runtime = _runtime(ticket, batch=4)
    x = _batch(HAR, 4)[0]
    ones = runtime.logits(x)
    scores = np.linspace(-1, 1, ticket.kept).astype(np.float32)
    runtime.set_scores(scores)
    assert np.array_equal(runtime.scores(), scores)
    assert not np.allclose(runtime.logits(x), ones)
    scores[:] = 0
    assert runtime.scores()[0] == -1
    runtime.set_scores(scores)
    assert np.array_equal(runtime.logits(x), ones)


@needs_kernels
def test_setting_scores_forgets_the_optimiser() -> None:
    """Two rounds from the same scores on the same data end alike."""
    ticket = random_ticket(HAR, 0.1, seed=1)
    runtime, batch = _runtime(ticket, batch=8), _batch(HAR, 8)
    ends = []
    for _ in range(2):
        runtime.set_scores(np.full(ticket.kept, 0.1, dtype=np.float32))
        for _ in range(3):
            runtime.step(*batch)
        ends.append(runtime.scores())
    assert np.array_equal(ends[0], ends[1])


@needs_kernels
def test_logits_take_any_number_of_samples() -> None:
    """Inference is not bound to the training batch, and a sample's logits do not depend on its neighbours."""
    runtime = _runtime(random_ticket(HAR, 0.1, seed=1), batch=8)
    x = _batch(HAR, 37)[0]
    every = runtime.logits(x)
    assert every.shape == (37, 6)
    np.testing.assert_allclose(runtime.logits(x[20:21])[0], every[20], rtol=1e-5, atol=1e-6)
    assert runtime.logits(x[:0]).shape == (0, 6)


@needs_kernels
def test_training_learns() -> None:
    """Sixty steps on one batch bring its loss down."""
    runtime, batch = _runtime(random_ticket(HAR, 0.1, seed=1), batch=16), _batch(HAR, 16)
    losses = [runtime.step(*batch).loss for _ in range(60)]
    assert losses[-1] < losses[0] / 2


@needs_kernels
def test_memory_plan_is_small_and_known() -> None:
    """har-cnn at density 0.1: under 1.5 MB in all, most of it activations; SGD keeps one moment instead of two."""
    ticket = random_ticket(HAR, 0.1, seed=1)
    plan = _runtime(ticket, batch=16).memory_plan()
    assert set(plan) == {"kept weights", "scores", "gradient", "optimiser", "activations"}
    assert sum(plan.values()) < 1_500_000
    assert plan["kept weights"] < 1.6 * ticket.kept  # a 4-byte code and a byte of signs per block of 4
    assert 2 * _runtime(ticket, batch=16, optimiser="sgd").memory_plan()["optimiser"] == plan["optimiser"]


@needs_kernels
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x, y, w: (x[:, :5], y, w), "samples of shape"),
        (lambda x, y, w: (x[:0], y[:0], w[:0]), "0 samples"),
        (lambda x, y, w: (np.concatenate([x, x]), y, w), "16 samples"),
        (lambda x, y, w: (x, y[:3], w), "labels"),
        (lambda x, y, w: (x, y + 6, w), "a label outside 0..5"),
        (lambda x, y, w: (x, y - 6, w), "a label outside 0..5"),
        (lambda x, y, w: (x, y, -w), "sample weights"),
        (lambda x, y, w: (x, y, 0 * w), "sample weights"),
        (lambda x, y, w: (x, y, w * np.nan), "sample weights"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(change: Callable[..., Batch], said: str) -> None:
    """Nothing reaches the kernels that they would have to trust."""
    runtime = _runtime(random_ticket(HAR, 0.1, seed=1), batch=8)
    batch = change(*_batch(HAR, 8))
    before = runtime.scores()
    for call in (runtime.step, runtime.gradient):
        with pytest.raises(DataError, match=said):
            call(*batch)
    assert np.array_equal(runtime.scores(), before)


@needs_kernels
def test_wrong_scores_and_threads_are_refused() -> None:
    """One score per kept weight, one thread or more."""
    ticket = random_ticket(HAR, 0.1, seed=1)
    with pytest.raises(DataError, match="scores of shape"):
        _runtime(ticket).set_scores(np.zeros(3, dtype=np.float32))
    with pytest.raises(ConfigError, match="threads is 0"):
        _runtime(ticket, threads=0)


def test_without_kernels_the_user_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without a compiler gets an error that names the way out."""
    monkeypatch.delenv("HIDENSEEK_KERNELS", raising=False)
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    library.load.cache_clear()
    try:
        assert library.library_path() is None
        with pytest.raises(RuntimeMissing, match="onnx runtime"):
            _runtime(random_ticket(HAR, 0.1, seed=1))
    finally:
        library.load.cache_clear()


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_buffers_alive_together_never_overlap(lives: list[tuple[int, int, int]]) -> None:
    """Whatever the lifetimes, two buffers share bytes only if they never meet, and all lie in the whole."""
    buffers = [Buffer(nbytes=n, born=min(a, b), dies=max(a, b)) for n, a, b in lives]
    total = place(buffers)
    for i, one in enumerate(buffers):
        assert 0 <= one.offset <= one.offset + one.nbytes <= total
        for other in buffers[i + 1 :]:
            meet = one.born <= other.dies and other.born <= one.dies
            apart = one.offset + one.nbytes <= other.offset or other.offset + other.nbytes <= one.offset
            assert apart or not meet or not one.nbytes or not other.nbytes


@needs_kernels
def test_relu_on_input_and_output_and_an_empty_row() -> None:
    """Plans that start or end in a ReLU, and rows that keep nothing, still have finite gradients of the right size."""
    plan = Plan(name="edges", input_shape=(4, 6), layers=(Relu(), Flatten(), Linear(out_features=8), Relu()))
    ticket = Ticket(plan=plan, seed=7, magnitudes="constant", layers=(Keep(block=4, mask=1, scale=1.0),))
    result, gradient = _runtime(ticket, batch=3).gradient(*_batch(plan, 3))
    assert np.isfinite(result.loss)
    assert gradient.shape == (4,)
