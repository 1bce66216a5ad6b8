"""How large a pruned network's logits are before any data: the temperature it starts to learn at.

A sign network cannot make its weights smaller, so the size of its logits is fixed when it is pruned. Kaiming's
rule sets it by the mean fan-in of a layer; but saliency gathers the kept weights on few channels, whose real
fan-in is several times that, and the logits grow with every such layer, the lower the density the more. Such a
network is sure of itself from the start and learns badly.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from wire.layers import Activation, Add, Concat, Conv, Flatten, Gelu, Hardswish, Linear, Norm, Relu, Relu6
from wire.ticket import KeptLayer, Ticket

Squares: TypeAlias = NDArray[np.float64]  # mean square of every channel's (or feature's) activations


def logit_deviation(ticket: Ticket) -> float:
    """Standard deviation of the logits over random signs, for inputs of mean square 1.

    Mean-field second moments (Poole et al. 2016, arXiv 1606.05340; He et al. 2015, arXiv 1502.01852, section 2.2),
    one per channel: q_out = sum of w^2 q_in over the kept weights, halved by a relu; branches that meet are taken
    as independent. Borders are taken as if they were not there, and pooling as if it kept the mean square.
    """
    plan = ticket.plan
    squares: list[Squares] = [np.ones(plan.input_shape[0])]
    kept = iter(ticket.kept_layers)
    for layer, sources, before in zip(plan.layers, plan.sources(), plan.shapes(), strict=False):
        square = squares[sources[0]]
        match layer:
            case Conv() | Linear():
                square = _driven(next(kept), square)
            case Relu():
                square = square / 2
            case Relu6() | Hardswish() | Gelu():
                square = _activated(layer, square)
            case Norm():
                groups = square.reshape(layer.groups, -1)
                mean = groups.mean(axis=1, keepdims=True)
                square = np.divide(groups, mean, out=np.zeros_like(groups), where=mean > 0).reshape(-1)
            case Flatten():
                square = np.repeat(square, math.prod(before[1:]))
            case Add():
                square = square + squares[layer.source]
            case Concat():
                square = np.concatenate([square, squares[layer.source]])
        squares.append(square)
    return math.sqrt(math.fsum(squares[-1]) / squares[-1].size)


def _driven(kept: KeptLayer, square: Squares) -> Squares:
    """Mean square of a layer's outputs over random signs, (out,), from that of its inputs."""
    out_units, in_units, *kernel = kept.shape.weight_shape
    unit, position = np.divmod(kept.indices.astype(np.int64), in_units * math.prod(kernel))
    channel = position // math.prod(kernel) + unit // (out_units // kept.shape.groups) * in_units
    drive = kept.weights.astype(np.float64) ** 2 * square[channel]
    return np.bincount(unit, weights=drive, minlength=out_units).astype(np.float64)


def _activated(layer: Activation, square: Squares) -> Squares:
    """Mean square behind an activation of normal values with the mean squares before it, by quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    z = np.sqrt(square)[:, None] * nodes
    match layer:
        case Relu6():
            out = np.clip(z, 0, 6)
        case Hardswish():
            out = z * np.clip(z + 3, 0, 6) / 6
        case _:
            out = z * np.vectorize(lambda value: (1 + math.erf(value / math.sqrt(2))) / 2, otypes=[float])(z)
    found: Squares = (out**2) @ weights / weights.sum()
    return found
