"""What the QR code of an invitation holds: all that a phone's page needs to take part, behind the `#` of its address.

    version u8 (1)  CBOR map of the fields' numbers to values

in base64url without padding. Browsers do not send what stands behind `#`, so the secret is seen by no web server.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from wire.errors import ConfigError, WireError
from wire.fields import at, body, optional, readers
from wire.safecbor import dump_cbor, load_cbor
from wire.signing import KEY_BYTES
from wire.topics import check_name

VERSION = 1
MAX_CHARACTERS = 2048  # a QR code holds 2,953 bytes
MAX_SECRET = 128
_SCHEMES = ("wss", "ws")
_CODED = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, kw_only=True)
class Invite:
    """One device's way into one federation.

    Attributes:
        federation: its name.
        broker: address of the broker's websocket, `wss://HOST:PORT/mqtt`, without user.
        device: the id that the phone takes part under.
        secret: password of the device's account at the broker; or, with `claim`, a token that is good for one phone.
        claim: the secret is a token, for which the phone gets its password (`wire.claim`).
        key: public key of the federation; without it, the phone trusts the first that it meets.

    Raises:
        ConfigError: if a field is none of that.
    """

    federation: str = at(1)
    broker: str = at(2)
    device: str = at(3)
    secret: str = at(4)
    claim: bool = optional(5, default=False)
    key: bytes | None = at(6, KEY_BYTES, default=None, optional=True)

    def __post_init__(self) -> None:
        check_name(self.federation, "federation name")
        check_name(self.device, "device id")
        try:
            parts = urlsplit(self.broker)
            known = parts.scheme in _SCHEMES and parts.hostname and (parts.port or 1) and parts.username is None
        except ValueError:
            known = False
        if not known or parts.query or parts.fragment or not self.broker.isprintable() or " " in self.broker:
            raise ConfigError(
                f"'{self.broker}' is no address of a broker's websocket", hint="Write it as wss://HOST:PORT/mqtt"
            )
        if not 1 <= len(self.secret) <= MAX_SECRET:
            raise ConfigError(f"a secret of {len(self.secret)} characters, 1..{MAX_SECRET} expected")


def encode(invite: Invite) -> str:
    """An invitation as it stands behind the `#`."""
    data = bytes([VERSION]) + dump_cbor(body(invite))
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def link(page: str, invite: Invite) -> str:
    """The address that a QR code shows: that of the page, and the invitation."""
    return f"{page.partition('#')[0]}#{encode(invite)}"


def decode(text: str) -> Invite:
    """Inverse of `encode`, and of `link`.

    Raises:
        WireError: if it is no invitation of this version.
    """
    coded = text.rpartition("#")[2].strip()
    if len(coded) > MAX_CHARACTERS or not _CODED.fullmatch(coded):
        raise WireError(f"an invitation is 1..{MAX_CHARACTERS} characters of base64url")
    try:
        data = base64.b64decode(coded + "=" * (-len(coded) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise WireError("an invitation that is cut off") from None
    if data[:1] != bytes([VERSION]):
        raise WireError(f"an invitation of version {data[0]}, this program reads version {VERSION}")
    fields = load_cbor(data[1:], max_values=64)
    if not isinstance(fields, dict):
        raise WireError("an invitation is a map of fields")
    try:
        return Invite(**{name: read(fields) for name, read in _READERS})
    except ConfigError as error:
        raise WireError(f"an invitation that does not hold: {error.what}") from error


_READERS = readers(Invite)
