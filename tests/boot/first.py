"""What every test of a booted card begins with, and how long it took."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks import machine as this_machine
from coordinator import cli
from tests.boot import bases
from tests.boot.machine import Machine
from tests.integration.deployed import Deployed, deployed
from tests.integration.fleet import Processes, wait_until, write_person
from tests.wheels import ROOT

NEEDED = ("mmdebstrap", "systemd-nspawn", "mosquitto", "mcopy")
LACKING = [one for one in NEEDED if shutil.which(one, path=f"{os.environ['PATH']}:/usr/sbin") is None]
needed = [
    pytest.mark.image,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount and to boot"),
    pytest.mark.skipif(bool(LACKING), reason=f"apt-get install {' '.join(LACKING)}"),
]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHl0aGlzIGlzIG5vdCBhIHJlYWwga2V5IQ ada@there"


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where a card's device is to join.

    Attributes:
        name: of the base that cards are made of.
        home: the working folder, with `devices.yaml`, recordings and `stock.img`.
        made: the broker.
        processes: the coordinator, which serves once `serve` was called.
        wheels: folder of ours.
        times: what has taken how long.
    """

    name: str
    home: Path
    made: Deployed
    processes: Processes
    wheels: Path
    times: dict[str, float]

    @property
    def base(self) -> bases.Base:
        """What `stock.img` imitates."""
        return bases.BASES[self.name]

    def flash(self, device: str) -> None:
        """Make a device's card."""
        where = ["--image", "stock.img", "--wheels", str(self.wheels), "--deploy", str(self.made.folder)]
        assert cli.main(["flash", *where, device, "--to", f"{device}.img"]) == 0

    def serve(self) -> None:
        """Start the coordinator."""
        url = ["--broker", self.made.url("coordinator"), "--ca", str(self.made.folder / "ca.crt")]
        config = (self.home / "devices.yaml").read_text()
        self.processes.serve(config, *url, password=self.made.password("coordinator"))


@contextmanager
def site(name: str, home: Path, config: str, wheels: Path, devices: str = "{pi-1: {}, pi-2: {}}") -> Iterator[Site]:
    """A stock image, recordings of one person and a broker; what was timed is kept if nothing fails.

    Args:
        name: of the base.
        home: the working folder.
        config: devices.yaml.
        wheels: folder of ours.
        devices: those that the broker knows.
    """
    times: dict[str, float] = {}
    write_person(home / "data/pi-1", seed=3)
    (home / "devices.yaml").write_text(config)
    with timed(times, f"stock image {name}"):
        bases.image(name, home / "stock.img")
    processes = Processes(home)
    with deployed(home, "mosquitto", devices=devices) as made:
        try:
            yield Site(name=name, home=home, made=made, processes=processes, wheels=wheels, times=times)
        finally:
            processes.stop()
    note(name, times)


@contextmanager
def timed(times: dict[str, float], what: str) -> Iterator[None]:
    """How long something takes, seconds."""
    began_s = time.monotonic()
    yield
    times[what] = round(time.monotonic() - began_s, 1)
    print(f"  {times[what]:6.1f} s  {what}", flush=True)  # noqa: T201  # they take long, and are shown meanwhile


def first_boot(machine: Machine, there: Site) -> None:
    """Until the device has enrolled, and systemd says that its service runs."""
    if there.base.mechanism == "systemd":
        with timed(there.times, "boot that runs firstrun.sh"):
            machine.run_firstrun()
    with timed(there.times, "power on to enrolled"):
        machine.boot()
        wait_until(lambda: "'pi-1' has enrolled" in there.made.log, 90, "the device to enrol")
    wait_until(lambda: machine.service("ActiveState") == "active", 30, "the service to run")


def note(name: str, times: dict[str, float]) -> None:
    """Keep the times, for docs/flash.md."""
    path = ROOT / "out" / "image.json"
    path.parent.mkdir(exist_ok=True)
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    known |= {"machine": this_machine.describe(), "commit": this_machine.commit(), name: known.get(name, {}) | times}
    nspawn = subprocess.run(["systemd-nspawn", "--version"], capture_output=True, text=True, check=False)
    known["nspawn"] = nspawn.stdout.partition("\n")[0]
    path.write_text(json.dumps(known, indent=1) + "\n")
