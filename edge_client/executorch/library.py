"""The binding: finds the wheel and the shim, and runs a program's method on numpy arrays."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_client.runtimes.base import Operator
from edge_client.runtimes.registry import INSTALL
from wire.errors import DataError, RuntimeMissing, TicketError
from wire.ticket import DIGEST_BYTES

FOLDER = Path(__file__).resolve().parent
SHIM = "shim.so"
# Libraries of the wheel that the shim needs, each after those it needs itself.
PARTS = ("executorch", "executorch_threadpool", "executorch_kernels_optimized")
INTERFACE = 2  # of shim.cpp
_BUILD = "Build it: python -m edge_client.executorch.build"

Array = NDArray[Any]
# by ExecuTorch's ScalarType
_TYPES: dict[int, np.dtype[Any]] = {4: np.dtype(np.int64), 6: np.dtype(np.float32)}


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """Shape and type of an input or output."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"


def package_folder() -> Path | None:
    """Where the executorch wheel is installed, or None; imports nothing of it."""
    spec = find_spec("executorch")
    folders = spec.submodule_search_locations if spec is not None else None
    return next((Path(folder) for folder in folders or () if (Path(folder) / "lib").is_dir()), None)


def package_version() -> str:
    """Version of the executorch wheel; empty if it is not installed."""
    from importlib.metadata import PackageNotFoundError, version  # with all of email: 1.5 MB

    try:
        return version("executorch")
    except PackageNotFoundError:
        return ""


def shim_path() -> Path | None:
    """The built shim, or None."""
    path = FOLDER / SHIM
    return path if path.exists() else None


@cache
def load() -> ctypes.CDLL:
    """The shim, ready to call.

    Raises:
        RuntimeMissing: if the wheel is not installed, or the shim is not built or was built for another one.
    """
    package, path = package_folder(), shim_path()
    if package is None:
        raise RuntimeMissing(
            "the runtime 'executorch' needs the package executorch", hint=f"Install it: {INSTALL['executorch']}"
        )
    if path is None:
        raise RuntimeMissing("the executorch shim is not built", where=str(FOLDER), hint=_BUILD)
    try:
        for part in PARTS:  # loaded by path, so that the shim finds them by name wherever the wheel lies
            ctypes.CDLL(str(package / "lib" / f"lib{part}.so"), mode=ctypes.RTLD_GLOBAL)
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise RuntimeMissing(f"cannot be loaded ({error})", where=str(path), hint=_BUILD) from error
    library.hs_et_interface.restype = library.hs_et_planned_bytes.restype = c_int64
    library.hs_et_version.restype = library.hs_et_message.restype = c_char_p
    library.hs_et_load.argtypes = [c_char_p, c_size_t, c_char_p, c_int, POINTER(c_void_p)]
    library.hs_et_planned_buffer.argtypes = [c_void_p, c_size_t, POINTER(c_void_p)]
    library.hs_et_planned_buffer.restype = c_int64
    library.hs_et_instruction.argtypes = [c_void_p, c_size_t, POINTER(c_int64), POINTER(c_int64)]
    library.hs_et_instruction.restype = c_char_p
    library.hs_et_free.argtypes = library.hs_et_planned_bytes.argtypes = [c_void_p]
    library.hs_et_free.restype = library.hs_et_threads.restype = None
    library.hs_et_tensor.argtypes = [c_void_p, c_int, c_size_t, POINTER(c_int32), POINTER(c_int32)]
    library.hs_et_execute.argtypes = [c_void_p, POINTER(c_void_p), POINTER(c_void_p)]
    library.hs_et_threads.argtypes = [c_uint32]
    built_for = library.hs_et_version().decode()
    if library.hs_et_interface() != INTERFACE or built_for != package_version():
        found = f"built for executorch {built_for} or from other sources, {package_version()} is installed"
        raise RuntimeMissing(found, where=str(path), hint=_BUILD.replace("it", "it again", 1))
    return library


