"""A bundle: what a device downloads. The ticket and the artifacts for one runtime, in one byte string.

    b"HNSB"  version u8  canonical CBOR [runtime, ticket bytes, {file name: bytes}]

Its SHA-256 is announced by the coordinator and checked before anything is opened.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256

from wire.errors import Mismatch, TicketError, WireError
from wire.safecbor import dump_cbor, load_cbor
from wire.ticket import Ticket, decode_ticket

MAGIC = b"HNSB"
VERSION = 1
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")  # no path, so none can escape its folder


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What one device needs for one runtime.

    Attributes:
        runtime: "onnx", "executorch" or "sparse".
        ticket: the network.
        files: artifacts by name, e.g. "train.onnx"; empty for a runtime that reads the ticket itself.
    """

    runtime: str
    ticket: Ticket
    files: Mapping[str, bytes] = field(default_factory=dict)

    @cached_property
    def encoded(self) -> bytes:
        """The bundle's bytes."""
        body = dump_cbor([self.runtime, self.ticket.encoded, dict(self.files)])
        return MAGIC + bytes([VERSION]) + body

    @cached_property
    def id(self) -> bytes:
        """SHA-256 of the bundle, 32 bytes."""
        return sha256(self.encoded).digest()


def decode_bundle(data: bytes, *, expected_id: bytes) -> Bundle:
    """Read a bundle whose SHA-256 is known.

    Raises:
        WireError: if the hash differs, or the bytes are no bundle of this version.
        TicketError: if the ticket inside is bad.
    """
    got = sha256(data).digest()
    if got != expected_id:
        raise Mismatch(
            f"bundle of {len(data)} bytes", expected=f"SHA-256 {expected_id.hex()[:16]}…", got=got.hex()[:16] + "…"
        )
    if data[:4] != MAGIC or len(data) < 5:
        raise WireError(f"starts with {data[:4]!r}, a bundle starts with {MAGIC!r}")
    if data[4] != VERSION:
        raise TicketError(f"bundle version {data[4]}, this program reads version {VERSION}")
    match load_cbor(data[5:]):
        case [str() as runtime, bytes() as ticket, dict() as files]:
            if not all(_is_file(name, body) for name, body in files.items()):
                raise WireError("bundle files must be bytes by plain file name")
            return Bundle(runtime=runtime, ticket=decode_ticket(ticket, where="ticket in the bundle"), files=files)
    raise WireError("a bundle is [runtime, ticket, files]")


def is_file_name(name: object) -> bool:
    """Whether this names a file of a bundle: 1 to 64 letters, digits, `-`, `_` and `.`, the first not a dot."""
    return isinstance(name, str) and _FILE_NAME.fullmatch(name) is not None


def _is_file(name: object, body: object) -> bool:
    return is_file_name(name) and isinstance(body, bytes)
