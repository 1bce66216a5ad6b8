"""Modules of torch as plans: the zoo written again, every way to write a layer, and what is not taken over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coordinator.models import build_plan
from export.plan_from_torch import plan_from_module
from export.torch_net import forward
from export.user_module import load_module
from wire.errors import ExportError, PlanError
from wire.layers import (
    Add,
    AvgPool,
    Concat,
    Conv,
    Flatten,
    Gelu,
    Hardswish,
    Layer,
    Linear,
    MaxPool,
    Norm,
    Recall,
    Relu,
    Relu6,
)


class Run(nn.Module):
    """A forward in one line, and the modules it calls."""

    def __init__(self, run: Callable[..., Any], *parts: nn.Module) -> None:
        super().__init__()
        self.run = run
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Any:
        """What `run` makes of x."""
        return self.run(x, *self.parts)


def layers_of(module: nn.Module, shape: tuple[int, ...]) -> tuple[Layer, ...]:
    """The layers of a module's plan."""
    return plan_from_module(module, shape, "net")[0].layers


def conv(leaving: int, kernel: int = 1, **settings: Any) -> Conv:
    """A convolution of images."""
    values = {"stride": (1, 1), "padding": (0, 0)} | settings
    return Conv(out_channels=leaving, kernel=(kernel, kernel), **values)


class ConvNorm(nn.Sequential):
    """A convolution that keeps the size but for its stride, a batch norm, and perhaps an activation."""

    def __init__(
        self, sides: int, entering: int, leaving: int, kernel: int, *after: nn.Module, **settings: Any
    ) -> None:
        convolution, norm = (nn.Conv1d, nn.BatchNorm1d) if sides == 1 else (nn.Conv2d, nn.BatchNorm2d)
        padding = settings.pop("padding", kernel // 2 if isinstance(kernel, int) else 0)
        super().__init__(convolution(entering, leaving, kernel, padding=padding, **settings), norm(leaving), *after)


class Residual(nn.Module):
    """A residual block over 1 or 2 sides."""

    def __init__(self, sides: int, entering: int, leaving: int, stride: int, kernel: int) -> None:
        super().__init__()
        self.first = ConvNorm(sides, entering, leaving, kernel, nn.ReLU(inplace=True), stride=stride)
        self.second = ConvNorm(sides, leaving, leaving, kernel)
        self.shortcut = (
            ConvNorm(sides, entering, leaving, 1, stride=stride) if stride > 1 or entering != leaving else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """The main way first, in place."""
        main = self.second(self.first(x))
        main += x if self.shortcut is None else self.shortcut(x)
        return F.relu(main)


class Inverted(nn.Sequential):
    """MobileNetV2's block; a residual where it keeps its shape."""

    def __init__(self, entering: int, leaving: int, expansion: int, stride: int) -> None:
        wide = entering * expansion
        widen = [ConvNorm(2, entering, wide, 1, nn.ReLU6(inplace=True))] if expansion > 1 else []
        depthwise = ConvNorm(2, wide, wide, 3, nn.ReLU6(inplace=True), stride=stride, groups=wide)
        super().__init__(*widen, depthwise, ConvNorm(2, wide, leaving, 1))
        self.residual = stride == 1 and entering == leaving

    def forward(self, x: Tensor) -> Tensor:
        """The sum the other way round."""
        made = super().forward(x)
        return x + made if self.residual else made


def resnet(sides: int, channels: int, stem: int, kernel: int, stages: list[tuple[int, int]], classes: int) -> nn.Module:
    """A stem, one block a stage (channels, stride), the mean of all positions, a linear layer."""
    entering, blocks = stages[0][0], []
    first = ConvNorm(sides, channels, entering, stem, nn.ReLU(), stride=2 if sides == 1 else 1)
    for leaving, stride in stages:
        blocks.append(Residual(sides, entering, leaving, stride, kernel))
        entering = leaving
    pool = nn.AdaptiveAvgPool1d(1) if sides == 1 else nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(first, *blocks, pool, nn.Flatten(), nn.Dropout(), nn.Linear(entering, classes))


def mobilenet() -> nn.Module:
    """The named network mobilenet-v2-tiny."""
    blocks = [(16, 8, 1, 1), (8, 16, 6, 2), (16, 16, 6, 1), (16, 24, 6, 2), (24, 24, 6, 1), (24, 48, 6, 2)]
    last = (ConvNorm(2, 48, 128, 1, nn.ReLU6()), Run(lambda x, linear: linear(x.mean((2, 3))), nn.Linear(128, 10)))
    return nn.Sequential(ConvNorm(2, 3, 16, 3, nn.ReLU6()), *(Inverted(*block) for block in blocks), *last)


def ds_cnn() -> nn.Module:
    """The named network ds-cnn."""
    first = [nn.Conv2d(1, 64, (10, 4), stride=2, padding=(5, 1)), nn.BatchNorm2d(64), nn.ReLU()]
    blocks = [
        nn.Sequential(ConvNorm(2, 64, 64, 3, nn.ReLU(), groups=64), ConvNorm(2, 64, 64, 1, nn.ReLU())) for _ in range(4)
    ]
    return nn.Sequential(*first, *blocks, nn.AvgPool2d((25, 5)), nn.Flatten(), nn.Linear(64, 12))


def lenet() -> nn.Module:
    """The named network lenet."""
    head = (nn.Flatten(), nn.Linear(400, 120), nn.ReLU(True), nn.Linear(120, 84), nn.ReLU(True), nn.Linear(84, 10))
    first = (nn.Conv2d(1, 6, 5, padding="same"), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(*first, nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2, 2), *head)


ZOO: dict[str, Callable[[], nn.Module]] = {
    "lenet": lenet,
    "resnet8": lambda: resnet(2, 3, 3, 3, [(16, 1), (32, 2), (64, 2)], 10),
    "har-resnet": lambda: resnet(1, 6, 7, 5, [(32, 1), (64, 2), (64, 2)], 6),
    "mobilenet-v2-tiny": mobilenet,
    "ds-cnn": ds_cnn,
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "lenet")) for name in ZOO])
def test_the_zoo_written_in_torch_becomes_the_zoo(name: str) -> None:
    """Layer by layer the same plan, with residuals, shortcuts, depthwise convolutions and norms."""
    wanted = build_plan(name)
    assert plan_from_module(ZOO[name](), wanted.input_shape, name)[0] == wanted


