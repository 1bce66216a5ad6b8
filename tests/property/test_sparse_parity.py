"""The sparse runtime against torch autograd in float64, over random networks, tickets and batches.

Max pools and ReLUs decide by comparing sums; where two sums are equal, or nearly, a float32 and a
float64 computation may decide differently and both be right. With +-constant weights equal sums are
common, so those networks get data and scales that are small multiples of powers of two: every
forward sum is then exact in both, and the decisions, ties included, must be the same.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
from edge_client.kernels import library  # noqa: E402
from edge_client.runtimes.sparse import SparseRuntime  # noqa: E402
from export.torch_net import TorchReference  # noqa: E402
from tests.graph_plans import graph_plans  # noqa: E402
from wire.bundle import Bundle  # noqa: E402
from wire.layers import AvgPool, Conv, Flatten, Layer, Linear, MaxPool, Relu  # noqa: E402
from wire.plan import Plan  # noqa: E402
from wire.settings import Training  # noqa: E402
from wire.ticket import Keep, Ticket  # noqa: E402

pytestmark = pytest.mark.skipif(library.library_path() is None, reason="kernels not built")
TOLERANCE = 1e-5  # of the layer's largest gradient


def _window(draw: st.DrawFn, sizes: tuple[int, ...], largest: int) -> tuple[int, ...]:
    return tuple(draw(st.integers(1, min(largest, size))) for size in sizes)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Up to two convolutions or pools of any shape over 1 or 2 dimensions, then up to two linear layers."""
    sides = draw(st.sampled_from([0, 1, 2]))
    input_shape = (draw(st.integers(1, 5)), *(draw(st.integers(1, 13)) for _ in range(sides)))
    layers: list[Layer] = [Relu()] if draw(st.booleans()) and draw(st.booleans()) else []
    sizes = input_shape[1:]
    for _ in range(draw(st.integers(0, 3)) if sides else 0):
        kind = draw(st.sampled_from(["conv", "conv", "max", "average"]))
        kernel = _window(draw, sizes, 5 if kind == "conv" else 3)
        stride = tuple(draw(st.integers(1, 3)) for _ in sizes)
        padding = tuple(draw(st.integers(0, k - 1)) if kind == "conv" else 0 for k in kernel)
        if kind == "conv":
            out = draw(st.sampled_from([1, 2, 4, 6, 8, 12]))
            layers.append(Conv(out_channels=out, kernel=kernel, stride=stride, padding=padding))
        elif kind == "max":
            layers.append(MaxPool(kernel=kernel, stride=draw(st.sampled_from([kernel, stride]))))
        else:
            kernel = tuple(1 << (k - 1).bit_length() for k in kernel if k)
            kernel = tuple(min(k, 1 << (size.bit_length() - 1)) for k, size in zip(kernel, sizes, strict=True))
            layers.append(AvgPool(kernel=kernel, stride=stride))  # sides are powers of two: exact means
        if draw(st.booleans()):
            layers.append(Relu())
        sizes = Plan(
            name="part", input_shape=input_shape, layers=(*layers, Flatten(), Linear(out_features=1))
        ).shapes()[len(layers)][1:]
    if sides:
        layers.append(Flatten())
    for _ in range(draw(st.integers(0, 1))):
        layers.append(Linear(out_features=draw(st.sampled_from([3, 4, 8, 20]))))
        layers.append(Relu())
    layers.append(Linear(out_features=draw(st.sampled_from([2, 4, 10]))))
    if draw(st.integers(0, 7)) == 0:
        layers.append(Relu())
    return Plan(name="any", input_shape=input_shape, layers=tuple(layers))


