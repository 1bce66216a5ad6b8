"""docs/operations.md, played through: every command on that page, with a real mosquitto and real devices."""

from __future__ import annotations

import io
import os
import re
import shlex
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from unittest.mock import patch

import pytest

from coordinator import cli
from coordinator.brokers import accounts
from tests.chaos.disk import small_disk
from tests.integration.deployed import free_ports
from tests.integration.fleet import rows, wait_until, write_person

pytestmark = [
    pytest.mark.broker,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # sockets that paho leaves open
]
PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
DEVICES = ("pi-07", "pi-08", "pi-09")
CONFIG = """
federation: {name: site, model: har-cnn, density: 0.05, rounds: 10000, per_round: 2, quorum: 1, deadline_s: 5,
  start_devices: 2, runtimes: [sparse], training: {epochs: 1}}
devices: {pi-07: {}, pi-08: {}, pi-09: {}}
"""
STAY = re.compile(r"hidenseek (serve(?! --check)|broker up)")  # until they are stopped


def blocks() -> dict[tuple[str, int], str]:
    """Commands of the page, by heading and number below it."""
    found = {}
    for part in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE):
        heading = part.splitlines()[0]
        for number, text in enumerate(re.findall(r"^ *```sh\n(.*?)^ *```$", part, re.MULTILINE | re.DOTALL)):
            found[heading, number] = dedent(text)
    return found


