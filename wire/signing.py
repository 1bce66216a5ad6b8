"""Who made this: Ed25519 signatures (RFC 8032) over bytes, each for one purpose.

Keys are the 32 raw bytes of the RFC. By libsodium, through PyNaCl: 1 MB of a device's memory, where the
package cryptography takes 8.
"""

from __future__ import annotations

import base64
import binascii
from functools import lru_cache
from hashlib import sha256

from nacl import bindings
from nacl.exceptions import CryptoError

from wire.errors import ConfigError, Forged, WireError

KEY_BYTES = 32
SIGNATURE_BYTES = 64


def new_key() -> bytes:
    """A fresh private key from the system's random numbers."""
    return bindings.randombytes(KEY_BYTES)


def public_key(key: bytes) -> bytes:
    """The public key that belongs to a private one."""
    return bindings.crypto_sign_seed_keypair(key)[0]


def sign(key: bytes, purpose: str, data: bytes) -> bytes:
    """Sign `data` for one purpose; the same every time."""
    return bindings.crypto_sign(_message(purpose, data), expanded(key))[:SIGNATURE_BYTES]


def check(public: bytes, purpose: str, data: bytes, signature: bytes) -> None:
    """Accept a signature, or raise.

    Raises:
        Forged: if this key did not sign these bytes for this purpose.
        WireError: if key or signature have no possible length.
    """
    if len(public) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        raise WireError(f"a key of {len(public)} bytes and a signature of {len(signature)}, 32 and 64 expected")
    try:
        bindings.crypto_sign_open(signature + _message(purpose, data), public)
    except (CryptoError, ValueError):
        raise Forged(f"not signed by {fingerprint(public)}, or altered since") from None


def fingerprint(public: bytes) -> str:
    """A public key in a form that people compare: the first 64 bits of its SHA-256, in fours."""
    digits = sha256(public).hexdigest()[:16]
    return "-".join(digits[i : i + 4] for i in range(0, 16, 4))


def as_text(key: bytes) -> str:
    """A key as people copy it: base64 of its 32 bytes."""
    return base64.b64encode(key).decode()


def from_text(text: str, *, where: str) -> bytes:
    """Inverse of `as_text`.

    Raises:
        ConfigError: if it is no key.
    """
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError("no key: base64 of 32 bytes expected, as hidenseek key shows it", where=where)
    return key


@lru_cache(maxsize=8)
def expanded(key: bytes) -> bytes:
    """A private key as libsodium signs with it; making it takes as long as a signature."""
    return bindings.crypto_sign_seed_keypair(key)[1]


def _message(purpose: str, data: bytes) -> bytes:
    """What is signed: bytes signed for one purpose say nothing for another."""
    return about(purpose) + data


def about(purpose: str) -> bytes:
    """What stands before the data that is signed for a purpose."""
    return b"hidenseek " + purpose.encode() + b"\0"
