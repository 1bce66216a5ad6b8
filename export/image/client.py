"""The device's program as files for a root partition: wheels unpacked, so that nothing is installed at first boot."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from export.image.service import HOME, PYCACHE
from export.image.system import System
from export.image.tree import Tree
from wire import __version__
from wire.errors import FetchError, ImageError

OLDEST_GLIBC = 17
OURS = ("wire/", "edge_client/")  # of our wheel: the rest is for workstations
# What runs nothing on a device: tests, type stubs, C headers, static libraries, the parts of numpy that compile code.
NOT_NEEDED = re.compile(r"/(tests|_pyinstaller|include)/|\.(pyi|pyx|pxd|h|c|a|lib)$|^numpy/(f2py|distutils)/|\.data/")
# Isolated; and without the system's packages and docstrings, numpy's too, for 3 MB less.
LAUNCHER = """\
#!/usr/bin/python3 -ISOO
import sys

release = "{release}"
sys.path.insert(0, release + "/lib")
sys.pycache_prefix = "{pycache}"  # the service may write nowhere else, and starts faster with it

from edge_client.cli import main

sys.exit(main())
"""


@dataclass(frozen=True, kw_only=True)
class Client:
    """The device's program for one kind of system.

    Attributes:
        files: where everything goes.
        release: SHA-256 over all of it, shortened; its folder below /opt/hidenseek/releases.
        size_bytes: room that it takes.
    """

    files: Tree
    release: str
    size_bytes: int


def wheels(system: System, folder: Path, sources: list[Path]) -> list[Path]:
    """Wheels of hidenseek and all that it needs on a system, put into a folder by pip.

    Args:
        system: which Python, processor and C library they are for.
        folder: where they are put; with those of an earlier call no package index is asked again.
        sources: folders with wheels, that of hidenseek among them.

    Raises:
        ImageError: if there is no wheel of hidenseek for this kind of system.
        FetchError: if pip does not find another.
    """
    ours = f"hidenseek-{__version__}-py3-none-manylinux*_{system.machine}.whl"
    if not any(next(source.glob(ours), None) for source in sources):
        seen = sorted({one.name for source in sources for one in source.glob("hidenseek-*.whl")})
        raise ImageError(
            f"no wheel of hidenseek {__version__} for {system.machine} in {', '.join(map(str, sources))}"
            + (f", only {', '.join(seen)}" if seen else ""),
            where="--wheels",
            hint="Make it with `make wheels`, in a clone of the project; then: --wheels dist",
        )
    folder.mkdir(parents=True, exist_ok=True)
    for earlier in folder.glob("hidenseek-*.whl"):  # it may be another of the same version
        earlier.unlink()
    python = f"{system.python[0]}.{system.python[1]}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}", "--dest", str(folder)]
    command += [
        f"--platform=manylinux_2_{minor}_{system.machine}" for minor in range(system.glibc, OLDEST_GLIBC - 1, -1)
    ]
    command += [f"--platform=manylinux2014_{system.machine}"]
    command += [f"--find-links={source}" for source in [folder, *sources]]
    command += [f"hidenseek=={__version__}"]
    done = subprocess.run([*command, "--no-index"], capture_output=True, text=True, check=False)
    if done.returncode:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stderr.strip()]
        raise FetchError(
            f"pip found no wheels for Python {python} on {system.machine} ({words[-1]:.200})",
            where="--wheels",
            hint="Connect to the network once, or put the wheels into the folder of --wheels",
        )
    return sorted(folder.glob("*.whl"))


def unpack(found: list[Path], scratch: Path) -> Client:
    """Unpack wheels, without what a device does not need.

    Args:
        found: the wheels.
        scratch: an empty folder that the files lie in until they are written.

    Raises:
        ImageError: if one is damaged, or has a file that lies outside of it.
    """
    contents: dict[str, Path] = {}
    digest = hashlib.sha256()
    for wheel in sorted(found):
        try:
            with zipfile.ZipFile(wheel) as archive:
                for name in sorted(archive.namelist()):
                    if name.endswith("/") or not _needed(wheel, name):
                        continue
                    if name.startswith("/") or ".." in name.split("/"):
                        raise ImageError(f"a file named '{name:.80}' lies outside of it", where=str(wheel))
                    data = archive.read(name)
                    digest.update(f"{name}\0{len(data)}\0".encode() + data)
                    target = scratch / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(data)
                    contents[name] = target
        except (OSError, zipfile.BadZipFile) as error:
            raise ImageError(f"damaged ({error})", where=str(wheel), hint="Delete it, and start again") from error
    release = digest.hexdigest()[:16]
    home = f"{HOME}/releases/{release}"
    tree = Tree()
    for name, path in contents.items():
        tree.add(f"{home}/lib/{name}", path)
    tree.add(f"{home}/bin/hidenseek-edge", LAUNCHER.format(release=home, pycache=PYCACHE), 0o755)
    tree.links[f"{HOME}/current"] = f"releases/{release}"
    tree.links["/usr/local/bin/hidenseek-edge"] = f"{HOME}/current/bin/hidenseek-edge"
    return Client(files=tree, release=release, size_bytes=tree.size_bytes)


def _needed(wheel: Path, name: str) -> bool:
    if wheel.name.startswith("hidenseek-"):
        return name.startswith(OURS) or (".dist-info/" in name and name.endswith("METADATA"))
    return not NOT_NEEDED.search(name)
