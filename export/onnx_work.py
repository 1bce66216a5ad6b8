"""The work of the ONNX graphs of a ticket, counted from their nodes' shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import TypeAlias

import onnx
from onnx import numpy_helper, shape_inference

from export.onnx_arena import SAME_BYTES, filled
from export.onnx_graph import inference_graph, training_graph
from export.work import Counted, Step, Work, far, total
from wire.onnx_arena import HANDLES, region_bytes
from wire.settings import Training
from wire.ticket import Ticket

KINDS = {
    "Conv": "convolution",
    "ConvTranspose": "convolution",
    "MatMul": "matmul",
    "Gemm": "matmul",
    "MaxPool": "pool",
    "AveragePool": "pool",
    "MaxUnpool": "index",
    "ScatterElements": "index",
    "GatherElements": "index",
    "Gather": "index",
    "ReduceSum": "reduction",
    "ReduceMean": "reduction",
    "Slice": "copy",
    "Pad": "copy",
    "Transpose": "copy",
    "Concat": "copy",
} | dict.fromkeys(SAME_BYTES, "view")

NEAR = 2e6  # bytes of its tensors that an operation finds in a cache

Shape: TypeAlias = tuple[int, ...]
Tensor: TypeAlias = onnx.TensorProto


def count(ticket: Ticket, training: Training, infer_batch: int) -> Counted:
    """Count a training step of a whole batch, and an inference of `infer_batch` samples.

    Nodes that depend on constants alone are left out: onnxruntime computes them once, while it loads a graph.

    Raises:
        ExportError: if the graphs cannot be made.
    """
    steps, results = graph_steps(training_graph(ticket, training), training.batch)
    return Counted(
        work=total(work_of(step) for step in steps),
        alive=filled(steps, results),
        infer_alive=filled(*graph_steps(inference_graph(ticket), infer_batch)),
        held=int(HANDLES * region_bytes(ticket.plan, training.batch, infer_batch)),
    )


def work_of(step: Step) -> dict[str, Work]:
    """What an operation takes: its own kind of work, and what comes from beyond the caches."""
    return {step.kind: step.work} | far(step.work.moved, NEAR)


def graph_steps(graph: bytes, batch: int) -> tuple[list[Step], list[str]]:
    """Nodes that run in every step, and the graph's results."""
    model = onnx.load_from_string(graph)
    for value in (*model.graph.input, *model.graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_value = batch
    inner = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes: dict[str, Shape] = {}
    sizes: dict[str, int] = {}
    for value in (*inner.value_info, *inner.input, *inner.output):
        tensor = value.type.tensor_type
        shapes[value.name] = tuple(dimension.dim_value or batch for dimension in tensor.shape.dim)
        sizes[value.name] = prod(shapes[value.name]) * _item_bytes(tensor.elem_type)
    constant = {one.name: one for one in inner.initializer}
    for name, one in constant.items():
        shapes[name], sizes[name] = tuple(one.dims), prod(one.dims) * _item_bytes(one.data_type)
    folded = set(constant)
    steps = []
    for number, node in enumerate(inner.node):
        if all(name in folded for name in node.input if name):
            folded |= set(node.output)
        else:
            steps.append(replace(_step(node, shapes, sizes, constant), number=number))
    return steps, [value.name for value in inner.output]


def _step(
    node: onnx.NodeProto, shapes: Mapping[str, Shape], sizes: Mapping[str, int], constant: Mapping[str, Tensor]
) -> Step:
    reads, makes = tuple(filter(None, node.input)), {name: sizes.get(name, 0) for name in node.output if name}
    kind = KINDS.get(node.op_type, "elementwise")
    moved = sum(sizes.get(name, 0) for name in reads) + sum(makes.values())
    flops = values = 0
    match node.op_type:
        case "Conv":
            flops = 2 * prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])
            values = _runs(node, shapes[node.input[0]], shapes[node.output[0]])
        case "ConvTranspose":
            flops = 2 * prod(shapes[node.input[0]]) * prod(shapes[node.input[1]][1:])
            values = _runs(node, shapes[node.output[0]], shapes[node.input[0]])
        case "MatMul" | "Gemm":
            flops = 2 * prod(shapes[node.output[0]]) * _inner(node, shapes[node.input[0]])
        case "MaxPool" | "AveragePool":
            flops = prod(shapes[node.output[0]]) * prod(_window(node))
        case "ScatterElements" | "GatherElements" | "Gather":
            moved = 3 * min(sizes.get(name, 0) for name in (node.input[1], *makes))
        case "ReduceSum" | "ReduceMean":
            values = _across(node, shapes, constant)
        case "Slice" | "Pad" | "Concat":
            out, strided = shapes[node.output[0]], node.op_type == "Slice" and _strided(node, constant)
            kind = "strided copy" if strided else kind
            moved, values = 2 * sum(makes.values()), prod(out) if strided else prod(out[:-1])
    if kind == "view":
        moved = 0
    if kind == "convolution" and _attribute(node, "group", 1) > 1:
        kind = "grouped convolution"
    work = Work(flops=flops, moved=moved, values=values, calls=1)
    return Step(kind=kind, work=work, reads=reads, makes=makes, operator=node.op_type, scratch=_scratch(node, shapes))


def _runs(node: onnx.NodeProto, image: Shape, columns: Shape) -> int:
    """Rows that are copied one by one between an image and its columns, which windows of one place do without."""
    window = prod(_window(node))
    return image[0] * image[1] * window * prod(columns[2:-1]) if window > 1 else 0


def _across(node: onnx.NodeProto, shapes: Mapping[str, Shape], constant: Mapping[str, Tensor]) -> int:
    """Results of a sum over values that are not side by side: onnxruntime makes them one at a time."""
    axes = constant.get(node.input[1]) if len(node.input) > 1 else None
    rank = len(shapes[node.input[0]])
    if axes is None or rank - 1 in {axis % rank for axis in numpy_helper.to_array(axes).ravel().tolist()}:
        return 0
    return prod(shapes[node.output[0]])


def _strided(node: onnx.NodeProto, constant: Mapping[str, Tensor]) -> bool:
    """Whether a slice leaves values of a row out."""
    steps = constant.get(node.input[4]) if len(node.input) > 4 else None
    return steps is not None and bool((numpy_helper.to_array(steps) != 1).any())


def _scratch(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int:
    """Bytes that a transposed convolution lays one sample's columns out in, of one group."""
    if node.op_type != "ConvTranspose":
        return 0
    return 4 * prod(shapes[node.input[1]][1:]) * prod(shapes[node.input[0]][2:])


def _inner(node: onnx.NodeProto, left: Shape) -> int:
    """How many products a result of a matrix product adds up."""
    return left[-2] if node.op_type == "Gemm" and _attribute(node, "transA", 0) else left[-1]


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(one.i) for one in node.attribute if one.name == name), default)


def _window(node: onnx.NodeProto) -> list[int]:
    return next(list(one.ints) for one in node.attribute if one.name == "kernel_shape")


def _item_bytes(kind: int) -> int:
    return int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)
