"""A ticket as two ONNX graphs that stock onnxruntime executes: one training step, and inference.

Only standard operators, so no training build of onnxruntime is needed. The keep mask is stored as
gaps between kept blocks (one or two bytes each) and the initial signs as bits; the first nodes of
a graph unpack both, and onnxruntime folds those nodes into constants while it loads the graph.

Training graph (kept = kept weights of the ticket, n = samples in the batch):

    in    x (n, *input_shape), y int64 (n,), weight (n,), scores (kept,)
          log_prior (classes,)                                       added to the logits before the loss
          m (kept,), v (kept,), t () the step's number from 1        adam
          momentum (kept,)                                           sgd
          learning_rate, beta1, beta2, epsilon, clip ()              as in `wire.settings.Training`; sgd has no
                                                                     beta2 and epsilon
    out   loss (), correct (), gradient (kept,), new_scores (kept,)
          new_m, new_v, or new_momentum (kept,)

Inference graph: x (n, *input_shape), multipliers (kept,) -> logits (n, classes); a multiplier is a sign, +-1, or
a mean of signs. All float32 but y.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import onnx
from onnx import helper

from export.backward import backward
from export.onnx_builder import Forward, GraphBuilder, Name
from export.onnx_layers import forward, input_gradient, weight_gradient
from export.rewrite import relu_after_pool
from wire.errors import ExportError
from wire.layers import Conv, Linear
from wire.settings import Training
from wire.ticket import KeptLayer, Ticket

FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64


def training_graph(ticket: Ticket, training: Training) -> bytes:
    """Return the ONNX file of one training step; of `training` only the optimiser's kind is baked in.

    Raises:
        ExportError: if the ticket keeps no weight, or a layer has no ONNX form.
    """
    g = GraphBuilder()
    signs = g.add("Where", g.add("GreaterOrEqual", "scores", g.scalar(0)), g.scalar(1), g.scalar(-1))
    weights = _Weights(g, ticket, signs)
    passes = forward_pass(g, ticket, weights, training=True)
    loss, correct, dy = _loss(g, g.add("Add", passes[-1].y, "log_prior"), ticket.plan.classes)
    g.name(loss, "loss")
    g.name(correct, "correct")
    gradients: list[Name] = []
    layers = {layer.shape.position: layer for layer in ticket.kept_layers}

    def learn(position: int, dy: Name) -> None:
        layer = layers[position]
        if layer.kept:
            gradients.append(weights.compact(layer, weight_gradient(g, passes[position], dy)))

    backward(
        ticket.plan,
        dy,
        learn=learn,
        input_gradient=lambda position, number, dy: input_gradient(g, passes[position], number, dy),
        add=lambda one, other: g.add("Add", one, other),
    )
    gradient = g.add("Mul", g.add("Concat", *reversed(gradients), axis=0), weights.initial)
    g.name(gradient, "gradient")
    state = _optimiser(g, training.optimiser, gradient)
    inputs = [*_batch_inputs(ticket), _value("log_prior", [ticket.plan.classes])]
    inputs += [_value(name, [ticket.kept]) for name in ("scores", *state)]
    scalars = ["learning_rate", "beta1", "clip"] + (["t", "beta2", "epsilon"] if training.optimiser == "adam" else [])
    inputs += [_value(name, []) for name in scalars]
    outputs = [_value(name, []) for name in ("loss", "correct")]
    outputs += [_value(name, [ticket.kept]) for name in ("gradient", "new_scores", *(f"new_{name}" for name in state))]
    return g.build(ticket.plan.name, inputs, outputs)


def inference_graph(ticket: Ticket) -> bytes:
    """Return the ONNX file of a forward pass.

    Raises:
        ExportError: if the ticket keeps no weight, or a layer has no ONNX form.
    """
    g = GraphBuilder()
    g.name(forward_pass(g, ticket, _Weights(g, ticket, "multipliers"), training=False)[-1].y, "logits")
    inputs = [samples_input(ticket), _value("multipliers", [ticket.kept])]
    return g.build(ticket.plan.name, inputs, [logits_output(ticket)])


class DenseWeights(Protocol):
    """Where a forward pass gets its weights from."""

    def dense(self, layer: KeptLayer) -> Name:
        """The layer's effective weight with zeros in the gaps, in its full shape."""


