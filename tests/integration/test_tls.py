"""TLS to a real mosquitto that knows its clients by their certificates, and what is said when that fails."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.bulk import BulkTransport
from tests.integration.conftest import started_mosquitto
from tests.integration.fleet import wait_until
from wire.broker import parse_url
from wire.errors import BrokerRefused, ConfigError, HidenseekError
from wire.mqtt import MqttTransport
from wire.transport import Packet

pytestmark = pytest.mark.broker
ACCESS = """
user pi-01
topic readwrite hns/t/up/pi-01/#
user coordinator
topic readwrite hns/t/#
"""


def openssl(*arguments: object) -> None:
    """Run it, quietly."""
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def certificate(folder: Path, name: str, authority: str, extensions: str = "") -> None:
    """`name`.crt and `name`.key, signed by `authority`, or by itself if that is its own name."""
    subject = ["-subj", f"/CN={name}", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    signer = [] if name == authority else ["-CA", folder / f"{authority}.crt", "-CAkey", folder / f"{authority}.key"]
    more = ["-addext", extensions] if extensions else []
    openssl("req", "-x509", *subject, *signer, *more, "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """Port and certificates of a broker that lets in whom its authority has signed."""
    folder = tmp_path_factory.mktemp("tls")
    certificate(folder, "ca", "ca")
    certificate(folder, "localhost", "ca", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    for client in ("coordinator", "pi-01"):
        certificate(folder, client, "ca")
    certificate(folder, "elsewhere", "elsewhere")
    (folder / "acl").write_text(ACCESS)
    settings = (
        f"cafile {folder}/ca.crt\ncertfile {folder}/localhost.crt\nkeyfile {folder}/localhost.key\n"
        f"require_certificate true\nuse_identity_as_username true\nacl_file {folder}/acl\n"
    )
    with started_mosquitto(folder, settings) as port:
        yield port, folder


Either = type[MqttTransport] | type[BulkTransport]
either = pytest.mark.parametrize("made", [MqttTransport, BulkTransport])


def transport(
    hub: tuple[int, Path], name: str | None, ca: str = "ca", made: Either = MqttTransport
) -> MqttTransport | BulkTransport:
    """A connection that shows the certificate of this name, if any."""
    port, folder = hub
    files = {"certificate": folder / f"{name}.crt", "certificate_key": folder / f"{name}.key"} if name else {}
    broker = parse_url(f"mqtts://localhost:{port}", ca=folder / f"{ca}.crt", **files)
    return made(broker, client_id=f"test-{name}")


@either
def test_a_certificate_is_an_account(hub: tuple[int, Path], made: Either) -> None:
    """Its name is the user: a device's messages arrive on its own topics, and on no others."""
    coordinator, device = transport(hub, "coordinator", made=made), transport(hub, "pi-01")
    coordinator.connect(10)
    device.connect(10)
    coordinator.subscribe("hns/t/up/#")
    heard: list[str] = []

    def listen() -> bool:
        device.publish("hns/t/up/pi-02/state", b"forged")
        device.publish("hns/t/up/pi-01/state", b"own")
        event = coordinator.receive(0.2)
        if isinstance(event, Packet):
            heard.append(event.topic)
            event.acknowledge()
        return len(heard) > 2

    wait_until(listen, 15, "three messages arrive")
    device.close()
    coordinator.close()
    assert set(heard) == {"hns/t/up/pi-01/state"}


@either
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a socket that paho leaves open
@pytest.mark.parametrize(
    ("name", "ca", "text"),
    [
        (None, "ca", "wants a certificate to be shown"),
        ("elsewhere", "ca", "elsewhere.crt: the broker does not know who has signed it"),
        ("pi-01", "elsewhere", "self-signed certificate|local issuer|signature failure"),
    ],
)
def test_who_is_not_known_is_told(hub: tuple[int, Path], name: str | None, ca: str, text: str, made: Either) -> None:
    """No certificate, one of a stranger, a broker that a stranger vouches for."""
    with pytest.raises(BrokerRefused, match=text):
        transport(hub, name, ca, made).connect(3)


def test_wrong_files_are_named(hub: tuple[int, Path], tmp_path: Path) -> None:
    """A certificate that is not there, a key of another one, a certificate without TLS, a key alone."""
    port, folder = hub

    def error(**files: Path) -> HidenseekError:
        with pytest.raises(ConfigError) as caught:
            MqttTransport(parse_url(f"mqtts://localhost:{port}", **files), client_id="c")
        return caught.value

    assert "none.crt" in (error(certificate=tmp_path / "none.crt").where or "")
    wrong = error(certificate=folder / "pi-01.crt", certificate_key=folder / "coordinator.key")
    assert "coordinator.key" in (wrong.where or "")
    assert "cannot be read" in wrong.what
    assert error(certificate_key=folder / "pi-01.key").where == "--cert-key"
    with pytest.raises(ConfigError, match="mqtts://"):
        parse_url("mqtt://localhost", certificate=folder / "pi-01.crt")
