"""Requests that a device writes by itself, and what an authority makes of them; cryptography and ssl are referees."""

from __future__ import annotations

import datetime as dt
import random
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from coordinator.brokers import device_certificates
from tests.golden import make
from wire import pkcs10, signing
from wire.errors import StateError, WireError

KEY = signing.new_key()
DAY_S = 86400.0


@pytest.fixture(scope="module")
def deploy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority for devices."""
    folder = tmp_path_factory.mktemp("deploy")
    device_certificates.make_authority(folder, "t")
    return folder


@pytest.mark.parametrize("name", ["pi-01", "a", "x" * 64])
def test_a_request_is_what_cryptography_reads(name: str) -> None:
    """Name, key, signature, and not a byte that another encoder of DER would write otherwise."""
    asked = x509.load_der_x509_csr(data := pkcs10.request(KEY, name))
    assert asked.is_signature_valid
    assert [(one.oid, one.value) for one in asked.subject] == [(NameOID.COMMON_NAME, name)]
    raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
    assert asked.public_key().public_bytes(*raw) == signing.public_key(KEY)
    theirs = x509.CertificateSigningRequestBuilder().subject_name(asked.subject)
    private = serialization.load_pem_private_key(pkcs10.pem(KEY, b"", 0), None)
    assert theirs.sign(private, None).public_bytes(serialization.Encoding.DER) == data  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "x" * 65, "pi-ä"])
def test_names_that_no_certificate_has_are_refused(name: str) -> None:
    """Before anything is signed."""
    with pytest.raises(WireError, match="no name for a certificate"):
        pkcs10.request(KEY, name)


def test_openssl_takes_key_and_certificate_as_one_file(deploy: Path, tmp_path: Path) -> None:
    """With the line that says when to renew, which only we read; not with another's key."""
    issued = device_certificates.issue(deploy, "pi-01", pkcs10.request(KEY, "pi-01"))
    both = pkcs10.pem(KEY, issued.certificate, 1_790_000_000)
    (tmp_path / "pi.pem").write_bytes(both)
    ssl.create_default_context().load_cert_chain(tmp_path / "pi.pem")
    assert pkcs10.renew_after_s(both) == 1_790_000_000
    (tmp_path / "pi.pem").write_bytes(pkcs10.pem(signing.new_key(), issued.certificate, 0))
    with pytest.raises(ssl.SSLError, match="KEY_VALUES_MISMATCH"):
        ssl.create_default_context().load_cert_chain(tmp_path / "pi.pem")


@pytest.mark.parametrize(
    "file", [b"", b"-----BEGIN", b"# renew after ", b"# renew after -1\n", b"\xff", b"# renew after 1x"]
)
def test_a_file_of_others_says_nothing_of_renewing(file: bytes) -> None:
    """Nor does one that was cut off."""
    assert pkcs10.renew_after_s(file) is None


