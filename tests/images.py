"""Images that imitate stock ones: real partition tables and file systems, with the files by which systems are told."""

from __future__ import annotations

import gzip
import lzma
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

from export.image import tools, write
from wire.errors import RuntimeMissing


def _installed(program: str) -> bool:
    try:
        return bool(tools.find(program))
    except RuntimeMissing:
        return False


MIB = 1 << 20
_LACKING = [program for program in ("mcopy", "sfdisk", "debugfs", "zstd") if not _installed(program)]
needed = pytest.mark.skipif(
    bool(_LACKING), reason=f"not installed: {', '.join(_LACKING)} (apt-get install mtools fdisk zstd)"
)
packed_by = pytest.mark.skipif(
    bool(_LACKING) or not _installed("mkfs.vfat"), reason="not installed: mtools, fdisk, zstd or dosfstools"
)
_FOLDER = tempfile.TemporaryDirectory(prefix="hidenseek-images-")
ROOT_MIB, BOOT_MIB = 12, 8  # small; stock ones have 512 MiB for the boot files, and that has to be FAT32
# An ELF header of a machine, as far as it is read, and glibc's banner.
ELF_MACHINE = {"aarch64": 183, "x86_64": 62, "armv7l": 40}
CMDLINE = "console=serial0,115200 root=PARTUUID=0 rootfstype=ext4 fsck.repair=yes rootwait"

RELEASES: dict[str, dict[str, object]] = {
    "raspios-trixie": {"python": "3.13", "cloud": True, "pi": True, "firmware": True, "seed": True, "nm": True},
    "raspios-bookworm": {"python": "3.11", "cloud": False, "pi": True, "firmware": True, "seed": False, "nm": True},
    "ubuntu-pi": {"python": "3.12", "cloud": True, "pi": False, "firmware": True, "seed": True, "nm": False},
    "debian-cloud": {"python": "3.13", "cloud": True, "pi": False, "firmware": False, "seed": False, "nm": False},
}
ZRAM = "kernel/drivers/block/zram/zram.ko.xz: kernel/mm/zsmalloc.ko.xz\n"  # of a modules.dep
TITLES = {
    "raspios-trixie": "Debian GNU/Linux 13 (trixie)",
    "raspios-bookworm": "Debian GNU/Linux 12 (bookworm)",
    "ubuntu-pi": "Ubuntu 24.04.1 LTS",
    "debian-cloud": "Debian GNU/Linux 13 (trixie)",
}
MECHANISMS = {
    "raspios-trixie": "cloudinit-rpi",
    "raspios-bookworm": "systemd",
    "ubuntu-pi": "cloudinit",
    "debian-cloud": "nocloud",
}


def make(path: Path, kind: str, *, machine: str = "aarch64", boot_mib: int = BOOT_MIB, **changes: object) -> Path:
    """Write an image of a kind of `RELEASES`, with changes to what it has; return its path."""
    write.copy_sparse(_made(kind, machine, boot_mib, tuple(sorted(changes.items()))), path)
    return path


@cache
def packed(kind: str, how: str) -> bytes:
    """An image packed with xz, gz or zst."""
    image = _made(kind, "aarch64", BOOT_MIB, ())
    return pack(image, how).read_bytes()


@cache
def _made(kind: str, machine: str, boot_mib: int, changes: tuple[tuple[str, object], ...]) -> Path:
    """Made once, and gone with this process."""
    has = RELEASES[kind] | dict(changes)
    path = Path(_FOLDER.name) / f"{len(list(Path(_FOLDER.name).iterdir()))}.img"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        _root(root, TITLES[kind], machine, has)
        start_mib, root_mib = 4 + boot_mib, ROOT_MIB
        with path.open("wb") as file:
            file.truncate((start_mib + root_mib + 1) * MIB)
        table = f"label: dos\nstart=8192, size={boot_mib * 2048}, type=c\nstart={start_mib * 2048}, type=83\n"
        _run("sfdisk", "--quiet", path, stdin=table)
        drive, sectors = f"{path}@@{4 * MIB}", str(boot_mib * 2048)
        _run("mformat", "-i", drive, *(["-F"] if boot_mib > 32 else []), "-v", "bootfs", "-T", sectors, "::")
        for name, text in _boot(has).items():
            (Path(folder) / name).write_text(text)
            _run("mcopy", "-i", drive, Path(folder) / name, f"::{name}")
        offset = f"offset={start_mib * MIB}"
        _run("mke2fs", "-q", "-t", "ext4", "-L", "rootfs", "-d", root, "-E", offset, path, f"{root_mib}m")
    return path


