"""From a stock image to signs that a card's own systemd has trained; through a power cut; and a copy of the card.

Images are made of real Debian packages, and booted by their own systemd in a container (amd64, on this machine's
kernel): everything but kernel, firmware and Wi-Fi is what runs on a board.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from edge_client.store import certificate_name
from export.image import service, system
from export.image.ext4 import Ext4
from tests.boot import bases
from tests.boot.first import KEY, Site, first_boot, needed, site, timed
from tests.boot.machine import Machine, inserted
from tests.boot.resident import resident
from tests.integration.fleet import wait_until
from tests.integration.updating import closed
from wire import __version__, claim

pytestmark = needed
ROUNDS = 12
WAITS_MB, TRAINS_MB = 30.0, 45.0  # of a device's client, and of the process that trains, 1e6 bytes
CONFIG = f"""\
federation: {{name: t, rounds: {ROUNDS}, per_round: 1, quorum: 1, start_devices: 1, deadline_s: 30,
  training: {{epochs: 40}}}}
flash: {{user: ada, ssh_key: "{KEY}", timezone: Europe/Berlin, data: data/pi-1}}
devices: {{pi-1: {{}}, pi-2: {{}}}}
"""


@pytest.mark.parametrize("name", bases.BASES)
def test_a_card_boots_enrols_trains_and_survives_a_power_cut(
    name: str,
    wheels: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two cards of one image; the first boots and trains to the end of a run, its copy is refused."""
    monkeypatch.chdir(tmp_path)
    with capsys.disabled(), site(name, tmp_path, CONFIG, wheels[__version__].parent) as there:
        made, processes, times = there.made, there.processes, there.times
        with timed(times, "first card: unpack, wheels, client, settings"):
            there.flash("pi-2")
        with timed(times, "second card: settings alone"):
            there.flash("pi-1")
        shutil.copy(tmp_path / "pi-1.img", tmp_path / "copy.img")
        assert system.inspect(tmp_path / "pi-1.img").mechanism == there.base.mechanism
        there.serve()
        with inserted(tmp_path / "pi-1.img", tmp_path / "pi-1") as machine:
            first_boot(machine, there)
            as_told(machine)
            with timed(times, "power cut in the middle of a run, to its end"):
                wait_until(lambda: closed(processes) >= 2, 60, "two rounds")
                machine.cut_power()
                machine.boot()
                assert processes.wait("coordinator", 180) == 0
            assert "(p2, c0, k60, u'pi-1')" in made.log, "it has joined with its certificate's name"
            memory(machine, times)
        assert f"round {ROUNDS}/{ROUNDS}" in processes.log("coordinator")
        with inserted(tmp_path / "copy.img", tmp_path / "copy") as machine:
            refused(machine, there)
        offline(tmp_path / "pi-2.img")


def as_told(machine: Machine) -> None:
    """Name, user, keys and zone as in devices.yaml; the service has no rights, and the token is gone."""
    wait_until(lambda: "ada" in machine.inside("id", "ada"), 60, "the user to be there")
    wait_until(lambda: KEY in machine.inside("cat", "/home/ada/.ssh/authorized_keys"), 30, "the key to be there")
    assert machine.inside("cat", "/etc/hostname").strip() == "pi-1"
    assert machine.inside("readlink", "/etc/localtime").strip().endswith("zoneinfo/Europe/Berlin")
    assert re.fullmatch(r"[0-9a-f]{32}", machine.inside("cat", "/etc/machine-id").strip())
    assert "ssh_host_ed25519_key.pub" in machine.inside("ls", "/etc/ssh")
    state = machine.inside("ls", "-A", "/var/lib/private/hidenseek").split()
    assert claim.TOKEN_FILE not in state
    assert {"device.key", "broker.password", certificate_name("pi-1")} <= set(state)
    pid = machine.service("MainPID")
    status = machine.inside("cat", f"/proc/{pid}/status")
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    assert not re.search(r"^Uid:\s+0\b", status, re.MULTILINE)
    assert "hidenseek" not in machine.inside("systemctl", "--failed", "--plain", "--no-legend")


def memory(machine: Machine, times: dict[str, float]) -> None:
    """What the service took at most, of what it may; and what it waits with."""
    found = resident(machine.inside)
    assert found.trainer, "it has just trained"
    times["largest resident memory of the process that trains, MB"] = found.trainer
    times["with its client, MB"] = found.both
    assert found.trainer <= TRAINS_MB
    wait_until(lambda: not resident(machine.inside).trainer, 60, "its memory to be given back")
    waiting = resident(machine.inside).client
    times["resident memory, waiting again, MB"] = waiting
    assert waiting <= WAITS_MB


def refused(machine: Machine, there: Site) -> None:
    """A copy of the card: its service ends with 17, is not started again, and everybody is told."""
    if there.base.mechanism == "systemd":
        machine.run_firstrun()
    machine.boot()
    wait_until(lambda: machine.service("ActiveState") == "failed", 90, "the copy to be refused")
    assert machine.service("ExecMainStatus") == "17"
    assert machine.service("NRestarts") == "0"
    assert "used before" in machine.inside("journalctl", "-u", "hidenseek", "--no-pager")
    assert "the card of 'pi-1' was used before" in there.made.log


def offline(card: Path) -> None:
    """A card that was not booted: no secret but its token, and a file system in order."""
    root = Ext4(card, system.inspect(card).root.start_bytes)
    root.fsck()
    assert root.names(service.STATE) == {claim.TOKEN_FILE}
    assert root.mode(f"{service.STATE}/{claim.TOKEN_FILE}") == 0o600
    assert (root.read("/etc/machine-id") or b"").strip() in (b"", b"uninitialized")
    assert not [one for one in root.names("/etc/ssh") if one.startswith("ssh_host_")]
