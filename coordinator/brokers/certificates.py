"""The certificate authorities of a deployment, and its servers' certificates."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from coordinator.brokers.process import write_private, write_whole
from wire.errors import StateError

AUTHORITY_DAYS = 3650
SERVER_DAYS = 825
BACK = dt.timedelta(days=1)  # a board without a clock of its own may be behind until it has asked the network
CERTIFICATES = "ca.crt"  # in the deployment's folder


@dataclass(frozen=True, kw_only=True)
class Authority:
    """Who signs: paths in the deployment's folder, and what for, in words."""

    key: str
    certificates: str
    what: str


SERVERS = Authority(key="secrets/ca.key", certificates=CERTIFICATES, what="broker")


def make_authority(folder: Path, name: str, authority: Authority = SERVERS, *, renew: bool = False) -> bool:
    """See that there is a certificate authority; whether one was made.

    Args:
        folder: the deployment's.
        name: who it is for.
        authority: which.
        renew: make another, which signs from now on. The earlier ones stay in its file, trusted, until their end.

    Raises:
        StateError: if its files cannot be read or written.
    """
    key_path, certificates = folder / authority.key, folder / authority.certificates
    if certificates.exists() and key_path.exists() and not renew:
        return False
    key = ec.generate_private_key(ec.SECP256R1())
    title = f"hidenseek {name} {authority.what} CA"[:53]  # of the 64 that a common name may have
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{title} {now():%Y-%m-%d}")])
    ours = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        builder(subject, subject, key.public_key(), AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(sign=True), critical=True)
        .add_extension(ours, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ours), critical=False)
        .sign(key, hashes.SHA256())
    )
    earlier = [one for one in read(certificates) if one.not_valid_after_utc > now()] if renew else []
    # The certificate first: a key without one would be followed by another pair, and nothing would have been signed.
    write_whole(certificates, b"".join(map(pem, [certificate, *earlier])), 0o644)
    write_private(key_path, _private(key))
    return True


def issue(folder: Path, hosts: Sequence[str], target: Path, *, renew: bool = False) -> bool:
    """See that a server has a certificate for its hosts by today's authority; whether one was made.

    Args:
        folder: the deployment's.
        hosts: names and addresses that clients know the server by.
        target: folder of `server.crt` and `server.key`.
        renew: make another in any case, with another key.

    Raises:
        StateError: if files cannot be read or written.
    """
    wanted = [*dict.fromkeys([*hosts, "localhost", "127.0.0.1"])]
    path = target / "server.crt"
    if not renew and path.exists() and (target / "server.key").exists() and _names(read(path)[0]) == set(wanted):
        return False
    authority = read(folder / SERVERS.certificates)[0]
    signer = read_key(folder / SERVERS.key)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, wanted[0][:64])])
    certificate = (
        builder(subject, authority.subject, key.public_key(), SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(sign=False), critical=True)
        # Both ways: the nodes of a cluster are each other's clients.
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName([_name(host) for host in wanted]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(signed_by(authority), critical=False)
        .sign(signer, hashes.SHA256())
    )
    write_private(target / "server.key", _private(key))
    write_whole(path, pem(certificate), 0o644)
    return True


def valid_until(certificate: Path) -> dt.datetime:
    """When a certificate ends.

    Raises:
        StateError: if it cannot be read.
    """
    return read(certificate)[0].not_valid_after_utc


def from_der(data: bytes) -> tuple[dt.datetime, list[str]]:
    """When a certificate that a server showed ends, and the names in it."""
    certificate = x509.load_der_x509_certificate(data)
    return certificate.not_valid_after_utc, sorted(_names(certificate))


def builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey,
    days: float,
    serial: int | None = None,
) -> x509.CertificateBuilder:
    """A certificate without its extensions, valid for so many days; with a random number, if none is given."""
    moment = now()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(moment - BACK)
        .not_valid_after(moment + dt.timedelta(days=days))
    )


def signed_by(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """The extension that says by which of its keys an authority has signed."""
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
        authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    )


def usage(*, sign: bool) -> x509.KeyUsage:
    """What a key is for: to sign certificates, or to sign what its owner says."""
    return x509.KeyUsage(
        digital_signature=not sign,
        key_cert_sign=sign,
        crl_sign=sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _names(certificate: x509.Certificate) -> set[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(name.value) for name in found}


def read(path: Path) -> list[x509.Certificate]:
    """All certificates in a PEM file; raises StateError if it has none."""
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise StateError(
            f"no readable certificate ({error})", where=str(path), hint="Restore it from a backup"
        ) from error


def read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """An authority's key; raises StateError if it cannot be read."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError) as error:
        raise StateError(f"no readable key ({error})", where=str(path), hint="Restore it from a backup") from error
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _private(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def pem(certificate: x509.Certificate) -> bytes:
    """As a file has it."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def now() -> dt.datetime:
    """What time it is, in UTC."""
    return dt.datetime.now(dt.UTC)
