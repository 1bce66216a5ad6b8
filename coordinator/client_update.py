"""Wheels of the client as they are offered to devices: found, read, and announced."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from coordinator.offers import issued_now, seed_of, share_from
from wire.errors import ConfigError, DataError, WireError
from wire.update import MAX_FILE_BYTES, Update, version_of

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
    if url and not url.startswith("https://"):
        raise ConfigError(f"'{url}' found, https:// expected", where="--url")
    machines = sorted(offer.wheels)
    return Update(
        version=offer.version,
        issued=issued_now(),
        wheels={machine: sha256(offer.wheels[machine]).digest() for machine in machines},
        sizes=tuple(len(offer.wheels[machine]) for machine in machines),
        share=share_from(percent),
        seed=seed_of(key, f"update {offer.version}"),
        downgrade=downgrade,
        urls=tuple(f"{url.rstrip('/')}/{offer.names[machine]}" for machine in machines) if url else (),
    )


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
    if "edge_client/selfcheck.py" not in names or len(data) > MAX_FILE_BYTES:
        raise DataError(
            "too old to be an update, or too large", where=str(path), hint="Install it on the devices by hand"
        )
    return data
