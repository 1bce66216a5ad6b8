"""Swap of a card: the system's own turned off, or into compressed memory, which wears no card out.

Raspberry Pi OS has dphys-swapfile until bookworm, and rpi-swap (swap.conf(5)) since trixie, which takes either. Where
systemd's zram-generator is installed that is told; elsewhere a unit does it, with programs of util-linux that every
system has, so that no package has to be fetched.
"""

from __future__ import annotations

from export.image.ext4 import Ext4
from export.image.settings import CardSettings
from export.image.tree import Tree
from wire.errors import ImageError

RPI_SWAP, DPHYS = "/etc/rpi/swap.conf", "/etc/dphys-swapfile"
MODULES = "/usr/lib/modules"
GENERATOR = "/usr/lib/systemd/system-generators/zram-generator"
UNIT = "hidenseek-zram.service"
UNIT_TEXT = """\
# Written by hidenseek flash.
[Unit]
Description=Swap in compressed memory, of half as much as the board has
DefaultDependencies=no
After=systemd-modules-load.service
Before=swap.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
RuntimeDirectory=hidenseek-zram
ExecStartPre=-modprobe zram
ExecStart=sh -ec 'read -r name kib unit </proc/meminfo; device=$$(zramctl --find --size $$((kib / 2))K); \
  echo $$device >/run/hidenseek-zram/device; mkswap $$device; swapon -p 100 $$device'
ExecStop=sh -ec 'device=$$(cat /run/hidenseek-zram/device); swapoff $$device; zramctl --reset $$device'

[Install]
WantedBy=swap.target
"""


def files(root: Ext4, settings: CardSettings) -> Tree:
    """What goes into the root partition of a system for its swap."""
    tree = Tree()
    if settings.swap == "keep":
        return tree
    if root.kind(DPHYS):
        tree.links["/etc/systemd/system/dphys-swapfile.service"] = "/dev/null"
    if root.kind(RPI_SWAP):
        mechanism = "zram" if settings.swap == "zram" else "none"
        tree.add(f"{RPI_SWAP}.d/90-hidenseek.conf", f"[Main]\nMechanism={mechanism}\n")
    elif settings.swap == "zram" and root.kind(GENERATOR):
        tree.add("/etc/systemd/zram-generator.conf", "[zram0]\nzram-size = ram / 2\nswap-priority = 100\n")
    elif settings.swap == "zram":
        tree.add(f"/etc/systemd/system/{UNIT}", UNIT_TEXT)
        tree.links[f"/etc/systemd/system/swap.target.wants/{UNIT}"] = f"../{UNIT}"
    return tree


def check(root: Ext4, settings: CardSettings) -> None:
    """Whether a system can have such swap.

    Raises:
        ImageError: if its kernel cannot.
    """
    if settings.swap != "zram":
        return
    kernels = {
        kernel: parts + (root.read(f"{MODULES}/{kernel}/modules.builtin") or b"")
        for kernel in sorted(root.names(MODULES))
        if (parts := root.read(f"{MODULES}/{kernel}/modules.dep")) is not None
    }
    without = [kernel for kernel, modules in kernels.items() if b"/zram/zram.ko" not in modules]
    if without or not kernels:
        raise ImageError(
            f"swap: 'zram' found, and {f'kernel {without[0]}' if without else 'no kernel'} in the image has it",
            hint="Say `swap: off`, or keep. (Ubuntu has zram in linux-modules-extra, which is not on its images)",
        )
