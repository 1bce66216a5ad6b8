"""Bundles of a run to come, offered to devices so that they have them, and have tried them, before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from coordinator.offers import issued_now, seed_of, share_from
from export.bundle import make_bundle
from wire.errors import DataError, TicketError
from wire.settings import Training
from wire.ticket import Ticket, decode_ticket
from wire.update import MAX_FILE_BYTES, Staged

TICKET = "ticket.hns"  # in a folder that hidenseek export wrote


def read(path: Path) -> Ticket:
    """A ticket from its file, or from the folder of an export.

    Raises:
        TicketError: if it cannot be read, or is none.
    """
    path = path / TICKET if path.is_dir() else path
    try:
        data = path.read_bytes()
    except OSError as error:
        hint = "Name a ticket (.hns) that hidenseek prune made, or a folder that hidenseek export wrote"
        raise TicketError(f"cannot be read ({error.strerror})", where=str(path), hint=hint) from error
    return decode_ticket(data, where=str(path))


def make(ticket: Ticket, runtimes: Sequence[str], training: Training) -> dict[str, bytes]:
    """Its bundles by runtime, byte for byte those that `hidenseek serve` offers with the same settings.

    Raises:
        DataError: if one is too large to be offered.
        HidenseekError: as `make_bundle`.
    """
    found = {runtime: make_bundle(ticket, runtime, training).encoded for runtime in runtimes}
    for runtime, data in found.items():
        if len(data) > MAX_FILE_BYTES:
            raise DataError(
                f"the bundle for {runtime} has {len(data):,} bytes, {MAX_FILE_BYTES:,} at most expected",
                where="--bundle",
            )
    return found


def announcement(
    ticket: Ticket, bundles: dict[str, bytes], training: Training, *, key: bytes, percent: float
) -> Staged:
    """What devices are told of some bundles.

    Args:
        ticket: whose they are.
        bundles: by runtime.
        training: settings of the run that they are for.
        key: the federation's private key.
        percent: of the devices; those that a smaller share of the same ticket is for are always among it.

    Raises:
        ConfigError: if the share is none.
    """
    runtimes = sorted(bundles)
    return Staged(
        issued=issued_now(),
        bundles={runtime: sha256(bundles[runtime]).digest() for runtime in runtimes},
        sizes=tuple(len(bundles[runtime]) for runtime in runtimes),
        share=share_from(percent),
        seed=seed_of(key, f"bundle {ticket.id.hex()}"),
        training=training,
        ticket=ticket.id,
    )