class _Weights:
    """The ticket's kept weights, times multipliers (kept,), in the graph: compact vector <-> dense arrays.

    Attributes:
        initial: initial weights, float32 (kept,).
    """

    def __init__(self, g: GraphBuilder, ticket: Ticket, multipliers: Name) -> None:
        if not ticket.kept:
            raise ExportError("the ticket keeps no weight, so there is nothing to train", hint="Raise the density")
        self._g = g
        self._indices = {layer.start: _indices(g, layer) for layer in ticket.kept_layers if layer.kept}
        self.initial = _initial(g, ticket)
        effective = g.add("Mul", multipliers, self.initial)
        kept = [layer for layer in ticket.kept_layers if layer.kept]
        parts = g.add_many("Split", len(kept), effective, g.ints([layer.kept for layer in kept]), axis=0)
        self._parts = {layer.start: part for layer, part in zip(kept, parts, strict=True)}

    def dense(self, layer: KeptLayer) -> Name:
        """The layer's effective weight with zeros in the gaps, in its full shape."""
        g, shape = self._g, layer.shape.weight_shape
        flat = g.zeros(layer.shape.weights)
        if layer.kept:
            flat = g.add("ScatterElements", flat, self._indices[layer.start], self._parts[layer.start], axis=0)
        return g.reshape(flat, shape)

    def compact(self, layer: KeptLayer, gradient: Name) -> Name:
        """The kept entries of a dense gradient, (kept of the layer,)."""
        flat = self._g.reshape(gradient, [-1])
        return self._g.add("GatherElements", flat, self._indices[layer.start], axis=0)  # 6 times as fast as Gather


def _indices(g: GraphBuilder, layer: KeptLayer) -> Name:
    """Flat index of every kept weight in its dense array, int32 (kept,), from the gaps between blocks."""
    gaps = np.diff(layer.blocks, prepend=np.int32(0))
    stored = next(t for t in (np.uint8, np.uint16, np.int32) if gaps.max() <= np.iinfo(t).max)
    blocks = g.add(
        "CumSum",
        g.add("Cast", g.constant(gaps.astype(stored)), to=onnx.TensorProto.INT32),
        g.constant(np.array(0, dtype=np.int32)),
    )
    if layer.block == 1:
        return blocks
    # A block's first row is row group x B; blocks count the groups before it once, rows count them B times.
    fan_in = layer.shape.fan_in
    group = g.add("Div", blocks, g.constant(np.array(fan_in, dtype=np.int32)))
    skipped = g.add("Mul", group, g.constant(np.array((layer.block - 1) * fan_in, dtype=np.int32)))
    first = g.add("Unsqueeze", g.add("Add", blocks, skipped), g.ints([1]))
    rows = g.add("Add", first, g.constant(np.arange(layer.block, dtype=np.int32) * np.int32(fan_in)))  # (blocks, B)
    return g.reshape(rows, [-1])


def _initial(g: GraphBuilder, ticket: Ticket) -> Name:
    """Initial weights, float32 (kept,): signs unpacked from bits, times each layer's magnitude."""
    layers = [layer for layer in ticket.kept_layers if layer.kept]
    packed = np.packbits(np.concatenate([layer.signs for layer in layers]), bitorder="little")
    shifts = g.constant(np.arange(8, dtype=np.uint8))
    bits = g.add("BitShift", g.add("Unsqueeze", g.constant(packed), g.ints([1])), shifts, direction="RIGHT")
    bits = g.reshape(g.add("BitwiseAnd", bits, g.constant(np.array(1, dtype=np.uint8))), [-1])
    bits = g.add("Slice", bits, g.ints([0]), g.ints([ticket.kept]))  # the last byte may be partly unused
    signs = g.add("Where", g.add("Cast", bits, to=onnx.TensorProto.BOOL), g.scalar(1), g.scalar(-1))
    magnitudes = [
        g.add("Expand", g.constant(layer.magnitudes), g.ints([layer.kept]))
        if layer.magnitudes.size == 1
        else g.constant(layer.magnitudes)
        for layer in layers
    ]
    return g.add("Mul", signs, g.add("Concat", *magnitudes, axis=0))


