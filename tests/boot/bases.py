"""Stock images of our own, from real Debian packages: what a card is made of where none can be downloaded.

The root file systems are made once, by mmdebstrap, and kept in the user's cache (440 MB); deleting them is safe.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from coordinator.datasets.cache import cache_dir
from export.image import tools
from tests.integration.arm_debian import locked

MIB = 1 << 20
BOOT_START_MIB, BOOT_MIB, ROOT_MIB = 4, 64, 900
MIRROR = "http://deb.debian.org/debian"
ALWAYS = (
    "systemd", "systemd-sysv", "udev", "dbus", "python3", "sudo", "iproute2", "openssh-server", "locales", "tzdata",
)  # fmt: skip
LEFT_OUT = ("doc", "man", "locale")


@dataclass(frozen=True, kw_only=True)
class Base:
    """A system.

    Attributes:
        suite: of Debian.
        packages: besides those that all have.
        boot: files on the boot partition.
        root: files that make it what it imitates.
        mechanism: by which it takes settings.
    """

    suite: str
    packages: tuple[str, ...]
    boot: dict[str, str]
    root: tuple[str, ...]
    mechanism: str


BASES = {
    "debian-cloud-trixie": Base(
        suite="trixie", packages=("cloud-init", "netplan.io"), boot={}, root=(), mechanism="nocloud"
    ),
    "raspios-bookworm": Base(
        suite="bookworm",
        packages=("network-manager",),
        boot={"cmdline.txt": "console=tty1 root=LABEL=rootfs rootwait\n", "config.txt": "[all]\n"},
        root=("etc/rpi-issue",),
        mechanism="systemd",
    ),
}


def image(name: str, target: Path) -> Path:
    """Write a stock image; return its path. As root, for its files have owners."""
    base = BASES[name]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        root.mkdir()
        subprocess.run(["tar", "-C", root, "-xpf", _tar(base), "--exclude=./dev/*"], check=True)
        for key in (root / "etc/ssh").glob("ssh_host_*"):
            key.unlink()
        (root / "etc/machine-id").write_text("")
        (root / "etc/fstab").write_text("LABEL=rootfs / ext4 defaults 0 1\n")
        for file in base.root:
            (root / file).touch()
        start = BOOT_START_MIB + BOOT_MIB
        with target.open("wb") as file:
            file.truncate((start + ROOT_MIB + 1) * MIB)
        boot = f"start={BOOT_START_MIB * 2048}, size={BOOT_MIB * 2048}, type=c"
        table = f"label: dos\n{boot}\nstart={start * 2048}, type=83\n"
        _checked(tools.run("sfdisk", "--quiet", target, stdin=table.encode()))
        drive = f"{target}@@{BOOT_START_MIB * MIB}"
        mformat = shutil.which("mformat") or "mformat"
        subprocess.run([mformat, "-i", drive, "-F", "-v", "bootfs", "-T", str(BOOT_MIB * 2048), "::"], check=True)
        for file_name, text in base.boot.items():
            (Path(folder) / file_name).write_text(text)
            _checked(tools.run("mcopy", "-i", drive, Path(folder) / file_name, f"::{file_name}"))
        mke2fs = shutil.which("mke2fs", path="/usr/sbin:/sbin:/usr/bin") or "mke2fs"
        options = ["-q", "-t", "ext4", "-L", "rootfs", "-d", root, "-E", f"offset={start * MIB}"]
        subprocess.run([mke2fs, *options, target, f"{ROOT_MIB}m"], check=True)
    return target


def _tar(base: Base) -> Path:
    """Its root file system, made if there is none yet; the log lies beside it."""
    folder = cache_dir() / "roots"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"boot-{base.suite}-amd64-v1.tar"
    with locked(target.with_suffix(".lock")):
        if not target.exists():
            draft = target.with_suffix(".part.tar")
            command = ["mmdebstrap", "--mode=root", "--architectures=amd64", "--variant=minbase", "--components=main"]
            command += [f"--include={','.join((*ALWAYS, *base.packages))}", '--aptopt=APT::Install-Recommends "false"']
            command += [
                "--dpkgopt=force-unsafe-io",
                *(f"--dpkgopt=path-exclude=/usr/share/{one}/*" for one in LEFT_OUT),
            ]
            with target.with_suffix(".log").open("w") as log:
                subprocess.run(
                    [*command, base.suite, str(draft), f"deb {MIRROR} {base.suite} main"], check=True, stderr=log
                )
            draft.rename(target)
    return target


def _checked(done: subprocess.CompletedProcess[bytes]) -> None:
    assert done.returncode == 0, done.stderr.decode(errors="replace")
