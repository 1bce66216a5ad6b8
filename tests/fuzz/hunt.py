"""Alter good bytes in many ways and give them to a reader: anything but an answer or a refusal is a find.

Inputs that a reader accepts, or refuses with words not met before, are what the next ones are made from.
"""

from __future__ import annotations

import random
import re
import resource
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from tests.fuzz.targets import TOKENS, Target

LONGEST = 6000  # bytes of an input
LONGEST_TEXT = 2000  # characters of a refusal
POOL = 600
INTERESTING = (0, 1, 23, 24, 0x3B, 0x5B, 0x7F, 0x80, 0x9B, 0xBB, 0xC2, 0xD8, 0xF7, 0xFB, 0xFF)
CORPUS = Path(__file__).parent / "corpus"
_VARYING = re.compile(r"'.*?'|b'.*|\"[^\"]*\"|[0-9a-f]*\d[0-9a-f…,.]*", re.DOTALL)


class TooSlowError(BaseException):
    """An input takes longer than its reader may; no reader catches this by mistake."""


class FoundError(Exception):
    """A reader did what it must not.

    Args:
        what: it did.
        data: the input.
    """

    def __init__(self, what: str, data: bytes) -> None:
        super().__init__(what)
        self.what = what
        self.data = data


@dataclass
class Tally:
    """What was tried with one reader.

    Attributes:
        tried: inputs.
        accepted: those that it took.
        met: a kind of answer or refusal -> the first input that had it.
        slowest_s: of CPU time.
    """

    tried: int = 0
    accepted: int = 0
    met: dict[str, bytes] = field(default_factory=dict)
    slowest_s: float = 0.0


def altered(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """`data` after 1 to 6 random edits: bytes set, bits flipped, pieces cut, repeated, or taken from `others`."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at, size = rng.randrange(len(out) + 1), rng.choice((1, 1, 2, 4, 8, 40))
        match rng.randrange(8):
            case 0:
                out[at : at + 1] = bytes([rng.choice(INTERESTING)])
            case 1 if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case 2:
                del out[at : at + size]
            case 3:
                out[at:at] = out[at : at + size] * rng.randint(1, 4)
            case 4:
                other = rng.choice(others) or b"\0"
                start = rng.randrange(len(other))
                out[at:at] = other[start : start + size]
            case 5:
                token = rng.choice(TOKENS)
                out[at : at + rng.choice((0, len(token)))] = token
            case _:
                out[at : at + size] = rng.randbytes(size)
    return bytes(out[:LONGEST])


def give(target: Target, data: bytes) -> str:
    """Give one input to a reader; what kind of answer or refusal came.

    Raises:
        FoundError: if it raised anything else, or took too long or too much memory.
    """
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with _at_most(target.slowest_s):
            target.read(data)
        kind = "accepted"
    except target.refusals as error:
        text = str(error)
        if len(text) > LONGEST_TEXT:
            raise FoundError(f"a refusal of {len(text)} characters", data) from error
        kind = f"{type(error).__name__} {_VARYING.sub('#', text)[:60]}"
    except TooSlowError:
        raise FoundError(f"more than {target.slowest_s:g} s", data) from None
    except MemoryError as error:
        raise FoundError("no memory left", data) from error
    except Exception as error:  # the very thing that is looked for
        raise FoundError(f"{type(error).__name__}: {error}", data) from error
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
    if grown_kb > target.growth_kb:
        raise FoundError(f"{grown_kb} kB of memory", data)
    return kind


def corpus(name: str) -> list[bytes]:
    """Inputs that are kept for a reader: lines of hex, one for every kind of answer, and what was once a find."""
    path = CORPUS / f"{name}.hex"
    return list(map(bytes.fromhex, path.read_text().splitlines())) if path.exists() else []


def found(folder: Path) -> list[bytes]:
    """New ground of earlier hunts, in order of the files' names."""
    return [path.read_bytes() for path in sorted(folder.glob("*"))]


def hunt(target: Target, kept: Iterable[bytes], rng: random.Random, seconds: float) -> Iterator[Tally]:
    """Try inputs for some seconds; yields one growing tally, whenever there is a new kind of answer and at the end.

    Raises:
        FoundError: see `give`.
    """
    tally = Tally()
    end = time.monotonic() + seconds
    pool: list[bytes] = []
    for data in [*target.seeds, *kept]:
        if _note(tally, target, data):
            yield tally
        pool.append(data)
    others = [*pool]
    while time.monotonic() < end:
        data = altered(rng.choice(pool), others, rng)
        accepted = tally.accepted
        new = _note(tally, target, data)
        if (new or (tally.accepted > accepted and len(data) > 8)) and len(pool) < POOL:
            pool.append(data)
        if new:
            yield tally
    yield tally


def _note(tally: Tally, target: Target, data: bytes) -> bool:
    """Try one input; whether its answer is of a new kind."""
    began_s = time.process_time()
    kind = give(target, data)
    tally.slowest_s = max(tally.slowest_s, time.process_time() - began_s)
    tally.tried += 1
    tally.accepted += kind == "accepted"
    if kind in tally.met:
        return False
    tally.met[kind] = data
    return True


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise `TooSlowError` here after some seconds of this process's CPU time: machines under test are busy."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise TooSlowError

    before = signal.signal(signal.SIGVTALRM, ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
