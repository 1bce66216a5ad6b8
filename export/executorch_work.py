"""The work of the ExecuTorch programs of a plan, counted from the operations of a step on tensors without data.

Making a program takes up to minutes; this takes seconds, and finds the planned memory within a few percent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from export.executorch_program import Inference, TrainingStep, capacity_for, inference_inputs, training_inputs
from export.work import Counted, Step, Work, most_alive, total
from wire.plan import Plan

ALIGN = 16  # bytes: of a planned tensor
PRODUCTS = ("mm", "addmm", "linear")
INDEXED = ("scatter", "gather", "index_select", "where", "ge")  # of kept weights
# The portable kernels of these do one value after the other, where those of the others do vectors.
ONE_BY_ONE = ("sign", "clamp", "maximum", "minimum", "rsqrt", "exp", "log", "_log_softmax")
SUMS = ("mean", "sum", "amax", "argmax")
MOVES = (
    "view", "_unsafe_view", "slice", "select", "t", "transpose", "permute", "unsqueeze", "squeeze", "clone", "cat",
    "constant_pad_nd", "expand", "detach", "alias", "_to_copy", "as_strided",
)  # fmt: skip


def count(plan: Plan, kept: int, batch: int) -> Counted:
    """Count a training step of a batch, and an inference of as many samples."""
    capacity = capacity_for(kept)
    steps, results = _steps(TrainingStep(plan), training_inputs(plan, capacity, batch))
    infer, logits = _steps(Inference(plan), inference_inputs(plan, capacity, batch))
    return Counted(
        work=total({step.kind: step.work} for step in steps),
        alive=most_alive(steps, results),
        infer_alive=most_alive(infer, logits),
        held=24 * capacity,  # scores, initial weights and places
    )


def _steps(module: nn.Module, inputs: Sequence[Tensor]) -> tuple[list[Step], list[str]]:
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        recorder = _Recorder([mode.from_tensor(one) for one in inputs])
        with recorder:
            results = module(*recorder.inputs)
    return recorder.steps, [recorder.name(one) for one in _tensors(results)]


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down every operation on tensors.

    Args:
        inputs: whose memory is the caller's.
    """

    def __init__(self, inputs: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.inputs = inputs
        self.steps: list[Step] = []
        self._seen: list[Tensor] = [*inputs]  # kept, so that no two have the same id
        self._names = {id(one): str(number) for number, one in enumerate(inputs)}

    def name(self, tensor: Tensor) -> str:
        """Of a tensor that was made or given."""
        return self._names[id(tensor)]

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Execute an operation and write it down."""
        results = func(*args, **(kwargs or {}))
        read = [one for one in _tensors((args, kwargs)) if id(one) in self._names]
        made = [one for one in _tensors(results) if id(one) not in self._names]
        for one in made:
            self._seen.append(one)
            self._names[id(one)] = str(len(self._seen))
        if made:
            operator = str(getattr(func, "overloadpacket", func)).rpartition(".")[2]
            self.steps.append(_step(operator, read, {self.name(one): one for one in made}, map(self.name, read)))
        return results


def kind_of(operator: str) -> str:
    """Which kind of work an operator is, of a graph ("slice") or of a program ("slice_copy.Tensor_out")."""
    name = operator.partition(".")[0].removesuffix("_copy")
    if name == "bmm":
        return "batched matmul"
    kinds = {"matmul": PRODUCTS, "copy": MOVES, "index": INDEXED, "one by one": ONE_BY_ONE, "sum": SUMS}
    return next((kind for kind, names in kinds.items() if name in names), "elementwise")


def _step(operator: str, read: list[Tensor], made: dict[str, Tensor], names: Any) -> Step:
    kind, first = kind_of(operator), next(iter(made.values()))
    makes = {name: -(-_nbytes(one) // ALIGN) * ALIGN for name, one in made.items()}
    out, flops, values = sum(map(_nbytes, made.values())), 0, 0
    moved = sum(map(_nbytes, read)) + out
    match kind:
        case "matmul" | "batched matmul":
            left = read[1] if operator == "addmm" else read[0]
            flops = 2 * sum(one.numel() for one in made.values()) * left.shape[-1]
        case "copy":
            moved, values = 2 * out, first.numel() // first.shape[-1] if first.numel() and first.dim() else 0
        case "index":
            values = min((one.numel() for one in (*read, first) if one.numel() > 1), default=1)
        case "one by one" | "sum":
            values = max(one.numel() for one in (*read, first))
    work = Work(flops=flops, moved=moved, values=values, calls=1)
    return Step(kind=kind, work=work, reads=tuple(names), makes=makes, operator=operator)


def _tensors(tree: object) -> list[Tensor]:
    return [one for one in _pytree.tree_leaves(tree) if isinstance(one, Tensor)]


def _nbytes(tensor: Tensor) -> int:
    return int(tensor.numel() * tensor.element_size())
