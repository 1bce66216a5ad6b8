"""CIFAR-10 and CIFAR-100 from their python batches (restricted unpickler) or binary batches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coordinator.datasets import unpickle
from coordinator.datasets.dataset import TEST, TRAIN, Dataset, Ints, Scale
from wire.errors import DataError

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
_MAX_BYTES = 512 << 20  # of one batch; the largest (CIFAR-100 train) has 155 million

Pixels = npt.NDArray[np.uint8]  # (n, 3072)


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One of the two sets: its files, its labels and its pixel constants."""

    name: str
    class_names: tuple[str, ...]
    scale: Scale  # of pixels 0..255, per colour
    train: tuple[str, ...]  # python batches
    test: str
    binary_train: tuple[str, ...]
    binary_test: str
    label_key: str  # in a python batch
    label_bytes: int  # in front of a binary image; the last one is the label
    folders: tuple[str, ...]  # what the publisher's archives unpack to


# Mean and deviation per colour over the training images, as widely published, times 255 and rounded.
CIFAR10 = Spec(
    name="cifar10",
    class_names=(
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
    scale=Scale(mean=(125.3, 123.0, 113.9), deviation=(63.0, 62.1, 66.7)),
    train=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test="test_batch",
    binary_train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    binary_test="test_batch.bin",
    label_key="labels",
    label_bytes=1,
    folders=("cifar-10-batches-py", "cifar-10-batches-bin"),
)
CIFAR100 = Spec(
    name="cifar100",
    class_names=tuple(f"fine-{number:02d}" for number in range(100)),
    scale=Scale(mean=(129.3, 124.1, 112.4), deviation=(68.2, 65.4, 70.4)),
    train=("train",),
    test="test",
    binary_train=("train.bin",),
    binary_test="test.bin",
    label_key="fine_labels",
    label_bytes=2,
    folders=("cifar-100-python", "cifar-100-binary"),
)


def read(folder: Path, *, spec: Spec) -> Dataset:
    """The set from `folder`, or from the folder in it that the publisher's archive makes.

    Raises:
        DataError: if a batch is missing or damaged.
    """
    for place in (folder, *(folder / name for name in spec.folders)):
        if (place / spec.test).is_file():
            files = [place / name for name in (*spec.train, spec.test)]
            batches = [read_python(path, label_key=spec.label_key) for path in files]
            break
        if (place / spec.binary_test).is_file():
            files = [place / name for name in (*spec.binary_train, spec.binary_test)]
            batches = [read_binary(path, label_bytes=spec.label_bytes) for path in files]
            break
    else:
        raise DataError(f"no {spec.test} or {spec.binary_test} in this folder", where=str(folder))
    for path, (_, labels) in zip(files, batches, strict=True):
        if labels.min() < 0 or labels.max() >= len(spec.class_names):
            raise DataError(
                f"labels {labels.min()}..{labels.max()} found, 0..{len(spec.class_names) - 1} expected", where=str(path)
            )
    rows = [len(labels) for _, labels in batches]
    return Dataset(
        name=spec.name,
        class_names=spec.class_names,
        scale=spec.scale,
        raw=np.concatenate([pixels for pixels, _ in batches]).reshape(-1, *SHAPE),
        y=np.concatenate([labels for _, labels in batches]),
        part=np.repeat(np.array([TRAIN] * (len(rows) - 1) + [TEST], dtype=np.uint8), rows),
    )


def read_python(path: Path, *, label_key: str) -> tuple[Pixels, Ints]:
    """One python batch: pixels (n, 3072) uint8 and labels (n,) int64.

    Raises:
        DataError: if it is not such a batch; nothing in it is run.
    """
    where = str(path)
    batch: Any = unpickle.loads(_bytes(path), where=where)
    if not isinstance(batch, dict):
        raise DataError("a dict expected in the batch", where=where)
    data, labels = (batch.get(key, batch.get(key.encode())) for key in ("data", label_key))
    if not isinstance(data, unpickle.PickledArray) or not isinstance(labels, list):
        raise DataError(f"an array 'data' and a list '{label_key}' expected in the batch", where=where)
    pixels = data.to_numpy(where=where)
    if not all(type(label) is int and 0 <= label < 256 for label in labels):
        raise DataError("labels that are not small whole numbers", where=where)
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), PIXELS) or not labels:
        raise DataError(
            f"{pixels.dtype} pixels of shape {pixels.shape} found, uint8 ({len(labels)}, {PIXELS}) expected",
            where=where,
        )
    return pixels, np.array(labels, dtype=np.int64)


def read_binary(path: Path, *, label_bytes: int) -> tuple[Pixels, Ints]:
    """One binary batch: rows of label bytes, then 3072 pixels. Shapes as `read_python`.

    Raises:
        DataError: if it is empty, or not a whole number of rows.
    """
    data = np.frombuffer(_bytes(path), dtype=np.uint8)
    row_bytes = label_bytes + PIXELS
    if len(data) == 0 or len(data) % row_bytes:
        raise DataError(f"{len(data)} bytes found, a multiple of {row_bytes} expected", where=str(path))
    rows = data.reshape(-1, row_bytes)
    return rows[:, label_bytes:], rows[:, label_bytes - 1].astype(np.int64)


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=str(path)) from None
    if len(data) > _MAX_BYTES:
        raise DataError(f"more than {_MAX_BYTES} bytes found", where=str(path))
    return data