@pytest.mark.slow
def test_the_example_is_resnet8() -> None:
    """examples/my_network.py is built as the named network is."""
    module, name = load_module(f"{Path(__file__).parents[2] / 'examples' / 'my_network.py'}:SmallResNet")
    plan, notes = plan_from_module(module, (3, 32, 32), name)
    assert plan.layers == build_plan("resnet8").layers
    assert len(notes) == 4


IMAGE = (3, 8, 8)
BACK, JOINED = Recall(source=0), (Concat(source=0), Concat(source=0))
HEAD = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
# How a forward is written, the modules it calls, and the layers before Flatten and Linear.
FORMS: list[tuple[Callable[..., Any], tuple[nn.Module, ...], tuple[Layer, ...]]] = [
    (lambda x: F.relu6(F.hardswish(F.relu(x))), (), (Relu(), Hardswish(), Relu6())),
    (lambda x, a, b, c: c(b(a(x))), (nn.Hardtanh(0, 6), nn.GELU(), nn.Hardswish(True)), (Relu6(), Gelu(), Hardswish())),
    (lambda x: torch.relu_(x) + x, (), (Relu(), Add(source=1))),
    (lambda x: F.relu(x).add_(x), (), (Relu(), Add(source=0))),
    (lambda x: torch.add(x, torch.relu(x)), (), (Relu(), Add(source=0))),
    (lambda x, d: d(x).contiguous().clone().detach() + F.dropout(x, 0.5, False), (nn.Dropout2d(),), (Add(source=0),)),
    (lambda x, c: c(torch.cat([F.relu(x), x, x], -3)), (nn.Conv2d(9, 3, 1),), (Relu(), *JOINED, conv(3))),
    (lambda x, c: c(torch.cat([x, F.relu(x)], 1)), (nn.Conv2d(6, 3, 1),), (Relu(), BACK, Concat(source=1), conv(3))),
    (lambda x, a, b: a(x) + b(x), (nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)), (conv(3), BACK, conv(3), Add(source=1))),
    (lambda x, c: c(x), (nn.Conv2d(3, 3, 3, padding=1, groups=3),), (conv(3, 3, padding=(1, 1), groups=3),)),
    (lambda x, a: a(x), (nn.GroupNorm(3, 3),), (Norm(groups=3),)),
    (lambda x, a: a(x), (nn.InstanceNorm2d(3),), (Norm(groups=3),)),
    (lambda x, a: a(x), (nn.LayerNorm(IMAGE),), (Norm(groups=1),)),
    (lambda x, a: a(x), (nn.BatchNorm2d(3, track_running_stats=False),), (Norm(groups=1),)),
    (lambda x: F.batch_norm(x, None, None, training=True), (), (Norm(groups=1),)),
    (lambda x, a: a(F.relu(x)), (nn.Identity(),), (Relu(),)),
    (lambda x, a: a(F.relu(x)), (nn.AdaptiveAvgPool2d((None, 8)),), (Relu(),)),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "parts", "before"),
    [pytest.param(*form, marks=[pytest.mark.slow] * (number % 8 != 0)) for number, form in enumerate(FORMS)],
)
def test_every_way_to_write_it(
    run: Callable[..., Any], parts: tuple[nn.Module, ...], before: tuple[Layer, ...]
) -> None:
    """Functions, methods, modules and operators, in place or not, become the same layers."""
    assert layers_of(nn.Sequential(Run(run, *parts), HEAD), IMAGE) == (*before, Flatten(), Linear(out_features=5))


