"""What an artifact takes and gives, read from the artifact itself, and which packages made it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata

import onnx
from pydantic import BaseModel, ConfigDict

MADE_WITH = {
    "sparse": (),
    "onnx": ("onnx",),
    "executorch": ("executorch", "torch"),
    "executorch-trainer": ("executorch", "torch"),
}


class Value(BaseModel):
    """One input or output of a graph; a dimension is a number, or a name where any number goes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    dtype: str
    shape: tuple[int | str, ...]


def values_of(name: str, data: bytes) -> tuple[list[Value], list[Value]]:
    """Inputs and outputs of an artifact.

    Args:
        name: its file name; the ending says what it is.
        data: its bytes.
    """
    if name.endswith(".onnx"):
        graph = onnx.load_from_string(data).graph
        return [_onnx_value(one) for one in graph.input], [_onnx_value(one) for one in graph.output]
    if name.endswith(".pte"):
        from export.executorch_program import ARGUMENTS, RESULTS, tensors

        inputs, outputs = tensors(data)
        return _named(ARGUMENTS[name], inputs), _named(RESULTS[name], outputs)
    return [], []


def _named(names: Sequence[str], tensors: Sequence[tuple[str, tuple[int, ...]]]) -> list[Value]:
    return [Value(name=name, dtype=dtype, shape=shape) for name, (dtype, shape) in zip(names, tensors, strict=True)]


def versions(runtime: str) -> dict[str, str]:
    """Versions of the packages that make a runtime's artifacts."""
    return {package: metadata.version(package) for package in MADE_WITH.get(runtime, ())}


def _onnx_value(value: onnx.ValueInfoProto) -> Value:
    tensor = value.type.tensor_type
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return Value(name=value.name, dtype=dtype, shape=tuple(d.dim_param or d.dim_value for d in tensor.shape.dim))
