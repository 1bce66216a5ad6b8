"""What a board is sent to profile a ticket: our own packages with kernels for it, what else it lacks, the ticket."""

from __future__ import annotations

import io
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from wire.errors import ConfigError, DataError, RuntimeMissing

OURS = ("wire", "edge_client")
DEPENDENCIES = {"sparse": ("numpy",), "onnx": ("numpy", "onnxruntime")}  # by runtime; with `join` more
LEAST_PYTHON = (3, 11)
GLIBC = ("2_28", "2_27", "2_17")  # of wheels that old and new systems take
DIST = Path("dist")  # where `make wheels` puts them


def pack(subject: Path, *, machine: str, python: tuple[int, int], missing: Sequence[str], wheel: Path | None) -> bytes:
    """A compressed tar archive, whose root is to be on the board's PYTHONPATH and has the ticket as `subject`.

    Args:
        subject: a ticket, bundle or exported folder.
        machine: the board's architecture, as `uname -m` says.
        python: its version of Python.
        missing: packages that it lacks; they are fetched with pip, for it.
        wheel: of ours, for its architecture; None: one in dist/, or what is installed here if that fits.

    Raises:
        ConfigError: if its Python is too old.
        RuntimeMissing: if there are no kernels for it, or pip finds no package for it.
        DataError: if a file cannot be read.
    """
    if python < LEAST_PYTHON:
        raise ConfigError(
            f"the board has Python {python[0]}.{python[1]}, {LEAST_PYTHON[0]}.{LEAST_PYTHON[1]} or newer is needed",
            hint="Name another with --python, or put a newer system on it",
        )
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode="w:gz", compresslevel=1) as archive:
        for name, data in _ours(machine, wheel):
            _add(archive, name, data)
        with tempfile.TemporaryDirectory() as folder:
            for path in _fetched(missing, machine, python, Path(folder)):
                for name, data in _of_wheel(path):
                    _add(archive, name, data)
        try:
            archive.add(subject, "subject")
        except OSError as error:
            raise DataError(f"cannot be read ({error.strerror})", where=str(subject)) from error
    return found.getvalue()


def _ours(machine: str, wheel: Path | None) -> list[tuple[str, bytes]]:
    if wheel is None:
        fitting = sorted(DIST.glob(f"hidenseek-*_{machine}.whl"), key=lambda path: path.stat().st_mtime)
        wheel = fitting[-1] if fitting else None
    if wheel is not None:
        return [(name, data) for name, data in _of_wheel(wheel) if name.startswith(tuple(f"{one}/" for one in OURS))]
    if machine != platform.machine():
        raise RuntimeMissing(
            f"the board is {machine}, and here are kernels for {platform.machine()} only",
            hint=f"make wheels, and run this where dist/ is, or name a wheel for {machine} with --wheel",
        )
    found: list[tuple[str, bytes]] = []
    for package in OURS:
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        folder = Path(spec.origin).parent
        found += [
            (f"{package}/{path.relative_to(folder).as_posix()}", path.read_bytes())
            for path in sorted(folder.rglob("*"))
            if path.suffix in (".py", ".so")
        ]
    return found


def _fetched(missing: Sequence[str], machine: str, python: tuple[int, int], folder: Path) -> list[Path]:
    """Wheels of the packages, for the board, by pip."""
    if not missing:
        return []
    tags = [tag for libc in GLIBC for tag in ("--platform", f"manylinux_{libc}_{machine}")]
    tags += ["--platform", f"manylinux2014_{machine}"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", *tags]
    command += ["--python-version", f"{python[0]}.{python[1]}", "--implementation", "cp", "--dest", folder]  # type: ignore[list-item]
    done = subprocess.run([*command, *missing], capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        raise RuntimeMissing(
            f"{', '.join(missing)} for Python {python[0]}.{python[1]} on {machine}: {said[0].removeprefix('ERROR: ')}",
            hint=f"Install on the board: {' '.join(f'python3-{name}' for name in missing)}",
        )
    return sorted(folder.glob("*.whl"))


def _of_wheel(path: Path) -> list[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(path) as archive:
            return [(name, archive.read(name)) for name in archive.namelist() if not name.endswith("/")]
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"no wheel that can be read ({error})", where=str(path)) from error


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o644
    archive.addfile(entry, io.BytesIO(data))


def lacking(runtime: str, facts: Mapping[str, object]) -> list[str]:
    """Packages that a runtime needs and the board, as its facts say, does not have."""
    has = facts.get("has")
    return [name for name in DEPENDENCIES[runtime] if not isinstance(has, list) or name not in has]
