"""A card in a machine: its root partition mounted, its own systemd started in a container, its power cut."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from export.image import firstrun, system

STARTS_S = 60.0


@dataclass
class Machine:
    """One card that may be booted again and again.

    Args:
        card: its image.
        folder: where its root is mounted, and its console's words are.
    """

    card: Path
    folder: Path
    _spawned: subprocess.Popen[bytes] | None = None
    _boots: int = field(default=0)

    @property
    def console(self) -> str:
        """What it has said, since it was first booted."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("console-*.log")))

    @property
    def is_on(self) -> bool:
        """Whether it was switched on, and has not ended."""
        return self._spawned is not None and self._spawned.poll() is None

    def boot(self, *kernel: str) -> None:
        """Switch it on; with these words on the kernel's command line, where a container's systemd takes them from."""
        self._boots += 1
        command = ["systemd-nspawn", "--boot", f"--directory={self.folder / 'root'}", "--register=no", "--keep-unit"]
        command += ["--link-journal=no", "--timezone=off", f"--machine=card-{os.getpid()}", *kernel]
        with (self.folder / f"console-{self._boots}.log").open("wb") as log:
            self._spawned = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def run_firstrun(self) -> None:
        """The boot that firstrun.sh is run in, to its end, for images that have one."""
        self.boot(*(one for one in firstrun.ARGUMENTS if "failure" not in one))
        assert self._spawned is not None
        deadline = time.monotonic() + STARTS_S
        while self._spawned.poll() is None and "being rebooted" not in self.console:
            assert time.monotonic() < deadline, self.console[-3000:]
            time.sleep(0.2)
        self.cut_power()

    def cut_power(self) -> None:
        """Every process of it is gone at once; what was not written is lost as far as a container can lose it."""
        if self._spawned is not None:
            # Its init first: killing that ends all in its namespace, and would outlive systemd-nspawn.
            for child in _children(self._spawned.pid):
                os.kill(child, signal.SIGKILL)
            self._spawned.kill()
            self._spawned.wait()
            self._spawned = None

    @property
    def _init(self) -> int:
        """Its first process, as this machine counts; 0 if it has not started."""
        assert self._spawned is not None
        init = _children(self._spawned.pid)
        assert init or self._spawned.poll() is None, self.console[-3000:]
        return init[0] if init else 0

    def inside(self, *command: str) -> str:
        """Run something in it; what it prints, which is nothing while it has not started."""
        init = self._init
        if not init:
            return ""
        words = ["nsenter", "--target", str(init), "--mount", "--uts", "--ipc", "--pid", "--", *command]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
        return done.stdout + done.stderr

    def service(self, name: str) -> str:
        """What systemd in it says of our service: one of its properties."""
        return self.inside("systemctl", "show", "hidenseek", "--property", name, "--value").strip()

    @property
    def service_pid(self) -> int:
        """Of our service's process, as this machine counts."""
        words = {one.split()[-1]: pid for pid in _below(self._init) if (one := _line(pid, "NSpid"))}
        return words[self.service("MainPID")]

    def journal(self) -> str:
        """What the service has said, as its journal has it."""
        return self.inside("journalctl", "-u", "hidenseek", "--no-pager", "--output=cat")


@contextmanager
def inserted(card: Path, folder: Path) -> Iterator[Machine]:
    """A card whose root partition is mounted; not booted yet, and off in the end."""
    (folder / "root").mkdir(parents=True)
    offset = system.inspect(card).root.start_bytes
    subprocess.run(["mount", "-o", f"loop,offset={offset}", card, folder / "root"], check=True)
    machine = Machine(card, folder)
    try:
        yield machine
    except BaseException:
        if machine.is_on:
            print(machine.journal()[-5000:])  # noqa: T201  # the card is gone with the test
        raise
    finally:
        machine.cut_power()
        subprocess.run(["umount", "--lazy", folder / "root"], check=True)


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text() if Path(f"/proc/{pid}").exists() else ""
    return [int(word) for word in text.split()]


def _below(pid: int) -> list[int]:
    return [one for child in _children(pid) for one in (child, *_below(child))]


def _line(pid: int, label: str) -> str:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has ended
        return ""
    return next((line for line in lines if line.startswith(f"{label}:")), "")
