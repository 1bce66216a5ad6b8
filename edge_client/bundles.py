"""A ticket with what a runtime needs of it, from wherever a person has it: a file, an exported or a state folder."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

from wire.bundle import MAGIC, Bundle, decode_bundle, is_file_name
from wire.errors import TicketError, UnknownName, WireError, did_you_mean
from wire.settings import Training
from wire.state_folder import BUNDLE_SUFFIX
from wire.ticket import decode_ticket

TICKET, MANIFEST = "ticket.hns", "manifest.json"  # in an exported folder
MAX_FILE_BYTES = 1 << 30
TICKET_ONLY = "sparse"  # the runtime that needs nothing else
_HINT = "Name a ticket (.hns), a bundle (.hnsb), a folder that hidenseek export wrote, or a device's --state folder"


def find(path: Path, *, runtime: str | None, installed: list[str]) -> Bundle:
    """The bundle at `path` for a runtime: the named one, or of those that are installed the first that it is for.

    Args:
        path: a ticket, a bundle, an exported folder, or a state folder; of several bundles the newest.
        runtime: its name, or None.
        installed: names of runtimes, the preferred one first.

    Raises:
        TicketError: if nothing of the kind is there, or it is damaged.
        UnknownName: if it is for other runtimes.
    """
    bundles = {bundle.runtime: bundle for bundle in _read(path)}
    for name in [runtime] if runtime is not None else installed:
        if name in bundles:
            return bundles[name]
    wanted = runtime or " or ".join(installed) or "any runtime"
    raise UnknownName(
        f"nothing in it for {wanted}, only for {', '.join(bundles)}",
        where=str(path),
        hint=did_you_mean(wanted, list(bundles)),
    )


def settings_of(path: Path) -> Training:
    """The optimiser and batch that an exported folder's artifacts were made for; the usual ones of anything else.

    Raises:
        TicketError: if its manifest cannot be read.
    """
    manifest = path / MANIFEST
    if not manifest.is_file():
        return Training()
    try:
        made_for = json.loads(_bytes(manifest))["settings"]
        return Training(optimiser=str(made_for["optimiser"]), batch=int(made_for["batch"]))
    except (ValueError, KeyError, TypeError) as error:
        raise TicketError("not the manifest of an export", where=str(manifest), hint="Export it again") from error


def _read(path: Path) -> list[Bundle]:
    if not path.exists():
        raise TicketError("no such file or folder", where=str(path), hint=_HINT)
    if not path.is_dir():
        return [_file(path)]
    if (path / TICKET).exists():
        return _exported(path)
    files = sorted(path.glob(f"*{BUNDLE_SUFFIX}"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise TicketError("no ticket and no bundle in this folder", where=str(path), hint=_HINT)
    return [_file(file) for file in files]


def _file(path: Path) -> Bundle:
    data = _bytes(path)
    if not data.startswith(MAGIC):
        return Bundle(runtime=TICKET_ONLY, ticket=decode_ticket(data, where=str(path)))
    try:
        return decode_bundle(data, expected_id=sha256(data).digest())
    except WireError as error:
        raise TicketError(f"no bundle that can be read ({error})", where=str(path), hint=_HINT) from error


def _exported(folder: Path) -> list[Bundle]:
    """Hashes are not checked here: `hidenseek verify` does, and every artifact is checked again as it is opened."""
    ticket = decode_ticket(_bytes(folder / TICKET), where=str(folder / TICKET))
    found = [Bundle(runtime=TICKET_ONLY, ticket=ticket)]
    for part in sorted(one for one in folder.iterdir() if one.is_dir()):
        files = {file.name: _bytes(file) for file in sorted(part.iterdir()) if is_file_name(file.name)}
        found.append(Bundle(runtime=part.name, ticket=ticket, files=files))
    return found


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise TicketError(f"{path.stat().st_size} bytes, at most {MAX_FILE_BYTES} expected", where=str(path))
        return path.read_bytes()
    except OSError as error:
        raise TicketError(f"cannot be read ({error.strerror})", where=str(path)) from error