def test_a_certificate_is_for_one_device_as_a_client(deploy: Path) -> None:
    """Its name, a year from yesterday on, clients' use alone, another number each time, by the devices' authority."""
    before = dt.datetime.now(dt.UTC).replace(microsecond=0)
    found = [device_certificates.issue(deploy, "pi-01", pkcs10.request(KEY, "pi-01")) for _ in range(2)]
    after = dt.datetime.now(dt.UTC)
    made = x509.load_der_x509_certificate(found[0].certificate)
    authority = x509.load_pem_x509_certificate((deploy / "devices.crt").read_bytes())
    made.verify_directly_issued_by(authority)
    assert [one.value for one in made.subject] == ["pi-01"]
    assert f"{made.serial_number:x}" == found[0].serial != found[1].serial
    assert before <= made.not_valid_before_utc + dt.timedelta(days=1) <= after
    assert made.not_valid_after_utc >= before + dt.timedelta(days=365)
    assert found[0].ends_s == made.not_valid_after_utc.timestamp()
    assert found[0].renew_s == pytest.approx(before.timestamp() + 365 * 2 / 3 * DAY_S, abs=60)
    extensions = made.extensions
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert (deploy / "secrets" / "devices.key").stat().st_mode & 0o777 == 0o600
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_what_is_no_request_of_this_device_is_refused(deploy: Path) -> None:
    """Of another device, another kind of key, with another's key, and any bytes at all."""
    with pytest.raises(WireError, match="'pi-01' expected"):
        device_certificates.issue(deploy, "pi-01", pkcs10.request(KEY, "pi-02"))
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pi-01")])
    other = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    with pytest.raises(WireError, match="Ed25519 expected"):
        device_certificates.issue(deploy, "pi-01", other.public_bytes(serialization.Encoding.DER))
    good = pkcs10.request(KEY, "pi-01")
    swapped = good.replace(signing.public_key(KEY), signing.public_key(signing.new_key()))
    with pytest.raises(WireError, match="not signed by the key"):
        device_certificates.issue(deploy, "pi-01", swapped)
    rng = random.Random(1)
    for _ in range(400):
        bad = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        data = bytes(bad[: rng.choice((len(bad), rng.randrange(len(bad))))])
        if data != good:
            with pytest.raises(WireError, match="request for a certificate"):
                device_certificates.issue(deploy, "pi-01", data)


def test_the_golden_request_is_signed(deploy: Path) -> None:
    """As tests/golden has it."""
    device_certificates.issue(deploy, make.CARD, make.MESSAGES["claim-certified"].request)  # type: ignore[union-attr]


def test_the_list_of_what_is_taken_back_changes_with_it(deploy: Path) -> None:
    """The same serials leave it as it is; it outlasts every certificate, and is of the past for clocks behind."""
    authority = x509.load_pem_x509_certificate((deploy / "devices.crt").read_bytes())
    empty = device_certificates.taken_back(deploy, {}, "")
    assert device_certificates.taken_back(deploy, {}, empty) == empty
    two = device_certificates.taken_back(deploy, {"ab12": 1.7e9, "7": 1.8e9}, empty)
    assert device_certificates.taken_back(deploy, {"7": 1.9e9, "ab12": 1.7e9}, two) == two
    found = x509.load_pem_x509_crl(two.encode())
    assert found.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    assert {one.serial_number for one in found} == {0xAB12, 7, device_certificates.ALWAYS_TAKEN_BACK}
    assert found.next_update_utc == authority.not_valid_after_utc
    assert found.last_update_utc is not None
    assert found.last_update_utc < dt.datetime.now(dt.UTC) - dt.timedelta(hours=23)
    assert device_certificates.taken_back(deploy, {}, two) != empty
    for broken in ("x", "-----BEGIN X509 CRL-----\nAA==\n-----END X509 CRL-----\n"):
        assert device_certificates.taken_back(deploy, {}, broken).startswith("-----BEGIN X509 CRL")


def test_a_list_of_an_earlier_authority_is_made_again(deploy: Path, tmp_path: Path) -> None:
    """A broker would let nobody in with it."""
    device_certificates.make_authority(tmp_path, "t")
    other = device_certificates.taken_back(tmp_path, {}, "")
    assert device_certificates.taken_back(deploy, {}, other) != other


def test_an_authority_at_its_end_signs_no_more(deploy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And shortly before, nothing that is good for longer than it is itself."""
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=3640)
    monkeypatch.setattr(device_certificates, "now", lambda: later)
    monkeypatch.setattr("coordinator.brokers.certificates.now", lambda: later)
    issued = device_certificates.issue(deploy, "pi-01", pkcs10.request(KEY, "pi-01"))
    authority = x509.load_pem_x509_certificate((deploy / "devices.crt").read_bytes())
    assert issued.ends_s <= authority.not_valid_after_utc.timestamp()
    later += dt.timedelta(days=11)
    with pytest.raises(StateError, match="this authority ended"):
        device_certificates.issue(deploy, "pi-01", pkcs10.request(KEY, "pi-01"))
