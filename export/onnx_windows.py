"""Layers whose windows slide over a feature map as ONNX operators: convolutions and pools, forward and backward."""

from __future__ import annotations

from itertools import product

import numpy as np

from export.onnx_builder import Forward, GraphBuilder, Name, Shape
from wire.layers import AvgPool, Conv, MaxPool


def convolve(g: GraphBuilder, layer: Conv, x: Name, weight: Name) -> Name:
    """Append a convolution, (n, in, *spatial) -> (n, out, *spatial)."""
    return g.add("Conv", x, weight, pads=layer.padding * 2, **_window(layer), **_group(layer))


def convolution_input_gradient(g: GraphBuilder, f: Forward, layer: Conv, dy: Name) -> Name:
    """Append the gradient of a convolution's input."""
    sizes = {"pads": layer.padding * 2, "output_padding": _left_over(f.before, layer)}
    return g.add("ConvTranspose", dy, f.weight, **sizes, **_window(layer), **_group(layer))


def convolution_weight_gradient(g: GraphBuilder, f: Forward, layer: Conv, dy: Name) -> Name:
    """Append the gradient of a convolution's weight; row-major like the weight, in any shape.

    One product per kernel offset, over what that offset sees of the padded input. The usual trick, a Conv of the
    transposed operands, takes 2.7 times as long on 64 channels of 28x28 (onnxruntime 1.32, x86, 1 thread).
    """
    groups, entering, leaving = layer.groups, f.before[0], f.after[0]
    sides = range(2, len(f.before) + 1)
    if groups == entering == leaving:  # sums of products: a matrix product of vectors takes four times as long
        found = [
            g.add("ReduceSum", g.add("Mul", one, dy), g.ints((0, *sides)), keepdims=0)
            for one in _seen(g, f, layer, f.x)
        ]
        return g.add("Transpose", g.reshape(g.add("Concat", *found, axis=0), (-1, groups)), perm=(1, 0))
    seen = _seen(g, f, layer, g.add("Transpose", f.x, perm=(1, 0, *sides)))
    if groups == 1:
        rows = g.reshape(g.add("Transpose", dy, perm=(1, 0, *sides)), (leaving, -1))  # (out, n x windows)
        products = [g.add("Gemm", g.reshape(one, (entering, -1)), rows, transB=1) for one in seen]  # (in, out)
        joined = g.reshape(g.add("Concat", *products, axis=1), (-1, leaving))  # (in x kernel, out)
        return g.add("Transpose", joined, perm=(1, 0))
    # MatMul transposes nothing, so the gradient is put in order once: (groups, n x windows, out / groups).
    split = g.reshape(dy, (-1, groups, leaving // groups, *f.after[1:]))
    ordered = g.add("Transpose", split, perm=(1, 0, *(side + 1 for side in sides), 2))
    columns = g.reshape(ordered, (groups, -1, leaving // groups))
    products = [g.add("MatMul", g.reshape(one, (groups, entering // groups, -1)), columns) for one in seen]
    joined = g.reshape(g.add("Concat", *products, axis=2), (groups, -1, leaving // groups))
    return g.add("Transpose", joined, perm=(0, 2, 1))


def _seen(g: GraphBuilder, f: Forward, layer: Conv, x: Name) -> list[Name]:
    """What each kernel offset sees of x (any, any, *spatial), padded: (any, any, *windows) each."""
    if any(layer.padding):
        x = g.add("Pad", x, g.ints((0, 0, *layer.padding) * 2))
    axes, steps = g.ints(range(2, len(f.before) + 1)), g.ints(layer.stride)
    reach = [(windows - 1) * stride + 1 for windows, stride in zip(f.after[1:], layer.stride, strict=True)]
    found = []
    for offset in product(*map(range, layer.kernel)):
        stop = [first + length for first, length in zip(offset, reach, strict=True)]
        found.append(g.add("Slice", x, g.ints(offset), g.ints(stop), axes, steps))
    return found


def max_pool(g: GraphBuilder, f: Forward, layer: MaxPool, *, training: bool) -> Name:
    """Append a max pool, (n, channels, *spatial) -> fewer windows; `kept`: flat positions of the maxima."""
    outputs = g.add_many("MaxPool", 1 + training, f.x, **_window(layer))
    f.kept = outputs[-1]
    return outputs[0]


def max_pool_gradient(g: GraphBuilder, f: Forward, layer: MaxPool, dy: Name) -> Name:
    """Append the gradient of a max pool's input: all to the first maximum of each window."""
    shape = g.add("Shape", f.x)
    if all(stride >= size for stride, size in zip(layer.stride, layer.kernel, strict=True)):
        return g.state(g.add("MaxUnpool", dy, f.kept, shape, **_window(layer)), ("n", *f.before))
    # Windows overlap: one element may win several of them, and MaxUnpool would keep only one's gradient.
    flat = g.fill_zeros(g.add("ReduceProd", shape, keepdims=1))
    rows = [g.reshape(value, [-1]) for value in (f.kept, dy)]
    found = g.add("Reshape", g.add("ScatterElements", flat, *rows, axis=0, reduction="add"), shape)
    return g.state(found, ("n", *f.before))


def average_pool(g: GraphBuilder, layer: AvgPool, x: Name) -> Name:
    """Append an average pool, (n, channels, *spatial) -> fewer windows."""
    return g.add("AveragePool", x, **_window(layer))


def average_pool_gradient(g: GraphBuilder, f: Forward, layer: AvgPool, dy: Name) -> Name:
    """Append the gradient of an average pool's input: an equal share to every element of a window."""
    # Every channel alike: one channel's transposed convolution with a constant window.
    window = g.constant(np.full((1, 1, *layer.kernel), 1 / np.prod(layer.kernel), dtype=np.float32))
    rows = g.reshape(dy, (-1, 1, *f.after[1:]))
    dx = g.add("ConvTranspose", rows, window, output_padding=_left_over(f.before, layer), **_window(layer))
    return g.reshape(dx, (-1, *f.before))


def _window(layer: Conv | MaxPool | AvgPool) -> dict[str, tuple[int, ...]]:
    return {"kernel_shape": layer.kernel, "strides": layer.stride}


def _group(layer: Conv) -> dict[str, int]:
    return {} if layer.groups == 1 else {"group": layer.groups}


def _left_over(before: Shape, layer: Conv | AvgPool) -> tuple[int, ...]:
    """Input rows behind the last window, per dimension, padding included."""
    padding = layer.padding if isinstance(layer, Conv) else (0,) * len(layer.kernel)
    sides = zip(before[1:], padding, layer.kernel, layer.stride, strict=True)
    return tuple((size + 2 * p - k) % s for size, p, k, s in sides)