@st.composite
def tickets(draw: st.DrawFn, magnitudes: str, networks: st.SearchStrategy[Plan]) -> Ticket:
    """Any density, down to a single block in a layer, so that most rows keep nothing; any block size."""
    plan = draw(networks)
    layers = []
    for shape in plan.weight_layers():
        block = draw(st.sampled_from([b for b in (1, 2, 3, 4, 8) if shape.out_units % b == 0]))
        density = draw(st.sampled_from([0.005, 0.05, 0.3, 1.0]))
        blocks = max(1, round(shape.weights / block * density))
        layers.append(Keep(block=block, mask=blocks, scale=draw(st.sampled_from([0.25, 0.5]))))
    return Ticket(plan=plan, seed=draw(st.integers(0, 1 << 32)), magnitudes=magnitudes, layers=tuple(layers))


def _check(ticket: Ticket, batch: int, n: int, seed: int, exact: bool) -> None:
    rng = np.random.default_rng(seed)
    shape = (n, *ticket.plan.input_shape)
    x = (rng.integers(-3, 4, shape) / 4 if exact else rng.normal(size=shape)).astype(np.float32)
    y = rng.integers(0, ticket.plan.classes, n)
    weights = rng.integers(0, 3, n).astype(np.float32)
    weights[rng.integers(n)] = 1.0
    scores = rng.normal(size=ticket.kept).astype(np.float32)
    training = Training(batch=batch)
    runtime = SparseRuntime(Bundle(runtime="sparse", ticket=ticket), training)
    reference = TorchReference(ticket, training, dtype=torch.float64)
    runtime.set_scores(scores)
    reference.set_scores(scores)
    loss, correct, expected = reference.gradient(x, y, weights)
    for _ in range(2):  # the second time on memory the first has used
        result, gradient = runtime.gradient(x, y, weights)
        assert result.loss == pytest.approx(loss, rel=1e-5, abs=1e-6)
        assert result.correct == pytest.approx(correct, abs=1e-6)
        for layer in ticket.kept_layers:
            want, got = expected[layer.slice], gradient[layer.slice]
            assert np.abs(got - want).max() <= TOLERANCE * np.abs(want).max() + 1e-7
    logits = reference.logits(x)
    assert np.abs(runtime.logits(x) - logits).max() <= TOLERANCE * np.abs(logits).max() + 1e-9


@pytest.mark.slow
@settings(max_examples=150, deadline=None, derandomize=True)
@given(ticket=tickets("constant", plans()), batch=st.integers(1, 64), data=st.data())
def test_constant_magnitudes_agree_with_autograd(ticket: Ticket, batch: int, data: st.DataObject) -> None:
    """Loss, hits, logits and every score's gradient are autograd's, twice in a row."""
    _check(ticket, batch, data.draw(st.integers(1, batch)), data.draw(st.integers(0, 1 << 30)), exact=True)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(ticket=tickets("normal", plans()), batch=st.integers(1, 64), data=st.data())
def test_normal_magnitudes_agree_with_autograd(ticket: Ticket, batch: int, data: st.DataObject) -> None:
    """The same for weights with magnitudes of their own."""
    _check(ticket, batch, data.draw(st.integers(1, batch)), data.draw(st.integers(0, 1 << 30)), exact=False)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(ticket=tickets("constant", graph_plans(exact=True)), batch=st.integers(1, 20), data=st.data())
def test_branches_agree_with_autograd(ticket: Ticket, batch: int, data: st.DataObject) -> None:
    """Residuals, concatenations, recalls, groups and rectifiers, tensors read by several layers."""
    _check(ticket, batch, data.draw(st.integers(1, batch)), data.draw(st.integers(0, 1 << 30)), exact=True)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(ticket=tickets("normal", graph_plans()), batch=st.integers(1, 20), data=st.data())
def test_norms_and_smooth_activations_agree_with_autograd(ticket: Ticket, batch: int, data: st.DataObject) -> None:
    """The same with normalisation, hardswish and gelu."""
    _check(ticket, batch, data.draw(st.integers(1, batch)), data.draw(st.integers(0, 1 << 30)), exact=False)
