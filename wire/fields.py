"""The fields of messages: how a dataclass says its numbers on the wire, and how values are checked that strangers sent.

A dataclass whose fields are declared by `at` is a CBOR map from those numbers to values. A field that is optional is
left out where it has its default, and has it where it is left out; all others must be there.
"""

from __future__ import annotations

import dataclasses
import math
import struct
import types
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, TypeAlias, get_args, get_type_hints

from wire.errors import ConfigError, WireError
from wire.safecbor import describe
from wire.settings import Training

RUN_BYTES = 8  # of a run's identity
MAX_TEXT = 512
MAX_ITEMS = 100_000
MAX_NUMBERS = 256  # in a list of numbers: one for every layer that a plan may have
MAX_RECORDS = 16
MAX_INT = 1 << 53
_SINGLE = struct.Struct("<f")
Check: TypeAlias = Callable[[str, object], Any]
Reader: TypeAlias = tuple[str, Callable[[dict[object, object]], Any]]


def at(number: int, size: int | None = None, *, default: Any = dataclasses.MISSING, optional: bool = False) -> Any:
    """Declare a field.

    Args:
        number: on the wire.
        size: of bytes, exactly.
        default: what it is if nobody says.
        optional: it is not sent where it is its default.
    """
    return field(default=default, metadata={"number": number, "size": size, "optional": optional})


def optional(number: int, default: Any = None) -> Any:
    """Declare a field that is only sent where it is not its default."""
    return at(number, default=default, optional=True)


def single(value: float) -> float:
    """The nearest float32: a measured figure's digits, in four bytes less than a Python float takes on the wire."""
    return float(_SINGLE.unpack(_SINGLE.pack(value))[0])


def kind_of(hint: Any) -> Any:
    """What a field may be if it is there: the hint without None."""
    if isinstance(hint, types.UnionType):
        (hint,) = (one for one in get_args(hint) if one is not type(None))
    return hint


def body(record: object) -> dict[int, object]:
    """A record's fields as they are on the wire."""
    found = {}
    for item in dataclasses.fields(record):  # type: ignore[arg-type]
        value = getattr(record, item.name)
        if not (item.metadata["optional"] and value == item.default):
            found[item.metadata["number"]] = _plain(value)
    return found


def readers(cls: type[Any]) -> tuple[Reader, ...]:
    """For every field of a record's class: its name and how to take it out of a decoded map."""
    hints = get_type_hints(cls)

    def reader(item: dataclasses.Field[Any]) -> Callable[[dict[object, object]], Any]:
        number, size, check = item.metadata["number"], item.metadata["size"], _check(kind_of(hints[item.name]))
        label = f"{cls.__name__}.{item.name}"

        def read(body: dict[object, object]) -> Any:
            if number not in body:
                if item.metadata["optional"]:
                    return item.default
                raise WireError(f"{label} (field {number}) is missing")
            value = check(label, body[number])
            if size is not None and len(value) != size:
                raise WireError(f"{label}: {size} bytes expected, got {len(value)}")
            return value

        return read

    return tuple((item.name, reader(item)) for item in dataclasses.fields(cls))


def _plain(value: object) -> object:
    if isinstance(value, Training):
        settings = [getattr(value, name) for name in _TRAINING_TYPES]
        return settings if value.dither else settings[:-1]  # as before there was any, for devices of that time
    if isinstance(value, tuple):  # of one kind
        return [body(one) for one in value] if value and dataclasses.is_dataclass(value[0]) else list(value)
    return dict(value) if isinstance(value, Mapping) else value


def _wrong(label: str, expected: str, value: object) -> WireError:
    return WireError(f"{label}: {expected} expected, got {describe(value)}")


def _int(label: str, value: object) -> int:
    if type(value) is not int or not 0 <= value <= MAX_INT:
        raise _wrong(label, f"a whole number in 0..{MAX_INT}", value)
    return value


def _float(label: str, value: object) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
        raise _wrong(label, "a finite number", value)
    return float(value)  # type: ignore[arg-type]


def _bool(label: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong(label, "true or false", value)
    return value


def _text(label: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise _wrong(label, f"text of at most {MAX_TEXT} characters", value)
    return value


def _bytes(label: str, value: object) -> bytes:
    if not isinstance(value, bytes):
        raise _wrong(label, "bytes", value)
    return value


def _texts(label: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_ITEMS:
        raise _wrong(label, f"a list of at most {MAX_ITEMS} texts", value)
    return tuple(_text(label, one) for one in value)


def _many_bytes(label: str, value: object) -> tuple[bytes, ...]:
    if not isinstance(value, list) or len(value) > MAX_ITEMS:
        raise _wrong(label, f"a list of at most {MAX_ITEMS} byte strings", value)
    return tuple(_bytes(label, one) for one in value)


def _ints(label: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > MAX_NUMBERS:
        raise _wrong(label, f"a list of at most {MAX_NUMBERS} whole numbers", value)
    return tuple(_int(label, one) for one in value)


def _hashes(label: str, value: object) -> Mapping[str, bytes]:
    if not isinstance(value, dict) or len(value) > 16:
        raise _wrong(label, "a map of at most 16 names to SHA-256 hashes", value)
    found = {_text(label, name): _bytes(label, digest) for name, digest in value.items()}
    if any(len(digest) != 32 for digest in found.values()):
        raise _wrong(label, "SHA-256 hashes of 32 bytes", value)
    return found


_TRAINING_TYPES = get_type_hints(Training)


def _training(label: str, value: object) -> Training:
    most = len(_TRAINING_TYPES)
    if not isinstance(value, list) or len(value) not in (most - 1, most):
        raise _wrong(label, f"a list of {most - 1} or {most} settings", value)
    checked = {
        name: _CHECKS[kind](f"{label}.{name}", one)
        for (name, kind), one in zip(_TRAINING_TYPES.items(), value, strict=False)
    }
    try:
        return Training(**checked)
    except ConfigError as error:
        raise WireError(f"{label}: {error.what}") from error


def _records(cls: type[Any]) -> Check:
    """How a list of records is checked, each a map of its own."""
    inner = readers(cls)

    def check(label: str, value: object) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) > MAX_RECORDS or not all(isinstance(one, dict) for one in value):
            raise _wrong(label, f"a list of at most {MAX_RECORDS} maps of fields", value)
        return tuple(cls(**{name: read(one) for name, read in inner}) for one in value)

    return check


def _check(kind: Any) -> Check:
    return _CHECKS[kind] if kind in _CHECKS else _records(get_args(kind)[0])


_CHECKS: dict[Any, Check] = {
    int: _int,
    float: _float,
    bool: _bool,
    str: _text,
    bytes: _bytes,
    tuple[str, ...]: _texts,
    tuple[int, ...]: _ints,
    tuple[bytes, ...]: _many_bytes,
    Mapping[str, bytes]: _hashes,
    Training: _training,
}
