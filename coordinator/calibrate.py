"""How large a pruned network's logits are before any data: the temperature it starts to learn at.

A sign network cannot make its weights smaller, so the size of its logits is fixed when it is pruned. Kaiming's
rule sets it by the mean fan-in of a layer; but saliency gathers the kept weights on few channels, whose real
fan-in is several times that, and the logits grow with every such layer, the lower the density the more. Such a
network is sure of itself from the start and learns badly.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from wire.plan import Conv, Flatten, Linear, Relu
from wire.ticket import Ticket


def logit_deviation(ticket: Ticket) -> float:
    """Standard deviation of the logits over random signs, for inputs of mean square 1.

    Mean-field second moments (Poole et al. 2016, arXiv 1606.05340; He et al. 2015, arXiv 1502.01852, section 2.2),
    one per channel: q_out = sum of w^2 q_in over the kept weights, halved by a relu. Borders are taken as if
    they were not there, and pooling as if it kept the mean square.
    """
    square: NDArray[np.float64] = np.ones(
        ticket.plan.input_shape[0]
    )  # mean square of every channel's (or feature's) activations
    kept = iter(ticket.kept_layers)
    shapes = ticket.plan.shapes()
    for layer, before in zip(ticket.plan.layers, shapes, strict=False):
        match layer:
            case Conv() | Linear():
                weights = next(kept)
                out_units, in_units, *kernel = weights.shape.weight_shape
                unit, position = np.divmod(weights.indices.astype(np.int64), in_units * math.prod(kernel))
                drive = weights.weights.astype(np.float64) ** 2 * square[position // math.prod(kernel)]
                square = np.bincount(unit, weights=drive, minlength=out_units).astype(np.float64)
            case Relu():
                square = square / 2
            case Flatten():
                square = np.repeat(square, math.prod(before[1:]))
    return math.sqrt(math.fsum(square) / square.size)
