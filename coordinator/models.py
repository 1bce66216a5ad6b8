"""The networks the coordinator can prune, by name. Plans only: no torch here.

None has biases or affine normalisation: a sign-mask network is its weights (`wire.plan`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from coordinator import deep_models
from wire.errors import PlanError, UnknownName, did_you_mean
from wire.layers import Conv, Flatten, Layer, Linear, MaxPool, Relu
from wire.plan import Plan

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Model:
    """A network with a name.

    Attributes:
        help: one line for people.
        layers: all layers but the last, for samples of a shape.
        shapes: shapes of one sample it takes; the first is the usual one.
        classes: width of the last layer, if nothing else is said.
    """

    help: str
    layers: Callable[[Shape], list[Layer]]
    shapes: tuple[Shape, ...]
    classes: int


def build_plan(name: str, *, input_shape: Shape | None = None, classes: int | None = None) -> Plan:
    """Return the plan of a named network.

    Args:
        name: one of `MODELS`.
        input_shape: one sample, one of the model's shapes; by default the first.
        classes: width of the last layer, 2 or more.

    Raises:
        UnknownName: if no model has this name.
        PlanError: if the model does not take this input shape, or there are fewer than 2 classes.
    """
    if name not in MODELS:
        raise UnknownName(f"no model is called '{name}'", hint=did_you_mean(name, list(MODELS)))
    model = MODELS[name]
    shape = model.shapes[0] if input_shape is None else input_shape
    width = model.classes if classes is None else classes
    if shape not in model.shapes:
        expected = " or ".join(map(str, model.shapes))
        raise PlanError(f"model '{name}' takes samples of shape {expected}, got {shape}")
    if width < 2:
        raise PlanError(f"model '{name}' needs 2 classes or more, got {width}")
    return Plan(name=name, input_shape=shape, layers=(*model.layers(shape), Linear(out_features=width)))


def _mlp(_: Shape) -> list[Layer]:
    return [Flatten(), *_dense(300, 100)]


def _lenet(_: Shape) -> list[Layer]:
    return [*_conv2d(6, kernel=5, padding=2), _pool(2), *_conv2d(16, kernel=5), _pool(2), Flatten(), *_dense(120, 84)]


def _conv2(_: Shape) -> list[Layer]:
    return [*_pair(64), Flatten(), *_dense(256, 256)]


def _conv4(_: Shape) -> list[Layer]:
    return [*_pair(64), *_pair(128), Flatten(), *_dense(256, 256)]


def _har_cnn(_: Shape) -> list[Layer]:
    conv = Conv(out_channels=64, kernel=(9,), stride=(1,), padding=(4,))
    return [conv, Relu(), _pool(1), conv, Relu(), _pool(1), Flatten(), *_dense(128)]


def _pair(channels: int) -> list[Layer]:
    return [*_conv2d(channels, kernel=3, padding=1), *_conv2d(channels, kernel=3, padding=1), _pool(2)]


def _conv2d(channels: int, *, kernel: int, padding: int = 0) -> list[Layer]:
    return [Conv(out_channels=channels, kernel=(kernel,) * 2, stride=(1, 1), padding=(padding,) * 2), Relu()]


def _pool(sides: int) -> Layer:
    return MaxPool(kernel=(2,) * sides, stride=(2,) * sides)


def _dense(*widths: int) -> list[Layer]:
    return [layer for width in widths for layer in (Linear(out_features=width), Relu())]


_IMAGES = tuple((channels, side, side) for channels in (1, 3) for side in (28, 32))
_COLOUR = ((3, 32, 32), *_IMAGES[:3])
_MOTION = ((6, 128),)


def _images(what: str, layers: Callable[[Shape], list[Layer]], shapes: tuple[Shape, ...] = _IMAGES) -> Model:
    return Model(help=f"{what}; images", layers=layers, shapes=shapes, classes=10)


def _motion(what: str, layers: Callable[[Shape], list[Layer]]) -> Model:
    return Model(help=f"{what}; 6-axis motion windows of 128 samples", layers=layers, shapes=_MOTION, classes=6)


MODELS = {
    "mlp": _images("two hidden layers, 300 and 100 wide (LeNet-300-100)", _mlp),
    "lenet": _images("two 5x5 convolutions and three linear layers (LeNet-5 with ReLU and max pooling)", _lenet),
    "conv2": _images("two 3x3 convolutions of 64 channels and three linear layers", _conv2),
    "conv4": _images("four 3x3 convolutions of 64 and 128 channels and three linear layers", _conv4),
    "resnet8": _images("three residual blocks of 16, 32 and 64 channels (MLPerf Tiny)", deep_models.resnet8, _COLOUR),
    "resnet20": _images("nine residual blocks of 16, 32 and 64 channels", deep_models.resnet20, _COLOUR),
    "mobilenet-v2-tiny": _images(
        "six inverted residual blocks of 8 to 48 channels", deep_models.mobilenet_v2_tiny, _COLOUR
    ),
    "har-cnn": _motion("two convolutions over time, 64 channels, and two linear layers", _har_cnn),
    "har-resnet": _motion("three residual blocks over time, 32 and 64 channels", deep_models.har_resnet),
    "ds-cnn": Model(
        help="a convolution and four depthwise-separable ones of 64 channels; spoken words, 49 frames of 10 MFCCs",
        layers=deep_models.ds_cnn,
        shapes=((1, 49, 10),),
        classes=12,
    ),
}
