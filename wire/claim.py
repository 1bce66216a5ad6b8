"""How a device whose card was just flashed gets its account at the broker, without a secret on the card that lasts.

The card has a token that is good for one device. At its first boot the device makes its key, and claims the account:
a proof that it has the token, over its public key. Whoever keeps the broker's accounts answers with a password that
only this key opens, and a proof of having the token too. From then on the token is bound to the key: on a copy of
the card it is worth nothing.

Where the broker knows devices by TLS certificates, the claim holds a request for one (`wire.pkcs10`) and the answer the
certificate; the password is then good for nothing but to ask for the next one, as the token was for the first. The
proofs do not cover request and certificate: the messages' signatures do, by keys that the proofs cover.

Source: HMAC, RFC 2104; sealed boxes, libsodium's crypto_box_seal, to the X25519 form of an Ed25519 key.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from nacl import bindings
from nacl.exceptions import CryptoError

from wire.errors import WireError
from wire.fields import at, optional
from wire.signing import KEY_BYTES

PROOF_BYTES = 32
NONCE_BYTES = 16
TOKEN_FILE = "claim.token"  # noqa: S105  # a file of a device's state folder, written by hidenseek flash
USER = "claim."  # and the device's id: the account that the token is the password of; no device can be called so
RENEWAL = "renew."  # the same, of a device that has had a certificate, with the password that came with that


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Device -> keeper of the accounts: give me the account that my card is for.

    Attributes:
        key: public key that it is signed with, and all that the device will say.
        proof: that the sender has the card's token, see `prove`.
        hardware: model and serial number of the board, for people.
        nonce: random, another for every start: an answer to an earlier claim, which a broker may have kept, is none.
        request: for a certificate, with another key that is for TLS alone: PKCS #10, DER; empty: none is wanted.
    """

    key: bytes = at(1, KEY_BYTES)
    proof: bytes = at(2, PROOF_BYTES)
    hardware: str = at(3)
    nonce: bytes = at(4, NONCE_BYTES)
    request: bytes = optional(5, default=b"")


@dataclass(frozen=True, kw_only=True)
class Grant:
    """Keeper of the accounts -> device: the account, or why not.

    Attributes:
        key: public key that it is signed with; the proof is what makes it believed.
        proof: that the sender knows the card's token, see `prove_grant`.
        sealed: the password, for the device's key alone; empty if there is none.
        refused: why there is none, one sentence for people; empty if there is one.
        certificate: what the device shows to the broker instead of a password: X.509, DER; empty if there is none.
        renew_s: when to ask for the next, seconds since 1970; 0 without a certificate.
    """

    key: bytes = at(1, KEY_BYTES)
    proof: bytes = at(2, PROOF_BYTES)
    sealed: bytes = at(3)
    refused: str = at(4)
    certificate: bytes = optional(5, default=b"")
    renew_s: int = optional(6, default=0)


def prove(token: str, device: str, claim: Claim) -> bytes:
    """Proof for a claim; its own proof is not looked at."""
    return _proof(token, "claim", device.encode(), claim.key, claim.hardware.encode(), claim.nonce)


def prove_grant(token: str, device: str, claim: Claim, grant: Grant) -> bytes:
    """Proof for an answer to a claim; the answer's own proof is not looked at."""
    parts = (claim.key, claim.nonce, grant.key, grant.sealed, grant.refused.encode())
    return _proof(token, "grant", device.encode(), *parts)


def check_proof(expected: bytes, proof: bytes) -> None:
    """Raises WireError if a proof is another than expected."""
    if not hmac.compare_digest(expected, proof):
        raise WireError("not from somebody with the card's token")


def seal_password(password: str, public: bytes) -> bytes:
    """A password that only the owner of an Ed25519 key can read.

    Raises:
        WireError: if it is no public key.
    """
    try:
        return bindings.crypto_box_seal(password.encode(), bindings.crypto_sign_ed25519_pk_to_curve25519(public))
    except (CryptoError, RuntimeError, ValueError):
        raise WireError("no public key of Ed25519") from None


def open_password(sealed: bytes, key: bytes) -> str:
    """Inverse of `seal_password`, with the private key.

    Raises:
        WireError: if it is for another key, or altered.
    """
    public, secret = bindings.crypto_sign_seed_keypair(key)
    try:
        opened = bindings.crypto_box_seal_open(
            sealed,
            bindings.crypto_sign_ed25519_pk_to_curve25519(public),
            bindings.crypto_sign_ed25519_sk_to_curve25519(secret),
        )
        return opened.decode()
    except (CryptoError, RuntimeError, ValueError, TypeError):
        raise WireError("the password is sealed for another key") from None


def _proof(token: str, what: str, *parts: bytes) -> bytes:
    # Every part with its length: no two lists of parts give the same bytes.
    text = b"".join(len(part).to_bytes(4, "little") + part for part in (b"hidenseek", what.encode(), *parts))
    return hmac.digest(token.encode(), text, "sha256")
