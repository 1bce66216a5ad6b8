"""Client certificates: devices ask for them, an authority of their own signs them, and a list takes them back.

Not the servers' authority: what that has signed is believed to be a broker, or a node of its cluster.
"""

from __future__ import annotations

import datetime as dt
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from coordinator.brokers import certificates
from coordinator.brokers.certificates import Authority, builder, now, read, read_key, signed_by, usage
from wire.errors import StateError, WireError

DEVICES = Authority(key="secrets/devices.key", certificates="devices.crt", what="devices")
DEVICE_DAYS = 365.0
UNREADABLE = (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion)
ALWAYS_TAKEN_BACK = 1  # a serial number on every list, of no device: `broker check` sees whether a broker has read one
RENEW_AFTER = 2 / 3  # of that time


@dataclass(frozen=True, kw_only=True)
class Issued:
    """A certificate that was just signed.

    Attributes:
        certificate: DER.
        serial: its number, in hexadecimal.
        ends_s: seconds since 1970.
        renew_s: when its device shall ask for the next, seconds since 1970.
    """

    certificate: bytes
    serial: str
    ends_s: float
    renew_s: float


def make_authority(folder: Path, name: str) -> None:
    """See that there is an authority for devices; raises StateError if its files cannot be read or written."""
    certificates.make_authority(folder, name, DEVICES)


def issue(folder: Path, device: str, request: bytes, *, days: float = DEVICE_DAYS, serial: int | None = None) -> Issued:
    """Sign what a device has asked for.

    Args:
        folder: the deployment's.
        device: who asks, and the common name of what it gets.
        request: PKCS #10, DER.
        days: how long it shall be good, at most as long as the authority is.
        serial: its number; a random one if None.

    Raises:
        WireError: if it is no request, not signed by the key that it is for, or for another device or kind of key.
        StateError: if the authority's files cannot be read, or its time is over.
    """
    key = key_of(request, device)
    authority = read(folder / DEVICES.certificates)[0]
    left = (authority.not_valid_after_utc - now()) / dt.timedelta(days=1)
    if left < 1:
        raise StateError(
            f"this authority ended at {authority.not_valid_after_utc:%Y-%m-%d}",
            where=str(folder / DEVICES.certificates),
            hint="Move it away, with its key in secrets/, and run hidenseek broker init again",
        )
    days = min(days, left)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
    certificate = (
        builder(subject, authority.subject, key, days, serial)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(sign=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(signed_by(authority), critical=False)
        .sign(read_key(folder / DEVICES.key), hashes.SHA256())
    )
    ends_s = certificate.not_valid_after_utc.timestamp()
    return Issued(
        certificate=certificate.public_bytes(serialization.Encoding.DER),
        serial=f"{certificate.serial_number:x}",
        ends_s=ends_s,
        renew_s=ends_s - (1 - RENEW_AFTER) * days * 86400,
    )


def taken_back(folder: Path, serials: Mapping[str, float], before: str) -> str:
    """The list of certificates that are good no more, as brokers read it: PEM.

    It is good as long as its authority is: a broker lets nobody in once a list is out of date, and a newer one comes
    whenever there is news.

    Args:
        folder: the deployment's.
        serials: numbers in hexadecimal, and since when, seconds since 1970.
        before: an earlier list, which stays as it is if it says the same; "" if there is none.

    Raises:
        StateError: if the authority's files cannot be read.
    """
    authority = read(folder / DEVICES.certificates)[0]
    moments = {int(serial, 16): since_s for serial, since_s in serials.items()}
    moments[ALWAYS_TAKEN_BACK] = authority.not_valid_before_utc.timestamp()
    if before and _says(before, authority) == moments.keys():
        return before
    making = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(now() - certificates.BACK)
        .next_update(authority.not_valid_after_utc)
        .add_extension(signed_by(authority), critical=False)
        .add_extension(x509.CRLNumber(int(now().timestamp() * 1000)), critical=False)
    )
    for number, since_s in sorted(moments.items()):
        moment = dt.datetime.fromtimestamp(since_s, dt.UTC)
        one = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(moment).build()
        making = making.add_revoked_certificate(one)
    made = making.sign(read_key(folder / DEVICES.key), hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def _says(text: str, authority: x509.Certificate) -> set[int] | None:
    """Serial numbers on a list; None if it is no list of this authority's key."""
    try:
        found = x509.load_pem_x509_crl(text.encode())
        key = authority.public_key()
        good = found.is_signature_valid(key)  # type: ignore[arg-type]
    except UNREADABLE:
        return None
    return {one.serial_number for one in found} if good else None


def key_of(request: bytes, device: str) -> ed25519.Ed25519PublicKey:
    """The key that a device's request is for; raises WireError if it is not as `wire.pkcs10` makes them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that are not as they should be: they are not the device's
            asked = x509.load_der_x509_csr(request)
            key, signed = asked.public_key(), asked.is_signature_valid
            names = [str(one.value) for one in asked.subject]
    except UNREADABLE as error:
        raise WireError(f"no request for a certificate ({error!s:.80})") from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise WireError("the request for a certificate is for another kind of key, Ed25519 expected")
    if not signed:
        raise WireError("the request for a certificate is not signed by the key that it is for")
    if names != [device]:
        raise WireError(f"the request for a certificate is for {names!r:.80}, '{device}' expected")
    return key
