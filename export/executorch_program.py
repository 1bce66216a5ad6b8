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
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from export.backward import backward
from export.executorch_layers import JointPass, Pass, WeightPass, make_pass, to_maps
from export.rewrite import relu_after_pool
from wire.errors import ExportError
from wire.layers import Conv, Linear
from wire.plan import Plan

CAPACITY_STEP = 64
ARGUMENTS = {
    "train.pte": ("scores", "initial", "indices", "log_prior", "x", "y", "weight"),
    "infer.pte": ("multipliers", "initial", "indices", "x"),
    "trainer.pte": ("initial", "indices", "log_prior", "x", "y", "weight"),
}
RESULTS = {
    "train.pte": ("loss", "correct", "gradient"),
    "infer.pte": ("logits",),
    "trainer.pte": ("loss", "correct", "gradient", "scores"),
}
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
    return lower(TrainingStep(plan), tuple(training_inputs(plan, capacity, batch)))


def inference_program(plan: Plan, capacity: int, batch: int) -> bytes:
    """Return infer.pte of a plan; arguments and errors as `training_program`."""
    return lower(Inference(plan), tuple(inference_inputs(plan, capacity, batch)))


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


class Inference(nn.Module):
    """Logits from multipliers of the initial weights."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self._plan = plan

    def forward(self, multipliers: Tensor, initial: Tensor, indices: Tensor, x: Tensor) -> Tensor:
        """As the module says of `infer.pte`."""
        return _forward(self._plan, _dense(self._plan, multipliers * initial, indices), x)[1]


class TrainingStep(nn.Module):
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
        """As the module says of `train.pte`."""
        signs = torch.where(scores >= 0, 1.0, -1.0)
        passes, logits = _forward(self._plan, _dense(self._plan, signs * initial, indices), x)
        loss, correct, dy = _loss(logits + log_prior, y, weight)
        gradients: list[Tensor] = [torch.zeros(1)]  # of the place that padding points to

        def learn(position: int, dy: Tensor) -> None:
            gradients.insert(0, cast(WeightPass, passes[position]).weight_gradient(dy))

        backward(
            self._plan,
            dy,
            learn=learn,
            input_gradient=lambda position, number, dy: passes[position].input_gradient(dy, number),
            add=torch.add,
        )
        gradient = torch.cat(gradients).index_select(0, indices) * initial
        return loss.view(1), correct.view(1), gradient


def _dense(plan: Plan, kept: Tensor, indices: Tensor) -> Tensor:
    """All weights one after the other, zeros where none is kept, (weights + 1,)."""
    return torch.zeros(plan.weights + 1).scatter(0, indices, kept)


def _forward(plan: Plan, dense: Tensor, x: Tensor) -> tuple[list[Pass | JointPass], Tensor]:
    """Run a plan on samples (n, *input_shape): its passes, and the logits (n, classes)."""
    plan = relu_after_pool(plan)
    passes: list[Pass | JointPass] = []
    sizes, start = iter([shape.weights for shape in plan.weight_layers()]), 0
    shapes, values = plan.shapes(), [to_maps(x)]
    for layer, sources in zip(plan.layers, plan.sources(), strict=True):
        weight = None
        if isinstance(layer, Conv | Linear):
            size = next(sizes)
            weight = dense[start : start + size]
            start += size
        passes.append(make_pass(layer, shapes[sources[0]], weight))
        values.append(passes[-1].forward(*(values[source] for source in sources)))
    return passes, values[-1]


def _loss(logits: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted mean cross-entropy, weighted number of hits, and the gradient of the logits (n, classes)."""
    total = weight.sum()
    log_probabilities = torch.log_softmax(logits, 1)
    own = log_probabilities.gather(1, y.unsqueeze(1)).squeeze(1)
    loss = -(own * weight).sum() / total
    correct = ((logits.argmax(1) == y).to(torch.float32) * weight).sum()
    one_hot = (torch.arange(logits.shape[1]) == y.unsqueeze(1)).to(torch.float32)
    return loss, correct, (log_probabilities.exp() - one_hot) * (weight / total).unsqueeze(1)


def training_inputs(plan: Plan, capacity: int, batch: int) -> list[Tensor]:
    """Inputs of a training step, in the order of `ARGUMENTS`.

    Raises:
        ExportError: if there is nothing to train.
    """
    inputs = _score_inputs(plan, capacity)
    inputs += [torch.zeros(plan.classes), torch.zeros(batch, *plan.input_shape)]
    return [*inputs, torch.zeros(batch, dtype=torch.int64), torch.ones(batch)]


def inference_inputs(plan: Plan, capacity: int, batch: int) -> list[Tensor]:
    """Inputs of an inference, in the order of `ARGUMENTS`; errors as `training_inputs`."""
    return [*_score_inputs(plan, capacity), torch.zeros(batch, *plan.input_shape)]


def _score_inputs(plan: Plan, capacity: int) -> list[Tensor]:
    if capacity < 1:
        raise ExportError("the ticket keeps no weight, so there is nothing to train", hint="Raise the density")
    nowhere = torch.full((capacity,), plan.weights, dtype=torch.int64)
    return [torch.zeros(capacity), torch.zeros(capacity), nowhere]


def lower(module: nn.Module, inputs: tuple[Tensor, ...], *, backward: bool = False) -> bytes:
    """Export a module for fixed input shapes.

    Args:
        module: what to run.
        inputs: of the shapes and types that it will take.
        backward: its first output is a loss; add its gradients by the parameters, for ExecuTorch's trainer.

    Raises:
        ExportError: if executorch is not installed.

    `linear` is preserved because its kernel multiplies by a transposed matrix without copying it. Inputs are not
    planned, so the device's arrays are used where they lie.
    """
    finish = _import()[0]
    with torch.set_grad_enabled(backward):
        exported = torch.export.export(module, inputs, strict=False)
    if backward:
        from torch.export.experimental import _export_forward_backward

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # about its own use of torch's trees
            exported = _export_forward_backward(exported).run_decompositions({})
    return finish(exported)


def _plan_of(program: bytes) -> Any:  # a class of executorch's
    plans = _import()[1](program).program.execution_plan  # a trainer's has more, which say where its gradients are
    return next(plan for plan in plans if plan.name == "forward")


def _import() -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    """What is needed of executorch: `finish` of an exported program, and `deserialize` of its bytes.

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

    def finish(exported: Any) -> bytes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            edge = to_edge(exported, compile_config=EdgeCompileConfig(preserve_ops=[torch.ops.aten.linear.default]))
            planning = MemoryPlanningPass(alloc_graph_input=False)
            program = bytes(edge.to_executorch(ExecutorchBackendConfig(memory_planning_pass=planning)).buffer)
        return program + sha256(program).digest()

    return finish, deserialize_pte_binary
