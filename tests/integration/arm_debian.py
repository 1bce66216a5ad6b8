"""ARM systems to run the wheel in, unpacked: Debian packages of the other architecture, and the index's wheels.

Nothing of a root is configured: Debian's packages are only unpacked, which takes seconds where a proper
installation (mmdebstrap) takes ten minutes of emulated maintainer scripts. The roots lie in the user's cache,
230 MB for aarch64 and 80 MB for armv7l; `make clean` leaves them, deleting them is safe.
"""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from os import environ
from pathlib import Path

from tests.wheels import ROOT, pip

COMPILED = {"numpy": "python3-numpy", "pynacl": "python3-nacl"}  # requirements, and Debian's packages of them
ALWAYS = ("python3", "libstdc++6")  # and all that they depend on
# /proc/cpuinfo as on a Raspberry Pi 4. qemu 7.2 passes this machine's own through, with no ARM processor in it, and
# onnxruntime 1.32 counts none and writes past its tables while it is imported.
PI_4 = """processor\t: {number}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A kind of processor.

    Attributes:
        name: what `platform.machine` and wheels call it.
        debian: what Debian calls it.
        folder: of its libraries below /usr/lib.
        emulators: programs that run its programs, any of them.
        cpu: which processor they are, one that boards have; nothing may use instructions that it lacks.
        cpuinfo: /proc/cpuinfo there, for one `number`; empty where nothing reads it.
        compilers: what makes its wheel, and where there are runtimes its C++ shim; each with Debian's packages.
        runtimes: those that can be installed.
        numpy: "index" where there are wheels of numpy and the like, "debian" where there are none.
    """

    name: str
    debian: str
    folder: str
    emulators: tuple[str, ...]
    cpu: str
    cpuinfo: str
    compilers: dict[str, str]
    runtimes: tuple[str, ...]
    numpy: str

    @property
    def cc(self) -> str:
        """The C compiler."""
        return next(iter(self.compilers))

    @property
    def cxx(self) -> str:
        """The C++ compiler; the last one."""
        return list(self.compilers)[-1]


AARCH64 = Machine(
    name="aarch64",
    debian="arm64",
    folder="aarch64-linux-gnu",
    emulators=("qemu-aarch64-static", "qemu-aarch64"),
    cpu="cortex-a72",
    cpuinfo=PI_4,
    compilers={
        "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
        "aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu",
    },
    runtimes=("sparse", "onnx", "executorch"),
    numpy="index",
)
ARMV7L = Machine(
    name="armv7l",
    debian="armhf",
    folder="arm-linux-gnueabihf",
    emulators=("qemu-arm-static", "qemu-arm"),
    cpu="cortex-a7",
    cpuinfo="",
    compilers={"arm-linux-gnueabihf-gcc": "gcc-arm-linux-gnueabihf libc6-dev-armhf-cross"},
    runtimes=("sparse",),  # neither onnxruntime nor executorch has wheels
    numpy="debian",
)


def base_of(machine: Machine) -> Path:
    """The folder of the system, and of the packages we depend on, made once and kept.

    `system` holds Debian's packages, `site` those of the index, `executorch` the C++ part of executorch.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements, executorch = project["dependencies"], project["optional-dependencies"]["executorch"]
    packages = [*ALWAYS, *(COMPILED.values() if machine.numpy == "debian" else ())]
    if machine.numpy == "debian":
        requirements = [name for name in requirements if not name.startswith(tuple(COMPILED))]
    if "onnx" in machine.runtimes:  # the version that this machine compares with
        requirements = [*requirements, f"onnxruntime=={version('onnxruntime')}"]
    release = Path("/etc/debian_version").read_text() if Path("/etc/debian_version").exists() else ""
    executorch = executorch if "executorch" in machine.runtimes else []
    wanted = (packages, requirements, executorch, release, machine.cpuinfo)
    key = hashlib.sha256(repr(wanted).encode()).hexdigest()[:12]
    cache = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hidenseek" / "roots"
    base = cache / f"{machine.debian}-{key}"
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / f"{machine.debian}.lock"):
        if not base.exists():
            with tempfile.TemporaryDirectory(dir=cache) as name:
                draft = Path(name) / "base"
                _unpack(machine, packages, Path(name), draft / "system")
                pip_install(machine, draft / "system", draft / "site", *requirements, dependencies=True)
                if executorch:
                    pip_install(machine, draft / "system", Path(name) / "executorch", *executorch)
                    _keep_cpp(Path(name) / "executorch", draft / "executorch")
                draft.rename(base)
    return base


def _keep_cpp(installed: Path, target: Path) -> None:
    """Move what the shim is compiled against and loads, 13 of 63 MB, and the version."""
    (target / "executorch").mkdir(parents=True)
    for part in ("lib", "include"):
        (installed / "executorch" / part).rename(target / "executorch" / part)
    (info,) = installed.glob("executorch-*.dist-info")
    info.rename(target / info.name)


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
    if machine.cpuinfo:
        (system / "proc").mkdir(exist_ok=True)
        (system / "proc/cpuinfo").write_text("".join(machine.cpuinfo.format(number=number) for number in range(4)))


def _apt(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": environ["PATH"], "APT_CONFIG": str(config), "LC_ALL": "C.UTF-8"}
    return subprocess.run(["apt-get", *arguments], env=env, capture_output=True, text=True, check=False)


def pip_install(machine: Machine, system: Path, target: Path, *what: str, dependencies: bool = False) -> None:
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
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file among all processes."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
