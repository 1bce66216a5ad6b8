"""A plan's layers as standard ONNX operators, forward and backward.

Every function appends nodes to a `GraphBuilder` and returns the names of the values it made.
The batch dimension stays symbolic throughout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from wire.errors import ExportError
from wire.plan import AvgPool, Conv, Flatten, Layer, Linear, MaxPool, Relu

OPSET = 18  # ReduceMax-style axes inputs, BitwiseAnd and ScatterElements' reduction; onnxruntime has it since 1.14
IR_VERSION = 8

Name: TypeAlias = str  # of a value in the graph
Shape: TypeAlias = tuple[int, ...]
Array: TypeAlias = NDArray[np.generic]


class GraphBuilder:
    """Collects nodes and small constants; equal constants are stored once."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[str, Shape, bytes], onnx.TensorProto] = {}
        self._zero: Name = ""

    def add(self, operator: str, *inputs: Name, **attributes: Any) -> Name:
        """Append a node with one output and return the output's name."""
        return self.add_many(operator, 1, *inputs, **attributes)[0]

    def add_many(self, operator: str, outputs: int, *inputs: Name, **attributes: Any) -> list[Name]:
        """Append a node with `outputs` outputs and return their names."""
        number = len(self._nodes)
        names = [f"{operator}{number}" + (f".{i}" if i else "") for i in range(outputs)]
        self._nodes.append(helper.make_node(operator, list(inputs), names, **attributes))
        return names

    def name(self, value: Name, public: Name) -> None:
        """Give a value a name of the graph's interface."""
        self._nodes.append(helper.make_node("Identity", [value], [public]))

    def constant(self, value: Array, name: Name = "") -> Name:
        """Store an array in the file and return its name, `name` if it is given and the array new."""
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(value, name or f"c{len(self._constants)}")
        return self._constants[key].name

    def scalar(self, value: float) -> Name:
        """A 0-d float32 constant."""
        return self.constant(np.array(value, dtype=np.float32))

    def ints(self, values: Sequence[int]) -> Name:
        """A 1-d int64 constant: shapes, axes, sizes."""
        return self.constant(np.array(values, dtype=np.int64))

    def zeros(self, size: int) -> Name:
        """A float32 zero vector made at run time, so that neither the file nor the loaded graph holds it.

        onnxruntime folds a ConstantOfShape of a constant into a tensor it keeps (7.7 MB for `conv4`), so
        the size is made to look as if it depended on the batch.
        """
        if not self._zero:
            self._zero = self.add("Mul", self.add("Shape", "x", end=1), self.ints([0]))
        return self.fill_zeros(self.add("Add", self._zero, self.ints([size])))

    def fill_zeros(self, shape: Name) -> Name:
        """A float32 zero tensor whose shape is computed at run time."""
        return self.add("ConstantOfShape", shape, value=helper.make_tensor("", onnx.TensorProto.FLOAT, [1], [0.0]))

    def reshape(self, value: Name, shape: Sequence[int]) -> Name:
        """Reshape; -1 stands for the batch."""
        return self.add("Reshape", value, self.ints(shape))

    def build(
        self,
        name: str,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
        *,
        notes: Mapping[str, str] | None = None,
        opset: int = OPSET,
        ir_version: int = IR_VERSION,
    ) -> bytes:
        """Serialise the graph; `notes` become the model's metadata.

        Raises:
            ExportError: if onnx's checker finds a fault.
        """
        graph = helper.make_graph(
            self._nodes, name, list(inputs), list(outputs), initializer=list(self._constants.values())
        )
        model = helper.make_model(
            graph, producer_name="hidenseek", ir_version=ir_version, opset_imports=[helper.make_opsetid("", opset)]
        )
        helper.set_model_props(model, dict(notes or {}))
        try:
            onnx.checker.check_model(model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise ExportError(f"the ONNX graph of plan '{name}' is not valid: {error}") from error
        data: bytes = model.SerializeToString(deterministic=True)
        return data


class Forward:
    """What a layer's forward pass left behind for its backward pass.

    Attributes:
        layer: the layer.
        before, after: one sample's shape before and after it.
        x: its input.
        y: its output.
        weight: its dense weight, or "" for a layer without.
        winners: flat positions of a max pool's maxima, or "".
    """

    def __init__(self, layer: Layer, before: Shape, after: Shape, x: Name) -> None:
        self.layer, self.before, self.after, self.x = layer, before, after, x
        self.y = self.weight = self.winners = ""


def forward(
    g: GraphBuilder, layer: Layer, before: Shape, after: Shape, x: Name, weight: Name, *, training: bool
) -> Forward:
    """Append one layer's forward pass; `weight` is its dense weight, or "".

    Raises:
        ExportError: if the layer has no ONNX form.
    """
    f = Forward(layer, before, after, x)
    f.weight = weight
    match layer:
        case Conv():
            f.y = g.add("Conv", x, weight, kernel_shape=layer.kernel, strides=layer.stride, pads=layer.padding * 2)
        case Linear():
            f.y = g.add("Gemm", x, weight, transB=1)
        case Relu():
            f.y = g.add("Relu", x)
        case MaxPool():
            outputs = g.add_many("MaxPool", 1 + training, x, kernel_shape=layer.kernel, strides=layer.stride)
            f.y, f.winners = outputs[0], outputs[-1]
        case AvgPool():
            f.y = g.add("AveragePool", x, kernel_shape=layer.kernel, strides=layer.stride)
        case Flatten():
            f.y = g.add("Flatten", x, axis=1)
        case _:
            raise ExportError(f"no ONNX form of layer {layer!r}")
    return f


def weight_gradient(g: GraphBuilder, f: Forward, dy: Name) -> Name:
    """Append dloss/dweight of a convolution or linear layer; row-major like the weight, in any shape."""
    if isinstance(f.layer, Linear):
        return g.add("Gemm", dy, f.x, transA=1)
    assert isinstance(f.layer, Conv)
    # One matrix product per kernel offset, over what that offset sees of the padded input. The usual trick, a Conv
    # of the transposed operands, takes 2.7 times as long on 64 channels of 28x28 (onnxruntime 1.32, x86, 1 thread).
    sides = range(2, len(f.before) + 1)
    channels_first = (1, 0, *sides)
    padded = g.add("Transpose", f.x, perm=channels_first)
    if any(f.layer.padding):
        padded = g.add("Pad", padded, g.ints((0, 0, *f.layer.padding) * 2))
    rows = g.reshape(g.add("Transpose", dy, perm=channels_first), (f.after[0], -1))  # (out, n x windows)
    axes, steps = g.ints(sides), g.ints(f.layer.stride)
    reach = [(windows - 1) * stride + 1 for windows, stride in zip(f.after[1:], f.layer.stride, strict=True)]
    products = []
    for offset in product(*map(range, f.layer.kernel)):
        stop = [first + length for first, length in zip(offset, reach, strict=True)]
        seen = g.add("Slice", padded, g.ints(offset), g.ints(stop), axes, steps)
        products.append(g.add("Gemm", g.reshape(seen, (f.before[0], -1)), rows, transB=1))  # (in, out)
    joined = g.reshape(g.add("Concat", *products, axis=1), (-1, f.after[0]))  # (in x kernel, out)
    return g.add("Transpose", joined, perm=(1, 0))


def input_gradient(g: GraphBuilder, f: Forward, dy: Name) -> Name:
    """Append dloss/dinput of a layer.

    Raises:
        ExportError: if the layer has no ONNX form.
    """
    layer = f.layer
    match layer:
        case Conv():
            return g.add(
                "ConvTranspose",
                dy,
                f.weight,
                kernel_shape=layer.kernel,
                strides=layer.stride,
                pads=layer.padding * 2,
                output_padding=_left_over(f.before, layer),
            )
        case Linear():
            return g.add("Gemm", dy, f.weight)
        case Relu():
            # The output is never negative, so as a bool it says > 0. Greater + Where takes four times as long.
            passed = g.add("Cast", f.y, to=onnx.TensorProto.BOOL)
            return g.add("Mul", dy, g.add("Cast", passed, to=onnx.TensorProto.FLOAT))
        case MaxPool():
            return _max_pool_gradient(g, f, layer, dy)
        case AvgPool():
            return _average_pool_gradient(g, f, layer, dy)
        case Flatten():
            return g.reshape(dy, (-1, *f.before))
    raise ExportError(f"no ONNX form of layer {layer!r}")


def _max_pool_gradient(g: GraphBuilder, f: Forward, layer: MaxPool, dy: Name) -> Name:
    shape = g.add("Shape", f.x)
    if all(stride >= size for stride, size in zip(layer.stride, layer.kernel, strict=True)):
        return g.add("MaxUnpool", dy, f.winners, shape, kernel_shape=layer.kernel, strides=layer.stride)
    # Windows overlap: one element may win several of them, and MaxUnpool would keep only one's gradient.
    flat = g.fill_zeros(g.add("ReduceProd", shape, keepdims=1))
    rows = [g.reshape(value, [-1]) for value in (f.winners, dy)]
    return g.add("Reshape", g.add("ScatterElements", flat, *rows, axis=0, reduction="add"), shape)


def _average_pool_gradient(g: GraphBuilder, f: Forward, layer: AvgPool, dy: Name) -> Name:
    # Every channel alike: one channel's transposed convolution with a constant window.
    window = g.constant(np.full((1, 1, *layer.kernel), 1 / np.prod(layer.kernel), dtype=np.float32))
    dx = g.add(
        "ConvTranspose",
        g.reshape(dy, (-1, 1, *f.after[1:])),
        window,
        kernel_shape=layer.kernel,
        strides=layer.stride,
        output_padding=_left_over(f.before, layer),
    )
    return g.reshape(dx, (-1, *f.before))


def _left_over(before: Shape, layer: Conv | AvgPool) -> tuple[int, ...]:
    """Input rows behind the last window, per dimension, padding included."""
    padding = layer.padding if isinstance(layer, Conv) else (0,) * len(layer.kernel)
    sides = zip(before[1:], padding, layer.kernel, layer.stride, strict=True)
    return tuple((size + 2 * p - k) % s for size, p, k, s in sides)
