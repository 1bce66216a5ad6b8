"""The programs that read and change file systems inside an image: mtools, e2fsprogs, util-linux. Any user may."""

from __future__ import annotations

import os
import subprocess
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
    "sfdisk": "fdisk",
    "zstd": "zstd",
    "sudo": "sudo",
}
# Where they are when an ordinary user's PATH does not say so, and where Homebrew keeps its e2fsprogs.
FOLDERS = ("/usr/sbin", "/sbin", "/opt/homebrew/opt/e2fsprogs/sbin", "/usr/local/opt/e2fsprogs/sbin")


def find(program: str) -> str:
    """Where a program is.

    Raises:
        RuntimeMissing: if it is not installed; names the package.
    """
    found = which(program) or which(program, path=os.pathsep.join(FOLDERS))
    if found is None:
        package = PACKAGES[program]
        raise RuntimeMissing(f"{program} is not installed", hint=f"Install it: sudo apt-get install {package}")
    return found


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
