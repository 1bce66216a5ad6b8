"""How much each weight matters before any data is seen: SynFlow, magnitude. The only torch in pruning."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from wire import prng
from wire.plan import Plan

Scores = list[NDArray[np.float64]]  # one array per weight layer, shape (out, positions)
Masks = Sequence[NDArray[np.bool_]]  # likewise


def initial_magnitudes(plan: Plan, seed: int) -> Scores:
    """|w| of a Kaiming-normal initialisation, float64 (out, positions) per layer.

    Source: He et al. 2015 (arXiv 1502.01852), std = sqrt(2 / fan_in).
    """
    return [
        (math.sqrt(2 / shape.fan_in) * prng.normals(seed, shape.index, shape.weights)).reshape(shape.out_units, -1)
        for shape in plan.weight_layers()
    ]


def synaptic_flow(plan: Plan, magnitudes: Scores, masks: Masks) -> tuple[Scores, NDArray[np.float64]]:
    """Score every weight by the flow that passes through it; no data.

    R = 1^T (prod |W_l|) 1 for an all-ones input, score = |dR/dw * w|; activations and normalisation are left out, and
    branches add up, so that a network with residuals is the sum over its paths.
    In float64: with its rounding noise of 1e-16 two machines order the scores alike.

    Args:
        plan: the network.
        magnitudes: |w| per layer, float64 (out, positions).
        masks: weights that are still there, bool (out, positions) per layer.

    Returns:
        scores per layer, float64 (out, positions), >= 0; and the flow into every class, float64 (classes,).

    Source: Tanaka et al. 2020 (arXiv 2006.05467), equations 2 and 3.
    """
    with _one_thread():
        return _flow(plan, magnitudes, masks)


def _flow(plan: Plan, magnitudes: Scores, masks: Masks) -> tuple[Scores, NDArray[np.float64]]:
    import torch

    from export.torch_net import forward

    weights = [
        torch.from_numpy(np.where(mask, magnitude, 0.0)).reshape(shape.weight_shape).requires_grad_()
        for shape, magnitude, mask in zip(plan.weight_layers(), magnitudes, masks, strict=True)
    ]
    flow = forward(plan, weights, torch.ones(1, *plan.input_shape, dtype=torch.float64), linear=True)[0]
    gradients = torch.autograd.grad(flow.sum(), weights)
    scores = [
        (gradient * weight).detach().numpy().reshape(mask.shape)
        for gradient, weight, mask in zip(gradients, weights, masks, strict=True)
    ]
    return scores, flow.detach().numpy()


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for one sample: on a busy machine torch's second only waits (ten times slower, measured)."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
