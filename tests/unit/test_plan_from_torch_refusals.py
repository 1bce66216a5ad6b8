"""What no plan can say: every refusal names module, operator, file and line, and the nearest form there is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from export.plan_from_torch import plan_from_module
from wire.errors import ExportError

HERE = Path(__file__).resolve().relative_to(Path(__file__).resolve().parents[2])
IMAGE = (4, 8, 8)


class Run(nn.Module):
    """A forward in one line, and the modules it calls."""

    def __init__(self, run: Callable[..., Any], *parts: nn.Module) -> None:
        super().__init__()
        # torch.export remembers the lines of functions named forward only.
        self.run = FunctionType(run.__code__.replace(co_name="forward"), run.__globals__)
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Any:
        """What `run` makes of x."""
        return self.run(x, *self.parts)


ONE = "parts.0"
CIRCULAR = nn.Conv2d(4, 2, 3, padding=1, padding_mode="circular")
NORMED = weight_norm(nn.Conv2d(4, 2, 1))
ATTENTION = nn.MultiheadAttention(64, 1)
# Name: forward, the modules it calls, the module that is named, words of what was found, words of the hint.
REFUSED: dict[str, tuple[Callable[..., Any], tuple[nn.Module, ...], str, str, str]] = {
    "silu": (lambda x, m: m(x), (nn.SiLU(),), ONE, "operator silu", "nn.Hardswish"),
    "hardsigmoid": (lambda x: x * F.hardsigmoid(x), (), "", "operator hardsigmoid", "nn.Hardswish"),
    "sigmoid": (lambda x: x.sigmoid(), (), "", "operator sigmoid", "nn.Hardswish"),
    "leaky": (lambda x, m: m(x), (nn.LeakyReLU(),), ONE, "operator leaky_relu", "nn.ReLU"),
    "hardtanh": (lambda x, m: m(x), (nn.Hardtanh(),), ONE, "hardtanh from -1.0 to 1.0", "nn.ReLU6"),
    "tanh gelu": (lambda x: F.gelu(x, approximate="tanh"), (), "", "approximate='tanh'", "nn.GELU()"),
    "softmax": (lambda x: F.softmax(x.flatten(1), 1), (), "", "operator softmax", "return logits"),
    "log softmax": (lambda x, m: m(x.flatten(1)), (nn.LogSoftmax(1),), ONE, "operator log_softmax", "return logits"),
    "transposed": (lambda x, m: m(x), (nn.ConvTranspose2d(4, 2, 2),), ONE, "operator conv_transpose2d", "nn.Conv2d"),
    "dilation": (lambda x, m: m(x), (nn.Conv2d(4, 2, 3, dilation=2),), ONE, "dilation [2, 2]", "dilation=1"),
    "circular": (lambda x, m: m(x), (CIRCULAR,), ONE, "operator pad", "the padding of nn.Conv1d"),
    "padded": (lambda x: F.pad(x, (1, 1)), (), "", "operator pad", "the padding of nn.Conv1d"),
    "uneven same": (lambda x, m: m(x), (nn.Conv2d(4, 2, 2, padding="same"),), ONE, "pads one side more", "odd"),
    "wide padding": (lambda x, m: m(x), (nn.Conv2d(4, 2, 1, padding=1),), ONE, "padding 1 must be", "networks.md"),
    "weight norm": (lambda x, m: m(x), (NORMED,), f"{ONE}.parametrizations.weight.0", "_weight_norm", "nn.Conv2d"),
    "computed weight": (lambda x, m: F.conv2d(x, m.weight * 2), (nn.Conv2d(4, 2, 1),), "", "operator mul", "joined"),
    "a buffer": (lambda x, m: F.linear(x, m.running_mean), (nn.BatchNorm1d(8),), "", "a buffer", "as they are"),
    "shared": (lambda x, m: m(m(x)), (nn.Conv2d(4, 4, 1),), ONE, "0.weight' is used a second", "a layer of its own"),
    "pool padding": (lambda x, m: m(x), (nn.MaxPool2d(3, 2, 1),), ONE, "max_pool2d with padding [1, 1]", "windows"),
    "average padding": (lambda x: F.avg_pool2d(x, 3, 2, 1), (), "", "avg_pool2d with padding [1, 1]", "windows"),
    "ceil mode": (lambda x: F.max_pool2d(x, 3, ceil_mode=True), (), "", "a plan's layer (4, 2, 2)", "whole windows"),
    "pool dilation": (lambda x: F.max_pool2d(x, 2, dilation=2), (), "", "dilation [2, 2]", "nn.MaxPool2d"),
    "pool indices": (lambda x: F.max_pool2d(x, 2, return_indices=True)[0], (), "", "_with_indices", "nn.MaxPool2d"),
    "divisor": (lambda x: F.avg_pool2d(x, 2, divisor_override=3), (), "", "divisor_override 3", "its window"),
    "adaptive": (lambda x, m: m(x), (nn.AdaptiveAvgPool2d(3),), ONE, "(8, 8) to (3, 3)", "divides the input's"),
    "adaptive max": (lambda x, m: m(x), (nn.AdaptiveMaxPool2d(1),), ONE, "adaptive_max_pool2d", "nn.MaxPool2d"),
    "one-sided mean": (lambda x: x.mean(3), (), "", "a mean over dimensions [3]", "x.mean((2, 3))"),
    "channel mean": (lambda x: x.mean(1), (), "", "a mean over dimensions [1]", "x.mean((2, 3))"),
    "layer norm": (lambda x, m: m(x), (nn.LayerNorm(8),), ONE, "layer norm over (8,) of", "nn.GroupNorm(1, 4)"),
    "rms norm": (lambda x, m: m(x), (nn.RMSNorm(IMAGE),), ONE, "operator rms_norm", "nn.GroupNorm"),
    "lrn": (lambda x, m: m(x), (nn.LocalResponseNorm(2),), ONE, "operator mul", "nn.GroupNorm"),
    "gate": (lambda x: x * x.mean((2, 3), keepdim=True), (), "", "operator mul", "squeeze-and-excitation"),
    "broadcast": (lambda x: x + x.mean((2, 3), keepdim=True), (), "", "and (4, 1, 1) are added", "kernel_size=1"),
    "alpha": (lambda x: torch.add(x, x, alpha=2), (), "", "alpha=2", "a + b"),
    "plus one": (lambda x: x + 1, (), "", "operator add reads a number", "other layers"),
    "plus weight": (lambda x, m: x + m.weight, (nn.LayerNorm(8),), "", "not computed from", "of Conv and Linear"),
    "concat positions": (lambda x: torch.cat([x, x], 2), (), "", "torch.cat along dimension 2", "torch.cat([a, b], 1)"),
    "chunk": (lambda x: x.chunk(2, 1)[0], (), "", "operator split", "stay where they are"),
    "shuffle": (lambda x: x.view(-1, 2, 2, 8, 8).transpose(1, 2), (), "", "operator transpose", "stay where they are"),
    "half view": (lambda x: F.relu(x.flatten(2)), (), "", "relu reads (4, 8, 8) reshaped to (4, 64)", "x.flatten(1)"),
    "mixed samples": (lambda x: x.view(-1, 64), (), "", "operator view makes (4*n, 64)", "x.flatten(1)"),
    "positions": (lambda x, m: m(x), (nn.Linear(8, 2),), ONE, "reads samples of shape (4, 8, 8)", "x.flatten(1)"),
    "lstm": (lambda x, m: m(x.flatten(2))[0], (nn.LSTM(64, 4, batch_first=True),), ONE, "zeros of LSTM", "nn.Conv1d"),
    "attention": (lambda x, m: m(*[x.flatten(2)] * 3)[0], (ATTENTION,), ONE, "of MultiheadAttention", "convolutions"),
    "upsampling": (lambda x: F.interpolate(x, scale_factor=2), (), "", "upsample_nearest2d", "networks.md"),
    "double": (lambda x: x.double(), (), "", "operator _to_copy", "float32"),
    "not flat": (lambda x: F.relu(x), (), "", "forward returns shape (4, 8, 8)", "logits (n, classes)"),
    "one class": (lambda x, m: m(x.flatten(1)), (nn.Linear(256, 1),), ONE, "forward returns shape (1,)", "2 classes"),
    "data-dependent": (lambda x: x if x.sum() > 0 else -x, (), "", "failed: GuardOnDataDependent", "values of tensors"),
    "numpy": (lambda x: x.numpy(), (), "", "torch.export failed: RuntimeError: .numpy()", "(n, 4, 8, 8)"),
    "misfit": (lambda x, m: m(x), (nn.Conv2d(3, 2, 1),), ONE, "to have 3 channels", "(n, 4, 8, 8)"),
    "own fault": (lambda x, m: m(x), (Run(lambda x: [][len(x.shape)]),), ONE, "IndexError: list index", "(n, 4, 8, 8)"),
}  # fmt: skip


# torch.export takes half a second for each, so make test tries a few kinds of operators only.
FAST = ("silu", "softmax", "shuffle", "pool padding", "data-dependent")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in FAST)) for name in REFUSED]
)
def test_a_refusal_says_where_what_and_what_instead(name: str) -> None:
    """Module path, operator or what was found, the line of the user's own file, and a hint."""
    run, parts, path, what, hint = REFUSED[name]
    module = nn.Sequential(OrderedDict(features=Run(run, *parts)))
    with pytest.raises(ExportError) as caught:
        plan_from_module(module, IMAGE, "net")
    error = caught.value
    named = ".".join(("features", path) if path else ("features",))
    assert f"module '{named}' (" in error.where
    assert what in error.what
    assert hint in error.hint
    assert error.where.startswith(f"{HERE}:{run.__code__.co_firstlineno}, ")
    assert "\n" not in str(error)


