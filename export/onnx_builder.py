"""Collecting the nodes and constants of an ONNX graph, and what one layer's passes hand to each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from wire.errors import ExportError
from wire.layers import Layer

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
        self._stated: list[onnx.ValueInfoProto] = []
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
        return self.state(self.fill_zeros(self.add("Add", self._zero, self.ints([size]))), [size])

    def state(self, value: Name, shape: Sequence[int | str]) -> Name:
        """Say the shape of a float32 value, where it cannot be inferred; "n" stands for the batch.

        onnxruntime writes over a tensor only if it knows that what comes has its shape; work is counted
        from shapes.
        """
        self._stated.append(helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, shape))
        return value

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
            self._nodes,
            name,
            list(inputs),
            list(outputs),
            initializer=list(self._constants.values()),
            value_info=self._stated,
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


@dataclass
class Forward:
    """What a layer's forward pass left behind for its backward pass.

    Attributes:
        layer: the layer.
        before, after: one sample's shape of its first input and of its output.
        x: its first input.
        y: its output.
        weight: its dense weight, or "" for a layer without.
        kept: what else a layer wants again, as its functions say, or "".
    """

    layer: Layer
    before: Shape
    after: Shape
    x: Name
    y: Name = ""
    weight: Name = ""
    kept: Name = ""
