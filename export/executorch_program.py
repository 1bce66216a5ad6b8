"""A plan as two ExecuTorch programs: one training step up to the gradient, and inference.

The programs are functions without state. Nothing of a ticket but its number of kept weights is in them, so one
file serves every mask, seed and scale of a plan, and signs and weights are plain inputs:

    train.pte   in   scores (capacity,), initial (capacity,), indices int64 (capacity,), log_prior (classes,),
                     x (batch, *input_shape), y int64 (batch,), weight (batch,)
                out  loss (1,), correct (1,), gradient of the scores (capacity,)
    infer.pte   in   multipliers (capacity,), initial (capacity,), indices int64 (capacity,),
                     x (batch, *input_shape)
                out  logits (batch, classes)

Each is followed by the SHA-256 of its bytes: ExecuTorch ignores what comes after a program, but a flipped bit inside
one may crash it, so devices check the sum before they load a program.

All float32 but y and indices. An index points into all dense weight arrays, one after the other in layer order; the
place after the last is for the padding of the capacity, whose initial weight is 0. Shapes are fixed when a program
is made: the capacity is the kept count rounded up to a multiple of `CAPACITY_STEP`, so that tickets of one plan and
density share a file though their counts differ by some; a batch that is shorter is padded with weight 0. The
optimiser runs on the device, outside.

Importing this needs torch; making a program needs executorch too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from export.executorch_layers import Pass, make_pass, to_maps
from wire.errors import ExportError
from wire.plan import Conv, Layer, Linear, MaxPool, Plan, Relu

CAPACITY_STEP = 64
ARGUMENTS = {
    "train.pte": ("scores", "initial", "indices", "log_prior", "x", "y", "weight"),
    "infer.pte": ("multipliers", "initial", "indices", "x"),
}
RESULTS = {"train.pte": ("loss", "correct", "gradient"), "infer.pte": ("logits",)}
_TYPES = {"FLOAT": "float32", "LONG": "int64"}  # by the names of ExecuTorch's ScalarType

Typed: TypeAlias = tuple[str, tuple[int, ...]]  # type and shape of an input or output


def capacity_for(kept: int) -> int:
    """Length of the score inputs of a program for a ticket with this many kept weights."""
    return -(-kept // CAPACITY_STEP) * CAPACITY_STEP


def training_program(plan: Plan, capacity: int, batch: int) -> bytes:
    """Return train.pte of a plan.

    Args:
        plan: the network.
        capacity: length of the score vectors, at least the kept weights of every ticket that is to use it.
        batch: samples per step.

    Raises:
        ExportError: if executorch is not installed, there is nothing to train, or a layer has no form here.
    """
    inputs = _score_inputs(plan, capacity)
    inputs += [torch.zeros(plan.classes), torch.zeros(batch, *plan.input_shape)]
    inputs += [torch.zeros(batch, dtype=torch.int64), torch.ones(batch)]
    return _lower(_TrainingStep(plan), tuple(inputs))


def inference_program(plan: Plan, capacity: int, batch: int) -> bytes:
    """Return infer.pte of a plan; arguments and errors as `training_program`."""
    inputs = [*_score_inputs(plan, capacity), torch.zeros(batch, *plan.input_shape)]
    return _lower(_Inference(plan), tuple(inputs))


def planned_bytes(program: bytes) -> int:
    """Bytes of memory that a program's activations take on the device.

    Raises:
        ExportError: if executorch is not installed.
    """
    return int(sum(_plan_of(program).non_const_buffer_sizes))


def tensors(program: bytes) -> tuple[list[Typed], list[Typed]]:
    """Inputs and outputs of a program, in the order of `ARGUMENTS` and `RESULTS`.

    Raises:
        ExportError: if executorch is not installed.
    """
    plan = _plan_of(program)

    def typed(numbers: Sequence[int]) -> list[Typed]:
        values = [plan.values[number].val for number in numbers]
        return [(_TYPES[value.scalar_type.name], tuple(value.sizes)) for value in values]

    return typed(plan.inputs), typed(plan.outputs)


class _Inference(nn.Module):
    """Logits from multipliers of the initial weights."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self._plan = plan

    def forward(self, multipliers: Tensor, initial: Tensor, indices: Tensor, x: Tensor) -> Tensor:
        return _forward(self._plan, _dense(self._plan, multipliers * initial, indices), x)[1]


