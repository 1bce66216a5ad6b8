"""What a device's state folder is called inside, and how anyone reads what was learned there.

Reading takes no lock: every file is replaced whole, and the bundle that a personal network belongs to
stays for as long as that network does. So it works beside a running `hidenseek-edge join`, and on a copy.

    <sha256>.hnsb    a bundle; .next: of a run to come, .fetched: some parts of one
    personal.hnsp    the personal network (`wire.personal`)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wire import personal
from wire.errors import StateError, TicketError, WireError
from wire.personal import Personal

if TYPE_CHECKING:
    from wire.bundle import Bundle

BUNDLE_SUFFIX = ".hnsb"
PERSONAL = "personal.hnsp"


@dataclass(frozen=True, kw_only=True, eq=False)
class Learned:
    """A personal network and the bundle it belongs to."""

    bundle: Bundle
    personal: Personal


def bundle_name(digest: bytes) -> str:
    """The file of the bundle with this SHA-256."""
    return digest.hex() + BUNDLE_SUFFIX


def bundles(folder: Path) -> Iterator[tuple[Path, Bundle | None]]:
    """Every bundle file of a state folder; None for one that is damaged."""
    from wire.bundle import decode_bundle  # with numpy, which whoever only names files does without

    for path in sorted(folder.glob("*" + BUNDLE_SUFFIX)):
        try:
            yield path, decode_bundle(path.read_bytes(), expected_id=bytes.fromhex(path.stem))
        except (OSError, ValueError, WireError, TicketError):
            yield path, None


def read_learned(folder: Path) -> Learned:
    """Read the personal network of a device, and its bundle.

    Raises:
        StateError: if there is no such folder, no personal network in it yet, it is damaged, or its bundle is missing.
    """
    if not folder.is_dir():
        raise StateError("no such state folder", where=str(folder), hint=_WHICH)
    path = folder / PERSONAL
    data = _read(path)
    while (bundle := _bundle_of(data, path)) is None:
        # A device at work may have replaced network and bundle since; then the next look finds a pair.
        newer = _read(path)
        if newer == data:
            raise _no_bundle(personal.ticket_of(data), folder)
        data = newer
    try:
        ticket = bundle.ticket
        return Learned(bundle=bundle, personal=personal.decode(data, ticket.kept, ticket.plan.classes))
    except WireError as error:
        raise _damaged(path, error) from error


_WHICH = "Name the folder that hidenseek-edge join used, or a copy of it, with --state DIR"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise StateError(
            "no personal network here yet",
            where=str(path.parent),
            hint=f"A device has one after its first local training. {_WHICH}",
        ) from error
    except OSError as error:
        raise StateError(f"cannot be read ({error.strerror})", where=str(path)) from error


def _bundle_of(data: bytes, path: Path) -> Bundle | None:
    try:
        ticket = personal.ticket_of(data)
    except WireError as error:
        raise _damaged(path, error) from error
    found = (bundle for _, bundle in bundles(path.parent) if bundle is not None and bundle.ticket.id == ticket)
    return next(found, None)


def _damaged(path: Path, error: WireError) -> StateError:
    return StateError(
        f"the personal network is damaged ({error})",
        where=str(path),
        hint="Copy it again; on the device, the next local training writes a new one",
    )


def _no_bundle(ticket: bytes, folder: Path) -> StateError:
    there = [bundle and bundle.ticket.id.hex()[:16] + "…" for _, bundle in bundles(folder)]
    others = f"those here have {', '.join(name or 'damaged bytes' for name in there)}" if there else "there is none"
    return StateError(
        f"the personal network belongs to ticket {ticket.hex()[:16]}…, and no {BUNDLE_SUFFIX} file has it: {others}",
        where=str(folder),
        hint=f"Copy the whole folder, with its {BUNDLE_SUFFIX} file; on the device, the next local training mends it",
    )
