"""Rewritten plans compute what they did, and the backward pass visits what it must and nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.backward import backward
from export.rewrite import relu_after_pool
from export.torch_net import forward
from tests.graph_plans import graph_plans
from wire.layers import Add, AvgPool, Concat, Conv, Flatten, Layer, Linear, MaxPool, Recall, Relu, Relu6
from wire.plan import Plan

CONV = Conv(out_channels=2, kernel=(3,), stride=(1,), padding=(1,))
POOL = MaxPool(kernel=(2,), stride=(2,))
END = (Flatten(), Linear(out_features=3))


def plan_of(*layers: Layer) -> Plan:
    """Layers on two channels of 16 samples, and three classes."""
    return Plan(name="rewritten", input_shape=(2, 16), layers=(*layers, *END))


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([CONV, Relu(), POOL], [CONV, POOL, Relu()]),
        ([Relu(), POOL], [POOL, Relu()]),
        ([CONV, Relu(), POOL, POOL], [CONV, POOL, POOL, Relu()]),
        ([CONV, Relu(), POOL, CONV, Relu(), POOL], [CONV, POOL, Relu(), CONV, POOL, Relu()]),
        # The pool's output is read twice: it keeps its number.
        ([CONV, Relu(), POOL, CONV, Add(source=3)], [CONV, POOL, Relu(), CONV, Add(source=3)]),
    ],
)
def test_pools_move_before_relus(layers: list[Layer], expected: list[Layer]) -> None:
    """A max pool right behind a ReLU is put before it, through several pools too."""
    assert relu_after_pool(plan_of(*layers)) == plan_of(*expected)


@pytest.mark.parametrize(
    "layers",
    [
        [CONV, Relu(), AvgPool(kernel=(2,), stride=(2,))],
        [CONV, Relu6(), POOL],
        [CONV, POOL, Relu()],
        [CONV, Relu(), POOL, Recall(source=2), POOL, Add(source=3)],
        [CONV, Relu(), POOL, Recall(source=2), AvgPool(kernel=(2,), stride=(2,)), Concat(source=3)],
        [CONV, Relu(), Recall(source=1), POOL, Recall(source=2), POOL, Add(source=4)],
    ],
)
def test_what_must_not_move_stays(layers: list[Layer]) -> None:
    """Other pools, other activations, and ReLUs that anyone else reads."""
    assert relu_after_pool(plan_of(*layers)) == plan_of(*layers)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, derandomize=True)
@given(plan=graph_plans(), seed=st.integers(0, 1000))
def test_rewritten_plan_has_the_same_logits_and_gradients(plan: Plan, seed: int) -> None:
    """Bit for bit: only maxima and ReLUs change places, and what is read later is where it was."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weights = [random(*shape.weight_shape).requires_grad_() for shape in plan.weight_layers()]
    x, rewritten = random(2, *plan.input_shape), relu_after_pool(plan)
    assert (rewritten.sources(), rewritten.learns()) == (plan.sources(), plan.learns())
    logits, others = (forward(one, weights, x) for one in (plan, rewritten))
    assert torch.equal(logits, others)
    direction = random(*logits.shape)
    for one, other in zip(*(torch.autograd.grad(y, weights, direction) for y in (logits, others)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_backward_sums_what_readers_give_and_stops_at_the_first_weights() -> None:
    """Gradients as texts: who was asked for what, in which order."""
    layers = (Relu(), CONV, Relu(), CONV, Add(source=3), Concat(source=1), *END)
    asked: list[tuple[int, int]] = []
    learned: dict[int, str] = {}

    def input_gradient(position: int, number: int, dy: str) -> str:
        asked.append((position, number))
        return f"{position}.{number}({dy})"

    plan = Plan(name="texts", input_shape=(2, 16), layers=layers)
    backward(plan, "y", learn=learned.__setitem__, input_gradient=input_gradient, add=lambda a, b: f"[{a}+{b}]")
    # Neither value 1, which the concatenation reads too, nor the input has weights before it.
    assert asked == [(7, 0), (6, 0), (5, 0), (4, 0), (4, 1), (3, 0), (2, 0)]
    joined = "5.0(6.0(7.0(y)))"
    assert learned == {
        7: "y",
        3: f"4.0({joined})",
        1: f"2.0([4.1({joined})+3.0(4.0({joined}))])",
    }
