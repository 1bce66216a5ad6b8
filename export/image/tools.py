"""The programs that make, read and change file systems inside an image: mtools, e2fsprogs, util-linux. Any user may."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from shutil import which

from wire.errors import RuntimeMissing

PACKAGES = {  # Debian's
    "mcopy": "mtools",
    "mdir": "mtools",
    "mdel": "mtools",
    "debugfs": "e2fsprogs",
    "dumpe2fs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "resize2fs": "e2fsprogs",
    "mke2fs": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "sfdisk": "fdisk",
    "zstd": "zstd",
    "sudo": "sudo",
    "tar": "tar",
    "sh": "dash",
    "mmdebstrap": "mmdebstrap",
    "arch-test": "arch-test",
    "fakeroot": "fakeroot",
    "newuidmap": "uidmap",
    "unshare": "util-linux",
}
# Where they are when an ordinary user's PATH does not say so, and where Homebrew keeps its e2fsprogs.
FOLDERS = ("/usr/sbin", "/sbin", "/opt/homebrew/opt/e2fsprogs/sbin", "/usr/local/opt/e2fsprogs/sbin")


def find(program: str) -> str:
    """Where a program is.

    Raises:
        RuntimeMissing: if it is not installed; names the package.
    """
    found = _which(program)
    if found is None:
        package = PACKAGES[program]
        raise RuntimeMissing(f"{program} is not installed", hint=f"Install it: sudo apt-get install {package}")
    return found


def check(programs: Iterable[str]) -> None:
    """Whether all of these are there.

    Raises:
        RuntimeMissing: if one is not; names every package that has to be installed.
    """
    lacking = [program for program in programs if _which(program) is None]
    if lacking:
        packages = " ".join(sorted({PACKAGES[program] for program in lacking}))
        verb = "is" if len(lacking) == 1 else "are"
        raise RuntimeMissing(
            f"{', '.join(lacking)} {verb} not installed", hint=f"Install: sudo apt-get install {packages}"
        )


def _which(program: str) -> str | None:
    return which(program) or which(program, path=os.pathsep.join(FOLDERS))


def run(program: str, *arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run one with its messages in English, whatever its exit code.

    Raises:
        RuntimeMissing: if it is not installed.
    """
    return subprocess.run(
        [find(program), *map(str, arguments)],
        input=stdin,
        capture_output=True,
        check=False,
        env={
            "PATH": os.environ.get("PATH", ""),
            "LC_ALL": "C",
            "TZ": "UTC",
            "MTOOLS_SKIP_CHECK": "1",  # stock images' file systems need not fill their partitions
            "DEBUGFS_PAGER": "cat",
        },
    )