AVERAGE = AvgPool(kernel=(8, 8), stride=(8, 8))
FLAT: list[tuple[Callable[[Tensor], Tensor], Layer]] = [
    (lambda x: x.mean((2, 3)), AVERAGE),
    (lambda x: x.mean((-1, -2), keepdim=True).flatten(1), AVERAGE),
    (lambda x: F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1), AVERAGE),
    (lambda x: F.avg_pool2d(x, 8).view(x.size(0), -1), AVERAGE),
    (lambda x: F.avg_pool2d(x, 8).view(-1, 3), AVERAGE),
    (lambda x: torch.flatten(x.mean([2, 3]), 1), AVERAGE),
    (lambda x: F.max_pool2d(x, 8, ceil_mode=True).reshape(x.shape[0], 3), MaxPool(kernel=(8, 8), stride=(8, 8))),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "pool"), [pytest.param(*form, marks=[pytest.mark.slow] * (number > 1)) for number, form in enumerate(FLAT)]
)
def test_every_way_to_flatten(run: Callable[[Tensor], Tensor], pool: Layer) -> None:
    """Means, views and flattenings of what is flat already are one pool and one Flatten."""
    found = layers_of(Run(lambda x, linear: linear(run(x)), nn.Linear(3, 5)), IMAGE)
    assert found == (pool, Flatten(), Linear(out_features=5))


@pytest.mark.slow
def test_pools_and_windows_over_time() -> None:
    """The one-dimensional forms, with strides; an adaptive pool whose windows divide."""
    module = nn.Sequential(
        nn.Conv1d(2, 4, 3, stride=2, padding=1, groups=2), nn.MaxPool1d(2), nn.AvgPool1d(3, 2), nn.ReLU(),
        nn.AdaptiveAvgPool1d(3), nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 3, bias=False),
    )  # fmt: skip
    assert layers_of(module, (2, 52)) == (
        Conv(out_channels=4, kernel=(3,), stride=(2,), padding=(1,), groups=2),
        MaxPool(kernel=(2,), stride=(2,)),
        AvgPool(kernel=(3,), stride=(2,)),
        Relu(),
        AvgPool(kernel=(2,), stride=(2,)),
        Flatten(),
        Norm(groups=1),
        Linear(out_features=3),
    )


