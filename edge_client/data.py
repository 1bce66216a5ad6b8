"""A device's own data: `.npz` files with arrays x and y, checked before anything trains on them."""

from __future__ import annotations

import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_client import memory_limits
from edge_client.data_files import HINT, list_files
from edge_client.runtimes.base import Floats, Labels
from wire.errors import DataError
from wire.plan import Plan

HELD_BACK = 5  # without a test file, every fifth sample is held back for evaluation
UNLABELLED_HINT = (
    "Save it with numpy.savez(FILE, x=...): x float32 (samples, *input shape); y (samples,) if it is known"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class DeviceData:
    """Samples x float32 (n, *input_shape) and labels y int64 (n,), to train on and to test with."""

    x_train: Floats
    y_train: Labels
    x_test: Floats
    y_test: Labels
    source: str

    def check(self, plan: Plan) -> None:
        """Refuse data the network cannot take.

        Raises:
            DataError: if a sample's shape or a label does not fit the plan.
        """
        for x, y in ((self.x_train, self.y_train), (self.x_test, self.y_test)):
            check(plan, x, y, self.source)


def check(plan: Plan, x: Floats, y: Labels | None, source: str) -> None:
    """Refuse samples (n, ...), and labels (n,) if there are any, that the network cannot take.

    Raises:
        DataError: if a sample's shape or a label does not fit the plan.
    """
    if x.shape[1:] != plan.input_shape:
        raise DataError(
            f"samples have shape {x.shape[1:]}, the network '{plan.name}' takes {plan.input_shape}",
            where=source,
            hint="Prepare the data for this network, or join another federation",
        )
    if y is not None and y.size and int(y.max()) >= plan.classes:
        raise DataError(
            f"label {int(y.max())} found, the network '{plan.name}' knows classes 0..{plan.classes - 1}", where=source
        )


def load(path: Path) -> DeviceData:
    """Read one `.npz` file, or a folder of them.

    In a folder, files whose name starts with `test` are for evaluation and all others for
    training. Without any, every fifth sample is held back.

    Raises:
        DataError: naming the file, what was found and what was expected.
        NotEnoughMemory: if they are more than this process may take.
    """
    files = list_files(path)
    memory_limits.require(_unpacked_bytes(files), f"the data in {path}", hint="give it fewer samples")
    train = _join([file for file in files if not file.name.startswith("test")], path)
    tests = [file for file in files if file.name.startswith("test")]
    if tests:
        test = _join(tests, path)
        if test[0].shape[1:] != train[0].shape[1:]:
            raise DataError(
                f"test samples have shape {test[0].shape[1:]}, training samples {train[0].shape[1:]}", where=str(path)
            )
    else:
        held = np.arange(train[1].size) % HELD_BACK == HELD_BACK - 1
        train, test = (train[0][~held], train[1][~held]), (train[0][held], train[1][held])
    return DeviceData(x_train=train[0], y_train=train[1], x_test=test[0], y_test=test[1], source=str(path))


def _unpacked_bytes(files: list[Path]) -> int:
    """Bytes of all arrays in `.npz` files, as their archives say; of several files twice, for they are joined."""
    found = 0
    for file in files:
        with suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(file) as archive:  # `read` says what is wrong
            found += sum(entry.file_size for entry in archive.infolist())
    return found * (2 if len(files) > 1 else 1)


def _join(files: list[Path], folder: Path) -> tuple[Floats, Labels]:
    if not files:
        raise DataError("only test files, nothing to train on", where=str(folder), hint=HINT)
    loaded = [_read(file) for file in files]
    shapes = {x.shape[1:]: file for (x, _), file in zip(loaded, files, strict=True)}
    if len(shapes) > 1:
        (a, file_a), (b, file_b) = list(shapes.items())[:2]
        raise DataError(f"{file_a.name} has samples of shape {a}, {file_b.name} of {b}", where=str(folder))
    if len(loaded) == 1:
        return loaded[0]  # no second copy of what may be most of a small board's memory
    return np.concatenate([x for x, _ in loaded]), np.concatenate([y for _, y in loaded])


def _read(file: Path) -> tuple[Floats, Labels]:
    x, y = read(file, labels=True)
    assert y is not None
    return x, y


def read(file: Path, *, labels: bool = False) -> tuple[Floats, Labels | None]:
    """Read samples float32 (n, ...) from one `.npz` file, and labels int64 (n,) if it has any.

    Args:
        file: with arrays x and, where labels are known, y.
        labels: refuse a file without.

    Raises:
        DataError: naming the file, what was found and what was expected.
    """
    hint = HINT if labels else UNLABELLED_HINT
    try:
        # Opened here: numpy leaves a file open that turns out to be no archive.
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            missing = ({"x", "y"} if labels else {"x"}) - set(archive.files)
            if missing:
                raise DataError(
                    f"array {' and '.join(sorted(missing))} missing, found {', '.join(archive.files) or 'none'}",
                    where=str(file),
                    hint=hint,
                )
            x, y = archive["x"], archive["y"] if "y" in archive.files else None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"not a readable .npz file ({error})", where=str(file), hint=hint) from error
    samples = _samples(x, str(file), hint)
    return samples, None if y is None else _labels(y, samples, str(file), hint)


def _samples(x: NDArray[np.generic], where: str, hint: str) -> Floats:
    if x.dtype.kind not in "fiu":
        raise DataError(f"x is {x.dtype}, numbers expected", where=where, hint=hint)
    if x.ndim < 2 or not x.size:
        raise DataError(f"x has shape {x.shape}, one or more samples expected", where=where, hint=hint)
    samples: Floats = np.ascontiguousarray(x, dtype=np.float32)
    if not np.isfinite(samples).all():
        bad = int(np.flatnonzero(~np.isfinite(samples.reshape(len(samples), -1)).all(axis=1))[0])
        raise DataError(f"sample {bad} of x holds a value that is not finite", where=where)
    return samples


def _labels(y: NDArray[np.generic], samples: Floats, where: str, hint: str) -> Labels:
    if y.dtype.kind not in "iu":
        raise DataError(f"y is {y.dtype}, whole numbers expected", where=where, hint=hint)
    if y.shape != samples.shape[:1]:
        raise DataError(
            f"x has shape {samples.shape} and y {y.shape}, one label a sample expected", where=where, hint=hint
        )
    labels = y.astype(np.int64)
    if int(labels.min()) < 0:
        raise DataError(f"label {int(labels.min())} found, labels count from 0", where=where)
    return labels
