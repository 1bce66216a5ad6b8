"""How a federation's programs are started: settings, data, command lines and environments, all below one folder."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coordinator.models import build_plan
from tests.helpers import random_ticket

FEDERATION = "chaos"
PORT = 1883


@dataclass(frozen=True)
class Programs:
    """A federation's programs.

    Args:
        home: folder of everything.
        hub: folder of the coordinator's and the broker's files.
        kind: of the broker, "mosquitto" or "nats", the embedded one.
        address: of the broker's host.
    """

    home: Path
    hub: Path
    kind: str
    address: str

    def prepare(self, hosts: list[str], devices: list[str], schedule: dict[str, int]) -> None:
        """Write the settings of all, and give every host a clock."""
        (self.hub / "broker").mkdir(parents=True, exist_ok=True)
        plan = build_plan("mlp", input_shape=None, classes=None)
        (self.home / "mlp.hns").write_bytes(random_ticket(plan, 0.02, seed=1).encoded)
        federation = {"name": FEDERATION, "ticket": "mlp.hns", "runtimes": ["sparse"], "deadline_s": 3.0, **schedule}
        federation["training"] = {"epochs": 3, "learning_rate": 0.1}  # a second of training is for other tests
        config = {"federation": federation, "devices": {device: {} for device in devices}}
        (self.home / "devices.yaml").write_text(json.dumps(config))  # JSON is YAML
        (self.home / "mosquitto.conf").write_text(
            f"listener {PORT} 0.0.0.0\nallow_anonymous true\nuser root\nmax_queued_messages 0\npersistence true\n"
            f"persistence_location {self.hub / 'broker'}/\nautosave_on_changes true\nautosave_interval 1\n"
        )
        source = Path(__file__).with_name("clock.c")
        compiler = ["gcc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(self._shim), str(source)]
        subprocess.run(compiler, check=True, timeout=60)
        for host in hosts:
            self._clock(host).write_bytes(bytes(8))

    def broker(self) -> list[str]:
        """Mosquitto's command line."""
        binary = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
        return [binary or "mosquitto", "-c", str(self.home / "mosquitto.conf")]

    def coordinator(self) -> list[str]:
        """Hidenseek serve's."""
        command = [sys.executable, "-m", "coordinator.cli", "serve", "--config", str(self.home / "devices.yaml")]
        command += ["--state", str(self.hub)]
        where = ["--broker", self._url("coordinator")] if self.kind == "mosquitto" else ["--listen", self._listen()]
        return command + where

    def device(self, device: str, state: Path) -> list[str]:
        """hidenseek-edge join's."""
        command = [sys.executable, "-m", "edge_client.cli", "join", "--once", "--federation", FEDERATION]
        command += [
            "--device",
            device,
            "--state",
            str(state),
            "--data",
            str(_write_person(self.home / "data" / device)),
        ]
        return [*command, "--broker", self._url(device), "--runtime", "sparse"]

    def environment(self, device: str | None = None) -> dict[str, str]:
        """For any of them; a device of the embedded broker has a password."""
        found = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        if device is not None and self.kind == "nats":
            found["HIDENSEEK_PASSWORD"] = json.loads((self.hub / "broker" / "passwords.json").read_text())[device]
        return found

    def with_clock(self, host: str) -> list[str]:
        """The command prefix that runs a program by its host's wall clock."""
        return ["env", f"LD_PRELOAD={self._shim}", f"CHAOS_CLOCK={self._clock(host)}"]

    def set_clock(self, host: str, seconds: int) -> None:
        """Let a host's wall clock be this many seconds from the true time, from now on."""
        with self._clock(host).open("r+b") as file:
            file.write(seconds.to_bytes(8, sys.byteorder, signed=True))

    def nats(self) -> int | None:
        """Process id of the embedded broker, if it runs."""
        try:
            pid = int((self.hub / "broker" / "nats.pid").read_text())
            return pid if b"nats-server" in Path(f"/proc/{pid}/cmdline").read_bytes() else None
        except (OSError, ValueError):
            return None

    @property
    def _shim(self) -> Path:
        return self.home / "clock.so"

    def _clock(self, host: str) -> Path:
        return self.home / f"{host}.clock"

    def _url(self, user: str) -> str:
        return f"mqtt://{user}@{self._listen()}"

    def _listen(self) -> str:
        return f"{self.address}:{PORT}"


def _write_person(folder: Path) -> Path:
    """Sixteen images in which one row, the class's, is bright, and a few more to test with; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(random.Random(folder.name).randrange(1 << 32))
    for name, count in (("train", 16), ("test", 4)):
        y = rng.integers(0, 10, count)
        x = rng.normal(size=(count, 1, 28, 28)) + 3.0 * (np.arange(28) == y[:, None])[:, None, :, None]
        np.savez(folder / f"{name}.npz", x=x.astype(np.float32), y=y)
    return folder
