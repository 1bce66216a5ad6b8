"""Activations and normalisation as ONNX operators, forward and backward.

The forward operators are in opset 13 too, for `export.frozen`: neither HardSwish (14) nor ReduceMean, whose axes
became an input in 18.
"""

from __future__ import annotations

from math import isqrt, pi, prod, sqrt

import onnx

from export.onnx_builder import Forward, GraphBuilder, Name
from wire.layers import NORM_EPSILON, Gelu, Hardswish, Norm, Relu6


def relu6(g: GraphBuilder, x: Name) -> Name:
    """Append min(max(x, 0), 6), any shape."""
    return g.add("Clip", x, g.scalar(0), g.scalar(6))


def hardswish(g: GraphBuilder, f: Forward) -> Name:
    """Append x min(max(x + 3, 0), 6) / 6; `kept`: the second factor over 6, from 0 to 1."""
    f.kept = g.add("HardSigmoid", f.x, alpha=1 / 6, beta=0.5)
    return g.add("Mul", f.x, f.kept)


def gelu(g: GraphBuilder, f: Forward) -> Name:
    """Append x times the normal distribution's share below x; `kept`: that share."""
    error = g.add("Erf", g.add("Mul", f.x, g.scalar(1 / sqrt(2))))
    f.kept = g.add("Mul", g.add("Add", error, g.scalar(1)), g.scalar(0.5))
    return g.add("Mul", f.x, f.kept)


def relu_gradient(g: GraphBuilder, f: Forward, dy: Name) -> Name:
    """Append the gradient of a ReLU's input: dy where the output is not 0, which is where it is positive."""
    return g.add("Mul", dy, _where_not_zero(g, f.y))


def activation_gradient(g: GraphBuilder, f: Forward, layer: Relu6 | Hardswish | Gelu, dy: Name) -> Name:
    """Append the gradient of an activation's input; at its kinks the derivative is that of the flat side."""
    match layer:
        case Relu6():
            slope = _inside(g, f.y, 6)
        case Hardswish():
            # Between the kinks kept = x / 6 + 1 / 2, so that the slope x / 3 + 1 / 2 is x / 6 more.
            slope = g.add("Add", f.kept, g.add("Mul", g.add("Mul", f.x, g.scalar(1 / 6)), _inside(g, f.kept, 1)))
        case Gelu():
            bell = g.add("Exp", g.add("Mul", g.add("Mul", f.x, f.x), g.scalar(-0.5)))
            density = g.add("Mul", bell, g.scalar(1 / sqrt(2 * pi)))
            slope = g.add("Add", f.kept, g.add("Mul", f.x, density))
    return g.add("Mul", dy, slope)


def normalise(g: GraphBuilder, f: Forward, layer: Norm) -> Name:
    """Append a group normalisation, any shape (n, channels, ...); `kept`: 1 / deviation (n, groups, 1, 1)."""
    rows = _rows(g, f, layer, f.x)
    centred = g.add("Sub", rows, _mean(g, f, layer, rows))
    variance = _mean(g, f, layer, g.add("Mul", centred, centred))
    f.kept = g.add("Reciprocal", g.add("Sqrt", g.add("Add", variance, g.scalar(NORM_EPSILON))))
    return g.reshape(g.add("Mul", centred, f.kept), (-1, *f.after))


def norm_gradient(g: GraphBuilder, f: Forward, layer: Norm, dy: Name) -> Name:
    """Append (dy - mean(dy) - y mean(dy y)) / deviation, the means over each group, as the forward pass has them."""
    rows, y = (_rows(g, f, layer, value) for value in (dy, f.y))
    along = g.add("Mul", y, _mean(g, f, layer, g.add("Mul", rows, y)))
    across = g.add("Sub", g.add("Sub", rows, _mean(g, f, layer, rows)), along)
    return g.reshape(g.add("Mul", across, f.kept), (-1, *f.before))


def _rows(g: GraphBuilder, f: Forward, layer: Norm, value: Name) -> Name:
    """A value with each group as a matrix that is nearly square, (n, groups, rows, columns)."""
    size = prod(f.before) // layer.groups
    rows = next(one for one in range(isqrt(size), 0, -1) if size % one == 0)
    return g.reshape(value, (-1, layer.groups, rows, size // rows))


def _mean(g: GraphBuilder, f: Forward, layer: Norm, rows: Name) -> Name:
    """Mean over each group, (n, groups, 1, 1).

    Row by row, then of the rows: onnxruntime adds up one number after the other, and in a sum of thousands that costs
    a digit (on `mobilenet-v2-tiny`, and in InstanceNormalization too).
    """
    total = g.add("ReduceSum", g.add("ReduceSum", rows, g.ints([3])), g.ints([2]))
    return g.add("Mul", total, g.scalar(layer.groups / prod(f.before)))


def _inside(g: GraphBuilder, value: Name, top: float) -> Name:
    """1 where a value from 0 to `top` is neither of both, else 0; the product cannot round to 0."""
    return _where_not_zero(g, g.add("Mul", value, g.add("Sub", g.scalar(top), value)))


def _where_not_zero(g: GraphBuilder, value: Name) -> Name:
    """1 or 0; Greater + Where takes four times as long as two casts."""
    return g.add("Cast", g.add("Cast", value, to=onnx.TensorProto.BOOL), to=onnx.TensorProto.FLOAT)