@pytest.mark.slow
def test_two_results_are_refused() -> None:
    """A tuple or dictionary of results is not logits."""
    with pytest.raises(ExportError, match="returns 2 values, one tensor expected"):
        plan_from_module(Run(lambda x, m: (m(x), x), nn.Linear(4, 2)), (4,), "net")


@pytest.mark.slow
def test_a_result_without_samples_is_refused() -> None:
    """Logits that are the same whatever comes in."""
    with pytest.raises(ExportError, match="does not depend on its samples"):
        plan_from_module(Run(lambda x, m: m.weight, nn.Linear(4, 2)), (4,), "net")


@pytest.mark.slow
def test_a_forward_that_depends_on_the_batch_is_refused() -> None:
    """The plan would be that of small batches."""
    with pytest.raises(ExportError, match=r"of other sizes than 2..4. Do the same for every batch"):
        plan_from_module(Run(lambda x, m: m(x) if x.shape[0] > 4 else m(F.relu(x)), nn.Linear(4, 2)), (4,), "net")


def test_tied_weights_are_refused() -> None:
    """Two modules that hold one parameter."""
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    with pytest.raises(ExportError, match="weight' is used a second time"):
        plan_from_module(nn.Sequential(first, nn.ReLU(), second), (4,), "net")


@pytest.mark.slow
def test_a_forward_of_two_arguments_is_refused() -> None:
    """Samples are all that a network here is given."""

    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    with pytest.raises(ExportError, match=r"torch.export failed.*forward\(x\) must run on samples \(n, 4\)"):
        plan_from_module(Two(), (4,), "net")


@pytest.mark.slow
def test_nothing_but_the_error_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    """torch.export's own logs, warnings and graphs stay away from the terminal."""
    with pytest.raises(ExportError):
        plan_from_module(Run(REFUSED["data-dependent"][0]), IMAGE, "net")
    assert capfd.readouterr() == ("", "")