def forward_pass(g: GraphBuilder, ticket: Ticket, weights: DenseWeights, *, training: bool) -> list[Forward]:
    """Append a ticket's forward pass on the input x; the last one's y are the logits (n, classes).

    Raises:
        ExportError: if a layer has no ONNX form.
    """
    plan, kept_layers = relu_after_pool(ticket.plan), iter(ticket.kept_layers)
    shapes, passes, values = plan.shapes(), list[Forward](), ["x"]
    for position, (layer, sources) in enumerate(zip(plan.layers, plan.sources(), strict=True)):
        weight = weights.dense(next(kept_layers)) if isinstance(layer, Conv | Linear) else ""
        read = [values[source] for source in sources]
        passes.append(forward(g, layer, shapes[sources[0]], shapes[position + 1], read, weight, training=training))
        values.append(passes[-1].y)
    return passes


def _loss(g: GraphBuilder, logits: Name, classes: int) -> tuple[Name, Name, Name]:
    """Weighted mean cross-entropy, weighted number of hits, and the gradient of the logits (n, classes)."""
    total = g.add("ReduceSum", "weight", keepdims=0)
    log_probabilities = g.add("LogSoftmax", logits, axis=1)
    column = g.add("Unsqueeze", "y", g.ints([1]))
    own = g.reshape(g.add("GatherElements", log_probabilities, column, axis=1), [-1])  # refuses a label out of range
    loss = g.add("Neg", g.add("Div", g.add("ReduceSum", g.add("Mul", own, "weight"), keepdims=0), total))
    hits = g.add("Cast", g.add("Equal", g.add("ArgMax", logits, axis=1, keepdims=0), "y"), to=FLOAT)
    correct = g.add("ReduceSum", g.add("Mul", hits, "weight"), keepdims=0)
    one_hot = g.add("OneHot", "y", g.ints([classes]), g.constant(np.array([0, 1], dtype=np.float32)))
    error = g.add("Sub", g.add("Exp", log_probabilities), one_hot)
    share = g.add("Unsqueeze", g.add("Div", "weight", total), g.ints([1]))
    return loss, correct, g.add("Mul", error, share)


def _optimiser(g: GraphBuilder, kind: str, gradient: Name) -> tuple[str, ...]:
    """Append the update to `new_scores` and the new state; return the state's names.

    Source: Kingma & Ba, arXiv 1412.6980, algorithm 1, and torch.optim.SGD with momentum.

    Raises:
        ExportError: if the optimiser has no ONNX form.
    """
    match kind:
        case "sgd":
            momentum = g.add("Add", g.add("Mul", "beta1", "momentum"), gradient)
            g.name(momentum, "new_momentum")
            step = momentum
            state: tuple[str, ...] = ("momentum",)
        case "adam":
            one = g.scalar(1)
            m = _average(g, "m", "beta1", gradient)
            v = _average(g, "v", "beta2", g.add("Mul", gradient, gradient))
            m_hat = g.add("Div", m, g.add("Sub", one, g.add("Pow", "beta1", "t")))
            v_hat = g.add("Div", v, g.add("Sub", one, g.add("Pow", "beta2", "t")))
            step = g.add("Div", m_hat, g.add("Add", g.add("Sqrt", v_hat), "epsilon"))
            state = ("m", "v")
        case _:
            raise ExportError(f"no ONNX form of optimiser '{kind}'")
    moved = g.add("Sub", "scores", g.add("Mul", step, "learning_rate"))
    g.name(g.add("Clip", moved, g.add("Neg", "clip"), "clip"), "new_scores")
    return state


def _average(g: GraphBuilder, state: str, beta: Name, value: Name) -> Name:
    """`beta` x state + (1 - `beta`) x value, named new_<state>."""
    fresh = g.add("Mul", value, g.add("Sub", g.scalar(1), beta))
    new = g.add("Add", g.add("Mul", state, beta), fresh)
    g.name(new, f"new_{state}")
    return new


def samples_input(ticket: Ticket) -> onnx.ValueInfoProto:
    """The graph input x, float32 (n, *input_shape)."""
    return _value("x", ["n", *ticket.plan.input_shape])


def logits_output(ticket: Ticket) -> onnx.ValueInfoProto:
    """The graph output logits, float32 (n, classes)."""
    return _value("logits", ["n", ticket.plan.classes])


def _batch_inputs(ticket: Ticket) -> list[onnx.ValueInfoProto]:
    return [
        samples_input(ticket),
        helper.make_tensor_value_info("y", INT64, ["n"]),
        _value("weight", ["n"]),
    ]


def _value(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, FLOAT, shape)
