"""How devices are brought up to date: what the federation says, and the rules both sides go by.

The federation announces a version of the client, and for each kind of machine a wheel by its SHA-256; or the bundles
of a run to come, by runtime. Files lie at the broker in parts, each with a topic of its own, so that a device fetches
one after the other and goes on where it was interrupted. What came of it a device says in its hello, in brackets after
the client's version: `software` and `read_software`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeAlias

from wire.errors import WireError
from wire.fields import at, optional
from wire.settings import Training

PART_BYTES = 64 * 1024
MAX_FILE_BYTES = 64 << 20
SEED_BYTES = 16
ON_TRIAL = "on trial"  # said in a hello until a new client has shown that it works
HUNDREDTHS = 10_000  # shares are said in hundredths of a percent
_SAID = re.compile(r"\S+ (?P<version>\S+)(?: \((?P<notes>[^()]*)\))?")
_VERSION = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6}){0,3}")


@dataclass(frozen=True, kw_only=True)
class Update:
    """Coordinator -> all, retained: devices shall run this version of the client.

    Attributes:
        version: numbers with dots.
        issued: when this was said, milliseconds since 1970; an older one than a device knows is a repetition.
        wheels: SHA-256 of the wheel by kind of machine, as `uname -m` calls it.
        sizes: their bytes, in the order of the machines' names.
        share: how many devices are meant, of 10,000.
        seed: decides which; the same for a version whatever the share, so that those who are meant stay so.
        downgrade: also devices that run a newer version.
        urls: where each wheel lies on the web, in the order of the machines' names; none: at the broker.
    """

    version: str = at(1)
    issued: int = at(2)
    wheels: Mapping[str, bytes] = at(3)
    sizes: tuple[int, ...] = at(4)
    share: int = at(5)
    seed: bytes = at(6, SEED_BYTES)
    downgrade: bool = optional(7, default=False)
    urls: tuple[str, ...] = optional(8, default=())


@dataclass(frozen=True, kw_only=True)
class Staged:
    """Coordinator -> all, retained: devices shall have these bundles, and have tried them, before a run needs them.

    Attributes:
        issued: as of `Update`.
        bundles: SHA-256 of the bundle by runtime.
        sizes: their bytes, in the order of the runtimes' names.
        share, seed: as of `Update`; the same for a ticket whatever the share.
        training: settings of the run, with which a device tries its bundle.
        ticket: SHA-256 of the ticket that they are of.
    """

    issued: int = at(1)
    bundles: Mapping[str, bytes] = at(2)
    sizes: tuple[int, ...] = at(3)
    share: int = at(4)
    seed: bytes = at(5, SEED_BYTES)
    training: Training = at(6)
    ticket: bytes = at(7, 32)


@dataclass(frozen=True, kw_only=True)
class FilePart:
    """Coordinator -> all, retained, a topic for each: one part of a wheel or a bundle.

    Attributes:
        file: SHA-256 of all of it.
        number: which part: 0, 1, ...
        data: `PART_BYTES`, or what is left in the last one.
    """

    file: bytes = at(1, 32)
    number: int = at(2)
    data: bytes = at(3)


Offered: TypeAlias = Update | Staged


def files_of(offered: Offered) -> Mapping[str, bytes]:
    """SHA-256 of what is offered, by kind of machine or by runtime."""
    return offered.wheels if isinstance(offered, Update) else offered.bundles


def version_of(text: str) -> tuple[int, ...]:
    """A version as numbers that compare as versions do.

    Raises:
        WireError: if it is none.
    """
    if not _VERSION.fullmatch(text):
        raise WireError(f"'{text:.40}' is no version of numbers with dots")
    numbers = [int(one) for one in text.split(".")]
    while len(numbers) > 1 and not numbers[-1]:  # 1.0 is 1
        numbers.pop()
    return tuple(numbers)


def size_of(offered: Offered, name: str) -> int:
    """Bytes of the file for a kind of machine, or a runtime.

    Raises:
        WireError: if nothing, or nothing possible, is said of it.
    """
    sizes = dict(zip(sorted(files_of(offered)), offered.sizes, strict=False))
    if not 0 < sizes.get(name, 0) <= MAX_FILE_BYTES:
        raise WireError(f"a file of {sizes.get(name)} bytes for {name}, 1 to {MAX_FILE_BYTES} expected")
    return sizes[name]


def url_of(update: Update, machine: str) -> str:
    """Where a machine's wheel lies on the web; "" if at the broker.

    Raises:
        WireError: if that is said in a way that makes no sense.
    """
    if not update.urls:
        return ""
    urls = dict(zip(sorted(update.wheels), update.urls, strict=False))
    if not urls.get(machine, "").startswith("https://"):
        raise WireError(f"'{urls.get(machine, ''):.100}' found, https:// expected")
    return urls[machine]


def is_meant(offered: Offered, device: str) -> bool:
    """Whether a device is among the share that something is for: as good as random, and always the same."""
    lot = int.from_bytes(sha256(offered.seed + device.encode()).digest()[:6], "big")
    return lot * HUNDREDTHS < offered.share << 48


def is_wanted(update: Update, running: str) -> bool:
    """Whether who runs a version shall run this one instead.

    Raises:
        WireError: if one of them is no version.
    """
    new, old = version_of(update.version), version_of(running)
    return new > old or (update.downgrade and new != old)


def part_count(size: int) -> int:
    """Parts of a file of so many bytes."""
    return -(-size // PART_BYTES)


def software(name: str, version: str, notes: Sequence[str]) -> str:
    """What a device says that it runs, and what came of what it was offered."""
    said = "; ".join(note for note in notes if note)
    return f"{name} {version}" + (f" ({said})" if said else "")


def read_software(text: str) -> tuple[str, frozenset[str]]:
    """Version, and notes, of what a device says; ("", nothing) of what is said in no such way."""
    found = _SAID.fullmatch(text)
    if found is None:
        return "", frozenset()
    return found["version"], frozenset((found["notes"] or "").split("; "))


def failure_note(version: str) -> str:
    """What a device notes of a client that has failed there."""
    return f"{version} failed"


def bundle_note(bundle: bytes, *, works: bool) -> str:
    """What a device notes of a bundle that it has tried."""
    return f"bundle {short(bundle)} {'ready' if works else 'failed'}"


def short(digest: bytes) -> str:
    """A hash for people."""
    return digest.hex()[:12]
