"""A root file system in a tar file, made into the image of a card: partition table, boot files, ext4; packed by zstd.

Nothing is mounted: sfdisk writes the table, mtools the FAT partition, mke2fs the other from a folder. An ordinary
user's files would belong to that user, so that unpacking and mke2fs run under fakeroot then.
"""

from __future__ import annotations

import io
import os
import shlex
import tarfile
import tempfile
import time
from pathlib import Path

from export.image import recipe, tools
from export.image.tree import Tree
from wire.errors import ImageError

PROGRAMS = ("tar", "sfdisk", "mkfs.vfat", "mcopy", "mke2fs", "zstd")
MIB = 1 << 20
BOOT_START_MIB, BOOT_MIB = 4, 256  # two kernels with their initial RAM disks, while one is replaced
ROOM_MIB = 128  # in the root partition, for the client and a card's data
LEVEL = 9  # of zstd: 20 s; the highest ones need a minute for 5 % less
FIRMWARE = "boot/firmware"  # where Debian mounts the boot partition
SHARED = ("./dev/*", "./etc/ssh/ssh_host_*", "./var/cache/apt/*", "./var/lib/apt/lists/*", "./var/log/*.log")


def image(root: Path, overlay: Tree, target: Path) -> None:
    """Make an image.

    Args:
        root: the root file system, a tar file; what is in its /boot/firmware goes onto the boot partition.
        overlay: files that are put on it.
        target: the image, packed with zstd; whole or not at all.

    Raises:
        ImageError: if one of the programs fails; says what it said.
        RuntimeMissing: if one is not installed.
    """
    with tempfile.TemporaryDirectory(dir=target.parent, suffix=".part") as scratch:
        folder = Path(scratch)
        files, boot, draft, packed = folder / "root", folder / "boot", folder / "card.img", folder / "card.img.zst"
        tar(overlay, folder / "overlay.tar")
        for one in (files, boot):
            one.mkdir()
        left_out = " ".join(shlex.quote(f"--exclude={one}") for one in SHARED)
        # Of the boot files nobody's rights are kept: FAT has none.
        _checked("tar", "-C", boot, "--no-same-owner", "-xf", root, f"./{FIRMWARE}")
        size_mib = _size_mib(root)
        start = BOOT_START_MIB + BOOT_MIB
        with draft.open("wb") as file:
            file.truncate((start + size_mib) * MIB)
        table = f"label: dos\nstart={BOOT_START_MIB * 2048}, size={BOOT_MIB * 2048}, type=c, bootable\n"
        table += f"start={start * 2048}, type=83\n"
        _checked("sfdisk", "--quiet", draft, stdin=table.encode())
        _fat(draft, boot / FIRMWARE)
        script = f"""set -e
tar -C {_q(files)} -xpf {_q(root)} --numeric-owner {left_out} --exclude={shlex.quote(f"./{FIRMWARE}/*")}
tar -C {_q(files)} -xpf {_q(folder / "overlay.tar")} --numeric-owner
{_q(Path(tools.find("mke2fs")))} -q -t ext4 -m 1 -L {recipe.ROOT_LABEL} -E offset={start * MIB} \\
  -d {_q(files)} {_q(draft)} {size_mib}m
rm -rf {_q(files)}"""
        _checked(*(() if os.geteuid() == 0 else ("fakeroot", "--")), "sh", "-c", script)
        _checked("zstd", "-q", f"-{LEVEL}", "--threads=0", draft, "-o", packed)
        packed.replace(target)


def tar(tree: Tree, target: Path) -> None:
    """Write a tree as a tar file, all of it root's."""
    with tarfile.open(target, "w") as archive:
        for path in tree.all_folders():
            _add(archive, path, tarfile.DIRTYPE, mode=tree.folders.get(path, 0o755))
        for path, (content, mode) in tree.files.items():
            data = content.read_bytes() if isinstance(content, Path) else content
            _add(archive, path, tarfile.REGTYPE, mode=mode, data=data)
        for path, to in tree.links.items():
            _add(archive, path, tarfile.SYMTYPE, mode=0o777, to=to)


def _add(archive: tarfile.TarFile, path: str, kind: bytes, *, mode: int, data: bytes = b"", to: str = "") -> None:
    info = tarfile.TarInfo(f".{path}")
    info.type, info.mode, info.size, info.linkname, info.mtime = kind, mode, len(data), to, int(time.time())
    info.uname = info.gname = "root"
    archive.addfile(info, io.BytesIO(data) if data else None)


def _size_mib(root: Path) -> int:
    """What a root partition needs: files in whole blocks, a fifth more for ext4's own, and room."""
    with tarfile.open(root) as archive:
        used = sum(-(-one.size // 4096) + 1 for one in archive if not one.name.startswith(f"./{FIRMWARE}/")) * 4096
    return -(-used * 6 // 5 // MIB) + ROOM_MIB


def _fat(image: Path, boot: Path) -> None:
    """By mkfs.vfat: mtools would make capitals of the label, and Linux looks for it as it is written."""
    start, size_kib = BOOT_START_MIB * MIB, BOOT_MIB * 1024
    options = ("-F", "32", "-s", "1", "-n", recipe.BOOT_LABEL, f"--offset={start // 512}")
    _checked("mkfs.vfat", *options, image, str(size_kib))
    _checked("mcopy", "-s", "-m", "-i", f"{image}@@{start}", *sorted(boot.iterdir()), "::")


def _q(path: Path) -> str:
    return shlex.quote(str(path))


def _checked(program: str, *arguments: str | Path, stdin: bytes = b"") -> None:
    done = tools.run(program, *arguments, stdin=stdin)
    if done.returncode:
        words = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        raise ImageError(f"the image cannot be made ({program}: {words[-1] if words else done.returncode})"[:400])
