"""A card in an emulated board: QEMU's `virt` machine or its Raspberry Pi 3B, started as a Pi's firmware would.

Firmware reads config.txt and hands over to the kernel named there; QEMU has no such firmware, so kernel, initial RAM
disk, command line (and the Pi's device tree) are copied out of the card before each boot. In `virt` the card is a
virtual disk, in the Pi an SD card in its own slot. The network, a USB one there, sees this machine as 10.0.2.2.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from coordinator.brokers.process import free_port
from export.image.fat import Fat
from export.image.layout import partitions

HOST = "10.0.2.2"
VIRT = ("-M", "virt", "-cpu", "cortex-a53", "-smp", "2", "-m", "512")  # a Raspberry Pi Zero 2 W has 4 cores, and 512
PI = ("-M", "raspi3b", "-m", "1G", "-smp", "4")  # which has no other number of either
PI_TREE = "bcm2837-rpi-3-b.dtb"
PI_NET = "modprobe.blacklist=cdc_subset"  # it takes QEMU's USB network before cdc_ether, and no packet comes through
OFF = "reboot: Power down"
SSH = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=20", "-q")


@dataclass
class Board:
    """One card that may be booted again and again.

    Args:
        card: its image.
        folder: for its console, and what is copied out.
        user: who may log in.
        key: with this key.
        pi: whether it is a Raspberry Pi 3B; its card's size has to be a power of two.
    """

    card: Path
    folder: Path
    user: str
    key: Path
    pi: bool = False
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
        self._port = free_port("127.0.0.1")
        command = ["qemu-system-aarch64", *(PI if self.pi else VIRT), "-accel", "tcg,thread=multi", "-nodefaults"]
        command += ["-kernel", str(self.folder / "kernel"), "-initrd", str(self.folder / "initrd"), "-no-reboot"]
        command += ["-display", "none", "-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self._port}-:22"]
        console, card = f"file:{self.folder}/console-{self._boots}.log", f"format=raw,file={self.card}"
        if self.pi:
            (self.folder / PI_TREE).write_bytes(boot.read(PI_TREE) or b"")
            command += ["-dtb", str(self.folder / PI_TREE), "-append", f"{line} console=ttyS1,115200 {PI_NET}"]
            command += ["-serial", "null", "-serial", console, "-drive", f"if=sd,{card}"]
            command += ["-device", "usb-net,netdev=net"]
        else:
            command += ["-append", f"{line} console=ttyAMA0", "-serial", console, "-drive", f"if=none,id=card,{card}"]
            command += ["-device", "virtio-blk-pci,drive=card", "-device", "virtio-rng-pci"]
            command += ["-device", "virtio-net-pci,netdev=net,romfile="]
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
            if self.pi and OFF in self.console:  # QEMU's Pi has no such switch
                self.cut_power()
                return
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
