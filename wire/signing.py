"""Who made this: Ed25519 signatures (RFC 8032) over bytes, each for one purpose.

Keys are the 32 raw bytes of the RFC. Importing this needs nothing; using it needs the package `cryptography`.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from wire.errors import RuntimeMissing, WireError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_BYTES = 32
SIGNATURE_BYTES = 64


def new_key() -> bytes:
    """A fresh private key from the system's random numbers."""
    return _private().generate().private_bytes_raw()


def public_key(key: bytes) -> bytes:
    """The public key that belongs to a private one."""
    return _private().from_private_bytes(key).public_key().public_bytes_raw()


def sign(key: bytes, purpose: str, data: bytes) -> bytes:
    """Sign `data` for one purpose; the same every time."""
    return _private().from_private_bytes(key).sign(_message(purpose, data))


def check(public: bytes, purpose: str, data: bytes, signature: bytes) -> None:
    """Accept a signature, or raise.

    Raises:
        WireError: if this key did not sign these bytes for this purpose.
    """
    _private()  # or say what is missing
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if len(public) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        raise WireError(f"a key of {len(public)} bytes and a signature of {len(signature)}, 32 and 64 expected")
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _message(purpose, data))
    except (InvalidSignature, ValueError):
        raise WireError(f"not signed by {fingerprint(public)}, or altered since") from None


def fingerprint(public: bytes) -> str:
    """A public key in a form that people compare: the first 64 bits of its SHA-256, in fours."""
    digits = sha256(public).hexdigest()[:16]
    return "-".join(digits[i : i + 4] for i in range(0, 16, 4))


def _message(purpose: str, data: bytes) -> bytes:
    """What is signed: bytes signed for one purpose say nothing for another."""
    return b"hidenseek " + purpose.encode() + b"\0" + data


def _private() -> type[Ed25519PrivateKey]:
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError as error:
        raise RuntimeMissing(
            "signatures need the package cryptography", hint="Install it: pip install cryptography"
        ) from error
    return Ed25519PrivateKey