class _TrainingStep(nn.Module):
    """Loss, hits and the straight-through gradient of the scores."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self._plan = plan

    def forward(
        self,
        scores: Tensor,
        initial: Tensor,
        indices: Tensor,
        log_prior: Tensor,
        x: Tensor,
        y: Tensor,
        weight: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        signs = torch.where(scores >= 0, 1.0, -1.0)
        passes, logits = _forward(self._plan, _dense(self._plan, signs * initial, indices), x)
        loss, correct, dy = _loss(logits + log_prior, y, weight)
        gradients: list[Tensor] = [torch.zeros(1)]  # of the place that padding points to
        missing = len(self._plan.weight_layers())
        for step in reversed(passes):
            if hasattr(step, "weight_gradient"):
                gradients.insert(0, step.weight_gradient(dy))
                missing -= 1
                if not missing:
                    break  # nothing before the first weight layer learns, so its input needs no gradient
            dy = step.input_gradient(dy)
        gradient = torch.cat(gradients).index_select(0, indices) * initial
        return loss.view(1), correct.view(1), gradient


def _dense(plan: Plan, kept: Tensor, indices: Tensor) -> Tensor:
    """All weights one after the other, zeros where none is kept, (weights + 1,)."""
    return torch.zeros(plan.weights + 1).scatter(0, indices, kept)


def _forward(plan: Plan, dense: Tensor, x: Tensor) -> tuple[list[Pass], Tensor]:
    """Run a plan on samples (n, *input_shape): its passes, and the logits (n, classes)."""
    passes: list[Pass] = []
    sizes, start = iter([shape.weights for shape in plan.weight_layers()]), 0
    value = to_maps(x)
    for layer in _relu_after_pool(plan.layers):
        weight = None
        if isinstance(layer, Conv | Linear):
            size = next(sizes)
            weight = dense[start : start + size]
            start += size
        passes.append(make_pass(layer, weight))
        value = passes[-1].forward(value)
    return passes, value


def _loss(logits: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted mean cross-entropy, weighted number of hits, and the gradient of the logits (n, classes)."""
    total = weight.sum()
    log_probabilities = torch.log_softmax(logits, 1)
    own = log_probabilities.gather(1, y.unsqueeze(1)).squeeze(1)
    loss = -(own * weight).sum() / total
    correct = ((logits.argmax(1) == y).to(torch.float32) * weight).sum()
    one_hot = (torch.arange(logits.shape[1]) == y.unsqueeze(1)).to(torch.float32)
    return loss, correct, (log_probabilities.exp() - one_hot) * (weight / total).unsqueeze(1)


def _relu_after_pool(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Put every max pool before the ReLU it follows: the same values and gradients, on fewer elements.

    Where all of a window is negative the winner may differ, but the ReLU stops its gradient.
    """
    ordered = list(layers)
    for i in range(1, len(ordered)):
        if isinstance(ordered[i - 1], Relu) and isinstance(ordered[i], MaxPool):
            ordered[i - 1 : i + 1] = [ordered[i], ordered[i - 1]]
    return tuple(ordered)


def _score_inputs(plan: Plan, capacity: int) -> list[Tensor]:
    if capacity < 1:
        raise ExportError("the ticket keeps no weight, so there is nothing to train", hint="Raise the density")
    nowhere = torch.full((capacity,), plan.weights, dtype=torch.int64)
    return [torch.zeros(capacity), torch.zeros(capacity), nowhere]


def _lower(module: nn.Module, inputs: tuple[Tensor, ...]) -> bytes:
    """Export a module for fixed input shapes.

    `linear` is preserved because its kernel multiplies by a transposed matrix without copying it. Inputs are not
    planned, so the device's arrays are used where they lie.
    """
    lower = _import()[0]
    with torch.no_grad():
        exported = torch.export.export(module, inputs, strict=False)
    return lower(exported)


def _plan_of(program: bytes) -> Any:  # a class of executorch's
    [plan] = _import()[1](program).program.execution_plan
    return plan


def _import() -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    """What is needed of executorch: `lower` of an exported program, and `deserialize` of its bytes.

    Raises:
        ExportError: if it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # about its own use of importlib
            from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge
            from executorch.exir._serialize._program import deserialize_pte_binary
            from executorch.exir.passes import MemoryPlanningPass
    except ImportError as error:
        raise ExportError(
            f"programs for the runtime 'executorch' are made with the package executorch ({error})",
            hint="Install it: pip install --no-deps executorch==1.5.1 && pip install tabulate flatbuffers ruamel.yaml",
        ) from error

    def lower(exported: Any) -> bytes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            edge = to_edge(exported, compile_config=EdgeCompileConfig(preserve_ops=[torch.ops.aten.linear.default]))
            planning = MemoryPlanningPass(alloc_graph_input=False)
            program = bytes(edge.to_executorch(ExecutorchBackendConfig(memory_planning_pass=planning)).buffer)
        return program + sha256(program).digest()

    return lower, deserialize_pte_binary
