"""Deployments of both kinds, run as a user runs them: checked, changed while they run, and found out when wrong."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator import cli
from coordinator.brokers.probe import Probe, context
from tests.integration.conftest import started_mosquitto
from tests.integration.deployed import Deployed, deployed
from tests.integration.fleet import wait_until
from wire.errors import BrokerUnreachable

pytestmark = [
    pytest.mark.broker,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # sockets that paho leaves open
]


@pytest.fixture(scope="module", params=["mosquitto", "nats"])
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """One that runs."""
    with deployed(tmp_path_factory.mktemp("broker"), request.param, "--home-assistant", "--workers", "1") as made:
        yield made


def rows_of(path: Path) -> dict[str, str]:
    """Verdicts by what was tried."""
    return {row["what"]: row["verdict"] for row in json.loads(path.read_text())["rows"]}


def test_a_deployment_does_all_that_it_should(broker: Deployed, tmp_path: Path) -> None:
    """Every row of its check is as it should be, the killed broker's too, and nothing was left out."""
    out = tmp_path / "rows.json"
    command = ["broker", "check", "--deploy", str(broker.folder), "--restart", "--queue", "300", "--json", str(out)]
    assert cli.main(command) == 0
    found = json.loads(out.read_text())
    assert found["failed"] == 0
    assert {row["verdict"] for row in found["rows"]} == {"ok", "note"}
    assert len(found["rows"]) > 40
    assert sum(row["side"] == "workers" for row in found["rows"]) == 8
    certificates = 8 if broker.settings.client_certificates else 0
    assert sum(row["side"] == "certificates" for row in found["rows"]) == certificates


def test_accounts_change_without_a_restart(broker: Deployed, capsys: pytest.CaptureFixture[str]) -> None:
    """A new device gets in; one that is removed is thrown out, as is one with another password; nobody else notices."""
    deploy = ["--deploy", str(broker.folder)]
    with broker.probe("pi-1") as bystander, broker.probe("pi-2") as leaving:
        assert cli.main(["broker", "add-device", "pi-9", *deploy]) == 0
        (password,) = re.findall(r"^pi-9: (\S+)$", capsys.readouterr().out, re.MULTILINE)
        with broker.probe("pi-9", password) as new:
            assert bystander.connected
            assert cli.main(["broker", "remove-device", "pi-2", *deploy]) == 0
            leaving.spin(lambda: not leaving.connected, 5.0)
            assert not leaving.connected
            assert cli.main(["broker", "rotate", "pi-9", *deploy]) == 0
            new.spin(lambda: not new.connected, 5.0)
            assert not new.connected
        with Probe(broker.broker("pi-9", password)) as old:
            assert old.connect() == "Not authorized"
        broker.probe("pi-9").close()
        bystander.spin(lambda: False, 0.2)
        assert bystander.connected
    assert cli.main(["broker", "add-device", "pi-2", *deploy]) == 0


def test_certificates_change(broker: Deployed) -> None:
    """By the same authority, without a restart: devices notice nothing."""
    port = broker.settings.port

    def shown() -> str:
        return ssl.get_server_certificate(("localhost", port))

    before = shown()
    assert cli.main(["broker", "rotate", "--certificates", "--deploy", str(broker.folder)]) == 0
    wait_until(lambda: shown() != before, 5, "the new one")
    broker.probe("pi-1").close()


def test_another_authority_beside_the_old(broker: Deployed) -> None:
    """Devices with the new ca.crt trust the server before and after it changes; those with the old one only before."""
    deploy = ["--deploy", str(broker.folder)]
    old = context(broker.folder / "ca.crt")
    assert cli.main(["broker", "rotate", "--authority", *deploy]) == 0
    broker.probe("pi-1").close()
    assert cli.main(["broker", "rotate", "--certificates", *deploy]) == 0
    broker.probe("pi-1").close()
    with pytest.raises(ssl.SSLCertVerificationError):
        Probe(broker.broker("pi-1"), tls=old).connect()


def test_only_one_runs_it(broker: Deployed, capsys: pytest.CaptureFixture[str]) -> None:
    """A second `broker up` says so and leaves the first alone."""
    assert cli.main(["broker", "up", "--deploy", str(broker.folder)]) == 25
    assert "another hidenseek broker up runs broker here" in capsys.readouterr().err


def test_an_open_broker_is_found_out(tmp_path: Path) -> None:
    """Without encryption, rights and limits: the check fails, and says what of it."""
    with started_mosquitto(tmp_path, "allow_anonymous true\n") as port:
        accounts = tmp_path / "accounts.json"
        accounts.write_text('{"coordinator": "x", "pi-01": "y", "pi-02": "z"}')
        out = tmp_path / "rows.json"
        command = ["broker", "check", f"mqtt://127.0.0.1:{port}", "--accounts", str(accounts), "--queue", "50"]
        assert cli.main([*command, "--json", str(out)]) == 16
    verdicts = rows_of(out)
    wrong = {what for what, verdict in verdicts.items() if verdict == "FAIL"}
    assert {"encryption", "anonymous", "wrong password", "unknown user"} <= wrong
    assert {what for what in verdicts if what.startswith("device writes ") and "own" not in what} <= wrong
    assert {
        "device reads what is for another device",
        "device reads another device's masks",
        "device reads anything, by #",
    } <= wrong
    assert verdicts["device reads own topics"] == verdicts["last will of a device that vanishes"] == "ok"
    assert verdicts["payload of 8 MB"] == "note"


def test_no_broker_is_an_error_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """Not a table of failures."""
    assert cli.main(["broker", "check", "mqtt://127.0.0.1:9"]) == BrokerUnreachable.exit_code
    assert "nobody answers" in capsys.readouterr().err
