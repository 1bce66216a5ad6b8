"""A device's request for a TLS client certificate: PKCS #10, for an Ed25519 key. All that a device needs of X.509.

It writes DER and reads none: what it gets back, OpenSSL reads. A board has no package `cryptography`, and `ssl` makes
neither keys nor requests.

Source: RFC 2986 (requests), RFC 8410 (Ed25519 in X.509 and PKCS #8), RFC 7468 (PEM), X.690 (DER).
"""

from __future__ import annotations

import binascii

from nacl import bindings

from wire import signing
from wire.errors import WireError

ED25519 = bytes.fromhex("300506032b6570")  # AlgorithmIdentifier {1.3.101.112}, no parameters
PRIVATE_HEAD = bytes.fromhex("302e020100300506032b657004220420")  # of a PKCS #8 key, before its 32 bytes
COMMON_NAME = bytes.fromhex("0603550403")  # 2.5.4.3
INTEGER_0 = bytes.fromhex("020100")
NO_ATTRIBUTES = bytes.fromhex("a000")
SEQUENCE, SET, UTF8, BITS = 0x30, 0x31, 0x0C, 0x03
NAME_BYTES = 64  # ub-common-name of RFC 5280
LINE = 64  # letters, in PEM
RENEW = "# renew after "  # and seconds since 1970: stands before what we write as PEM, where every reader skips it


def request(key: bytes, name: str) -> bytes:
    """A request for a certificate: DER, signed with the key that it is for, which shows that the asker has it.

    Args:
        key: private, Ed25519, for this one purpose: what OpenSSL signs with it is not marked as ours is.
        name: who asks, the common name; ASCII.

    Raises:
        WireError: if no certificate can have such a name.
    """
    if not name.isascii() or not 0 < len(name) <= NAME_BYTES:
        raise WireError(f"'{name:.80}' is no name for a certificate: 1 to {NAME_BYTES} ASCII characters expected")
    named = _der(SEQUENCE, _der(SET, _der(SEQUENCE, COMMON_NAME, _der(UTF8, name.encode()))))
    public = _der(SEQUENCE, ED25519, _bits(signing.public_key(key)))
    said = _der(SEQUENCE, INTEGER_0, named, public, NO_ATTRIBUTES)
    signature = bindings.crypto_sign(said, signing.expanded(key))[: signing.SIGNATURE_BYTES]
    return _der(SEQUENCE, said, ED25519, _bits(signature))


def pem(key: bytes, certificate: bytes, renew_s: int) -> bytes:
    """A private key, its certificate and when to ask for another, as one file: OpenSSL reads the first two.

    Args:
        key: private, Ed25519.
        certificate: DER.
        renew_s: seconds since 1970.
    """
    return f"{RENEW}{renew_s}\n{_pem('PRIVATE KEY', PRIVATE_HEAD + key)}{_pem('CERTIFICATE', certificate)}".encode()


def renew_after_s(file: bytes) -> int | None:
    """When to ask for another certificate, of what `pem` has made, seconds since 1970; None if it does not say."""
    first = file.partition(b"\n")[0].decode(errors="replace")
    number = first.removeprefix(RENEW)
    return int(number) if first != number and number.isascii() and number.isdigit() and len(number) < LINE else None


def _pem(label: str, der: bytes) -> str:
    text = binascii.b2a_base64(der, newline=False).decode()
    lines = [text[start : start + LINE] for start in range(0, len(text), LINE)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


def _bits(data: bytes) -> bytes:
    return _der(BITS, b"\0", data)  # no bits of the last byte unused


def _der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + content