@dataclass
class Operator:
    """A person who reads the page and types what it says, on one machine after the other.

    Args:
        home: for folders of machines and devices.
        here: the folder of the machine in use.
        port: of the broker, which moves with its name.
    """

    home: Path
    here: Path
    port: int
    left: dict[tuple[str, int], str] = field(default_factory=blocks)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict)

    def reads(self, heading: str, number: int = 0) -> str:
        """Do what a block says; what its commands have said."""
        text = self.known(heading, number)
        self.left.pop((heading, number), None)
        said = ""
        for line in text.splitlines():
            if STAY.search(line):
                self.starts("broker" if "broker up" in line else "serve", line)
            else:
                said += self.types(line)
        return said

    def known(self, heading: str, number: int) -> str:
        """A block, with this machine's names in the place of the page's."""
        text = blocks()[heading, number].replace("hub.example.org", f"localhost:{self.port}")
        return text.replace("HIDENSEEK_PASSWORD=...", f"HIDENSEEK_PASSWORD={self.password('coordinator')}")

    def password(self, user: str) -> str:
        """Of an account; on a machine that has no deployment yet, as it was on the one before."""
        self.passwords |= accounts.load(self.here / "deploy")
        return self.passwords[user]

    def types(self, line: str) -> str:
        """Run a command to its end; what it says."""
        words = shlex.split(line, comments=True)
        if words[0] == "hidenseek":  # here, which is what takes no second to start
            with chdir(self.here), patch.dict(os.environ, self.environment), redirect_stdout(io.StringIO()) as said:
                assert cli.main(words[1:]) == 0, f"{line}\n{said.getvalue()}"
            return said.getvalue()
        done = subprocess.run(
            ["bash", "-c", line], cwd=self.here, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    def starts(self, name: str, line: str) -> None:
        """Run a command that stays."""
        with (self.home / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                ["bash", "-c", f"exec env {line}"], cwd=self.here, env=self.environment, stdout=log, stderr=log
            )

    def joins(self, device: str) -> None:
        """Start a device, or start it again."""
        data = self.home / "data" / device
        if not data.exists():
            write_person(data, seed=sum(device.encode()))
        url = f"mqtts://{device}@localhost:{self.port}"
        self.starts(
            device,
            f"HIDENSEEK_PASSWORD={self.password(device)} OMP_NUM_THREADS=1 hidenseek-edge join "
            f"--federation site --broker {url} --ca {self.home / 'ca.crt'} --device {device} --data {data} "
            f"--state {self.home / 'state' / device}",
        )

    def stops(self, name: str, how: signal.Signals = signal.SIGINT) -> int:
        """End what runs; its exit code."""
        self.running[name].send_signal(how)
        return self.running.pop(name).wait(60)

    @property
    def environment(self) -> dict[str, str]:
        """Of a machine that has its own key, and no registry of packages."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        machine = {"HIDENSEEK_KEY": str(self.here / "key"), "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        return os.environ | machine | {"PATH": path, "COLUMNS": "200"}

    @property
    def round(self) -> int:
        """The newest of the run that goes on."""
        found = rows(self.database, "SELECT coalesce(max(number), 0) FROM round")
        return int(str(found[0][0])) if found else 0

    @property
    def run(self) -> object:
        """Identity of the run that goes on."""
        return rows(self.database, "SELECT id FROM run")

    @property
    def database(self) -> Path:
        """The coordinator's."""
        return self.here / "hidenseek-site" / "coordinator.db"

    def goes_on(self, *devices: str) -> None:
        """Two more rounds, and a mask of each of these devices in one that is new."""
        before = self.round

        def done() -> bool:
            for name, process in self.running.items():
                assert process.poll() is None, f"{name}:\n{(self.home / f'{name}.log').read_text()[-2000:]}"
            masks = rows(self.database, f"SELECT DISTINCT device FROM mask WHERE number > {before}")
            return self.round > before + 1 and {name for (name,) in masks} >= set(devices)

        wait_until(done, 180, f"rounds go on after {before}, with {devices}")


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    """With a broker, a coordinator and three devices at work."""
    ports = free_ports(3)
    operator = Operator(home=tmp_path, here=tmp_path / "first", port=ports[0])
    operator.here.mkdir()
    (operator.here / "devices.yaml").write_text(CONFIG)
    where = f"--kind mosquitto --hosts localhost --port {ports[0]} --ws-port {ports[1]} --certificate-port {ports[2]}"
    operator.types(f"hidenseek broker init {where} -o deploy")
    (tmp_path / "ca.crt").write_bytes((operator.here / "deploy/ca.crt").read_bytes())
    try:
        operator.starts("broker", "hidenseek broker up --deploy deploy")
        operator.reads("# Operations")
        for device in DEVICES:
            operator.joins(device)
        yield operator
    finally:
        for process in operator.running.values():
            process.terminate()
        for process in operator.running.values():
            process.wait(30)


def test_the_runbook(operator: Operator) -> None:
    """From one machine to the next, until nothing on the page is left unread."""
    operator.goes_on(*DEVICES)
    assert set(re.findall(r"pi-0\d", operator.reads("Rounds do not close"))) == set(DEVICES)
    assert (operator.here / "hidenseek-site/report.html").exists()
    upgrade(operator)
    with small_disk(96 << 10) as disk:
        restore(operator, operator.home / "second")
        move(operator, disk.path)
        certificates(operator)
        misbehaves(operator)
        disk_is_full(operator, disk.fill, disk.empty)
        operator.stops("serve")
        assert "0 dropped" in operator.reads("The database grows"), "the run is not finished"
        operator.reads("Collect logs")
        operator.goes_on()
        assert '"event": "closed"' in (operator.here / "site.jsonl").read_text()
        assert not operator.left, "every command of the page was run"
        for name in list(operator.running):
            operator.stops(name)


def upgrade(operator: Operator) -> None:
    """The same run goes on with the new program, and so does a device that is started again."""
    before = operator.run
    operator.reads("Upgrade", 0)
    operator.stops("serve")
    assert "nothing has changed" in operator.reads("Upgrade", 1)
    operator.goes_on()
    assert operator.run == before
    operator.stops("pi-08")
    operator.reads("Upgrade", 2)
    operator.joins("pi-08")
    operator.goes_on("pi-08")


def restore(operator: Operator, machine: Path) -> None:
    """The machine is lost after the backup: another one takes its place, and devices follow by themselves."""
    operator.reads("Back up")
    archive = operator.here / "backup.tar"
    assert archive.stat().st_mode & 0o77 == 0
    before, key = operator.run, (operator.here / "key").read_text()
    operator.goes_on()
    for name in ("serve", "broker"):
        operator.stops(name, signal.SIGKILL if name == "serve" else signal.SIGTERM)
    machine.mkdir()
    archive.rename(machine / "backup.tar")
    operator.here.rename(operator.home / "lost")
    take_over(operator, machine)
    operator.goes_on(*DEVICES)
    assert operator.run != before, "devices know more of the old run than is known here"
    assert (machine / "key").read_text() == key


def move(operator: Operator, machine: Path) -> None:
    """To a machine that has nothing yet."""
    operator.stops("serve")
    operator.stops("broker")
    before = operator.round
    operator.reads("Move the coordinator")
    (machine / "backup.tar").write_bytes((operator.here / "move.tar").read_bytes())
    take_over(operator, machine)
    operator.goes_on(*DEVICES)
    assert operator.round > before


def take_over(operator: Operator, machine: Path) -> None:
    """Restore on a machine, and have the broker there, too."""
    operator.here = machine
    assert "restored: hidenseek-site/coordinator.db" in operator.reads("Restore")
    operator.reads("The broker's machine dies")


def certificates(operator: Operator) -> None:
    """Another one is shown at once; then one of another authority, when devices trust both."""
    heading = "The broker's certificates come to their end"
    seen = {shown(operator)}
    operator.reads(heading, 0)
    assert shown(operator) not in seen
    seen.add(shown(operator))
    operator.reads(heading, 1)
    assert shown(operator) in seen, "nothing changes before devices have both authorities"
    (operator.home / "ca.crt").write_bytes((operator.here / "deploy/ca.crt").read_bytes())
    operator.reads(heading, 2)
    assert shown(operator) not in seen
    for name in ("serve", *DEVICES):  # a program reads the file when it starts
        operator.stops(name)
    operator.reads("# Operations")
    for device in DEVICES:
        operator.joins(device)
    operator.goes_on(*DEVICES)


def shown(operator: Operator) -> str:
    """The certificate that the broker shows."""
    time.sleep(0.5)
    return ssl.get_server_certificate(("localhost", operator.port))


def misbehaves(operator: Operator) -> None:
    """A device is thrown out and the others go on; it comes back, with another key, with another password."""
    heading = "A device misbehaves"
    operator.reads(heading, 0)
    assert operator.running.pop("pi-07").wait(120) in (16, 17), "refused by broker or coordinator, whoever was first"
    operator.goes_on("pi-08", "pi-09")
    operator.reads(heading, 1)
    (operator.home / "state" / "pi-07").rename(operator.home / "card")
    operator.reads(heading, 2)
    operator.joins("pi-07")
    operator.goes_on("pi-07")
    operator.reads(heading, 3)
    wait_until(lambda: operator.running["pi-07"].poll() == 16, 120, "whoever has the old password is refused")
    operator.running.pop("pi-07")
    operator.joins("pi-07")
    operator.goes_on("pi-07")


def disk_is_full(operator: Operator, fill: Callable[[], bool], empty: Callable[[], None]) -> None:
    """The coordinator says so and ends; with room again the same command goes on with the same run."""
    before = operator.run
    wait_until(lambda: fill() and operator.running["serve"].poll() is not None, 60, "the coordinator ends")
    assert operator.running.pop("serve").returncode == 25
    assert "cannot be written" in (operator.home / "serve.log").read_text()
    assert "100%" in operator.reads("The disk is full")
    empty()
    operator.reads("# Operations")
    operator.goes_on(*DEVICES)
    assert operator.run == before