def pack(image: Path, how: str) -> Path:
    """A packed copy beside it."""
    target = image.with_name(f"{image.name}.{how}")
    match how:
        case "xz":
            target.write_bytes(lzma.compress(image.read_bytes(), preset=0))
        case "gz":
            target.write_bytes(gzip.compress(image.read_bytes(), 1))
        case "zst":
            _run("zstd", "-q", "-f", "-1", image, "-o", target)
        case _:
            raise AssertionError(how)
    return target


def elf(machine: str, more: bytes = b"") -> bytes:
    """The first bytes of a program for a machine."""
    return (
        b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00" + ELF_MACHINE[machine].to_bytes(2, "little") + bytes(44) + more
    )


def _root(root: Path, title: str, machine: str, has: dict[str, object]) -> None:
    for folder in (
        "usr/bin",
        "usr/sbin",
        f"usr/lib/{machine}-linux-gnu",
        "usr/lib/systemd",
        "etc/systemd/system",
        "var/lib",
    ):
        (root / folder).mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    (root / "usr/lib/os-release").write_text(f'PRETTY_NAME="{title}"\nID=debian\n')
    (root / "etc/os-release").symlink_to("../usr/lib/os-release")
    (root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (root / "etc/hostname").write_text("raspberrypi\n")
    (root / "etc/dphys-swapfile").write_text("CONF_SWAPSIZE=512\n")
    if has.get("rpi_swap"):
        (root / "etc/rpi").mkdir()
        (root / "etc/rpi/swap.conf").write_text("[Main]\n#Mechanism=auto\n")
    if has.get("generator"):
        (root / "usr/lib/systemd/system-generators").mkdir()
        (root / "usr/lib/systemd/system-generators/zram-generator").write_bytes(elf(machine))
    (root / "usr/lib/modules/6.12.1").mkdir(parents=True)
    (root / "usr/lib/modules/6.12.1/modules.dep").write_text(str(has.get("modules", ZRAM)))
    (root / "usr/share/i18n").mkdir(parents=True)
    (root / "usr/share/i18n/SUPPORTED").write_text("de_DE.UTF-8 UTF-8\nde_DE ISO-8859-1\nen_GB.UTF-8 UTF-8\n")
    (root / "usr/lib/clock-epoch").touch()
    (root / "usr/lib/systemd/systemd").write_bytes(elf(machine))
    (root / "usr/bin/dpkg").write_bytes(elf(machine))
    banner = b"GNU C Library (Debian GLIBC 2.41-12) stable release version 2.41.\n"
    (root / f"usr/lib/{machine}-linux-gnu/libc.so.6").write_bytes(elf(machine, banner))
    if has["python"]:
        (root / f"usr/bin/python{has['python']}").write_bytes(elf(machine))
        (root / "usr/bin/python3").symlink_to(f"python{has['python']}")
    for what, file in (("cloud", "usr/bin/cloud-init"), ("pi", "etc/rpi-issue"), ("nm", "usr/sbin/NetworkManager")):
        if has[what]:
            (root / file).write_text("")


def _boot(has: dict[str, object]) -> dict[str, str]:
    found = {"start4.elf": "x" * 1000}
    if has["firmware"]:
        found |= {"cmdline.txt": f"{CMDLINE}\n", "config.txt": str(has.get("config", "[all]\ndtparam=audio=on\n"))}
    if has["seed"]:
        found |= {"user-data": "#cloud-config\n", "meta-data": "instance-id: first\n", "network-config": "version: 2\n"}
    return found


def _run(program: str, *arguments: str | Path, stdin: str = "") -> None:
    known = tools.PACKAGES.get(program)
    found = tools.find(program) if known else program
    done = subprocess.run(
        [found, *map(str, arguments)],
        input=stdin.encode(),
        capture_output=True,
        check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "MTOOLS_SKIP_CHECK": "1", "LC_ALL": "C"},
    )
    assert done.returncode == 0, f"{program} {arguments}: {done.stdout!r} {done.stderr!r}"