@pytest.mark.slow
def test_in_place_operators_change_what_is_read_later() -> None:
    """As in torch, through views and identities too: the plan gives the module's numbers."""

    def run(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
        y = first(x)
        before = F.relu(y)
        flat = y.flatten(1)  # a view: it changes with y
        same = y.detach()
        F.hardswish(same, inplace=True)
        return second(flat + before.flatten(1))

    module = Run(run, nn.Conv2d(3, 4, 3, bias=False), nn.Linear(144, 5, bias=False))
    plan, notes = plan_from_module(module, IMAGE, "net")
    assert notes == []
    x = torch.randn(3, *IMAGE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = forward(plan, [part.weight for part in module.parts], x)
        torch.testing.assert_close(found, module(x), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_what_is_left_out_is_said_once_for_each_kind() -> None:
    """Biases, affine weights, running statistics, other epsilons, dropout; nothing of what is not there."""
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16, eps=1e-3), nn.Conv2d(16, 12, 1, bias=False), nn.BatchNorm2d(12),
        nn.InstanceNorm2d(12, track_running_stats=True), nn.GroupNorm(2, 12, eps=1e-3, affine=False), nn.Dropout(0.1),
        nn.Dropout(0), Run(F.dropout), nn.Flatten(), nn.Linear(432, 5),
    )  # fmt: skip
    plan, notes = plan_from_module(module, IMAGE, "net")
    assert [layer.groups for layer in plan.layers if isinstance(layer, Norm)] == [2, 1, 12, 2]
    assert [note.partition(":")[0] for note in notes] == [
        "2 biases are left out",
        "the scales and shifts of 2 normalisations are left out, for the same reason",
        "2 batch norms became group norms of 8 channels a group (one group where 8 does not divide the channels)",
        "the running statistics of 1 instance norm are left out",
        "2 normalisations with eps 0.001 got eps 1e-05",
        "2 dropouts are left out, in training too",
    ]
    assert plan_from_module(nn.Sequential(nn.Flatten(), nn.Linear(192, 5, bias=False)), IMAGE, "net")[1] == []


@pytest.mark.slow
def test_the_module_is_left_as_it_was() -> None:
    """Modes, parameters and their gradients; only the structure is read."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(144, 5))
    module[1].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    plan_from_module(module, IMAGE, "net")
    assert [part.training for part in module] == [True, False, True, True, True]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.slow
def test_parts_that_lead_nowhere_are_not_in_the_plan() -> None:
    """What forward computes and throws away, and modules it never calls."""
    linear = nn.Linear(192, 5)
    module = Run(lambda x, a, b, linear: (a(x), linear(x.flatten(1)))[1], nn.Conv2d(3, 4, 3), nn.LSTM(2, 2), linear)
    assert layers_of(module, IMAGE) == (Flatten(), Linear(out_features=5))


@pytest.mark.slow
def test_limits_of_plans_hold() -> None:
    """A network too wide for a ticket is refused by the plan itself; nonsense shapes before anything runs."""
    wide = nn.Sequential(nn.Linear(4, 1 << 13, bias=False), nn.Linear(1 << 13, 1 << 11, bias=False))
    with pytest.raises(PlanError, match="plan 'wide' has more than 16777216 weights"):
        plan_from_module(wide, (4,), "wide")
    for shape in ((), (1, 2, 3, 4), (0, 3), (1 << 20, 1 << 20)):
        with pytest.raises(ExportError, match="1 to 3 sides"):
            plan_from_module(wide, shape, "wide")
