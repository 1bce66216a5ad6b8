"""Wheels of the client as they are offered to devices: read, cut into parts, and retained at the broker."""

from __future__ import annotations

import hmac
import json
import re
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path

from coordinator.brokers.process import write_whole
from coordinator.datasets.fetch import open_url, shown
from coordinator.rollout import share_of
from wire.channel import Channel
from wire.errors import ConfigError, DataError, FetchError, StateError, WireError
from wire.topics import Topics
from wire.update import MAX_WHEEL_BYTES, PART_BYTES, SEED_BYTES, Update, WheelPart, part_count, url_of, version_of

FILE = "client-update.json"  # in the coordinator's state folder: what is retained at the broker
_NAME = re.compile(r"hidenseek-(?P<version>[^-]+)-py3-none-(?:manylinux_\d+_\d+|manylinux2014|linux)_(?P<machine>\w+)")


@dataclass(frozen=True, kw_only=True)
class Offer:
    """One version's wheels.

    Attributes:
        version: of the client.
        wheels: their bytes by kind of machine, as `uname -m` calls it.
        names: of their files, by the same.
    """

    version: str
    wheels: dict[str, bytes]
    names: dict[str, str] = field(default_factory=dict)


def find(folders: Sequence[Path], version: str | None) -> Offer:
    """Our wheels in some folders.

    Args:
        folders: where to look.
        version: which; None for the newest.

    Raises:
        DataError: if there is none, one is damaged, or there are two for one kind of machine.
    """
    named = {path: _NAME.match(path.name) for folder in folders for path in sorted(folder.glob("hidenseek-*.whl"))}
    found = {path: match for path, match in named.items() if match}
    where = ", ".join(map(str, folders))
    hint = "Make them with `make wheels`, in a clone of the project; then: --wheels dist"
    if not found:
        raise DataError("no wheel of hidenseek for Linux", where=where, hint=hint)
    try:
        newest = version or max((match["version"] for match in found.values()), key=version_of)
    except WireError as error:
        raise DataError(str(error), where=where, hint="Name one with --version") from error
    wheels: dict[str, bytes] = {}
    names: dict[str, str] = {}
    for path, match in found.items():
        if match["version"] != newest:
            continue
        if match["machine"] in wheels:
            raise DataError(f"a second wheel of {newest} for {match['machine']}", where=str(path), hint="Move one away")
        wheels[match["machine"]] = _read(path)
        names[match["machine"]] = path.name
    if not wheels:
        known = ", ".join(sorted({match["version"] for match in found.values()}))
        raise DataError(f"no wheel of hidenseek {newest}, only of {known}", where=where, hint=hint)
    return Offer(version=newest, wheels=wheels, names=names)


def announcement(offer: Offer, *, key: bytes, percent: float, downgrade: bool, url: str = "") -> Update:
    """What devices are told of an offer; those that a smaller share of the same version is for are always among it.

    Args:
        offer: the wheels.
        key: the federation's private key.
        percent: of the devices.
        downgrade: also devices with a newer version.
        url: folder on the web that has the wheels' files; "" for the broker.

    Raises:
        ConfigError: if the share is none, or the address no https.
    """
    if not 0 <= percent <= 100:
        raise ConfigError(f"{percent:g} found, 0 to 100 expected", where="--percent")
    if url and not url.startswith("https://"):
        raise ConfigError(f"'{url}' found, https:// expected", where="--url")
    machines = sorted(offer.wheels)
    return Update(
        version=offer.version,
        issued=issued_now(),
        wheels={machine: sha256(offer.wheels[machine]).digest() for machine in machines},
        sizes=tuple(len(offer.wheels[machine]) for machine in machines),
        share=share_of(percent),
        seed=hmac.digest(key, f"update {offer.version}".encode(), "sha256")[:SEED_BYTES],
        downgrade=downgrade,
        urls=tuple(f"{url.rstrip('/')}/{offer.names[machine]}" for machine in machines) if url else (),
    )


def check_served(offer: Offer, update: Update) -> None:
    """See that what lies on the web is what is offered, and that parts of it can be had, as devices ask for them.

    Raises:
        FetchError: if it cannot be had, or is something else.
    """
    for machine, digest in update.wheels.items():
        url, size = url_of(update, machine), len(offer.wheels[machine])
        data = b""
        try:
            for first in range(0, size, PART_BYTES):
                last = min(first + PART_BYTES, size) - 1
                with open_url(url, {"Range": f"bytes={first}-{last}"}) as answer:
                    data += answer.read(size + 1)
        except (OSError, HTTPException) as error:
            raise FetchError(f"cannot be fetched ({error})", where=shown(url)) from error
        if sha256(data).digest() != digest:
            hint = "Put the files of --wheels there, on a server that serves ranges of bytes"
            raise FetchError("it is not the wheel that is offered", where=shown(url), hint=hint)


def publish(
    channel: Channel, topics: Topics, state: Path, offer: Offer, update: Update, progress: Callable[[int, int], None]
) -> None:
    """Have a broker retain wheels, then what says so; and no longer those of an earlier version.

    Args:
        channel: a connected one, of the coordinator's account.
        topics: of the federation.
        state: the coordinator's state folder.
        offer: the wheels.
        update: what is announced.
        progress: told how many bytes of all have been handed over.

    Raises:
        StateError: if it cannot be written down what is retained.
    """
    before = _retained(state)
    at_broker = {} if update.urls else update.wheels
    now = {digest.hex(): part_count(len(offer.wheels[machine])) for machine, digest in at_broker.items()}
    _keep(state, before | now)  # before anything is sent: what is retained shall be known
    done, total = 0, sum(update.sizes)
    for machine, digest in at_broker.items():
        wheel = offer.wheels[machine]
        for number in range(part_count(len(wheel))):
            data = wheel[number * PART_BYTES : (number + 1) * PART_BYTES]
            part = WheelPart(wheel=digest, number=number, data=data)
            channel.send(topics.wheel_part(digest, number), part, retain=True)
            done += len(data)
            progress(done, total)
    channel.send(topics.update, update, retain=True)
    for old, parts in before.items():
        if old not in now:
            for number in range(parts):
                channel.transport.publish(topics.wheel_part(bytes.fromhex(old), number), b"", retain=True)
    _keep(state, now)


def _read(path: Path) -> bytes:
    """A wheel's bytes; raises DataError if it is damaged or has no client in it."""
    try:
        data = path.read_bytes()
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if broken := archive.testzip():
                raise DataError(f"damaged: {broken}", where=str(path))
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"damaged ({error})", where=str(path)) from error
    if "edge_client/selfcheck.py" not in names or len(data) > MAX_WHEEL_BYTES:
        raise DataError(
            "too old to be an update, or too large", where=str(path), hint="Install it on the devices by hand"
        )
    return data


def _retained(state: Path) -> dict[str, int]:
    """Parts by SHA-256 of the wheels that a broker retains for us."""
    path = state / FILE
    try:
        found = json.loads(path.read_text())
        return {str(bytes.fromhex(digest).hex()): int(parts) for digest, parts in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise StateError(f"damaged ({error})", where=str(path), hint="Delete it: old wheels stay retained") from error


def _keep(state: Path, retained: dict[str, int]) -> None:
    state.mkdir(parents=True, exist_ok=True)
    write_whole(state / FILE, (json.dumps(retained, indent=1) + "\n").encode(), 0o644)


def issued_now() -> int:
    """When an announcement is made, as it says it: milliseconds since 1970."""
    return time.time_ns() // 1_000_000
