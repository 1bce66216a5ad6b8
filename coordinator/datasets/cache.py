"""The cache folder: what was downloaded, and every data set as one checked `.npz`.

::

    <cache>/downloads/        files as they came; `<name>.part` is an unfinished one
    <cache>/<set>-v1.npz      raw, y, part, owner and a sha256 over them

`<cache>` is the user's cache folder for `hidenseek`, or what HIDENSEEK_CACHE names.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from platformdirs import user_cache_dir

from coordinator.datasets.dataset import digest
from wire.errors import DataError

VERSION = 1  # of the arrays' meaning: raised whenever a loader starts to give other numbers
_KEYS = ("raw", "y", "part", "owner")


def cache_dir() -> Path:
    """The cache folder; not necessarily there yet."""
    return Path(os.environ.get("HIDENSEEK_CACHE") or user_cache_dir("hidenseek", appauthor=False))


def downloads_dir() -> Path:
    """Where downloaded files lie; created if missing.

    Raises:
        DataError: if it cannot be made.
    """
    folder = cache_dir() / "downloads"
    _make(folder)
    return folder


def array_path(name: str) -> Path:
    """Where the arrays of data set `name` are kept."""
    return cache_dir() / f"{name}-v{VERSION}.npz"


def save(name: str, arrays: dict[str, npt.NDArray[Any]]) -> Path:
    """Write a data set's arrays (some of raw, y, part, owner) and their hash; all or nothing.

    Raises:
        DataError: if the folder cannot be written.
    """
    path = array_path(name)
    _make(path.parent)
    seal = np.frombuffer(bytes.fromhex(digest(arrays.items())), dtype=np.uint8)
    with atomic(path) as file:
        np.savez(file, sha256=seal, **arrays)  # type: ignore[arg-type]
    return path


def load(name: str) -> dict[str, npt.NDArray[Any]] | None:
    """Read what `save` wrote; None if it is absent, or damaged (it is then built again).

    Nothing in the file is unpickled.
    """
    path = array_path(name)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files if key in _KEYS}
            seal = bytes(stored["sha256"]).hex()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, MemoryError):
        return None
    return arrays if arrays.keys() >= {"raw", "y", "part"} and digest(arrays.items()) == seal else None


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the name `path` only once it is complete and on the disk.

    Raises:
        DataError: if it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"cannot be written ({error.strerror})", where=str(path)) from None
    finally:
        with contextlib.suppress(OSError):  # it has its name already, or never came to be
            temporary.unlink()


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Let one process at a time work on `path`; the others wait. Without fcntl (Windows) nobody waits."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.with_name(path.name + ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot make the cache folder ({error.strerror})",
            where=str(folder),
            hint="Point HIDENSEEK_CACHE at a folder you may write to",
        ) from None
