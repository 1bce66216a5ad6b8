"""What a broker has against a certificate, read from the end of a real TLS connection, of either version."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from coordinator.brokers import certificates, device_certificates
from wire import pkcs10, refusals, signing
from wire.broker import Broker
from wire.tls import tls_context

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both authorities, a server's certificate, and a list of what was taken back."""
    made = tmp_path_factory.mktemp("deploy")
    certificates.make_authority(made, "t")
    certificates.issue(made, ["localhost"], made)
    device_certificates.make_authority(made, "t")
    (made / "devices.crl").write_text(device_certificates.taken_back(made, {}, ""))
    return made


@contextmanager
def listening(folder: Path, version: ssl.TLSVersion) -> Iterator[Broker]:
    """A server that asks for certificates, looks at the list, and takes one connection after the other."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "devices.crt"))
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    context.load_verify_locations(folder / "devices.crl")
    context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = version
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    plain, _ = server.accept()
                    with suppress(OSError), plain, context.wrap_socket(plain, server_side=True) as secured:
                        secured.recv(1)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield Broker(scheme="mqtts", host="localhost", port=server.getsockname()[1], ca=folder / "ca.crt")
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def certificate(folder: Path, target: Path, *, days: float = 1, serial: int | None = None) -> Path:
    """One of an authority, with its key."""
    key = signing.new_key()
    issued = device_certificates.issue(folder, "pi-01", pkcs10.request(key, "pi-01"), days=days, serial=serial)
    target.write_bytes(pkcs10.pem(key, issued.certificate, 0))
    return target


def what(broker: Broker, shown: Path | None) -> str:
    """What is said of a refusal."""
    there = Broker(scheme="mqtts", host=broker.host, port=broker.port, ca=broker.ca, certificate=shown)
    said = refusals.of_certificate(there, tls_context(there), None)
    return said.what if said else ""


@pytest.mark.parametrize("version", VERSIONS)
def test_a_refused_certificate_is_told_with_why(folder: Path, tmp_path: Path, version: ssl.TLSVersion) -> None:
    """It has ended, was taken back, is a stranger's, or is none; of a good one nothing is said."""
    path = tmp_path / "pi.pem"
    device_certificates.make_authority(tmp_path, "stranger")
    with listening(folder, version) as broker:
        ended = what(broker, certificate(folder, path, days=-0.5))
        assert ended == f"{broker} refuses the certificate {path}: it has ended, by the broker's clock"
        gone = certificate(folder, path, serial=device_certificates.ALWAYS_TAKEN_BACK)
        assert what(broker, gone).endswith(": it was taken back")
        assert what(broker, certificate(tmp_path, path)).endswith(": the broker does not know who has signed it")
        if version == ssl.TLSVersion.TLSv1_3:  # before, the alert does not say that it is about that
            assert what(broker, None) == f"{broker} wants a certificate to be shown"
        context = tls_context(broker)
        context.load_cert_chain(certificate(folder, path))
        with (
            socket.create_connection((broker.host, broker.port)) as plain,
            context.wrap_socket(plain, server_hostname=broker.host) as secured,
        ):
            secured.settimeout(0.1)
            with pytest.raises(TimeoutError):
                secured.recv(1)


def test_of_other_ends_nothing_is_said(folder: Path, tmp_path: Path) -> None:
    """Nobody listens; somebody does who speaks no TLS."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def close() -> None:
            plain, _ = server.accept()
            plain.close()

        thread = threading.Thread(target=close)
        thread.start()
        broker = Broker(scheme="mqtts", host="localhost", port=port, ca=folder / "ca.crt")
        assert what(broker, certificate(folder, tmp_path / "pi.pem")) == ""
        thread.join()
    assert what(broker, tmp_path / "pi.pem") == ""
