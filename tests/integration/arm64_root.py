"""ARM systems to run the wheel in: a Debian root of the other architecture, executed by qemu-user.

Nothing of the root is configured: Debian's packages are only unpacked, which takes seconds where a proper
installation (mmdebstrap) takes ten minutes of emulated maintainer scripts. Neither chroot nor binfmt_misc
is needed: qemu finds the root's loader and libraries by `-L`. The roots lie in the user's cache, about
150 MB each; `make clean` leaves them, deleting them is safe.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import environ
from pathlib import Path

import pytest

from tests.wheels import ROOT, build_wheel, copy_tree, pip

ALWAYS = ("python3", "libstdc++6")  # and all that they depend on


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A kind of processor.

    Attributes:
        name: what `platform.machine` and wheels call it.
        debian: what Debian calls it.
        folder: of its libraries below /usr/lib.
        emulators: programs that run its programs, any of them.
        compiler: what makes its wheel.
        headers: Debian package of the C library to compile against.
        numpy: "index" where there are wheels of numpy, "debian" where there are none.
    """

    name: str
    debian: str
    folder: str
    emulators: tuple[str, ...]
    compiler: str
    headers: str
    numpy: str


AARCH64 = Machine(
    name="aarch64",
    debian="arm64",
    folder="aarch64-linux-gnu",
    emulators=("qemu-aarch64-static", "qemu-aarch64"),
    compiler="aarch64-linux-gnu-gcc",
    headers="libc6-dev-arm64-cross",
    numpy="index",
)
ARMV7L = Machine(
    name="armv7l",
    debian="armhf",
    folder="arm-linux-gnueabihf",
    emulators=("qemu-arm-static", "qemu-arm"),
    compiler="arm-linux-gnueabihf-gcc",
    headers="libc6-dev-armhf-cross",
    numpy="debian",
)


@dataclass(frozen=True, kw_only=True)
class Root:
    """A system with Python and this tree's wheel installed.

    Attributes:
        machine: its processor.
        emulator: path of qemu.
        system: the unpacked packages.
        site: folders for Python's path; the first holds our wheel.
        wheel: file name of the wheel installed.
    """

    machine: Machine
    emulator: str
    system: Path
    site: tuple[Path, ...]
    wheel: str

    def python(self, *arguments: str | Path, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run the system's Python."""
        libraries = [self.system / "usr/lib" / self.machine.folder / name for name in ("blas", "lapack")]
        inside = {
            "LD_LIBRARY_PATH": ":".join(map(str, libraries)),  # update-alternatives has not linked them
            "PYTHONPATH": ":".join(map(str, self.site)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        settings = [part for name, value in inside.items() for part in ("-E", f"{name}={value}")]
        command = [self.emulator, "-L", self.system, *settings, self.system / "usr/bin/python3", "-P", *arguments]
        outside = {"PATH": environ["PATH"], "LC_ALL": "C.UTF-8"}
        return subprocess.run(command, env=outside, capture_output=True, text=True, check=False, timeout=timeout_s)


def install(machine: Machine, folder: Path) -> Root:
    """Build the wheel with the cross compiler and install it into the machine's root.

    Args:
        machine: the kind of processor.
        folder: for this run's files; processes that name the same one share them.
    """
    emulator = next(filter(None, map(shutil.which, machine.emulators)), None)
    missing = [] if emulator else ["qemu-user-static"]
    if shutil.which(machine.compiler) is None:
        missing += [f"gcc-{machine.folder}", machine.headers]
    if missing or emulator is None:
        pytest.fail(f"this test needs packages: apt-get install {' '.join(missing)}")
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / "lock"):
        base = _base(machine)
        built = list(folder.glob("wheel/*.whl"))
        wheel = built[0] if built else build_wheel(copy_tree(folder / "source"), folder / "wheel", CC=machine.compiler)
        if not (folder / "site").exists():
            _pip_install(machine, base / "system", folder / "site", str(wheel))
    debian = (base / "system/usr/lib/python3/dist-packages",) if machine.numpy == "debian" else ()
    site = (folder / "site", base / "site", *debian)
    return Root(machine=machine, emulator=emulator, system=base / "system", site=site, wheel=wheel.name)


def _base(machine: Machine) -> Path:
    """The system and the packages we depend on, made once and kept."""
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    packages = [*ALWAYS, *(["python3-numpy"] if machine.numpy == "debian" else [])]
    if machine.numpy == "debian":
        requirements = [name for name in requirements if not name.startswith("numpy")]
    release = Path("/etc/debian_version").read_text() if Path("/etc/debian_version").exists() else ""
    key = hashlib.sha256(repr((packages, requirements, release)).encode()).hexdigest()[:12]
    cache = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hidenseek" / "roots"
    base = cache / f"{machine.debian}-{key}"
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / f"{machine.debian}.lock"):
        if not base.exists():
            with tempfile.TemporaryDirectory(dir=cache) as name:
                draft = Path(name) / "base"
                _unpack(machine, packages, Path(name), draft / "system")
                _pip_install(machine, draft / "system", draft / "site", *requirements, dependencies=True)
                draft.rename(base)
    return base


def _unpack(machine: Machine, packages: list[str], scratch: Path, system: Path) -> None:
    """Unpack Debian packages and all that they depend on, from wherever this machine's apt takes its own."""
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (scratch / folder).mkdir(parents=True)
    (scratch / "status").touch()  # nothing is installed, so nothing is left out
    config = scratch / "apt.conf"
    config.write_text(
        f'APT {{ Architecture "{machine.debian}"; Architectures {{ "{machine.debian}"; }};\n'
        '  Install-Recommends "false"; Sandbox::User "root"; };\n'
        f'Dir {{ State "{scratch}/state"; State::status "{scratch}/status"; Cache "{scratch}/cache"; }};\n'
        'Acquire::Retries "3";\n'
    )
    # A mirror of updates that is out of step does not matter: what it lacks is taken from the release itself.
    warnings = _apt(config, "update", "-qq").stderr
    done = _apt(config, "install", "-qq", "--yes", "--download-only", *packages)
    assert done.returncode == 0, f"no {machine.debian} packages from apt: {warnings[-1000:]}\n{done.stderr[-2000:]}"
    system.mkdir(parents=True)
    for archive in sorted((scratch / "cache/archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", archive, system], check=True)
    if not (system / "lib").exists():  # Debian 13 and later: a link that base-files would make
        (system / "lib").symlink_to("usr/lib")


def _apt(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": environ["PATH"], "APT_CONFIG": str(config), "LC_ALL": "C.UTF-8"}
    return subprocess.run(["apt-get", *arguments], env=environment, capture_output=True, text=True, check=False)


def _pip_install(machine: Machine, system: Path, target: Path, *what: str, dependencies: bool = False) -> None:
    """Install wheels that the system would take: its Python, its machine, its glibc or older."""
    python = (system / "usr/bin/python3").readlink().name.removeprefix("python")
    platforms = [f"--platform=manylinux_2_{minor}_{machine.name}" for minor in range(_glibc(system), 16, -1)]
    options = ["--quiet", "--only-binary=:all:", "--implementation=cp", f"--python-version={python}", *platforms]
    pip("install", *options, *([] if dependencies else ["--no-deps"]), "--target", target, *what)


def _glibc(system: Path) -> int:
    """The minor version of the system's glibc 2."""
    banner = next(system.rglob("libc.so.6")).read_bytes().partition(b"GNU C Library (")[2]
    return int(banner.partition(b"release version 2.")[2][:2])


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
