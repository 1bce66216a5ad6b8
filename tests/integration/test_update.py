"""The client on a device in the field, brought up to date over a real broker: two real wheels, and bad ones."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
import threading
import time
import venv
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from coordinator import client_update
from tests.integration.deployed import Deployed, deployed
from tests.integration.fleet import Processes, wait_until, write_person
from tests.integration.updating import closed, software, update
from tests.wheels import altered, pip, two_versions
from wire import __version__, signing
from wire.channel import Channel
from wire.mqtt import MqttTransport
from wire.topics import Topics

pytestmark = [pytest.mark.broker, pytest.mark.slow]
CONFIG = """\
federation: {name: t, rounds: 9000, per_round: 1, quorum: 1, start_devices: 1, deadline_s: 30, evaluate: false,
  training: {epochs: 2}}
devices: {pi-1: {}}
"""
FOR_GOOD = (17, 18)
NEXT = "0.2.0"
PEAK_MB = 150
# Clients that start and join, and are of no use: version, module, what is changed in it, and why it is taken back.
USELESS = (
    (
        "0.5.0",
        "edge_client/runtimes/sparse.py",
        "    def step(self, x: Floats, y: Labels, weights: Floats) -> StepResult:",
        "    def step(self, x: Floats, y: Labels, weights: Floats) -> StepResult:\n"
        "        return StepResult(loss=float('nan'), correct=0)",
        "the loss of its first training step is nan",
    ),
    (
        "0.6.0",
        "edge_client/workshop.py",
        "        self._sampler =",
        "        self._ballast = b'x' * 200_000_000\n        self._sampler =",
        r"it took [23]\d\d\.\d MB to train, and the device's budget is 150 MB",
    ),
    (
        "0.7.0",
        "edge_client/client.py",
        "        self.supervisor.ready()",
        "        raise BrokerRefused('not here')",
        "not here",
    ),
)


@dataclass
class Service:
    """A program that is started again whenever it ends, as systemd does it; `starts` counts."""

    command: list[str]
    log: Path
    environment: dict[str, str]
    starts: int = 0
    process: subprocess.Popen[bytes] | None = None
    _over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with self.log.open("ab") as log:
            while not self._over.is_set():
                self.starts += 1
                self.process = subprocess.Popen(self.command, stdout=log, stderr=log, env=self.environment)
                if self.process.wait() in FOR_GOOD:
                    return
                time.sleep(0.2)

    def kill(self) -> None:
        """As a power cut does."""
        assert self.process is not None
        self.process.kill()

    def stop(self) -> None:
        """For good."""
        self._over.set()
        self.kill()
        self._thread.join(30)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel of the tree as it is, and one of the next version; both built as a user builds them."""
    return two_versions(tmp_path_factory.mktemp("wheels"), NEXT)


def device(folder: Path, wheel: Path) -> Path:
    """A virtual environment with the client from its wheel, and what it needs from ours; its `hidenseek-edge`."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip("--python", python, "install", "--no-deps", "--no-index", wheel)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "hidenseek-edge"


def forge(made: Deployed, wheel: Path) -> None:
    """Who has the coordinator's account at the broker, but not the federation's key, announces an update."""
    offer, key = client_update.find([wheel.parent], None), signing.new_key()
    said = client_update.announcement(offer, key=key, percent=100, downgrade=False)
    with closing(MqttTransport(made.broker("coordinator"), client_id="forger")) as transport:
        transport.connect(10)
        Channel(transport, key).send(Topics("t").update, said, retain=True)


def test_a_device_follows_an_update_and_takes_back_what_does_not_work(
    wheels: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forged: ignored. Real: fetched through a power cut, in use, training goes on. Broken: not used, or taken back."""
    processes = Processes(tmp_path)
    write_person(tmp_path / "data", seed=1)
    edge = device(tmp_path / "venv", wheels[__version__])
    log, client = tmp_path / "device.log", tmp_path / "state" / "client"
    with deployed(tmp_path, "mosquitto", devices="{pi-1: {}}") as made:
        broker = ["--broker", made.url("pi-1"), "--ca", str(made.folder / "ca.crt")]
        join = ["join", *broker, "--federation", "t", "--device", "pi-1", "--data", str(tmp_path / "data")]
        join += ["--peak-mb", str(PEAK_MB)]
        environment = {"PATH": os.environ["PATH"], "HIDENSEEK_PASSWORD": made.password("pi-1")}
        serve = ["--broker", made.url("coordinator"), "--ca", str(made.folder / "ca.crt")]
        processes.serve(CONFIG, *serve, password=made.password("coordinator"))
        service = Service([str(edge), *join, "--state", str(tmp_path / "state")], log, environment)
        try:
            wait_until(lambda: software(processes) == __version__, 60, "the device to join")
            forge(made, wheels[NEXT])
            wait_until(lambda: "ignored a message on hns/t/all/update" in log.read_text(), 20, "a forged update")
            assert not client.exists()
            assert update(made, tmp_path, monkeypatch, wheels[NEXT].parent, "--percent", "0") == 0

            assert update(made, tmp_path, monkeypatch, wheels[NEXT].parent) == 0
            wait_until(lambda: any(one.stat().st_size > 200_000 for one in client.glob("*.wheel")), 30, "some parts")
            service.kill()
            wait_until(lambda: software(processes) == "0.2.0", 90, "the new client to join")
            assert "part 4 of" in log.read_text() or "part 5 of" in log.read_text(), "it goes on where it was cut off"
            assert service.starts == 2, "it starts the new client by itself"
            assert (client / "current").readlink() == Path("a")
            done = closed(processes)
            wait_until(lambda: closed(processes) >= done + 2, 60, "it to go on training")

            unable = altered(
                wheels[NEXT], tmp_path / "unable", "0.3.0", "edge_client/client.py", "class Client", "class class"
            )
            assert update(made, tmp_path, monkeypatch, unable) == 0
            wait_until(
                lambda: "update to 0.3.0 given up: client 0.3.0 does not start" in log.read_text(), 60, "refusal"
            )
            assert (client / "current").readlink() == Path("a")
            wait_until(lambda: software(processes) == "0.2.0 (0.3.0 failed)", 20, "the coordinator to be told at once")

            crashing = altered(
                wheels[NEXT],
                tmp_path / "crashing",
                "0.4.0",
                "edge_client/join_command.py",
                "    broker = command.read_broker(arguments)",
                "    raise RuntimeError",
            )
            assert update(made, tmp_path, monkeypatch, crashing) == 0
            wait_until(lambda: software(processes) == "0.2.0 (0.4.0 failed)", 120, "the earlier client to be back")
            assert "was started 3 times and has not joined and trained" in log.read_text()
            done = closed(processes)
            wait_until(lambda: closed(processes) >= done + 2, 60, "it to go on training")

            for version, name, before, after, why in USELESS:
                folder = altered(wheels[NEXT], tmp_path / version, version, name, before, after)
                assert update(made, tmp_path, monkeypatch, folder, "--stages", "50,100", "--wait", "2") == 31
                assert software(processes) == f"0.2.0 ({version} failed)"
                assert re.search(f"client {version} is taken back: {why}", log.read_text())

            assert (
                update(made, tmp_path, monkeypatch, wheels[__version__].parent, "--downgrade", "--stop-after", "1") == 0
            )
            assert software(processes) == __version__, "the command stays until it has gone back"
        finally:
            service.stop()
            processes.stop()
