"""How much memory the onnx runtime sets aside for its tensors: a device does it, a planner counts its price."""

from __future__ import annotations

from math import prod

from wire.plan import Plan

FLOAT = 4  # bytes
SPARE = 1.25  # tensors of a step or a trial against the outputs of layers; of the ten networks' 0.5 to 1.15
HANDLES = 1 / 32  # of the region: onnxruntime's table of what lies in it, 8 bytes for every 256, all written at once


def region_bytes(plan: Plan, batch: int, tried: int) -> int:
    """Bytes of one region for a training step and for inference; only what is used of it becomes resident.

    A network that takes more gets another region. That costs memory, but nothing else.

    Args:
        plan: the network.
        batch: samples of a training step; 0 if there is none.
        tried: samples of an inference.
    """
    outputs = [prod(shape) for shape in plan.shapes()]
    training = batch * sum(outputs)
    inference = tried * max(map(sum, zip(outputs, outputs[1:], [*outputs[2:], 0], strict=False)))
    return int(FLOAT * max(SPARE * training + 2 * plan.weights, SPARE * inference + plan.weights))
