"""The binding: finds the build this processor can run, and mirrors the C structs. Nothing is computed here."""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, Structure, c_double, c_float, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import ClassVar

from wire.errors import RuntimeMissing

FOLDER = Path(__file__).resolve().parent
ADAM, SGD = range(2)
LEVELS = {1: ("v1",), 3: ("v3", "v1"), 4: ("v4", "v3", "v1")}  # best first, by hs_cpu_level


class Tensor(Structure):
    """`hs_tensor`: one activation and its gradient; distances in floats."""

    _fields_: ClassVar = [
        (name, c_int64)
        for name in ("value", "gradient", "plane", "pitch", "interior", "channels", "height", "width", "cut")
    ]


class Operation(Structure):
    """`hs_op`: one layer."""

    _fields_: ClassVar = [
        *((name, c_int32) for name in ("kind", "input", "second", "output", "relu", "function", "groups")),
        *((name, c_int32) for name in ("block", "constant", "place_size")),
        *((name, c_int64) for name in ("rows", "start", "kept", "runs", "run", "run_in", "run_out", "run_chunk")),
        *((name, c_void_p) for name in ("row_start", "code", "initial", "magnitudes", "weights")),
        ("scale", c_float),
        ("table", c_float * 64),
        *((name, c_int32) for name in ("kernel_h", "kernel_w", "stride_h", "stride_w", "padding_h", "padding_w")),
        ("extra", c_int64),
    ]


class Network(Structure):
    """`hs_network`: the operations and the memory they work in."""

    _fields_: ClassVar = [
        *((name, c_int64) for name in ("lanes", "classes", "kept", "steps", "operations", "tensors", "logits")),
        ("ops", POINTER(Operation)),
        ("tensor", POINTER(Tensor)),
        ("workspace", c_void_p),
        ("workspace_floats", c_int64),
        *(
            (name, c_void_p)
            for name in ("class_offset", "log_prior", "scores", "gradient", "first", "second", "seconds", "team")
        ),
        ("optimiser", c_int32),
        ("input_relu", c_int32),
        *((name, c_double) for name in ("learning_rate", "beta1", "beta2", "epsilon", "clip")),
    ]


COUNTS = (  # what returns a whole number
    "hs_cpu_level",
    "hs_vector_width",
    "hs_struct_bytes",
    "hs_check",
    "hs_step",
    "hs_gradient",
    "hs_multiply_adds",
    "hs_cycles",
)


class Result(Structure):
    """`hs_result`: loss and correct samples of a batch."""

    _fields_: ClassVar = [("loss", c_double), ("correct", c_double)]


def library_path() -> Path | None:
    """The library that fits this processor, or None when the kernels were not built.

    `$HIDENSEEK_KERNELS` names a build instead: v1, v3, v4 or sanitize.
    """
    chosen = os.environ.get("HIDENSEEK_KERNELS")
    baseline = FOLDER / "sparse-v1.so"
    if chosen:
        names: tuple[str, ...] = (chosen,)
    elif baseline.exists():
        names = LEVELS[int(_open(baseline).hs_cpu_level())]
    else:
        return None
    return next((path for name in names if (path := FOLDER / f"sparse-{name}.so").exists()), None)


@cache
def load() -> ctypes.CDLL:
    """The kernels, ready to call.

    Raises:
        RuntimeMissing: if they were not built, or were built from other sources.
    """
    path = library_path()
    if path is None:
        raise RuntimeMissing(
            "the sparse kernels are not built",
            where=str(FOLDER),
            hint="Build them: python -m edge_client.kernels.build; or use the onnx runtime",
        )
    library = _open(path)
    for which, mirror in enumerate((Tensor, Operation, Network, Result)):
        if library.hs_struct_bytes(which) != ctypes.sizeof(mirror):
            raise _of_other_sources(path, f"{mirror.__name__} differs")
    return library


def _of_other_sources(path: Path, why: str) -> RuntimeMissing:
    return RuntimeMissing(
        f"built from other sources ({why})",
        where=str(path),
        hint="Build it again: python -m edge_client.kernels.build",
    )


def _open(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise RuntimeMissing(f"cannot be loaded ({error})", where=str(path)) from error
    try:
        for name in COUNTS:
            getattr(library, name).restype = c_int64
    except AttributeError as error:
        raise _of_other_sources(path, str(error)) from None
    library.hs_struct_bytes.argtypes = [c_int64]
    library.hs_multiply_adds.argtypes = [c_int64, POINTER(c_float)]
    library.hs_cycles.argtypes = [c_int64]
    network, data = POINTER(Network), c_void_p
    library.hs_check.argtypes = [network]
    library.hs_load_scores.argtypes = [network]
    library.hs_step.argtypes = [network, data, data, data, c_int64, POINTER(Result)]
    library.hs_gradient.argtypes = [network, data, data, data, c_int64, POINTER(Result), data]
    library.hs_logits.argtypes = [network, data, c_int64, data]
    library.hs_team_start.argtypes = [network, c_int64]
    library.hs_team_start.restype = data
    library.hs_team_stop.argtypes = [data]
    for name in ("hs_load_scores", "hs_logits", "hs_team_stop"):
        getattr(library, name).restype = None
    return library
