"""The client of a booted card brought up to date inside its service's sandbox, and its broker found after it moved.

The service has a user of its own, sees the file system read-only and has no rights, as on a board; a new client comes
over MQTT, has to pass its trial there, and what does not is taken back.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.brokers.announce import announced
from coordinator.models import build_plan
from export.image import service
from tests.boot import bases, limit
from tests.boot.conftest import NEXT
from tests.boot.first import KEY, first_boot, needed, site, timed
from tests.boot.machine import Machine, inserted
from tests.helpers import random_ticket
from tests.integration.fleet import Processes, wait_until
from tests.integration.updating import closed, offer, software, update
from tests.wheels import altered
from wire import __version__

pytestmark = needed
PEAK_MB, WATCHDOG_S = 80, 25
CONFIG = f"""\
federation: {{name: t, rounds: 9000, per_round: 1, quorum: 1, start_devices: 1, deadline_s: 30, evaluate: false,
  training: {{epochs: 2}}}}
flash: {{user: ada, ssh_key: "{KEY}", data: data/pi-1}}
devices: {{pi-1: {{budget: {{peak_mb: {PEAK_MB}}}}}}}
"""
# Clients that start and are of no use: version, module, what is changed in it, and what the journal says.
USELESS = (
    (
        "0.3.0",
        "edge_client/runtimes/sparse.py",
        "    def step(self, x: Floats, y: Labels, weights: Floats) -> StepResult:",
        "    def step(self, x: Floats, y: Labels, weights: Floats) -> StepResult:\n"
        "        return StepResult(loss=float('nan'), correct=0)",
        "the loss of its first training step is nan",
    ),
    (
        "0.4.0",
        "edge_client/workshop.py",
        "        self._sampler =",
        "        self._ballast = b'x' * 50_000_000\n        self._sampler =",
        r"it took \d+\.\d MB to train, and the device's budget is 80 MB",
    ),
    (
        "0.5.0",
        "edge_client/store.py",
        "        return starts",
        "        (Path('/opt/hidenseek') / 'mine').write_text('here')\n        return starts",
        "it was started 3 times and has not joined and trained",
    ),
)


@pytest.mark.parametrize("name", bases.BASES)
def test_a_card_is_brought_up_to_date_in_its_sandbox(
    name: str,
    wheels: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A client is fetched, tried and kept by a service without rights; bad ones go; a hung one is started again."""
    monkeypatch.chdir(tmp_path)
    ours = wheels[__version__].parent
    with capsys.disabled(), site(name, tmp_path, CONFIG, ours, devices="{pi-1: {}}") as there:
        made, processes, times = there.made, there.processes, there.times
        there.flash("pi-1")
        there.serve()
        with inserted(tmp_path / "pi-1.img", tmp_path / "pi-1") as machine:
            first_boot(machine, there)
            wait_until(lambda: software(processes) == __version__, 60, "the device to join")
            wait_until(lambda: closed(processes) >= 2, 60, "two rounds")
            pid, most = machine.service("MainPID"), int(machine.service("MemoryMax"))
            with limit.held(machine.service_pid, most) as held:
                with timed(times, "update announced to joined, trained and kept"):
                    assert update(made, tmp_path, monkeypatch, wheels[NEXT].parent, "--stages", "50,100") == 0
                assert software(processes) == NEXT
                in_the_sandbox(machine, pid)
                assert not held.was_short
                if held.largest_mb is not None:
                    times[f"memory charged to the service's limit meanwhile, of {most / 1e6:.0f} MB"] = round(
                        held.largest_mb, 1
                    )
            for version, module, before, after, why in USELESS:
                folder = altered(wheels[NEXT], tmp_path / version, version, module, before, after)
                with timed(times, f"bad update {version} announced to taken back"):
                    assert update(made, tmp_path, monkeypatch, folder, "--stages", "100", "--wait", "3") == 31
                assert software(processes) == f"{NEXT} ({version} failed)"
                assert re.search(f"client {version} is taken back: {why}", machine.journal())
                goes_on(processes)
            assert not machine.inside("ls", f"{service.HOME}/mine").startswith(f"{service.HOME}/mine\n")
            next_ticket = random_ticket(build_plan("har-resnet"), 0.1, seed=4)
            (tmp_path / "next.hns").write_bytes(next_ticket.encoded)
            with timed(times, "ticket of a run to come announced to tried"):
                assert offer(made, tmp_path, monkeypatch, "--bundle", "next.hns", "--stages", "100") == 0
            goes_on(processes)
            machine.cut_power()
            moved(machine)
            be_impatient(machine)
            with announced("t", made.settings.broker_nodes(), ["127.0.0.1"]):
                with timed(times, "power on to found again"):
                    machine.boot()
                    goes_on(processes)
                assert "trying that, its certificate decides" in machine.journal()
                said = software(processes)
                assert re.fullmatch(rf"{NEXT} \(0\.5\.0 failed; bundle [0-9a-f]{{12}} ready\)", said), "as before"
                with timed(times, f"hung to trained again, watchdog of {WATCHDOG_S} s"):
                    os.kill(machine.service_pid, signal.SIGSTOP)
                    wait_until(lambda: machine.service("NRestarts") != "0", 60, "the watchdog")
                    goes_on(processes)
            assert "Watchdog timeout" in machine.inside("journalctl", "-u", "hidenseek", "--no-pager")


def in_the_sandbox(machine: Machine, pid: str) -> None:
    """The new client runs in the place of the one that systemd has started, with as few rights."""
    assert (machine.service("MainPID"), machine.service("NRestarts")) == (pid, "0")
    assert machine.inside("readlink", f"{service.STATE}/client/current").strip() == "a"
    assert "/hidenseek/client/a/edge_client/kernels/" in machine.inside("cat", f"/proc/{pid}/maps"), "its kernels"
    status = machine.inside("cat", f"/proc/{pid}/status")
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)
    assert not re.search(r"^Uid:\s+0\b", status, re.MULTILINE)
    owner = machine.inside("stat", "-c", "%U %a", f"{service.STATE}/client").split()
    assert owner[0] != "root"


def goes_on(processes: Processes) -> None:
    """The device trains."""
    done = closed(processes)
    wait_until(lambda: closed(processes) >= done + 2, 90, "it to go on training")


def moved(machine: Machine) -> None:
    """The card, which is not powered, names a port where nobody listens: the broker has moved since it was written."""
    path = machine.folder / "root" / service.CARD.lstrip("/")
    card = json.loads(path.read_text())
    with closing(socket.socket()) as nobody:
        nobody.bind(("127.0.0.1", 0))
        there = f"mqtts://localhost:{nobody.getsockname()[1]}"
        path.write_text(json.dumps(card | {"broker": there, "certificates": there}))


def be_impatient(machine: Machine) -> None:
    """A setting of the unit changed as docs/flash.md has it, so that the test need not wait five minutes."""
    folder = machine.folder / "root" / f"{service.UNIT.lstrip('/')}.d"
    folder.mkdir()
    (folder / "override.conf").write_text(f"[Service]\nWatchdogSec={WATCHDOG_S}\n")
