"""Networks and data whose sums come out the same on every processor, so that signs can be compared after many steps.

Data and scales are small multiples of powers of two, as in `tests/property/test_sparse_parity.py`: what ReLUs and max
pools compare is exact in float32, in whatever order it is summed. With other scales every sum that cancels to nearly 0
falls to a side of its own for each order of summation; after 20 steps of Adam percents of the signs differ, torch's
own float32 and float64 among them, and nothing is wrong (`export.verify` compares step by step for this reason).
"""

from __future__ import annotations

from importlib.util import find_spec
from math import gcd, log2, sqrt
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from coordinator.models import build_plan
from edge_client.runtimes import registry
from wire.plan import Plan
from wire.ticket import Keep, Ticket

STEPS = 20
# What is left: Adam moves a score by its gradient's sign however small the gradient is, and a softmax is exact nowhere.
# So scores whose gradient is nearly 0 may go their own ways; at most so many of all may do so. None did when measured.
STRAY_SIGNS = 1e-3
HAR = build_plan("har-cnn", input_shape=(6, 128), classes=6)
LENET = build_plan("lenet", input_shape=(1, 28, 28), classes=10)
# To make programs and to run them here, too.
EXECUTORCH = "executorch" in registry.available() and find_spec("tabulate") is not None
needs_executorch = pytest.mark.skipif(not EXECUTORCH, reason="executorch is not installed here: make executorch")


def exact_ticket(plan: Plan, density: float) -> Ticket:
    """A seeded random mask; the scale of every layer is the power of two next to He's."""
    layers = []
    for shape in plan.weight_layers():
        block = gcd(4, shape.out_units)
        blocks = max(1, round(shape.weights * density / block))
        scale = 2.0 ** round(log2(sqrt(2 * shape.out_units / (blocks * block))))
        layers.append(Keep(block=block, mask=blocks, scale=scale))
    return Ticket(plan=plan, seed=3, magnitudes="constant", layers=tuple(layers))


def exact_samples(plan: Plan, n: int, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
    """Samples float32 (n, *input_shape) in quarters from -3/4 to 3/4, labels int64 (n,)."""
    x = rng.integers(-3, 4, (n, *plan.input_shape)).astype(np.float32) / 4
    return x, rng.integers(0, plan.classes, n)


def apart(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Share of scores (kept,) whose signs differ."""
    return float(np.mean((first >= 0) != (second >= 0)))
