"""Everything the two sides say to each other, as frozen dataclasses, and their bytes.

A message is `b"HN"`, a version byte, a kind byte, and a CBOR map from small field numbers to
values; `wire.channel` adds the sender's signature. Unknown field numbers are ignored, so fields can
be added without a new version; a number is never given a second meaning. Which device a message is
from is said by its topic alone, which the signature covers.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, get_type_hints

import cbor2

from wire.errors import ConfigError, TooLarge, Truncated, WireError
from wire.safecbor import MAX_VALUES, describe, load_cbor
from wire.settings import Training
from wire.signing import KEY_BYTES

MAGIC = b"HN"
VERSION = 2
HEADER_BYTES = 4
RUN_BYTES = 8
INSTANCE_BYTES = 8
VOTES_DIGEST_BYTES = 8
MAX_TEXT = 512
MAX_ITEMS = 100_000
MAX_INT = 1 << 53
MAX_MESSAGE_BYTES = 256 << 20
EVERYONE = "*"  # in the place of device ids in `Round.selected`; none of them can be this


def at(number: int, size: int | None = None, *, default: Any = dataclasses.MISSING) -> Any:
    """Declare a message field: its number on the wire, for bytes its exact size, and what it is if nobody says."""
    return field(default=default, metadata={"number": number, "size": size})


@dataclass(frozen=True, kw_only=True)
class Hello:
    """Device -> coordinator, on every connect: I am here.

    Attributes:
        instance: 8 random bytes made when the process started; tells two processes with one id apart.
        software: name and version of the client.
        runtime: what it will train with.
        profile: kind of hardware, a name from devices.yaml, or "".
        train_samples: samples it can train on.
        test_samples: samples it holds back for evaluation.
        key: public key that all its messages are signed with.
        started: how often this device has started, counted on its disk.
        greetings: how often this process has said hello, this one included; so an old one is known for a repetition.
    """

    instance: bytes = at(1, INSTANCE_BYTES)
    software: str = at(2)
    runtime: str = at(3)
    profile: str = at(4)
    train_samples: int = at(5)
    test_samples: int = at(6)
    key: bytes = at(7, KEY_BYTES)
    started: int = at(8)
    greetings: int = at(9)


@dataclass(frozen=True, kw_only=True)
class State:
    """Device -> coordinator, retained; also its last will: online or not."""

    instance: bytes = at(1, INSTANCE_BYTES)
    online: bool = at(2)


@dataclass(frozen=True, kw_only=True)
class Welcome:
    """Coordinator -> device: this instance takes part."""

    instance: bytes = at(1, INSTANCE_BYTES)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Coordinator -> device: this instance, or what it sent, is not accepted.

    Attributes:
        instance: who is meant.
        code: "duplicate", "unknown-device", "runtime", "key", "restored", "revoked", or "mask"; the last is about one
            mask only.
        reason: one sentence for people.
        number: the round whose mask is meant; 0 if none is.
    """

    instance: bytes = at(1, INSTANCE_BYTES)
    code: str = at(2)
    reason: str = at(3)
    number: int = at(4, default=0)


@dataclass(frozen=True, kw_only=True)
class Federation:
    """Coordinator -> all, retained: what is being trained, and how.

    Attributes:
        run: identity of this run.
        name: for people.
        rounds: how many rounds are planned.
        ticket: SHA-256 of the ticket.
        bundles: SHA-256 of the bundle for every runtime offered.
        training: settings of local training.
        seed: fixes the order in which every device sees its samples.
        key: the federation's public key, which signs all that the coordinator says.
        issued: when the run began, milliseconds since 1970; a run older than a device knows is a repetition.
    """

    run: bytes = at(1, RUN_BYTES)
    name: str = at(2)
    rounds: int = at(3)
    ticket: bytes = at(4, 32)
    bundles: Mapping[str, bytes] = at(5)
    training: Training = at(6)
    seed: int = at(7)
    key: bytes = at(8, KEY_BYTES)
    issued: int = at(9)


