"""A plan's layers as standard ONNX operators, forward and backward: which functions write which layer.

Every function appends nodes to a `GraphBuilder` and returns the names of the values it made.
The batch dimension stays symbolic throughout.
"""

from __future__ import annotations

from collections.abc import Sequence

from export import onnx_activations as activations
from export import onnx_windows as windows
from export.onnx_builder import Forward, GraphBuilder, Name, Shape
from wire.errors import ExportError
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


def forward(
    g: GraphBuilder, layer: Layer, before: Shape, after: Shape, read: Sequence[Name], weight: Name, *, training: bool
) -> Forward:
    """Append one layer's forward pass.

    Args:
        g: where to.
        layer: the layer.
        before: one sample's shape of its first input.
        after: one sample's shape of its output.
        read: its inputs.
        weight: its dense weight, or "".
        training: whether the backward pass will follow.

    Raises:
        ExportError: if the layer has no ONNX form.
    """
    x = read[0]
    f = Forward(layer=layer, before=before, after=after, x=x, weight=weight)
    match layer:
        case Conv():
            f.y = windows.convolve(g, layer, x, weight)
        case Linear():
            f.y = g.add("Gemm", x, weight, transB=1)
        case Relu():
            f.y = g.add("Relu", x)
        case Relu6():
            f.y = activations.relu6(g, x)
        case Hardswish():
            f.y = activations.hardswish(g, f)
        case Gelu():
            f.y = activations.gelu(g, f)
        case Norm():
            f.y = activations.normalise(g, f, layer)
        case Add():
            f.y = g.add("Add", *read)
        case Concat():
            f.y = g.add("Concat", *read, axis=1)
        case Recall():
            f.y = x
        case MaxPool():
            f.y = windows.max_pool(g, f, layer, training=training)
        case AvgPool():
            f.y = windows.average_pool(g, layer, x)
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
    return windows.convolution_weight_gradient(g, f, f.layer, dy)


def input_gradient(g: GraphBuilder, f: Forward, number: int, dy: Name) -> Name:
    """Append the gradient of one of a layer's inputs: 0 is the first, 1 the second of a joint.

    Raises:
        ExportError: if the layer has no ONNX form.
    """
    layer = f.layer
    match layer:
        case Conv():
            return windows.convolution_input_gradient(g, f, layer, dy)
        case Linear():
            return g.add("Gemm", dy, f.weight)
        case Relu():
            return activations.relu_gradient(g, f, dy)
        case Relu6() | Hardswish() | Gelu():
            return activations.activation_gradient(g, f, layer, dy)
        case Norm():
            return activations.norm_gradient(g, f, layer, dy)
        case Add() | Recall():
            return dy
        case Concat():
            first, last = (f.before[0], f.after[0]) if number else (0, f.before[0])
            return g.add("Slice", dy, g.ints([first]), g.ints([last]), g.ints([1]))
        case MaxPool():
            return windows.max_pool_gradient(g, f, layer, dy)
        case AvgPool():
            return windows.average_pool_gradient(g, f, layer, dy)
        case Flatten():
            return g.reshape(dy, (-1, *f.before))
    raise ExportError(f"no ONNX form of layer {layer!r}")
