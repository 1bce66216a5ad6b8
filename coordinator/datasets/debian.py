"""Fashion-MNIST from the Debian package `dataset-fashion-mnist`, without installing it.

apt checks the package's signature; root is not needed: it is downloaded and unpacked in the cache.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from coordinator.datasets import cache
from wire.errors import FetchError

PACKAGE = "dataset-fashion-mnist"
INSTALLED = Path("/usr/share/datasets/fashion-mnist")  # where the package puts its files
_APT_S, _UNPACK_S = 900.0, 120.0  # most seconds either may take
_HINT = (
    "Run as root: apt-get update && apt-get install dataset-fashion-mnist; or put the four IDX files "
    "into a folder and run: hidenseek data get fashion-mnist --from DIR"
)


def obtain_fashion_mnist() -> Path:
    """The folder with the four IDX files: the installed package's, or one unpacked in the cache.

    Raises:
        FetchError: if this machine has no apt, or apt cannot get the package.
    """
    if INSTALLED.is_dir():
        return INSTALLED
    unpacked = cache.downloads_dir() / PACKAGE
    folder = unpacked / INSTALLED.relative_to("/")
    if folder.is_dir():
        return folder
    with cache.lock(unpacked):
        if folder.is_dir():  # another process was quicker
            return folder
        with tempfile.TemporaryDirectory(dir=unpacked.parent, prefix=f".{PACKAGE}.") as name:
            work = Path(name)
            _run("apt-get", "download", "-o", "APT::Sandbox::User=root", PACKAGE, cwd=work, limit_s=_APT_S)
            packages = list(work.glob("*.deb"))
            if len(packages) != 1:
                raise FetchError(f"apt-get left {len(packages)} packages, 1 expected", where=PACKAGE, hint=_HINT)
            _run("dpkg-deb", "-x", packages[0].name, "root", cwd=work, limit_s=_UNPACK_S)
            if not (work / "root" / INSTALLED.relative_to("/")).is_dir():
                raise FetchError(f"{packages[0].name} holds no {INSTALLED}", where=PACKAGE, hint=_HINT)
            (work / "root").replace(unpacked)
    return folder


def _run(tool: str, *arguments: str, cwd: Path, limit_s: float) -> None:
    """Run a Debian tool to its end; its last line of complaint becomes the error's text."""
    program = shutil.which(tool)
    if program is None:
        raise FetchError(f"{tool} is not on this machine", where=PACKAGE, hint=_HINT)
    try:
        done = subprocess.run([program, *arguments], cwd=cwd, capture_output=True, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise FetchError(f"{tool} took more than {limit_s:.0f} s", where=PACKAGE, hint=_HINT) from None
    except OSError as error:
        raise FetchError(f"{tool} cannot be run ({error.strerror})", where=PACKAGE, hint=_HINT) from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise FetchError(f"{tool} failed: {said:.160}", where=PACKAGE, hint=_HINT)
