"""What `hidenseek broker check` is told of a server: that it is the server that refuses, not we."""

from __future__ import annotations

import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coordinator.brokers import certificates
from coordinator.brokers.checks.rows import attempt
from coordinator.brokers.probe import context
from wire.broker import Broker

# Sockets that paho leaves open when TLS fails.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
CONNACK = bytes([0x20, 2, 0, 0])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A certificate authority, and a server's certificate."""
    (tmp_path / "secrets").mkdir()
    certificates.make_authority(tmp_path, "t")
    certificates.issue(tmp_path, ["localhost"], tmp_path)
    return tmp_path


@contextmanager
def broker(folder: Path, oldest: ssl.TLSVersion, newest: ssl.TLSVersion) -> Iterator[Broker]:
    """One that takes any client by these versions of TLS."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "server.crt", folder / "server.key")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        tls.set_ciphers("ALL:@SECLEVEL=0")
        tls.minimum_version, tls.maximum_version = oldest, newest

    def serve(server: socket.socket) -> None:
        try:
            with tls.wrap_socket(server.accept()[0], server_side=True) as client:
                client.recv(4096)
                client.sendall(CONNACK)
                client.recv(4096)
        except OSError:
            return

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        yield Broker(scheme="mqtts", host="localhost", port=server.getsockname()[1], ca=folder / "ca.crt")
        thread.join(5)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2])
def test_old_versions_are_really_spoken(folder: Path, version: ssl.TLSVersion) -> None:
    """A server that takes nothing else is connected to by it, and one that does not says no itself."""
    with broker(folder, version, version) as there:
        assert attempt(there, context(there.ca, version=version)) == ""
    with broker(folder, ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3) as there:
        assert attempt(there, context(there.ca, version=version)) == "TLS: protocol version"


def test_another_authority_is_noticed(folder: Path, tmp_path: Path) -> None:
    """And not taken for a refusal by the server."""
    (tmp_path / "other" / "secrets").mkdir(parents=True)
    certificates.make_authority(tmp_path / "other", "other")
    newest = ssl.TLSVersion.TLSv1_3
    with broker(folder, newest, newest) as there:
        assert attempt(there, context(tmp_path / "other" / "ca.crt")).startswith("certificate: ")
