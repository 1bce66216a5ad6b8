"""How the client on a device is brought up to date: what the federation says, and the rules both sides go by.

The federation announces a version, and for each kind of machine a wheel by its SHA-256. Wheels lie at the broker in
parts, each with a topic of its own, so that a device fetches one after the other and goes on where it was interrupted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from wire.errors import WireError
from wire.fields import at, optional

PART_BYTES = 64 * 1024
MAX_WHEEL_BYTES = 64 << 20
SEED_BYTES = 16
ON_TRIAL = "on trial"  # said in a hello, in brackets after the version, until it has shown that it works
HUNDREDTHS = 10_000  # shares are said in hundredths of a percent
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
class WheelPart:
    """Coordinator -> all, retained, a topic for each: one part of a wheel.

    Attributes:
        wheel: SHA-256 of all of it.
        number: which part: 0, 1, ...
        data: `PART_BYTES`, or what is left in the last one.
    """

    wheel: bytes = at(1, 32)
    number: int = at(2)
    data: bytes = at(3)


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


def size_of(update: Update, machine: str) -> int:
    """Bytes of a machine's wheel.

    Raises:
        WireError: if nothing, or nothing possible, is said of it.
    """
    sizes = dict(zip(sorted(update.wheels), update.sizes, strict=False))
    if not 0 < sizes.get(machine, 0) <= MAX_WHEEL_BYTES:
        raise WireError(f"a wheel of {sizes.get(machine)} bytes for {machine}, 1 to {MAX_WHEEL_BYTES} expected")
    return sizes[machine]


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


def is_meant(update: Update, device: str) -> bool:
    """Whether a device is among the share that an update is for: as good as random, and always the same."""
    lot = int.from_bytes(sha256(update.seed + device.encode()).digest()[:6], "big")
    return lot * HUNDREDTHS < update.share << 48


def is_wanted(update: Update, running: str) -> bool:
    """Whether who runs a version shall run this one instead.

    Raises:
        WireError: if one of them is no version.
    """
    new, old = version_of(update.version), version_of(running)
    return new > old or (update.downgrade and new != old)


def part_count(size: int) -> int:
    """Parts of a wheel of so many bytes."""
    return -(-size // PART_BYTES)
