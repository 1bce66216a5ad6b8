"""Read old pickles of plain data and numpy arrays without running anything they say.

A pickle is a program. Three fences keep this one harmless:

1. every opcode is looked at before the first is run: only those that plain data and arrays
   need are admitted, and memo numbers are bounded (a huge one would allocate gigabytes);
2. a global is never imported: each admitted name becomes a `_Token`, every other name is refused;
3. calling a token yields an `Inert`, a `PickledArray`, a dtype code or bytes, and nothing else.

Real numpy arrays are made only afterwards, by `PickledArray.to_numpy`, from checked lengths.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from wire.errors import DataError

# fmt: off
_OPCODES = frozenset({
    "PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BUILD",
    "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
    "BINUNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES",
    "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "LIST", "APPEND", "APPENDS",
    "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS",
    "PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET",
})
# fmt: on
_MEMO_WRITES = ("PUT", "BINPUT", "LONG_BINPUT")
_MAX_MEMO = 1 << 20
_ARRAY, _DTYPE, _ENCODE, _REBUILD = "array", "dtype", "encode", "rebuild"
_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"): _ARRAY,
    ("numpy._core.multiarray", "_reconstruct"): _ARRAY,
    ("numpy", "dtype"): _DTYPE,
    ("_codecs", "encode"): _ENCODE,
    ("copy_reg", "_reconstructor"): _REBUILD,
    ("copyreg", "_reconstructor"): _REBUILD,
}
_INERT = {  # named in the pickles we read, needed by none of them: stand-ins that only hold their arguments
    ("numpy", "ndarray"),
    ("__builtin__", "object"),
    ("builtins", "object"),
    ("__builtin__", "slice"),
    ("builtins", "slice"),
    ("pandas.core.frame", "DataFrame"),
    ("pandas.core.internals.managers", "BlockManager"),
    ("pandas.core.indexes.base", "_new_Index"),
    ("pandas.core.indexes.base", "Index"),
    ("pandas.core.indexes.range", "RangeIndex"),
}
_DTYPES = {"u1": "u1", "i4": "<i4", "i8": "<i8", "f4": "<f4", "f8": "<f8"}


class Inert:
    """What stands in for an object of a class we do not load: its name, arguments and state."""

    __slots__ = ("args", "name", "state")

    def __init__(self, name: str, args: tuple[Any, ...]) -> None:
        self.name = name
        self.args = args
        self.state: Any = None

    def __setstate__(self, state: object) -> None:
        """Keep the state; nothing is called or looked up in it."""
        self.state = state


class PickledArray(Inert):
    """A numpy array as the pickle spells it: (version, shape, dtype, fortran order, data)."""

    __slots__ = ()

    def to_numpy(self, *, where: str) -> npt.NDArray[Any]:
        """The array it describes, read-only.

        Raises:
            DataError: if shape, type and data do not belong together or the type is not numeric.
        """
        match self.state:
            case (_, tuple() as shape, Inert(name="numpy.dtype") as dtype, fortran, str() | bytes() as data):
                pass
            case _:
                raise DataError("a numeric array expected, found something else", where=where)
        code = _DTYPES.get(dtype.args[0] if dtype.args and isinstance(dtype.args[0], str) else "")
        order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "<"
        if code is None or order not in ("<", "|"):
            raise DataError(
                f"array type {dtype.args[:1]!r:.40} found, one of {', '.join(_DTYPES)} expected", where=where
            )
        if len(shape) > 4 or not all(type(side) is int and 0 <= side < 1 << 32 for side in shape):
            raise DataError(f"array shape {shape!r:.60} found, at most 4 sizes expected", where=where)
        try:
            raw = data.encode("latin1") if isinstance(data, str) else data
        except UnicodeEncodeError:
            raise DataError("array data holds something other than bytes", where=where) from None
        expected_bytes = prod(shape) * np.dtype(code).itemsize
        if len(raw) != expected_bytes:
            raise DataError(f"{len(raw)} bytes of array data found, {expected_bytes} expected", where=where)
        return np.frombuffer(raw, dtype=code).reshape(shape, order="F" if fortran else "C")

    def to_list(self, *, where: str) -> list[Any]:
        """The items of an array of objects (column names), as plain data.

        Raises:
            DataError: if this is not an array of objects.
        """
        match self.state:
            case (_, _, _, _, list() as items):
                return items
        raise DataError("a list of names expected, found something else", where=where)


class _Token:
    """What a global in the pickle becomes: something that can be called, and does nothing."""

    __slots__ = ("kind", "name")

    def __init__(self, name: str, kind: str | None) -> None:
        self.name = name
        self.kind = kind

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError(f"the pickle tries to change {self.name}")

    def __call__(self, *args: Any) -> Inert | bytes:
        match self.kind, args:
            case "encode", (str() as text, "latin1" | "latin-1"):
                return text.encode("latin1")
            case "rebuild", (_Token() as cls, *rest):
                return Inert(cls.name, tuple(rest))
            case "array", _:
                return PickledArray(self.name, args)
            case (("dtype" | None), _):
                return Inert(self.name, args)
        raise pickle.UnpicklingError(f"{self.name} called with {len(args)} unexpected arguments")


class _Unpickler(pickle.Unpickler):
    """Resolves globals to tokens only; see the module's docstring."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """The token of an admitted name.

        Raises:
            DataError: for every other name.
        """
        key = (module_name, global_name)
        if key not in _GLOBALS and key not in _INERT:
            raise DataError(f"the pickle asks for {module_name!r:.60}.{global_name!r:.60}, which no data set needs")
        return _Token(f"{module_name}.{global_name}", _GLOBALS.get(key))

    def persistent_load(self, pid: Any) -> Any:
        """Refuse references to things outside the pickle."""
        raise pickle.UnpicklingError("the pickle refers to something outside itself")


def loads(data: bytes, *, where: str) -> Any:
    """Unpickle plain data; arrays come out as `PickledArray`, objects as `Inert`.

    Args:
        data: the whole pickle. Protocols 0 to 3, as Python 2 and pandas before 2020 wrote them.
        where: the file's name, for messages.

    Raises:
        DataError: if it is damaged, or asks for anything but plain data and arrays.
    """
    hint = "This file may have been tampered with: get it again from its publisher"
    try:
        for opcode, argument, position in pickletools.genops(io.BytesIO(data)):
            if opcode.name not in _OPCODES:
                raise DataError(
                    f"pickle opcode {opcode.name} at byte {position} is not admitted", where=where, hint=hint
                )
            if opcode.name in _MEMO_WRITES and not (isinstance(argument, int) and 0 <= argument < _MAX_MEMO):
                raise DataError(
                    f"pickle memo number {argument} at byte {position} is too large", where=where, hint=hint
                )
        return _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except DataError as error:
        raise DataError(error.what, where=where, hint=hint) from None
    except (pickle.UnpicklingError, ValueError, TypeError, LookupError, EOFError, AttributeError) as error:
        raise DataError(f"not a readable pickle ({error!s:.80})", where=where, hint=hint) from None
    except (OverflowError, MemoryError, RecursionError, ImportError) as error:
        raise DataError(f"a pickle that cannot be held ({type(error).__name__})", where=where, hint=hint) from None
