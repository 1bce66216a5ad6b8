"""The named networks."""

from __future__ import annotations

import pytest

from coordinator.models import MODELS, build_plan
from wire.errors import PlanError, UnknownName

IMAGE_MODELS = [name for name in MODELS if name != "har-cnn"]


@pytest.mark.parametrize(
    ("name", "input_shape", "classes", "weights"),
    [
        ("mlp", (1, 28, 28), 10, 266_200),
        ("lenet", (1, 28, 28), 10, 61_470),
        ("lenet", (3, 32, 32), 10, 150 * 3 + 2_400 + 576 * 120 + 10_080 + 840),
        ("conv2", (1, 28, 28), 10, 576 + 36_864 + 12_544 * 256 + 65_536 + 2_560),
        ("conv4", (1, 28, 28), 10, 576 + 36_864 + 73_728 + 147_456 + 6_272 * 256 + 65_536 + 2_560),
        ("har-cnn", (6, 128), 6, 303_232),
    ],
)
def test_weight_count(name: str, input_shape: tuple[int, ...], classes: int, weights: int) -> None:
    """Each network has the weights its layers written out by hand have."""
    plan = build_plan(name, input_shape=input_shape, classes=classes)
    assert (plan.name, plan.classes, plan.weights) == (name, classes, weights)


@pytest.mark.parametrize("name", IMAGE_MODELS)
@pytest.mark.parametrize("side", [28, 32])
@pytest.mark.parametrize("channels", [1, 3])
def test_image_models_take_every_image_shape(name: str, channels: int, side: int) -> None:
    """Image models take 28x28 and 32x32 in grey and colour."""
    assert build_plan(name, input_shape=(channels, side, side), classes=7).shapes()[-1] == (7,)


@pytest.mark.parametrize(("name", "input_shape"), [("har-cnn", (1, 28, 28)), ("lenet", (28, 28)), ("mlp", (1, 8, 8))])
def test_wrong_input_shape_names_the_right_one(name: str, input_shape: tuple[int, ...]) -> None:
    """A wrong input shape is refused with what is expected and what was given."""
    expected = r"\(6, 128\)" if name == "har-cnn" else r"\(1, 28, 28\)"
    with pytest.raises(PlanError, match=f"{expected}.*got"):
        build_plan(name, input_shape=input_shape, classes=10)


def test_unknown_model_suggests_the_nearest() -> None:
    """A misspelt model name is met with the right one."""
    with pytest.raises(UnknownName, match="Did you mean 'lenet'"):
        build_plan("lenett", input_shape=(1, 28, 28), classes=10)


def test_one_class_is_refused() -> None:
    """A classifier of one class is a mistake."""
    with pytest.raises(PlanError, match="2 classes or more"):
        build_plan("mlp", input_shape=(1, 28, 28), classes=1)


def test_every_model_has_one_line_of_help() -> None:
    """The table for --help has exactly the models that can be built, one line each."""
    for name, line in MODELS.items():
        shape = (6, 128) if name == "har-cnn" else (1, 28, 28)
        assert build_plan(name, input_shape=shape, classes=2)
        assert line
        assert "\n" not in line
