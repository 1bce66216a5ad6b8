"""The operators of torch that a plan has a form for, one function each, and for others the nearest form there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from export.norms import norm_groups
from export.torch_graph import PLAIN, Call, Value
from export.torch_places import module_stack
from wire.layers import (
    NORM_EPSILON,
    AvgPool,
    Concat,
    Conv,
    Gelu,
    Hardswish,
    Layer,
    Linear,
    MaxPool,
    Norm,
    Relu,
    Relu6,
)

ACTIVATIONS = "Take nn.ReLU, nn.ReLU6, nn.Hardswish or nn.GELU"
POOLS = "Pool whole windows without padding, e.g. nn.MaxPool2d(2)"
NORMS = "Take nn.GroupNorm(groups, channels) or a batch norm"
SHAPES = (
    "Channels and positions stay where they are; x.flatten(1) before the first nn.Linear is the one change of shape"
)
LOGITS = "The loss applies softmax itself: return logits"
GATES = "Values are joined by addition or torch.cat(..., 1) only: gates such as squeeze-and-excitation have no form"
RECURRENT = "Take nn.Conv1d over time, as the named network har-cnn does"
NEAREST = {
    **dict.fromkeys(
        ("silu", "hardsigmoid", "sigmoid", "mish"), "The nearest form is nn.Hardswish (x * hardsigmoid(x))"
    ),
    **dict.fromkeys(("leaky_relu", "prelu", "elu", "selu", "celu", "rrelu", "softplus", "tanh", "clamp"), ACTIVATIONS),
    **dict.fromkeys(("softmax", "log_softmax", "_softmax", "_log_softmax"), LOGITS),
    **dict.fromkeys(("mul", "div", "sub", "matmul", "bmm", "einsum", "pow"), GATES),
    **dict.fromkeys(
        ("conv_transpose1d", "conv_transpose2d"), "Networks here only classify: take nn.Conv1d or nn.Conv2d"
    ),
    **dict.fromkeys(
        ("conv3d", "max_pool3d", "avg_pool3d"), "Samples have up to two spatial sides: nn.Conv1d, nn.Conv2d"
    ),
    **dict.fromkeys(("max_pool2d_with_indices", "adaptive_max_pool1d", "adaptive_max_pool2d"), POOLS),
    **dict.fromkeys(("rms_norm", "_fused_rms_norm", "local_response_norm"), NORMS),
    **dict.fromkeys(
        ("pad", "constant_pad_nd"), "Zeros around it are the padding of nn.Conv1d and nn.Conv2d themselves"
    ),
    **dict.fromkeys(("permute", "transpose", "t", "slice", "select", "split", "chunk", "expand", "stack"), SHAPES),
    **dict.fromkeys(("sum", "mean", "amax", "max"), "Take x.mean over all positions, or nn.AdaptiveAvgPool2d(1)"),
    **dict.fromkeys(("embedding", "_to_copy"), "Samples are float32 numbers, as measured"),
}
# Modules of torch as a whole: their first operator would say little.
NEAREST_MODULE = {
    **dict.fromkeys(("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"), RECURRENT),
    **dict.fromkeys(("MultiheadAttention", "TransformerEncoderLayer"), "Attention has no form: take convolutions"),
    **dict.fromkeys(("_WeightNorm", "_SpectralNorm"), PLAIN),
    "LocalResponseNorm": NORMS,
}


def translate(call: Call) -> Value:
    """What a node stands for; layers it needs are added.

    Raises:
        ExportError: if a plan cannot say it.
    """
    for _, cls in module_stack(call.node):
        package, _, name = cls.rpartition(".")
        if package.startswith("torch.nn.") and name in NEAREST_MODULE:
            raise call.refuse(f"operator {call.operator} of {name} has no form in a plan", NEAREST_MODULE[name])
    if call.operator not in TRANSLATORS:
        hint = NEAREST.get(call.operator, "docs/networks.md lists the operators that have one")
        raise call.refuse(f"operator {call.operator} has no form in a plan", hint)
    value = TRANSLATORS[call.operator](call)
    if value.shape != call.shape:
        what = f"operator {call.operator} makes {call.shape} of one sample, a plan's layer {value.shape}"
        raise call.refuse(what, POOLS if "pool" in call.operator else SHAPES)
    return value


def _same(call: Call) -> Value:
    return call.value(call.node.args[0])


def _dropout(call: Call) -> Value:
    """One that is on in evaluation mode too, as `F.dropout(x)` without `training=` is."""
    call.writer.tally.dropouts += 1
    return _same(call)


def _first(call: Call) -> Value:
    """`normalisation(...)[0]`."""
    if call["b"] != 0:
        raise call.refuse(
            f"output {call['b']} of an operator is used", "Only a normalisation's first output has a form"
        )
    return call.value(call["a"])


def _viewed(call: Call) -> Value:
    """Another shape of the same elements; whether a plan has it shows where it is read."""
    return Value(call.value(call.node.args[0]).number, call.shape)


def _conv(call: Call) -> Value:
    shape = call.weight("weight")
    sides = len(shape) - 2
    kernel, stride = shape[2:], _sides(call["stride"], sides)
    if set(_sides(call["dilation"], sides)) != {1}:
        raise call.refuse(f"dilation {call['dilation']} found", "Take dilation=1, with a larger kernel or a stride")
    padding = call["padding"]
    if padding == "same" and any(side % 2 == 0 for side in kernel):
        raise call.refuse(f"padding='same' with kernel {kernel} pads one side more", "Take a kernel of odd sides")
    if isinstance(padding, str):
        padding = [side // 2 if padding == "same" else 0 for side in kernel]
    conv = Conv(
        out_channels=shape[0], kernel=kernel, stride=stride, padding=_sides(padding, sides), groups=call["groups"]
    )
    call.writer.tally.biases += call["bias"] is not None
    return call.add(conv, call.read(call["input"]))


def _linear(call: Call) -> Value:
    shape = call.weight("weight")
    entering = call.value(call["input"]).shape
    if len(entering) != 1:
        raise call.refuse(
            f"operator linear reads samples of shape {entering}, (features,) expected",
            "Put x.flatten(1) before it; for the same at every position take a convolution with kernel_size=1",
        )
    call.writer.tally.biases += call["bias"] is not None
    return call.add(Linear(out_features=shape[0]), call.read(call["input"]))


def _plain(layer: Layer) -> Callable[[Call], Value]:
    return lambda call: call.add(layer, call.read(call.node.args[0]))


def _hardtanh(call: Call) -> Value:
    if (call["min_val"], call["max_val"]) != (0, 6):
        raise call.refuse(f"hardtanh from {call['min_val']} to {call['max_val']} has no form in a plan", ACTIVATIONS)
    return call.add(Relu6(), call.read(call["self"]))


def _gelu(call: Call) -> Value:
    if call["approximate"] != "none":
        raise call.refuse(f"gelu with approximate='{call['approximate']}' has no form", "Take nn.GELU() as it is")
    return call.add(Gelu(), call.read(call["self"]))


def _batch_norm(call: Call) -> Value:
    call.writer.tally.batch_norms += 1
    return _norm(call, norm_groups(call.shape[0]))


def _instance_norm(call: Call) -> Value:
    call.writer.tally.running += not call["use_input_stats"]
    return _norm(call, call.shape[0])


def _group_norm(call: Call) -> Value:
    return _norm(call, call["num_groups"])


def _layer_norm(call: Call) -> Value:
    sides = tuple(call["normalized_shape"])
    if sides != call.shape:
        raise call.refuse(
            f"layer norm over {sides} of samples of shape {call.shape}, all of a sample expected",
            f"Take nn.GroupNorm(1, {call.shape[0]}) or nn.LayerNorm({list(call.shape)})",
        )
    return _norm(call, 1)


def _norm(call: Call, groups: int) -> Value:
    tally = call.writer.tally
    tally.affine += call["weight"] is not None or call["bias"] is not None if "weight" in call.arguments else 0
    if call["eps"] != NORM_EPSILON:
        tally.epsilons[call["eps"]] += 1
    return call.add(Norm(groups=groups), call.read(call.node.args[0]))


def _max_pool(call: Call) -> Value:
    sides = len(call.shape) - 1
    if set(_sides(call["dilation"], sides)) != {1}:
        raise call.refuse(f"dilation {call['dilation']} found", POOLS)
    return _pool(call, MaxPool)


def _avg_pool(call: Call) -> Value:
    if call.arguments.get("divisor_override") is not None:
        raise call.refuse(f"divisor_override {call['divisor_override']} found", "An average divides by its window")
    return _pool(call, AvgPool)


def _pool(call: Call, cls: type[MaxPool] | type[AvgPool]) -> Value:
    sides = len(call.shape) - 1
    if set(_sides(call["padding"], sides)) != {0}:
        raise call.refuse(
            f"{call.operator} with padding {call['padding']} found",
            f"{POOLS}, or take a convolution with a stride, which may have padding",
        )
    kernel = _sides(call["kernel_size"], sides)
    stride = _sides(call["stride"] or kernel, sides)
    return call.add(cls(kernel=kernel, stride=stride), call.read(call.node.args[0]))


def _adaptive(call: Call) -> Value:
    entering, wanted = call.value(call["self"]).shape[1:], call.shape[1:]
    if any(side % out for side, out in zip(entering, wanted, strict=True)):
        raise call.refuse(
            f"{call.operator} from {entering} to {wanted} has windows of unequal size",
            "Choose an output size that divides the input's, e.g. 1",
        )
    return _average(call, tuple(side // out for side, out in zip(entering, wanted, strict=True)))


def _mean(call: Call) -> Value:
    entering = call.value(call["self"]).shape
    dims = sorted(dim % (len(entering) + 1) for dim in call.arguments.get("dim") or ())
    if len(entering) < 2 or dims != list(range(2, len(entering) + 1)) or call["dtype"] is not None:
        raise call.refuse(
            f"a mean over dimensions {dims or 'of all'} of samples of shape {entering}",
            "Take the mean over all positions, x.mean((2, 3)) of images, or nn.AdaptiveAvgPool2d(1)",
        )
    made = _average(call, entering[1:])
    return Value(made.number, call.shape)


def _average(call: Call, kernel: tuple[int, ...]) -> Value:
    number = call.read(call["self"])
    if set(kernel) == {1}:
        return Value(number, call.writer.shape(number))
    return call.add(AvgPool(kernel=kernel, stride=kernel), number)


def _sum(call: Call) -> Value:
    if call["alpha"] != 1:
        raise call.refuse(f"addition with alpha={call['alpha']} found", "Take a + b")
    first, second = call.value(call["self"]), call.value(call["other"])
    if first.shape != second.shape:
        raise call.refuse(
            f"samples of shapes {first.shape} and {second.shape} are added",
            "Take a convolution with kernel_size=1 and a stride on the shortcut to give both one shape",
        )
    return call.sum(call.read(call["self"]), call.read(call["other"]))


def _concat(call: Call) -> Value:
    if call["dim"] % call.node.meta["val"].dim() != 1:
        raise call.refuse(f"torch.cat along dimension {call['dim']} found", "Take torch.cat([a, b], 1)")
    start, *others = [call.read(one) for one in call["tensors"]]
    joined = Value(start, call.writer.shape(start))
    for other in others:
        joined = call.add(Concat(source=other), joined.number)
    return joined


def _sides(value: Any, sides: int) -> tuple[int, ...]:
    """Torch's way to write one number for all sides."""
    values: Sequence[int] = value if isinstance(value, Sequence) else [value]
    return tuple(values) * (sides if len(values) == 1 else 1)


TRANSLATORS: dict[str, Callable[[Call], Value]] = {
    **dict.fromkeys(("conv1d", "conv2d"), _conv),
    "linear": _linear,
    "relu": _plain(Relu()),
    "relu6": _plain(Relu6()),
    "hardtanh": _hardtanh,
    "hardswish": _plain(Hardswish()),
    "gelu": _gelu,
    # Three faces of F.batch_norm: in evaluation mode, without running statistics, and asked to train all the same.
    "_native_batch_norm_legit_no_training": _batch_norm,
    "_native_batch_norm_legit": _batch_norm,
    "_native_batch_norm_legit_functional": _batch_norm,
    "instance_norm": _instance_norm,
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
    **dict.fromkeys(("max_pool1d", "max_pool2d"), _max_pool),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d"), _avg_pool),
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d"), _adaptive),
    "mean": _mean,
    "add": _sum,
    "cat": _concat,
    "native_dropout": _dropout,
    "getitem": _first,
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "flatten", "squeeze", "unsqueeze"), _viewed),
    **dict.fromkeys(("clone", "detach", "alias", "contiguous"), _same),
}
