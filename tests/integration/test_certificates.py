"""Devices that show certificates to a real mosquitto: got for a card's token, renewed, of others, ended, taken back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import brokers
from coordinator import cli
from coordinator.brokers import accounts, claims, device_certificates, enroller
from coordinator.brokers.probe import Probe, context
from edge_client.store import PASSWORD, certificate_name
from tests.integration.deployed import Deployed, deployed
from tests.integration.fleet import Processes, wait_until, write_person
from tests.integration.test_enrolment import boot, flashed
from wire import claim, pkcs10, signing
from wire.broker import Broker, parse_url
from wire.errors import BrokerRefused, JoinRefused
from wire.mqtt import MqttTransport
from wire.tls import tls_context
from wire.transport import Connected, Disconnected

pytestmark = pytest.mark.broker
NAME = certificate_name("pi-1")


def shown(made: Deployed, certificate: Path | None) -> Broker:
    """The port where devices show certificates."""
    return parse_url(
        made.settings.broker_nodes()[0].certificate_url, ca=made.folder / "ca.crt", certificate=certificate
    )


def connect(made: Deployed, certificate: Path | None, client_id: str = "") -> Probe:
    """A client that shows a certificate, connected."""
    tls = context(made.folder / "ca.crt")
    if certificate is not None:
        tls.load_cert_chain(certificate)
    probe = Probe(shown(made, None), client_id=client_id, tls=tls)
    assert probe.connect() == ""
    return probe


def why_not(made: Deployed, certificate: Path | None) -> str:
    """What a device is told that the broker does not let in."""
    transport = MqttTransport(shown(made, certificate), client_id="hns-t-pi-1")
    with pytest.raises(BrokerRefused) as error:
        transport.connect(5.0)
    return str(error.value)


def of_another(made: Deployed, device: str, folder: Path, *, days: float = 1.0) -> Path:
    """A certificate that the deployment's authority has signed, good for so many days from now."""
    key = signing.new_key()
    issued = device_certificates.issue(made.folder, device, pkcs10.request(key, device), days=days)
    path = folder / f"{device}{days}.pem"
    path.write_bytes(pkcs10.pem(key, issued.certificate, int(issued.renew_s)))
    return path


def test_a_card_gets_a_certificate_that_opens_one_device_s_topics(tmp_path: Path) -> None:
    """No password does, not that which came with it; who has none, one that ended, or a stranger's, is shut out."""
    state = tmp_path / "state"
    with deployed(tmp_path, "mosquitto") as made:
        flashed(made, state, certified=True)
        boot(made, state, certified=True)
        assert not (state / claim.TOKEN_FILE).exists()
        assert (state / NAME).stat().st_mode & 0o777 == 0o600
        assert "until 20" in claims.load(made.folder).cards["pi-1"].certificate_in_words(time.time())
        wait_until(lambda: "certificate until 20" in made.log, 10, "the certificate to be told")
        with connect(made, state / NAME) as device, made.probe("coordinator") as coordinator:
            assert coordinator.subscribe("hns/t/up/#")
            assert device.subscribe("hns/t/down/pi-1/#")
            device.publish("hns/t/up/pi-2/mask", b"as another")
            device.publish("hns/t/up/pi-1/mask", b"as itself")
            assert coordinator.wait("hns/t/up/pi-1/mask", b"as itself")
            coordinator.publish("hns/t/down/pi-1", b"told")
            assert device.wait("hns/t/down/pi-1", b"told")
            assert [one.payload for one in coordinator.heard] == [b"as itself"]

        password = (state / PASSWORD).read_text().strip()
        for user in ("pi-1", claim.RENEWAL + "pi-1"):
            with Probe(made.broker(user, password)) as other:
                refusal = other.connect()
                assert bool(refusal) == (user == "pi-1"), "a password is good for renewal alone"
                if not refusal:
                    other.publish("hns/t/up/pi-1/mask", b"by password")
        with made.probe("coordinator") as coordinator:
            assert coordinator.subscribe("hns/t/up/#")
            assert not coordinator.wait("hns/t/up/pi-1/mask", b"by password", 1.0)

        assert "wants a certificate" in why_not(made, None)
        assert "has ended" in why_not(made, of_another(made, "pi-1", tmp_path, days=-0.5))
        theirs = tmp_path / "theirs"
        device_certificates.make_authority(theirs, "t")
        assert "does not know who has signed" in why_not(made, of_another(Deployed(theirs), "pi-1", theirs))
        with (
            connect(made, of_another(made, "pi-2", tmp_path)) as other,
            made.probe("coordinator") as coordinator,
        ):
            assert coordinator.subscribe("hns/t/up/#")
            other.publish("hns/t/up/pi-1/mask", b"by pi-2")
            other.publish("hns/t/up/pi-2/mask", b"its own")
            assert coordinator.wait("hns/t/up/pi-2/mask", b"its own")
            assert [one.payload for one in coordinator.heard] == [b"its own"]


