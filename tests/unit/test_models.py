"""The named networks: their sizes, shapes and help, and the page that lists them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coordinator.models import MODELS, build_plan
from wire.errors import PlanError, UnknownName
from wire.layers import Add, Conv, Norm

ROOT = Path(__file__).parents[2]
IMAGES = {(channels, side, side) for channels in (1, 3) for side in (28, 32)}
IMAGE_MODELS = ("mlp", "lenet", "conv2", "conv4", "resnet8", "resnet20", "mobilenet-v2-tiny")
SIZES = [
    ("mlp", (1, 28, 28), 10, 266_200),
    ("lenet", (1, 28, 28), 10, 61_470),
    ("lenet", (3, 32, 32), 10, 150 * 3 + 2_400 + 576 * 120 + 10_080 + 840),
    ("conv2", (1, 28, 28), 10, 576 + 36_864 + 12_544 * 256 + 65_536 + 2_560),
    ("conv4", (1, 28, 28), 10, 576 + 36_864 + 73_728 + 147_456 + 6_272 * 256 + 65_536 + 2_560),
    # A stem; blocks of two 3x3 convolutions; shortcuts of 1x1; the head.
    ("resnet8", (3, 32, 32), 10, 432 + 2 * 2_304 + (13_824 + 512) + (55_296 + 2_048) + 640),
    ("resnet20", (3, 32, 32), 10, 432 + 6 * 2_304 + (13_824 + 512) + 4 * 9_216 + (55_296 + 2_048) + 4 * 36_864 + 640),
    ("har-cnn", (6, 128), 6, 303_232),
    ("har-resnet", (6, 128), 6, 6 * 32 * 7 + 2 * 5_120 + (30_720 + 2_048) + (40_960 + 4_096) + 384),
    ("ds-cnn", (1, 49, 10), 12, 64 * 40 + 4 * (64 * 9 + 64 * 64) + 64 * 12),
]  # fmt: skip


@pytest.mark.parametrize(("name", "input_shape", "classes", "weights"), SIZES)
def test_weight_count(name: str, input_shape: tuple[int, ...], classes: int, weights: int) -> None:
    """Each network has the weights its layers written out by hand have."""
    plan = build_plan(name, input_shape=input_shape, classes=classes)
    assert (plan.name, plan.classes, plan.weights) == (name, classes, weights)


def test_weight_count_of_inverted_residuals() -> None:
    """mobilenet-v2-tiny: 1x1 up, 3x3 for every channel by itself, 1x1 down."""
    blocks = [(16, 8, 1), (8, 16, 6), (16, 16, 6), (16, 24, 6), (24, 24, 6), (24, 48, 6)]
    inside = sum((a * a * e if e > 1 else 0) + 9 * a * e + a * e * b for a, b, e in blocks)
    assert build_plan("mobilenet-v2-tiny").weights == 3 * 16 * 9 + inside + 48 * 128 + 1_280


@pytest.mark.parametrize("name", MODELS)
def test_every_model_takes_all_of_its_shapes(name: str) -> None:
    """Each shape that is named, with any number of classes; without options the first, and the usual classes."""
    model = MODELS[name]
    for shape in model.shapes:
        plan = build_plan(name, input_shape=shape, classes=7)
        assert (plan.input_shape, plan.shapes()[-1]) == (shape, (7,))
    usual = build_plan(name)
    assert (usual.input_shape, usual.classes) == (model.shapes[0], model.classes)


@pytest.mark.parametrize("name", MODELS)
def test_image_models_take_every_image_shape(name: str) -> None:
    """Image models take 28x28 and 32x32 in grey and colour; the others do not."""
    assert (set(MODELS[name].shapes) == IMAGES) == (name in IMAGE_MODELS)


def test_deep_models_normalise_after_every_convolution() -> None:
    """In groups of 8 channels; linear ends of inverted residuals and shortcuts too."""
    for name in ("resnet8", "resnet20", "mobilenet-v2-tiny", "har-resnet", "ds-cnn"):
        plan = build_plan(name)
        shapes = plan.shapes()
        for at, layer in enumerate(plan.layers):
            if isinstance(layer, Conv):
                assert plan.layers[at + 1] == Norm(groups=shapes[at + 1][0] // 8)


@pytest.mark.parametrize(
    ("name", "residuals"), [("resnet8", 3), ("resnet20", 9), ("har-resnet", 3), ("mobilenet-v2-tiny", 2), ("ds-cnn", 0)]
)
def test_residuals(name: str, residuals: int) -> None:
    """One sum a block, where a block keeps its shape or has a shortcut that changes it."""
    assert sum(isinstance(layer, Add) for layer in build_plan(name).layers) == residuals


@pytest.mark.parametrize(
    ("name", "input_shape", "expected"),
    [
        ("har-cnn", (1, 28, 28), r"\(6, 128\)"),
        ("lenet", (28, 28), r"\(1, 28, 28\) or \(1, 32, 32\)"),
        ("mlp", (1, 8, 8), r"\(1, 28, 28\)"),
        ("ds-cnn", (1, 28, 28), r"\(1, 49, 10\)"),
    ],
)
def test_wrong_input_shape_names_the_right_one(name: str, input_shape: tuple[int, ...], expected: str) -> None:
    """A wrong input shape is refused with what is expected and what was given."""
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
    """What --help shows."""
    for model in MODELS.values():
        assert model.help
        assert "\n" not in model.help


def test_the_page_lists_every_model_as_it_is() -> None:
    """docs/networks.md: name, help, samples, classes, weights and multiply-adds, in the order of the code."""
    page = (ROOT / "docs" / "networks.md").read_text()
    expected = []
    for name, model in MODELS.items():
        plan = build_plan(name)
        samples = "x".join(map(str, plan.input_shape))
        macs = sum(layer.macs for layer in plan.weight_layers())
        expected.append(f"| `{name}` | {model.help} | {samples} | {plan.classes} | {plan.weights:,} | {macs:,} |")
    assert re.findall(r"^\| `[\w-]+` \| .* \| \d[\dx]+ \| .*$", page, re.M) == expected
