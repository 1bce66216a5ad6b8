"""A deployment whose devices show certificates: what is written, and what OpenSSL makes of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from coordinator import cli, device_cards
from coordinator.brokers import accounts, claims, device_certificates, enroller, shut_out
from coordinator.brokers import deployment as deployments
from coordinator.brokers.deployment import Deployment
from wire import claim, pkcs10, signing

NOW = 1_800_000_000.0


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a devices.yaml of two devices, which is also the working directory."""
    (tmp_path / "devices.yaml").write_text("federation: {name: t}\ndevices: {pi-01: {}, pi-02: {}}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda file: None)  # nobody cuts the power of a test
    return tmp_path


def init(*options: str, kind: str = "mosquitto") -> int:
    """Run it."""
    return cli.main(["broker", "init", "--kind", kind, "--hosts", "hub.example.org", *options])


def settings() -> Deployment:
    """As they are now."""
    return deployments.load(Path("deploy"))


def taken_back() -> set[int]:
    """Serial numbers on the list that the broker has."""
    text = Path("deploy/nodes/broker/config/devices.crl").read_bytes()
    return {one.serial_number for one in x509.load_pem_x509_crl(text)} - {device_certificates.ALWAYS_TAKEN_BACK}


def test_a_new_mosquitto_has_a_port_for_certificates(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Unless that is not wanted; one that had none keeps it so; nats-server cannot, and says why."""
    assert init("--certificate-port", "9999") == 0
    text = (home / "deploy/nodes/broker/config/mosquitto.conf").read_text()
    listener = text.split("listener 9999 0.0.0.0\n")[1].split("\n\n")[0].splitlines()
    assert {"require_certificate true", "use_identity_as_username true", "use_username_as_clientid true"} < set(
        listener
    )
    assert {"cafile config/devices.crt", "crlfile config/devices.crl"} < set(listener)
    assert "9999" in (home / "deploy/firewall.nft").read_text()
    assert "9999:9999" in (home / "deploy/compose.yaml").read_text()
    assert (home / "deploy/secrets/devices.key").stat().st_mode & 0o777 == 0o600
    for file in ("devices.crt", "devices.crl"):
        assert (home / "deploy/kubernetes/config" / file).is_file()

    assert init("--no-client-certificates", "-o", "without") == 0
    found = json.loads((home / "without/deployment.json").read_text())
    for name in ("client_certificates", "certificate_port", "certified"):  # of a program that knew none
        del found[name]
    (home / "without/deployment.json").write_text(json.dumps(found))
    assert init("-o", "without") == 0
    assert not deployments.load(home / "without").client_certificates
    assert "devices.c" not in (home / "without/nodes/broker/config/mosquitto.conf").read_text()

    capsys.readouterr()
    assert init("--client-certificates", "-o", "nats", kind="nats") == 10
    assert "asks everybody on its MQTT port for a certificate, or nobody" in capsys.readouterr().err


def test_a_certified_device_has_no_password_but_for_renewal(home: Path) -> None:
    """Its card, with certificate or without, decides; the rights of the account for renewal are those of a card."""
    assert init() == 0
    deploy = home / "deploy"
    enroller.open_card(deploy, settings(), "pi-01", NOW, certificate=True)
    users = accounts.load(deploy)
    assert {"claim.pi-01", "renew.pi-01", "pi-02"} <= users.keys()
    assert "pi-01" not in users
    passwd = (deploy / "nodes/broker/config/passwd").read_text()
    assert "\nrenew.pi-01:" in passwd
    assert "\npi-01:" not in passwd
    acl = (deploy / "nodes/broker/config/acl").read_text()
    rights = acl.split("user renew.pi-01\n")[1].split("\n\n")[0]
    assert rights == "topic read hns/t/claim/pi-01/answer/#\ntopic write hns/t/claim/pi-01/request/#"
    assert init() == 0
    assert accounts.load(deploy) == users
    enroller.open_card(deploy, settings(), "pi-01", NOW)
    assert "pi-01" in accounts.load(deploy)
    assert "renew.pi-01" not in accounts.load(deploy)


def test_certificates_are_turned_on_and_off(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On at any time, with a restart of a broker that runs; off only while no device would be shut out by it."""
    assert init("--no-client-certificates") == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("coordinator.brokers.up.running_nodes", lambda *_: {"broker": 1})
        assert init("--client-certificates") == 0
        assert "start the broker again: it listens at port 8893" in capsys.readouterr().out
        assert init("--client-certificates") == 0
        assert "start the broker again" not in capsys.readouterr().out
    enroller.open_card(home / "deploy", settings(), "pi-01", NOW, certificate=True)
    assert init("--no-client-certificates") == 10
    assert "1 devices have certificates and no passwords, 'pi-01' among them" in capsys.readouterr().err
    assert settings().client_certificates
    assert cli.main(["broker", "remove-device", "pi-01"]) == 0
    assert init("--no-client-certificates") == 0
    assert not settings().client_certificates


def test_devices_of_a_hub_are_told_of_the_hub_alone(home: Path) -> None:
    """Not of sites' brokers, which do not know them; those have no port for certificates."""
    from coordinator import config

    assert init("--sites", "north=10.1.0.2") == 0
    where = device_cards.Where(deploy=home / "deploy")
    made = device_cards.card(home / "devices.yaml", config.load(home / "devices.yaml"), "pi-01", where)
    assert made.service.broker == "mqtts://hub.example.org:8883"
    assert made.service.certificates == "mqtts://hub.example.org:8893"
    assert "require_certificate" not in (home / "deploy/nodes/site-north/config/mosquitto.conf").read_text()
    assert not (home / "deploy/nodes/site-north/config/devices.crl").exists()


def test_what_ends_a_certificate_puts_it_on_the_list(home: Path) -> None:
    """Another card, a revoked or removed device; restored, it is off it again."""
    assert init() == 0
    deploy = home / "deploy"

    def enrol(device: str) -> int:
        enroller.open_card(deploy, settings(), device, NOW, certificate=True)
        with claims.changing(deploy) as known:
            known.decide(device, signing.public_key(bytes(32)), "", NOW)
            issued = device_certificates.issue(deploy, device, pkcs10.request(bytes(32), device))
            assert not known.certify(device, claims.Certificate(serial=issued.serial, ends_s=NOW * 2), NOW)
        return int(issued.serial, 16)

    first = enrol("pi-01")
    assert taken_back() == set()
    second = enrol("pi-01")
    assert taken_back() == {first}
    assert shut_out.follow(deploy, "t", "pi-01", NOW, out=True).startswith("its certificate opens the broker no more")
    assert taken_back() == {first, second}
    assert shut_out.follow(deploy, "t", "pi-01", NOW, out=True) == ""
    assert shut_out.follow(deploy, "t", "pi-01", NOW, out=False).startswith("its certificate is good again")
    assert taken_back() == {first}
    for folder, federation, device in ((deploy, "other", "pi-01"), (deploy, "t", "pi-02"), (home, "t", "pi-01")):
        assert shut_out.follow(folder, federation, device, NOW, out=True) == ""
    enroller.rename(deploy, settings(), "pi-01", "hall")
    assert taken_back() == {first, second}
    third = enrol("hall")
    shut_out.close(deploy, settings(), ["hall"], NOW)
    assert taken_back() == {first, second, third}
    left = settings()
    assert (left.cards, left.certified, set(left.devices)) == ([], [], {"pi-02"})


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
def test_openssl_is_content_with_certificate_and_list(home: Path) -> None:
    """Strictly, for clients; and for servers it is not."""
    assert init() == 0
    issued = device_certificates.issue(home / "deploy", "pi-01", pkcs10.request(bytes(32), "pi-01"))
    (home / "pi.pem").write_bytes(pkcs10.pem(bytes(32), issued.certificate, 0))
    config = home / "deploy/nodes/broker/config"
    both = ["-CAfile", str(config / "devices.crt"), "-CRLfile", str(config / "devices.crl"), "-crl_check"]
    for purpose, code in (("sslclient", 0), ("sslserver", 2)):
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, *both, "pi.pem"]
        assert subprocess.run(command, capture_output=True, check=False).returncode == code


@pytest.mark.parametrize(
    ("options", "named", "address"),
    [
        ((), "", "mqtts://hub.example.org:8893"),
        ((), "mqtts://10.0.0.1:1", "mqtts://10.0.0.1:8893"),
        ((), "mqtts://[fe80::1]", "mqtts://[fe80::1]:8893"),
        ((), "mqtt://10.0.0.1", ""),
        (("--no-client-certificates",), "", ""),
    ],
)
def test_a_card_is_told_where_certificates_are_shown(
    home: Path, options: tuple[str, ...], named: str, address: str
) -> None:
    """At the deployment's host, or at that of a broker that was named."""
    from coordinator import config

    assert init(*options) == 0
    where = device_cards.Where(broker=named, deploy=home / "deploy")
    made = device_cards.card(home / "devices.yaml", config.load(home / "devices.yaml"), "pi-01", where)
    assert made.service.certificates == address
    card = device_cards.with_token(made, home / "deploy")
    assert card.secrets[claim.TOKEN_FILE]
    assert settings().certified == (["pi-01"] if address else [])
