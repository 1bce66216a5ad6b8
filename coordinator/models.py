"""The networks the coordinator can prune, by name. Plans only: no torch here.

None has biases or normalisation: a sign-mask network is its weights (`wire.plan`).
"""

from __future__ import annotations

from collections.abc import Callable

from wire.errors import PlanError, UnknownName, did_you_mean
from wire.plan import Conv, Flatten, Layer, Linear, MaxPool, Plan, Relu

MODELS: dict[str, str] = {
    "mlp": "two hidden layers, 300 and 100 wide (LeNet-300-100); images",
    "lenet": "two 5x5 convolutions and three linear layers (LeNet-5 with ReLU and max pooling); images",
    "conv2": "two 3x3 convolutions of 64 channels and three linear layers; images",
    "conv4": "four 3x3 convolutions of 64 and 128 channels and three linear layers; images",
    "har-cnn": "two convolutions over time, 64 channels, and two linear layers; 6-axis motion windows of 128 samples",
}

_IMAGES = tuple((channels, side, side) for channels in (1, 3) for side in (28, 32))
_MOTION = ((6, 128),)


def build_plan(name: str, *, input_shape: tuple[int, ...], classes: int) -> Plan:
    """Return the plan of a named network.

    Args:
        name: one of `MODELS`.
        input_shape: one sample: (1 or 3, 28, 28), (1 or 3, 32, 32), or (6, 128) for `har-cnn`.
        classes: width of the last layer, 2 or more.

    Raises:
        UnknownName: if no model has this name.
        PlanError: if the model does not take this input shape, or there are fewer than 2 classes.
    """
    if name not in _BUILDERS:
        raise UnknownName(f"no model is called '{name}'", hint=did_you_mean(name, list(MODELS)))
    layers, accepted = _BUILDERS[name]
    if input_shape not in accepted:
        expected = " or ".join(map(str, accepted))
        raise PlanError(f"model '{name}' takes samples of shape {expected}, got {input_shape}")
    if classes < 2:
        raise PlanError(f"model '{name}' needs 2 classes or more, got {classes}")
    return Plan(name=name, input_shape=input_shape, layers=(*layers(), Linear(out_features=classes)))


def _mlp() -> list[Layer]:
    return [Flatten(), *_dense(300, 100)]


def _lenet() -> list[Layer]:
    return [*_conv2d(6, kernel=5, padding=2), _pool(2), *_conv2d(16, kernel=5), _pool(2), Flatten(), *_dense(120, 84)]


def _conv2() -> list[Layer]:
    return [*_pair(64), Flatten(), *_dense(256, 256)]


def _conv4() -> list[Layer]:
    return [*_pair(64), *_pair(128), Flatten(), *_dense(256, 256)]


def _har_cnn() -> list[Layer]:
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


_BUILDERS: dict[str, tuple[Callable[[], list[Layer]], tuple[tuple[int, ...], ...]]] = {
    "mlp": (_mlp, _IMAGES),
    "lenet": (_lenet, _IMAGES),
    "conv2": (_conv2, _IMAGES),
    "conv4": (_conv4, _IMAGES),
    "har-cnn": (_har_cnn, _MOTION),
}