class Program:
    """One method of a program, loaded.

    Args:
        data: the .pte file and after it the SHA-256 of its bytes; copied.
        name: what errors call it.
        method: which of its methods.
        timed: let `operators` know how long every instruction takes.

    Attributes:
        inputs: what `run` takes.
        outputs: what it returns.
        planned_bytes: memory that the activations take.

    Raises:
        RuntimeMissing: as `load`.
        TicketError: if the program is damaged, or ExecuTorch refuses it.
    """

    def __init__(self, data: bytes, name: str, method: str = "forward", *, timed: bool = False) -> None:
        self._library = load()
        self._name = name
        size = max(len(data) - DIGEST_BYTES, 0)
        if sha256(data[:size]).digest() != data[size:]:  # ExecuTorch trusts a program's bytes and may crash on others
            raise TicketError(f"damaged: the SHA-256 at the end of its {len(data)} bytes is wrong", where=name)
        handle = c_void_p()
        error = self._library.hs_et_load(data, size, method.encode(), timed, byref(handle))
        if error:
            raise TicketError(f"executorch {package_version()} refuses it: {self._message(error)}", where=name)
        self._handle = handle
        weakref.finalize(self, self._library.hs_et_free, handle)
        self.planned_bytes = int(self._library.hs_et_planned_bytes(handle))
        self.inputs, self.outputs = self._tensors(0), self._tensors(1)

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Execute on arrays of exactly the shapes and types of `inputs`; new arrays like `outputs`.

        Raises:
            DataError: if an array does not fit.
            TicketError: if the program fails.
        """
        found = [Tensor(shape=array.shape, dtype=array.dtype) for array in arrays]
        if found != self.inputs or not all(array.flags.c_contiguous for array in arrays):
            expected = ", ".join(map(str, self.inputs))
            raise DataError(f"inputs {', '.join(map(str, found))}; {expected} expected, contiguous", where=self._name)
        results: list[Array] = [np.empty(tensor.shape, dtype=tensor.dtype) for tensor in self.outputs]
        error = self._library.hs_et_execute(self._handle, _pointers(arrays), _pointers(results))
        if error:
            raise TicketError(f"fails while it runs: {self._message(error)}", where=self._name)
        return results

    def planned_buffers(self) -> list[tuple[int, int]]:
        """Address and bytes of every buffer that the activations lie in."""
        found: list[tuple[int, int]] = []
        at = c_void_p()
        while nbytes := int(self._library.hs_et_planned_buffer(self._handle, len(found), byref(at))):
            found.append((at.value or 0, nbytes))
        return found

    def operators(self) -> list[Operator]:
        """Times of the instructions that call a kernel or a delegate, in the program's order; empty if not `timed`."""
        found: list[Operator] = []
        nanoseconds, calls = c_int64(), c_int64()
        for number in count():
            kernel = self._library.hs_et_instruction(self._handle, number, byref(nanoseconds), byref(calls))
            if kernel is None:
                break
            if calls.value:
                name = kernel.decode(errors="replace")
                found.append(Operator(name=str(number), kind=name, seconds=nanoseconds.value * 1e-9, calls=calls.value))
        return found

    def _tensors(self, output: int) -> list[Tensor]:
        sizes, kind = (c_int32 * 8)(), c_int32()
        found: list[Tensor] = []
        while True:
            dimensions = self._library.hs_et_tensor(self._handle, output, len(found), sizes, byref(kind))
            if dimensions < 0:
                return found
            if kind.value not in _TYPES:
                raise TicketError(f"an input or output of type number {kind.value}", where=self._name)
            found.append(Tensor(shape=tuple(sizes[:dimensions]), dtype=_TYPES[kind.value]))

    def _message(self, error: int) -> str:
        return f"{self._library.hs_et_message().decode(errors='replace')} (error {error:#x})"


def set_threads(threads: int) -> None:
    """Set the threads that all programs of this process share."""
    load().hs_et_threads(threads)


def _pointers(arrays: Sequence[Array]) -> Any:  # an array of a type made for its length
    return (c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
