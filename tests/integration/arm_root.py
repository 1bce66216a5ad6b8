"""The wheel of this tree installed in an ARM system, and its Python executed by qemu-user.

Neither chroot nor binfmt_misc is needed: qemu finds the root's files by `-L` and passes everything else of this machine
through, /sys with its processors and the network among it. What runs is what a board would have: our wheel, and for
aarch64 stock onnxruntime and ExecuTorch with the shim compiled from the sources in our wheel, by the cross compiler.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from os import environ
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import pytest

from tests.integration.arm_debian import Machine, base_of, locked, pip_install
from tests.wheels import build_wheel, copy_tree, environment

Process: TypeAlias = subprocess.Popen[bytes]


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

    def command(self, *arguments: str | Path, **inside: str) -> list[str | Path]:
        """The command that runs the system's Python, with variables for its environment."""
        libraries = [self.system / "usr/lib" / self.machine.folder / name for name in ("blas", "lapack")]
        inside = {
            "LD_LIBRARY_PATH": ":".join(map(str, libraries)),  # update-alternatives has not linked them
            "PYTHONPATH": ":".join(map(str, self.site)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OPENBLAS_NUM_THREADS": "1",
        } | inside
        settings = [part for name, value in inside.items() for part in ("-E", f"{name}={value}")]
        qemu = [self.emulator, "-cpu", self.machine.cpu, "-L", self.system, *settings]
        return [*qemu, self.system / "usr/bin/python3", "-P", *arguments]

    def start(self, *arguments: str | Path, inside: Mapping[str, str] = MappingProxyType({}), **pipes: Any) -> Process:
        """Start the system's Python; `pipes` as for Popen."""
        outside = {"PATH": environ["PATH"], "LC_ALL": "C.UTF-8"}
        return subprocess.Popen(self.command(*arguments, **inside), env=outside, **pipes)

    def python(self, *arguments: str | Path, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run the system's Python to its end."""
        process = self.start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, err = process.communicate(timeout=timeout_s)
        finally:
            process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, out.decode(), err.decode())


def installed(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Root:
    """A machine's root with this tree's wheel; one for all of pytest's processes."""
    return install(machine, shared_folder(tmp_path_factory) / f"root-{machine.name}")


def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run, the same for all of pytest's processes."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in environ else base


def install(machine: Machine, folder: Path) -> Root:
    """Build the wheel with the cross compiler and install it into the machine's root.

    Args:
        machine: the kind of processor.
        folder: for this run's files; processes that name the same one share them.
    """
    emulator = next(filter(None, map(shutil.which, machine.emulators)), None)
    missing = [] if emulator else ["qemu-user-static"]
    missing += [packages for compiler, packages in machine.compilers.items() if shutil.which(compiler) is None]
    if missing or emulator is None:
        pytest.fail(f"this test needs packages: apt-get install {' '.join(missing)}")
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock"):
        base = base_of(machine)
        built = list(folder.glob("wheel/*.whl"))
        wheel = built[0] if built else build_wheel(copy_tree(folder / "source"), folder / "wheel", CC=machine.cc)
        if not (folder / "site").exists():
            draft = folder / "site.draft"
            pip_install(machine, base / "system", draft, str(wheel))
            if "executorch" in machine.runtimes:
                _build_shim(machine, draft, base / "executorch")
            draft.rename(folder / "site")
    debian = (base / "system/usr/lib/python3/dist-packages",) if machine.numpy == "debian" else ()
    executorch = (base / "executorch",) if "executorch" in machine.runtimes else ()
    site = (folder / "site", base / "site", *executorch, *debian)
    return Root(machine=machine, emulator=emulator, system=base / "system", site=site, wheel=wheel.name)


def _build_shim(machine: Machine, site: Path, executorch: Path) -> None:
    """Compile the shim as a board does, from the sources in the installed wheel; only the compiler is another."""
    command = [sys.executable, "-P", "-m", "edge_client.executorch.build", "--compiler", machine.cxx]
    # numpy must be this machine's, so executorch lies in a folder without it.
    env = environment(PYTHONPATH=f"{site}:{executorch}")
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(site), done.stdout