CONFIG = """\
federation: {name: t, rounds: 2, per_round: 1, quorum: 1, start_devices: 1, deadline_s: 60}
devices: {pi-1: {}}
"""


def service(made: Deployed, processes: Processes, state: Path, device: str = "pi-1") -> None:
    """Start what a card's service runs, as `hidenseek flash` has set it up."""
    home, node = processes.home, made.settings.broker_nodes()[0]
    data = home / "data"
    if not data.exists():
        write_person(data, seed=1)
    told = {"device": device, "federation": "t", "broker": node.url, "certificates": node.certificate_url}
    told |= {"ca": str(made.folder / "ca.crt"), "data": str(data)}
    (home / "card.json").write_text(json.dumps(told))
    with (home / "card.log").open("ab") as log:
        processes.running["card"] = subprocess.Popen(
            [sys.executable, "-m", "edge_client.cli", "card", str(home / "card.json")],
            stdout=log,
            stderr=log,
            env=os.environ | {"STATE_DIRECTORY": str(state), "OMP_NUM_THREADS": "1"},
        )


def age(certificate: Path) -> None:
    """Make a certificate's file one that was got long ago, and whose device should ask for the next."""
    text = certificate.read_text()
    certificate.write_text(text.replace(text.splitlines()[0], f"{pkcs10.RENEW}1700000000"))
    os.utime(certificate, (1.7e9, 1.7e9))


def test_a_card_s_service_trains_and_renews_its_certificate(tmp_path: Path) -> None:
    """It enrols and trains with a certificate; in time it gets the next, with another key; for a new name, too."""
    state, processes = tmp_path / "state", Processes(tmp_path)
    with deployed(tmp_path, "mosquitto") as made:
        flashed(made, state, certified=True)
        serve = ["--broker", made.url("coordinator"), "--ca", str(made.folder / "ca.crt"), "--deploy", str(made.folder)]
        try:
            processes.serve(CONFIG, *serve, password=made.password("coordinator"))
            service(made, processes, state)
            assert processes.wait("coordinator", 90) == 0, processes.log("card")
            assert "connection lost" not in processes.log("card")
            processes.running["card"].terminate()
            processes.wait("card", 20)

            age(state / NAME)
            aged = (state / NAME).read_bytes()
            service(made, processes, state)
            wait_until(lambda: "has its next certificate" in made.log, 30, "the next certificate")
            wait_until(lambda: (state / NAME).read_bytes() != aged, 10, "it is kept")
            connect(made, state / NAME).close()
            assert len(claims.load(made.folder).cards["pi-1"].certificates) == 2
            processes.running["card"].terminate()
            processes.wait("card", 20)

            enroller.rename(made.folder, made.settings, "pi-1", "hall")
            assert "was taken back" in why_not(made, state / NAME)
            service(made, processes, state, "hall")
            wait_until(lambda: "'hall' has its next certificate" in made.log, 30, "one for its new name")
            wait_until(lambda: not (state / NAME).exists(), 10, "it is kept in the other's place")
            connect(made, state / certificate_name("hall")).close()
        finally:
            processes.stop()


def test_without_a_next_certificate_a_device_goes_on_with_this_one(tmp_path: Path) -> None:
    """Nobody answers, or not yet; and one that is not to be had is not asked for in a loop."""
    state, processes = tmp_path / "state", Processes(tmp_path)
    with deployed(tmp_path, "mosquitto") as made:
        flashed(made, state, certified=True)
        boot(made, state, certified=True)
        age(state / NAME)
        (state / PASSWORD).write_text("another\n")
        try:
            service(made, processes, state)
            wait_until(lambda: "going on with this one" in processes.log("card"), 30, "it is told")
            wait_until(lambda: "u'pi-1'" in made.log, 30, "it has connected with its certificate")
            assert processes.log("card").count("going on with this one") == 1
        finally:
            processes.stop()


