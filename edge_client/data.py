"""A device's own data: `.npz` files with arrays x and y, checked before anything trains on them."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_client.runtimes.base import Floats, Labels
from wire.errors import DataError
from wire.plan import Plan

HELD_BACK = 5  # without a test file, every fifth sample is held back for evaluation
HINT = "Save it with numpy.savez(FILE, x=..., y=...): x float32 (samples, *input shape), y whole numbers (samples,)"


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
            if x.shape[1:] != plan.input_shape:
                raise DataError(
                    f"samples have shape {x.shape[1:]}, the network '{plan.name}' takes {plan.input_shape}",
                    where=self.source,
                    hint="Prepare the data for this network, or join another federation",
                )
            if y.size and int(y.max()) >= plan.classes:
                raise DataError(
                    f"label {int(y.max())} found, the network '{plan.name}' knows classes 0..{plan.classes - 1}",
                    where=self.source,
                )


def load(path: Path) -> DeviceData:
    """Read one `.npz` file, or a folder of them.

    In a folder, files whose name starts with `test` are for evaluation and all others for
    training. Without any, every fifth sample is held back.

    Raises:
        DataError: naming the file, what was found and what was expected.
    """
    if path.is_dir():
        files = sorted(path.glob("*.npz"))
        if not files:
            raise DataError("no .npz file in this folder", where=str(path), hint=HINT)
    elif path.exists():
        files = [path]
    else:
        raise DataError("no such file or folder", where=str(path), hint="Name one with --data")
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
    try:
        # Opened here: numpy leaves a file open that turns out to be no archive.
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            missing = {"x", "y"} - set(archive.files)
            if missing:
                raise DataError(
                    f"array {' and '.join(sorted(missing))} missing, found {', '.join(archive.files) or 'none'}",
                    where=str(file),
                    hint=HINT,
                )
            x, y = archive["x"], archive["y"]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"not a readable .npz file ({error})", where=str(file), hint=HINT) from error
    if x.dtype.kind not in "fiu" or y.dtype.kind not in "iu":
        raise DataError(
            f"x is {x.dtype} and y {y.dtype}, numbers and whole numbers expected", where=str(file), hint=HINT
        )
    if y.ndim != 1 or x.ndim < 2 or x.shape[0] != y.shape[0] or not y.size:
        raise DataError(
            f"x has shape {x.shape} and y {y.shape}, one label a sample expected", where=str(file), hint=HINT
        )
    labels: NDArray[np.int64] = y.astype(np.int64)
    if int(labels.min()) < 0:
        raise DataError(f"label {int(labels.min())} found, labels count from 0", where=str(file))
    samples: NDArray[np.float32] = np.ascontiguousarray(x, dtype=np.float32)
    if not np.isfinite(samples).all():
        bad = int(np.flatnonzero(~np.isfinite(samples.reshape(len(samples), -1)).all(axis=1))[0])
        raise DataError(f"sample {bad} of x holds a value that is not finite", where=str(file))
    return samples, labels
