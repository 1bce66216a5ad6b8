"""What every test of a booted card begins with, and how long it took."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from benchmarks import machine as this_machine
from tests.boot import bases
from tests.boot.machine import Machine
from tests.integration.deployed import Deployed
from tests.integration.fleet import wait_until
from tests.wheels import ROOT

NEEDED = ("mmdebstrap", "systemd-nspawn", "mosquitto", "mcopy")
LACKING = [one for one in NEEDED if shutil.which(one, path=f"{os.environ['PATH']}:/usr/sbin") is None]
needed = [
    pytest.mark.image,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount and to boot"),
    pytest.mark.skipif(bool(LACKING), reason=f"apt-get install {' '.join(LACKING)}"),
]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHl0aGlzIGlzIG5vdCBhIHJlYWwga2V5IQ ada@there"


@contextmanager
def timed(times: dict[str, float], what: str) -> Iterator[None]:
    """How long something takes, seconds."""
    began_s = time.monotonic()
    yield
    times[what] = round(time.monotonic() - began_s, 1)
    print(f"  {times[what]:6.1f} s  {what}", flush=True)  # noqa: T201  # they take long, and are shown meanwhile


def first_boot(machine: Machine, base: bases.Base, made: Deployed, times: dict[str, float]) -> None:
    """Until the device has enrolled, and systemd says that its service runs."""
    if base.mechanism == "systemd":
        with timed(times, "boot that runs firstrun.sh"):
            machine.run_firstrun()
    with timed(times, "power on to enrolled"):
        machine.boot()
        wait_until(lambda: "'pi-1' has enrolled" in made.log, 90, "the device to enrol")
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
