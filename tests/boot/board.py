"""A card in an emulated board: QEMU's `virt` machine with an ARM processor, started as a Raspberry Pi's firmware would.

Firmware reads config.txt and hands over to the kernel named there; QEMU has no such firmware, so kernel, initial RAM
disk and command line are copied out of the card before each boot. The card is a virtual disk, the network one that
sees this machine as 10.0.2.2.
"""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from export.image.fat import Fat
from export.image.layout import partitions

HOST = "10.0.2.2"
CORES, MEMORY_MB = 2, 512  # a Raspberry Pi Zero 2 W has 4, and 512
SSH = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=20", "-q")


@dataclass
class Board:
    """One card that may be booted again and again.

    Args:
        card: its image.
        folder: for its console, and what is copied out.
        user: who may log in.
        key: with this key.
    """

    card: Path
    folder: Path
    user: str
    key: Path
    processor: str = "cortex-a53"
    _running: subprocess.Popen[bytes] | None = None
    _boots: int = field(default=0)
    _port: int = field(default=0)

    @property
    def console(self) -> str:
        """What the last boot has said."""
        path = self.folder / f"console-{self._boots}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def boot(self) -> None:
        """Switch it on. It ends where the system would start the machine again."""
        self._boots += 1
        boot = Fat(self.card, next(one.start_bytes for one in partitions(self.card) if one.system == "fat"))
        config = (boot.read("config.txt") or b"").decode()
        line = (boot.read("cmdline.txt") or b"").decode().strip()
        for target, setting in (("kernel", r"^kernel=(\S+)"), ("initrd", r"^initramfs (\S+)")):
            named = re.search(setting, config, re.MULTILINE)
            assert named, config
            (self.folder / target).write_bytes(boot.read(named[1]) or b"")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        command = ["qemu-system-aarch64", "-M", "virt", "-cpu", self.processor, "-smp", str(CORES)]
        command += ["-m", str(MEMORY_MB), "-accel", "tcg,thread=multi", "-nodefaults", "-display", "none", "-no-reboot"]
        command += ["-kernel", str(self.folder / "kernel"), "-initrd", str(self.folder / "initrd")]
        command += ["-append", f"{line} console=ttyAMA0", "-serial", f"file:{self.folder}/console-{self._boots}.log"]
        command += ["-drive", f"if=none,id=card,format=raw,file={self.card}", "-device", "virtio-blk-pci,drive=card"]
        command += ["-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self._port}-:22"]
        command += ["-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci"]
        with (self.folder / "qemu.log").open("ab") as log:
            self._running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @property
    def on(self) -> bool:
        """Whether it has not been switched off, nor ended by itself."""
        return self._running is not None and self._running.poll() is None

    def wait_off(self, timeout_s: float) -> None:
        """Until it ends by itself."""
        assert self._running is not None
        deadline = time.monotonic() + timeout_s
        while self.on:
            assert time.monotonic() < deadline, self.console[-3000:]
            time.sleep(0.1)
        assert self._running.returncode == 0, (self.folder / "qemu.log").read_text()[-2000:]

    def cut_power(self) -> None:
        """What was not written to the card is lost."""
        if self._running is not None:
            self._running.kill()
            self._running.wait()
            self._running = None

    def switch_off(self, timeout_s: float) -> None:
        """As somebody does who is logged in."""
        self.inside("systemctl", "poweroff")
        self.wait_off(timeout_s)

    def inside(self, *command: str) -> str:
        """Run something in it as root; what it prints, which is nothing while nobody can log in."""
        words = ["ssh", "-p", str(self._port), "-i", str(self.key), *SSH, f"{self.user}@127.0.0.1"]
        done = subprocess.run(
            [*words, f"sudo {shlex.join(command)}"], capture_output=True, text=True, check=False, timeout=120
        )
        return done.stdout
