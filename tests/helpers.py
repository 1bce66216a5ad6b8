"""Small networks and data that several test files share."""

from __future__ import annotations

from math import gcd, sqrt

import numpy as np

from wire.plan import Plan
from wire.ticket import Keep, Ticket


def random_ticket(plan: Plan, density: float, seed: int, block: int = 4, magnitudes: str = "constant") -> Ticket:
    """A ticket with a seeded random mask at the same density in every layer; at least one block a layer.

    Layers whose rows do not divide into blocks of `block` take the greatest common divisor instead.
    """
    layers = []
    for shape in plan.weight_layers():
        rows = gcd(block, shape.out_units)
        blocks = max(1, round(shape.weights * density / rows))
        scale = float(np.float32(sqrt(2 * shape.out_units / (blocks * rows))))  # He, over the pruned fan-in
        layers.append(Keep(block=rows, mask=blocks, scale=scale))
    return Ticket(plan=plan, seed=seed, magnitudes=magnitudes, layers=tuple(layers))
