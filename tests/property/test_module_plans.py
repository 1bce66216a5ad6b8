"""Any graph of layers, written as a module of torch in any of the ways there are: its plan gives the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from export.plan_from_torch import plan_from_module
from export.torch_net import forward
from tests.graph_plans import graph_plans
from tests.property.wire_strategies import QUICK
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
from wire.plan import Plan

Form = Callable[[list[Tensor]], Tensor]
ACTIVATIONS: dict[type[Layer], Sequence[Callable[[Tensor], Tensor]]] = {
    Relu: (F.relu, torch.relu_, nn.ReLU(inplace=True), Tensor.relu),
    Relu6: (F.relu6, nn.ReLU6(inplace=True), lambda x: F.hardtanh(x, 0, 6)),
    Hardswish: (F.hardswish, nn.Hardswish(inplace=True)),
    Gelu: (F.gelu, nn.GELU()),
}
FLATTENINGS = (nn.Flatten(), lambda x: x.view(x.size(0), -1), lambda x: x.reshape(x.shape[0], x[0].numel()))
IDENTITIES = (lambda x: x, nn.Dropout(0.5).eval(), Tensor.clone, nn.Identity())


class Module(nn.Module):
    """A plan's layers, each in a form that is drawn; nn.Conv and nn.Linear in the plan's order."""

    def __init__(self, plan: Plan, draw: Callable[[int], int]) -> None:
        super().__init__()
        self.weighted = nn.ModuleList()
        shapes = plan.shapes()
        self.forms = [self._form(layer, shapes[at], draw) for at, layer in enumerate(plan.layers)]
        self.held = nn.ModuleList(form for form in self.forms if isinstance(form, nn.Module))

    def forward(self, x: Tensor) -> Tensor:
        """(n, *input_shape) -> (n, classes); the values of the plan, one after the other."""
        values = [x.clone()]
        for form in self.forms:
            values.append(form(values))
        return values[-1]

    def _form(self, layer: Layer, shape: tuple[int, ...], draw: Callable[[int], int]) -> Form:
        sides = len(shape) - 1
        pools = {MaxPool: (F.max_pool1d, F.max_pool2d), AvgPool: (F.avg_pool1d, F.avg_pool2d)}
        match layer:
            case Conv():
                cls = nn.Conv1d if sides == 1 else nn.Conv2d
                return self._weights(
                    cls(shape[0], layer.out_channels, layer.kernel, layer.stride, layer.padding, groups=layer.groups)
                )
            case Linear():
                return self._weights(nn.Linear(shape[0], layer.out_features))
            case Norm():
                form = draw(2)
                return lambda values: _norm(values[-1], layer.groups, form)
            case AvgPool() if layer.kernel == shape[1:] and draw(2):
                return lambda values: values[-1].mean(tuple(range(2, sides + 2)), keepdim=True)
            case MaxPool() | AvgPool():
                return lambda values: pools[type(layer)][sides - 1](values[-1], layer.kernel, layer.stride)
            case Add() | Concat() | Recall():
                return _joint(layer, draw(3))
            case Flatten():
                return self._after(FLATTENINGS[draw(len(FLATTENINGS))])
        return self._after(ACTIVATIONS[type(layer)][draw(len(ACTIVATIONS[type(layer)]))])

    def _weights(self, module: nn.Module) -> Form:
        nn.init.zeros_(module.bias)
        self.weighted.append(module)
        return self._after(module)

    def _after(self, function: Callable[[Tensor], Tensor]) -> Form:
        return lambda values: function(values[-1])


def _norm(x: Tensor, groups: int, form: int) -> Tensor:
    if form and groups == 1:
        return F.layer_norm(x, x.shape[1:])
    if form and groups == x.shape[1] and x.dim() > 2:
        return F.instance_norm(x)
    return F.group_norm(x, groups)


def _joint(layer: Add | Concat | Recall, form: int) -> Form:
    match layer:
        case Recall():
            return lambda values: IDENTITIES[form](values[layer.source])
        case Concat():
            return lambda values: torch.cat([values[-1], values[layer.source]], 1 if form else -values[-1].dim() + 1)
    adds = (torch.add, lambda a, b: b + a, lambda a, b: a.clone().add_(b))
    return lambda values: adds[form](values[-1], values[layer.source])


def _agrees(plan: Plan, draw: Callable[[int], int], seed: int) -> None:
    torch.manual_seed(seed)
    module = Module(plan, draw).double().eval()
    found, _ = plan_from_module(module, plan.input_shape, "drawn")
    x = torch.randn(3, *plan.input_shape, dtype=torch.float64)
    with torch.no_grad():
        weights = [part.weight for part in module.weighted]
        torch.testing.assert_close(forward(found, weights, x), module(x), rtol=1e-5, atol=1e-9)


@pytest.mark.slow
@settings(QUICK, max_examples=40, phases=[Phase.generate])  # a trace takes too long to shrink
@given(graph_plans(), st.data(), st.integers(0, 1 << 20))
def test_the_plan_of_a_module_gives_its_numbers(plan: Plan, data: st.DataObject, seed: int) -> None:
    """In-place operators change what others read later, as in torch; weights keep their order."""
    _agrees(plan, lambda choices: data.draw(st.integers(0, choices - 1)), seed)
