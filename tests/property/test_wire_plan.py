"""Plans as data: identity for what fits, PlanError or WireError for what does not, nothing huge."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.wire_strategies import ODD_VALUES, QUICK, plans
from wire import plan as plan_module
from wire.errors import PlanError, WireError
from wire.plan import AvgPool, Conv, Flatten, Linear, MaxPool, Plan, Relu, plan_from_data, plan_to_data

_LAYERS = st.lists(
    st.tuples(
        st.sampled_from([*plan_module.LAYER_TYPES, "dropout", 3]),
        st.lists(st.lists(st.integers(-1, 4), max_size=4) | st.integers(-1, 2**25) | st.text(max_size=2), max_size=4),
    ).map(lambda pair: [pair[0], *pair[1]])
    | ODD_VALUES,
    max_size=4,
)


@QUICK
@given(plans())
def test_plans_come_back(plan: Plan) -> None:
    """A plan turned into data and back is the same plan."""
    assert plan_from_data(plan_to_data(plan)) == plan


@QUICK
@given(plans())
def test_shapes_hold_together(plan: Plan) -> None:
    """Every layer's output is the next one's input, all sides positive, and the last one is flat."""
    shapes = plan.shapes()
    assert len(shapes) == len(plan.layers) + 1
    assert all(side > 0 for shape in shapes for side in shape)
    assert plan.classes == shapes[-1][0]
    assert plan.weights == sum(layer.weights for layer in plan.weight_layers())
    for layer in plan.weight_layers():
        assert layer.input_shape == shapes[layer.position]
        assert layer.output_shape == shapes[layer.position + 1]


@settings(QUICK, max_examples=30)
@given(st.lists(ODD_VALUES | _LAYERS, max_size=4) | ODD_VALUES)
def test_any_data_is_a_plan_or_raises(data: object) -> None:
    """Any decoded data is a plan that writes the same data again, or a WireError or PlanError."""
    try:
        plan = plan_from_data(data)
    except (WireError, PlanError):
        return
    assert plan_to_data(plan) == data


@settings(QUICK, max_examples=30)
@given(st.lists(st.integers(0, 2**24), min_size=1, max_size=3), _LAYERS)
def test_any_layers_are_a_plan_or_raise(shape: list[int], layers: list[object]) -> None:
    """Layers of the right kinds with any values fit together within the bounds, or raise."""
    try:
        plan = plan_from_data(["p", shape, layers])
    except (WireError, PlanError):
        return
    assert plan.weights <= plan_module.MAX_WEIGHTS


BIG = 1 << 24
HUGE_PLANS = {
    "one layer": ((BIG,), (Linear(out_features=BIG),)),
    "product of sides": ((BIG, BIG, BIG), (Flatten(), Linear(out_features=1))),
    "activations pooled away": (
        (1, BIG, BIG),
        (MaxPool(kernel=(BIG, BIG), stride=(1, 1)), Flatten(), Linear(out_features=1)),
    ),
    "many channels": (
        (1, 4096, 4096),
        (
            Conv(out_channels=BIG, kernel=(1, 1), stride=(1, 1), padding=(0, 0)),
            AvgPool(kernel=(4096, 4096), stride=(1, 1)),
            Flatten(),
            Linear(out_features=1),
        ),
    ),
    "many layers": ((4096,), (*[Linear(out_features=4096)] * 255, Linear(out_features=2))),
}


@pytest.mark.parametrize("name", HUGE_PLANS)
def test_enormous_networks_are_refused(name: str) -> None:
    """A few numbers cannot announce a network that no device could hold."""
    shape, layers = HUGE_PLANS[name]
    with pytest.raises(PlanError, match="more than"):
        Plan(name="p", input_shape=shape, layers=layers)


@pytest.mark.parametrize(
    ("shape", "layers"),
    [
        ((8,), (Conv(out_channels=2, kernel=(), stride=(), padding=()),)),
        ((8,), (MaxPool(kernel=(), stride=()), Linear(out_features=2))),
        ((1, 8), (Conv(out_channels=2, kernel=(9,), stride=(1,), padding=(0,)), Flatten(), Linear(out_features=2))),
        ((1, 8), (Conv(out_channels=2, kernel=(3,), stride=(1,), padding=(3,)), Flatten(), Linear(out_features=2))),
        ((1, 8), (Conv(out_channels=2, kernel=(3,), stride=(0,), padding=(0,)), Flatten(), Linear(out_features=2))),
        ((1, 8), (Conv(out_channels=0, kernel=(3,), stride=(1,), padding=(0,)), Flatten(), Linear(out_features=2))),
        ((1, 8), (Conv(out_channels=2, kernel=(3, 3), stride=(1, 1), padding=(0, 0)),)),
        ((1, 8), (Linear(out_features=2),)),
        ((8,), (Linear(out_features=0),)),
        ((1, 8), (Conv(out_channels=2, kernel=(3,), stride=(1,), padding=(0,)),)),
        ((8,), (Relu(),)),
        ((8,), ()),
        ((), (Linear(out_features=2),)),
        ((0,), (Linear(out_features=2),)),
        ((8,), (Linear(out_features=2),) * 257),
    ],
)
def test_layers_that_do_not_fit_are_refused(shape: tuple[int, ...], layers: tuple[object, ...]) -> None:
    """Every way in which a layer cannot follow another is a PlanError."""
    with pytest.raises(PlanError):
        Plan(name="p", input_shape=shape, layers=layers)  # type: ignore[arg-type]


def test_a_long_name_is_refused_where_it_is_given() -> None:
    """A plan that could not be read again is not made in the first place."""
    with pytest.raises(PlanError, match="longer than 64"):
        Plan(name="n" * 65, input_shape=(8,), layers=(Linear(out_features=2),))
