"""Plans as data: identity for what fits, PlanError or WireError for what does not, nothing huge."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.property.wire_strategies import ODD_VALUES, QUICK, plans
from wire.errors import PlanError, WireError
from wire.layers import (
    LAYER_TYPES,
    Add,
    AvgPool,
    Concat,
    Conv,
    Flatten,
    Gelu,
    Layer,
    Linear,
    MaxPool,
    Norm,
    Recall,
    Relu,
)
from wire.plan import MAX_WEIGHTS, Plan, plan_from_data, plan_to_data

_LAYERS = st.lists(
    st.tuples(
        st.sampled_from([*LAYER_TYPES, "dropout", 3]),
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


@pytest.mark.slow
def test_drawn_plans_have_every_kind_of_layer() -> None:
    """What the other properties are tried with leaves nothing out."""
    drawn: set[object] = set()

    @settings(QUICK, max_examples=200, phases=[Phase.generate])
    @given(plans())
    def collect(plan: Plan) -> None:
        drawn.update(type(layer) for layer in plan.layers)
        drawn.update("groups" for layer in plan.layers if isinstance(layer, Conv) and layer.groups > 1)

    collect()
    assert drawn == {*LAYER_TYPES.values(), "groups"}


@QUICK
@given(plans())
def test_what_layers_read_is_there_and_read(plan: Plan) -> None:
    """Sources lie before their layers, every value but the last is read; what lies behind a weight learns."""
    shapes = plan.shapes()
    for position, (layer, sources) in enumerate(zip(plan.layers, plan.sources(), strict=True)):
        assert all(0 <= source <= position for source in sources)
        match layer:
            case Recall():
                assert layer.source < position
                assert shapes[position + 1] == shapes[layer.source]
            case Add():
                assert shapes[position] == shapes[layer.source] == shapes[position + 1]
            case Concat():
                assert shapes[position + 1][0] == shapes[position][0] + shapes[layer.source][0]
    assert {source for sources in plan.sources() for source in sources} == set(range(len(plan.layers)))
    first = plan.weight_layers()[0].position
    assert not any(plan.learns()[: first + 1])
    assert plan.learns()[-1]


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
    assert plan.weights <= MAX_WEIGHTS


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


CHANNELS = Conv(out_channels=4, kernel=(1,), stride=(1,), padding=(0,))
HALF = MaxPool(kernel=(2,), stride=(2,))
TWO = Linear(out_features=2)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((CHANNELS, Add(source=2), Flatten(), TWO), r"layer 1 \(add\).*value 2, one of 0..1 expected"),
        ((CHANNELS, Concat(source=9), Flatten(), TWO), r"layer 1 \(concat\).*value 9, one of 0..1 expected"),
        ((CHANNELS, Add(source=-1), Flatten(), TWO), "value -1"),
        ((CHANNELS, Recall(source=1), Flatten(), TWO), r"layer 1 \(recall\).*value 1, one of 0..0 expected"),
        ((Recall(source=0), Flatten(), TWO), r"layer 0 \(recall\).*value 0"),
        ((CHANNELS, Add(source=0), Flatten(), TWO), r"shapes \(4, 8\) and \(6, 8\) cannot be added"),
        ((HALF, Concat(source=0), Flatten(), TWO), r"\(6, 4\) and \(6, 8\) differ in more than their channels"),
        ((Flatten(), Concat(source=0), TWO), "differ in more than their channels"),
        ((Norm(groups=4), Flatten(), TWO), "6 channels cannot be normalised in 4 groups"),
        ((Norm(groups=0), Flatten(), TWO), "in 0 groups"),
        ((replace(CHANNELS, groups=4), Flatten(), TWO), "6 channels to 4 cannot be split into 4 groups"),
        ((replace(CHANNELS, groups=3), Flatten(), TWO), "6 channels to 4 cannot be split into 3 groups"),
        ((replace(CHANNELS, groups=0), Flatten(), TWO), "into 0 groups"),
        ((CHANNELS, Recall(source=0), Flatten(), TWO), r"nothing reads the output of layer 0 \(conv\)"),
        ((CHANNELS, Gelu(), Recall(source=1), Flatten(), TWO), r"nothing reads the output of layer 1 \(gelu\)"),
        ((Flatten(), TWO, Recall(source=1)), r"nothing reads the output of layer 1 \(linear\)"),
    ],
)
def test_graphs_that_do_not_fit_are_refused(layers: tuple[Layer, ...], message: str) -> None:
    """Sources out of range, shapes that cannot be joined, groups that do not divide, values nobody reads."""
    with pytest.raises(PlanError, match=message):
        Plan(name="p", input_shape=(6, 8), layers=layers)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (["conv", 4, [1], [1], [0], 1], "groups of 1 are not written"),
        (["conv", 4, [1], [1]], "takes 4 values, got 3"),
        (["conv", 4, [1], [1], [0], 2, 2], "takes 5 values, got 6"),
        (["conv", 4, [1], [1], [0], [2]], "groups has the wrong type"),
        (["add"], "takes 1 values, got 0"),
        (["recall", [0]], "source has the wrong type"),
        (["norm", 1.0], "a whole number"),
        (["norm", True], "a whole number"),
        (["add", -1], "a whole number"),
        (["gelu", 1], "takes 0 values, got 1"),
        (["swish"], "a layer starts with one of conv, linear, relu, relu6"),
    ],
)
def test_layers_that_nobody_writes_are_refused(data: list[object], message: str) -> None:
    """Missing and spare values, wrong types, groups of 1, unknown kinds: one plan has one form."""
    with pytest.raises(WireError, match=message):
        plan_from_data(["p", [6, 8], [data, ["flatten"], ["linear", 2]]])


def test_groups_are_written_only_where_there_are_any() -> None:
    """Tickets of plans that could be had before groups keep their bytes."""
    for groups, tail in ((1, []), (2, [2])):
        layer = replace(CHANNELS, groups=groups)
        written = plan_to_data(Plan(name="p", input_shape=(6, 8), layers=(layer, Flatten(), TWO)))
        assert written == ["p", [6, 8], [["conv", 4, [1], [1], [0], *tail], ["flatten"], ["linear", 2]]]


def test_a_long_name_is_refused_where_it_is_given() -> None:
    """A plan that could not be read again is not made in the first place."""
    with pytest.raises(PlanError, match="longer than 64"):
        Plan(name="n" * 65, input_shape=(8,), layers=(Linear(out_features=2),))