@dataclass(frozen=True, kw_only=True)
class BundleBytes:
    """Coordinator -> all, retained, one topic per runtime: an encoded `wire.bundle.Bundle`."""

    data: bytes = at(1)


@dataclass(frozen=True, kw_only=True)
class Round:
    """Coordinator -> all, retained: a round opens, or (final) the run is over.

    Attributes:
        run: which run.
        number: 1, 2, ...; the final announcement has the last round's number + 1.
        selected: ids of the devices that train; `EVERYONE` alone: whoever is there, and masks may come rounds later.
        evaluate: every device, selected or not, tries the network that these votes say on its test samples; its
            weights are mean vote x initial weight.
        final: no more rounds; `votes` are the result.
        votes: outcome of the round before, coded by `wire.mask` in the context of those announced with round `base`.
        base: an earlier round of the run, or 0: the votes before the first, which are unanimous.
        digest: of the votes that must come out (`wire.mask.Votes.digest`).
    """

    run: bytes = at(1, RUN_BYTES)
    number: int = at(2)
    selected: tuple[str, ...] = at(3)
    evaluate: bool = at(4)
    final: bool = at(5)
    votes: bytes = at(6)
    base: int = at(7)
    digest: bytes = at(8, VOTES_DIGEST_BYTES)


@dataclass(frozen=True, kw_only=True)
class MaskUpdate:
    """Device -> coordinator: its sign mask after local training, and what that cost.

    Attributes:
        run: which run.
        number: which round.
        signs: sign mask coded in the context of the round's votes (`wire.mask`).
        train_samples: samples trained on.
        loss: mean training loss of the last epoch, nats.
        correct: test samples right with the device's own signs (personalised accuracy).
        test_samples: test samples tried.
        train_s: seconds of local training.
        step_ms: median milliseconds of one optimiser step.
        peak_memory_kb: largest resident memory of the process so far, KiB; 0 if unknown.
    """

    run: bytes = at(1, RUN_BYTES)
    number: int = at(2)
    signs: bytes = at(3)
    train_samples: int = at(4)
    loss: float = at(5)
    correct: int = at(6)
    test_samples: int = at(7)
    train_s: float = at(8)
    step_ms: float = at(9)
    peak_memory_kb: int = at(10)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Device -> coordinator: accuracy of a round's announced network on its test samples."""

    run: bytes = at(1, RUN_BYTES)
    number: int = at(2)
    correct: int = at(3)
    test_samples: int = at(4)


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """Coordinator -> device: the mask of this round is on disk; it will not be asked for again."""

    run: bytes = at(1, RUN_BYTES)
    number: int = at(2)


@dataclass(frozen=True, kw_only=True)
class Missed:
    """Device -> coordinator: I cannot read the votes of the announced round, for I do not have those of its base.

    Attributes:
        run: which run.
        number: the announced round.
        have: the round whose votes the device has, or 0.
    """

    run: bytes = at(1, RUN_BYTES)
    number: int = at(2)
    have: int = at(3)


@dataclass(frozen=True, kw_only=True)
class CatchUp:
    """Coordinator -> device: the votes of the newest round in the context of older ones; fields as of `Round`."""

    run: bytes = at(1, RUN_BYTES)
    number: int = at(2)
    votes: bytes = at(3)
    base: int = at(4)
    digest: bytes = at(5, VOTES_DIGEST_BYTES)


Message: TypeAlias = (
    Hello
    | State
    | Welcome
    | Refusal
    | Federation
    | BundleBytes
    | Round
    | MaskUpdate
    | Evaluation
    | Receipt
    | Missed
    | CatchUp
)
KINDS: dict[int, type[Message]] = {
    1: Hello,
    2: State,
    3: Welcome,
    4: Refusal,
    5: Federation,
    6: BundleBytes,
    7: Round,
    8: MaskUpdate,
    9: Evaluation,
    10: Receipt,
    11: Missed,
    12: CatchUp,
}
_SINGLE = struct.Struct("<f")
_NUMBER_OF = {cls: number for number, cls in KINDS.items()}


