"""The order of a backward pass over a plan's values: what the exporters that write gradients out by hand share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from wire.layers import Conv, Linear
from wire.plan import Plan

Gradient = TypeVar("Gradient")


def backward(
    plan: Plan,
    dy: Gradient,
    *,
    learn: Callable[[int, Gradient], None],
    input_gradient: Callable[[int, int, Gradient], Gradient],
    add: Callable[[Gradient, Gradient], Gradient],
) -> None:
    """Carry the gradient of the last value back to all that have weights before them, from the last layer on.

    Args:
        plan: the network; only its layers' kinds and sources count.
        dy: gradient of the logits.
        learn: called once for every layer with weights, with its position and the gradient of its output.
        input_gradient: from a layer's position, the number of one of its inputs (0, or 1 of a joint's second) and
            the gradient of its output, that of the input. Called only for inputs that have weights before them.
        add: the sum of two gradients of one value that several layers read.
    """
    learns, sources = plan.learns(), plan.sources()
    gradients = {len(plan.layers): dy}
    for position in reversed(range(len(plan.layers))):
        if position + 1 not in gradients:
            continue  # no weights before it
        dy = gradients.pop(position + 1)
        if isinstance(plan.layers[position], Conv | Linear):
            learn(position, dy)
        for number, source in enumerate(sources[position]):
            if learns[source]:
                one = input_gradient(position, number, dy)
                gradients[source] = add(gradients[source], one) if source in gradients else one
