"""Which system an image holds and how it takes settings at its first boot: told by what is in it, never by its name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from export.image import firstrun
from export.image.ext4 import Ext4
from export.image.fat import Fat
from export.image.layout import Partition, partitions
from wire.errors import ImageError

Mechanism = Literal["cloudinit-rpi", "cloudinit", "nocloud", "systemd"]
MECHANISMS: dict[Mechanism, str] = {
    "cloudinit-rpi": "cloud-init, as Raspberry Pi OS has it since November 2025: files on the boot partition",
    "cloudinit": "cloud-init with its files on the boot partition, as Ubuntu for Raspberry Pi",
    "nocloud": "cloud-init with its files in /var/lib/cloud/seed, as Debian's cloud images",
    "systemd": "a script that systemd runs once, as Raspberry Pi OS bookworm",
}
MACHINES = {183: "aarch64", 62: "x86_64", 40: "armv7l", 3: "i686", 243: "riscv64"}  # ELF's e_machine
SUPPORTED = ("aarch64", "x86_64")
OLDEST_PYTHON = (3, 11)
SEED = "/var/lib/cloud/seed/nocloud"


@dataclass(frozen=True, kw_only=True)
class System:
    """What is in an image.

    Attributes:
        title: as the system calls itself.
        machine: kind of processor, as `platform.machine` says.
        python: major and minor version of its /usr/bin/python3.
        glibc: minor version of its glibc 2.
        mechanism: how it takes settings.
        firmware: a Raspberry Pi can boot it: it has config.txt and cmdline.txt.
        network: what can be told of Wi-Fi and addresses besides cloud-init: NetworkManager, or systemd-networkd with
            wpa_supplicant; "" if neither.
        firstrun_unit: a unit of it runs firstrun.sh, so that the kernel's command line need not.
        root: its root partition.
        boot: its FAT partition, if there is one.
    """

    title: str
    machine: str
    python: tuple[int, int]
    glibc: int
    mechanism: Mechanism
    firmware: bool
    network: firstrun.Network
    firstrun_unit: bool
    root: Partition
    boot: Partition | None


def inspect(image: Path) -> System:
    """Look into an image.

    Raises:
        ImageError: if it is not one that can be customised; says what was found.
        RuntimeMissing: if a program that reads it is not installed.
    """
    found = partitions(image)
    root, files = _root(image, found)
    files.check_unmounted()
    release = _release(files)
    title = release.get("PRETTY_NAME", "an unknown system")
    boot = next((one for one in found if one.system == "fat"), None)
    machine = _machine(files)
    if machine not in SUPPORTED:
        raise ImageError(
            f"{title} for {machine}: only 64-bit systems are supported, {' and '.join(SUPPORTED)}",
            where=str(image),
            hint="Take the 64-bit image of the same system; it runs on Raspberry Pi Zero 2 W, 3, 4, 5 and 400"
            if machine == "armv7l"
            else "",
        )
    names = Fat(image, boot.start_bytes).names() if boot else set()
    return System(
        title=title,
        machine=machine,
        python=_python(image, files, title),
        glibc=_glibc(files, machine),
        mechanism=_mechanism(image, files, boot, names, title),
        firmware={"config.txt", "cmdline.txt"} <= names,
        network=_network(files),
        firstrun_unit=files.kind(firstrun.UNIT) is not None,
        root=root,
        boot=boot,
    )


def _root(image: Path, found: list[Partition]) -> tuple[Partition, Ext4]:
    for one in found:
        if one.system == "ext":
            files = Ext4(image, one.start_bytes)
            if files.kind("/etc/os-release") or files.kind("/usr/lib/os-release"):
                return one, files
    seen = ", ".join(f"{one.number}: {one.system}, {one.size_bytes / 1e6:,.0f} MB" for one in found) or "none"
    raise ImageError(
        f"no partition holds a Linux system on ext4 (found {seen})",
        where=str(image),
        hint="Give the image of a whole card, such as Raspberry Pi OS Lite; installers and A/B images are none",
    )


def _release(files: Ext4) -> dict[str, str]:
    text = (files.read("/etc/os-release") or files.read("/usr/lib/os-release") or b"").decode(errors="replace")
    rows = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name: value.strip("\"'") for name, _, value in rows}


def _machine(files: Ext4) -> str:
    """From the header of a program that every system with Python or dpkg has."""
    for path in ("/usr/bin/dpkg", "/usr/bin/env", "/usr/bin/python3"):
        program = files.read(path)
        if program and program[:4] == b"\x7fELF":
            number = int.from_bytes(program[18:20], "little")
            return MACHINES.get(number, f"a processor of ELF type {number}")
    return "an unknown processor"


def _python(image: Path, files: Ext4, title: str) -> tuple[int, int]:
    found = [re.fullmatch(r"python3\.(\d+)", name) for name in files.names("/usr/bin")]
    versions = sorted((3, int(one[1])) for one in found if one)
    linked = re.fullmatch(r"python3\.(\d+)", files.link("/usr/bin/python3") or "")
    if linked:
        versions = [(3, int(linked[1]))]
    if not versions or versions[-1] < OLDEST_PYTHON:
        has = f"Python {versions[-1][0]}.{versions[-1][1]}" if versions else "no Python"
        raise ImageError(
            f"{title} has {has}, {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} or newer is needed",
            where=str(image),
            hint="Take a newer release: Raspberry Pi OS and Debian from bookworm on, Ubuntu from 24.04 on",
        )
    return versions[-1]


def _glibc(files: Ext4, machine: str) -> int:
    """From the banner that the library prints when it is run."""
    library = files.read(f"/usr/lib/{machine}-linux-gnu/libc.so.6") or files.read("/lib/libc.so.6") or b""
    found = re.search(rb"GNU C Library \(.*?release version 2\.(\d+)", library)
    return int(found[1]) if found else 17


def _network(files: Ext4) -> firstrun.Network:
    """Both programs of the latter may be on a system that does not use them; that it does, the link says."""
    if files.kind("/usr/sbin/NetworkManager"):
        return "NetworkManager"
    enabled = files.link("/etc/systemd/system/multi-user.target.wants/systemd-networkd.service")
    return "networkd" if enabled and files.kind("/usr/sbin/wpa_supplicant") else ""


def _mechanism(image: Path, files: Ext4, boot: Partition | None, names: set[str], title: str) -> Mechanism:
    """How this image takes settings.

    Source: rpi-imager's doc/os_customisation_formats.md; cloud-init's documentation of its NoCloud source.
    """
    if "rpi-preseed.toml" in names:
        raise ImageError(
            f"{title} takes settings from rpi-preseed.toml, whose format is not settled yet",
            where=str(image),
            hint="Take an image from before that",
        )
    pi = files.kind("/etc/rpi-issue") is not None
    if files.kind("/usr/bin/cloud-init"):
        if boot and {"user-data", "meta-data"} <= names:
            return "cloudinit-rpi" if pi else "cloudinit"
        return "nocloud"
    if boot and "cmdline.txt" in names and files.kind("/usr/lib/systemd/systemd"):
        return "systemd"
    lacks = "no cloud-init" + ("" if "cmdline.txt" in names else ", no cmdline.txt on a boot partition")
    raise ImageError(
        f"{title} has no way to take settings at its first boot that is known here ({lacks})",
        where=str(image),
        hint=f"Known are: {'; '.join(MECHANISMS.values())}",
    )