def single(value: float) -> float:
    """The nearest float32: a measured figure's digits, in four bytes less than a Python float takes on the wire."""
    return float(_SINGLE.unpack(_SINGLE.pack(value))[0])


def encode(message: Message) -> bytes:
    """Message -> bytes."""
    body = {item.metadata["number"]: _plain(getattr(message, item.name)) for item in dataclasses.fields(message)}
    return MAGIC + bytes([VERSION, _NUMBER_OF[type(message)]]) + cbor2.dumps(body, canonical=True)


def decode(data: bytes, max_values: int = MAX_VALUES) -> Message:
    """Bytes -> message, of at most so many CBOR values.

    Raises:
        WireError: if they are not a message of this version with every field present and in range.
    """
    if len(data) < HEADER_BYTES:
        raise Truncated("message", expected_bytes=HEADER_BYTES, got_bytes=len(data))
    if len(data) > MAX_MESSAGE_BYTES:
        raise TooLarge("message", limit=MAX_MESSAGE_BYTES, got=len(data))
    if data[:2] != MAGIC:
        raise WireError(f"starts with {data[:2]!r}, a message starts with {MAGIC!r}")
    if data[2] != VERSION:
        raise WireError(f"message version {data[2]}, this program speaks version {VERSION}")
    cls = KINDS.get(data[3])
    if cls is None:
        raise WireError(f"unknown message kind {data[3]}")
    body = load_cbor(data[HEADER_BYTES:], max_values)
    if not isinstance(body, dict):
        raise WireError(f"{cls.__name__}: a map of fields expected, got {type(body).__name__}")
    return cls(**{name: read(body) for name, read in _READERS[cls]})


def _readers(cls: type[Message]) -> tuple[tuple[str, Callable[[dict[object, object]], Any]], ...]:
    """For every field of a message class: its name and how to take it out of a decoded map."""
    hints = get_type_hints(cls)

    def reader(item: dataclasses.Field[Any]) -> Callable[[dict[object, object]], Any]:
        number, size, check = item.metadata["number"], item.metadata["size"], _CHECKS[hints[item.name]]
        label = f"{cls.__name__}.{item.name}"

        def read(body: dict[object, object]) -> Any:
            if number not in body:
                raise WireError(f"{label} (field {number}) is missing")
            value = check(label, body[number])
            if size is not None and len(value) != size:
                raise WireError(f"{label}: {size} bytes expected, got {len(value)}")
            return value

        return read

    return tuple((item.name, reader(item)) for item in dataclasses.fields(cls))


def _plain(value: object) -> object:
    if isinstance(value, Training):
        return [getattr(value, name) for name in _TRAINING_TYPES]
    return list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value


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


def _hashes(label: str, value: object) -> Mapping[str, bytes]:
    if not isinstance(value, dict) or len(value) > 16:
        raise _wrong(label, "a map of at most 16 names to SHA-256 hashes", value)
    found = {_text(label, name): _bytes(label, digest) for name, digest in value.items()}
    if any(len(digest) != 32 for digest in found.values()):
        raise _wrong(label, "SHA-256 hashes of 32 bytes", value)
    return found


_TRAINING_TYPES = get_type_hints(Training)


def _training(label: str, value: object) -> Training:
    if not isinstance(value, list) or len(value) != len(_TRAINING_TYPES):
        raise _wrong(label, f"a list of {len(_TRAINING_TYPES)} settings", value)
    checked = {
        name: _CHECKS[kind](f"{label}.{name}", one)
        for (name, kind), one in zip(_TRAINING_TYPES.items(), value, strict=True)
    }
    try:
        return Training(**checked)
    except ConfigError as error:
        raise WireError(f"{label}: {error.what}") from error


_CHECKS: dict[Any, Callable[[str, object], Any]] = {
    int: _int,
    float: _float,
    bool: _bool,
    str: _text,
    bytes: _bytes,
    tuple[str, ...]: _texts,
    Mapping[str, bytes]: _hashes,
    Training: _training,
}
_READERS = {cls: _readers(cls) for cls in KINDS.values()}