def test_a_revoked_device_is_out_at_once_and_comes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its connection ends, whatever it calls itself, and it gets no next certificate; until it is restored."""
    state, fleet = tmp_path / "state", ["--state", str(tmp_path), "--deploy", str(tmp_path / "deploy")]
    with deployed(tmp_path, "mosquitto") as made:
        flashed(made, state, certified=True)
        boot(made, state, certified=True)
        password = (state / PASSWORD).read_text().strip()
        with connect(made, state / NAME, "any id") as device:
            assert cli.main(["fleet", "revoke", "pi-1", *fleet]) == 0
            assert "its certificate opens the broker no more" in capsys.readouterr().out
            assert device.spin(lambda: not device.connected, 5), "thrown out"
        assert "was taken back" in why_not(made, state / NAME)
        with pytest.raises(JoinRefused, match="'pi-1' is revoked"):
            boot(made, state, claim.RENEWAL, password, certified=True)
        assert cli.main(["fleet", "list", *fleet]) == 0
        assert "revoked" in capsys.readouterr().out

        assert cli.main(["fleet", "restore", "pi-1", *fleet]) == 0
        assert "its certificate is good again" in capsys.readouterr().out
        boot(made, state, claim.RENEWAL, password, certified=True)
        at_work = MqttTransport(shown(made, state / NAME), client_id="pi-1")
        at_work.connect(10.0)
        try:
            assert isinstance(at_work.receive(5.0), Connected)
            assert cli.main(["fleet", "revoke", "pi-1", *fleet]) == 0
            ends = [at_work.receive(10.0) for _ in range(2)]
        finally:
            at_work.close()
        assert any(isinstance(one, Disconnected) and one.refused and "taken back" in one.reason for one in ends), ends


def test_another_card_and_a_removed_account_end_certificates(tmp_path: Path) -> None:
    """Of the board that had the earlier one, which is connected; of a copy of a card; of a device that is removed."""
    state, new, copy = (tmp_path / name for name in ("state", "new", "copy"))
    with deployed(tmp_path, "mosquitto") as made:
        flashed(made, state, certified=True)
        shutil.copytree(state, copy)
        boot(made, state, certified=True)
        with pytest.raises(JoinRefused, match="used before"):
            boot(made, copy, certified=True)
        assert not (copy / NAME).exists()
        with connect(made, state / NAME) as device:
            flashed(made, new, certified=True)
            assert device.spin(lambda: not device.connected, 5), "thrown out"
        assert "was taken back" in why_not(made, state / NAME)
        boot(made, new, certified=True)
        with connect(made, new / NAME) as device:
            assert cli.main(["broker", "remove-device", "pi-1", "--deploy", str(made.folder)]) == 0
            assert device.spin(lambda: not device.connected, 5), "thrown out"
        assert "was taken back" in why_not(made, new / NAME)
        assert "renew.pi-1" not in accounts.load(made.folder)


def test_a_client_without_certificates_is_told_so(tmp_path: Path) -> None:
    """Its card waits on for a newer one."""
    state = tmp_path / "state"
    with deployed(tmp_path, "mosquitto") as made:
        flashed(made, state, certified=True)
        with pytest.raises(JoinRefused, match="knows no certificates"):
            boot(made, state)
        assert claims.load(made.folder).cards["pi-1"].key is None
        boot(made, state, certified=True)


def test_a_deployment_with_passwords_gives_passwords(tmp_path: Path) -> None:
    """As ever, and to clients that ask for certificates, too."""
    state = tmp_path / "state"
    with deployed(tmp_path, "mosquitto", "--no-client-certificates") as made:
        flashed(made, state)
        boot(made, state, certified=True)
        made.probe("pi-1", (state / PASSWORD).read_text().strip()).close()
        assert not (state / NAME).exists()


@pytest.mark.slow
@pytest.mark.skipif(not brokers.RABBITMQ.exists(), reason="apt-get install rabbitmq-server")
def test_rabbitmq_takes_certificates_beside_passwords(tmp_path: Path) -> None:
    """By the settings of docs/brokers.md: on one port, with the rights of whom one names; not one that ended."""
    tmp_path.chmod(0o755)
    passwords = {"coordinator": "hub", "pi-1": "one", "pi-2": "other"}
    with brokers.rabbitmq(tmp_path, passwords) as (port, _):
        there = parse_url(f"mqtts://localhost:{port}", ca=tmp_path / "ca.crt")
        made = Deployed(tmp_path)

        def shows(certificate: Path) -> Probe:
            broker = replace(there, certificate=certificate)
            return Probe(broker, tls=tls_context(broker))

        with Probe(replace(there, user="coordinator", password="hub")) as hub:
            assert hub.connect() == ""
            hub.subscribe("hns/t/up/#")
            good = of_another(made, "pi-1", tmp_path)
            for topic in ("hns/t/up/pi-2/mask", "hns/t/up/pi-1/mask"):
                with shows(good) as device:  # it ends the connection of who goes too far
                    assert device.connect() == ""
                    device.publish(topic, b"by certificate")
                    device.spin(lambda: False, 0.3)
            assert hub.wait("hns/t/up/pi-1/mask", b"by certificate")
            assert [one.topic for one in hub.heard] == ["hns/t/up/pi-1/mask"]
        with shows(of_another(made, "nobody", tmp_path)) as stranger:
            assert stranger.connect() == "Bad user name or password"
        ended = replace(there, certificate=of_another(made, "pi-1", tmp_path, days=-0.1))
        with pytest.raises(BrokerRefused, match="has ended"):
            MqttTransport(ended, client_id="pi-1").connect(5.0)
