"""The two shapes of data every loader and split agrees on: `Dataset` in, `FederatedData` out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from wire.errors import DataError

Floats: TypeAlias = npt.NDArray[np.float32]
Ints: TypeAlias = npt.NDArray[np.int64]

TRAIN, TEST, UNSEEN, GAP = 0, 1, 2, 3  # what a row of a `Dataset` may be used for; GAP: for nothing


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Fixed constants that bring raw readings near mean 0, deviation 1; one pair per channel.

    They are literals, never fitted to the data at hand, so a device with raw sensors uses the same.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def apply(self, raw: npt.NDArray[Any]) -> Floats:
        """(raw - mean) / deviation along axis 1. Shape (n, channels, *spatial) -> the same, float32."""
        column = (1, -1) + (1,) * (raw.ndim - 2)
        mean = np.array(self.mean, dtype=np.float32).reshape(column)
        deviation = np.array(self.deviation, dtype=np.float32).reshape(column)
        scaled: Floats = np.subtract(raw, mean, dtype=np.float32)
        scaled /= deviation
        return scaled


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Samples as they were recorded, before they are shared out among devices.

    Raises:
        DataError: if the arrays do not belong together.
    """

    name: str
    class_names: tuple[str, ...]
    scale: Scale
    raw: npt.NDArray[Any]  # (n, channels, *spatial), uint8 pixels or float32 readings, unscaled
    y: Ints  # (n,), class numbers from 0
    part: npt.NDArray[np.uint8]  # (n,), TRAIN, TEST, UNSEEN or GAP
    owner: Ints | None = None  # (n,), who produced the row, from 1; None where nobody knows

    def __post_init__(self) -> None:
        rows = len(self.raw)
        if rows == 0:
            raise DataError(f"data set '{self.name}' has no samples")
        for label, array in (("y", self.y), ("part", self.part), ("owner", self.owner)):
            if array is not None and array.shape != (rows,):
                raise DataError(f"data set '{self.name}': {label} has shape {array.shape}, ({rows},) expected")
        if self.raw.ndim < 3 or self.raw.shape[1] != len(self.scale.mean):
            raise DataError(f"data set '{self.name}': samples of shape {self.raw.shape[1:]} found")
        if self.y.min() < 0 or self.y.max() >= self.classes:
            raise DataError(
                f"data set '{self.name}': labels {self.y.min()}..{self.y.max()} found, 0..{self.classes - 1} expected"
            )

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.raw.shape[1:])

    def rows(self, part: int) -> Ints:
        """Row numbers of one part, ascending."""
        return np.flatnonzero(self.part == part).astype(np.int64, copy=False)

    def take(self, rows: Ints) -> tuple[Floats, Ints]:
        """Scaled samples (k, *input_shape) float32 and labels (k,) int64 of the given rows."""
        return self.scale.apply(self.raw[rows]), self.y[rows]


@dataclass(frozen=True, kw_only=True, eq=False)
class DeviceData:
    """What one device holds: x float32 (n, *input_shape), y int64 (n,)."""

    x_train: Floats
    y_train: Ints
    x_test: Floats
    y_test: Ints


@dataclass(frozen=True, kw_only=True, eq=False)
class FederatedData:
    """A data set shared out: every device's own data, and people no device has ever trained on."""

    name: str
    how: str  # the split with its settings and seed, for reports
    class_names: tuple[str, ...]
    input_shape: tuple[int, ...]
    scale: Scale  # already applied to every x below
    devices: dict[str, DeviceData]  # device id -> data, in order of id
    unseen: tuple[Floats, Ints] | None  # x, y of owners kept out of training; None if there are none

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def digest(self) -> str:
        """sha256 over every id and array: equal if and only if two splits are the same."""
        arrays: dict[str, npt.NDArray[Any]] = {}
        for device_id, data in self.devices.items():
            arrays |= {f"{device_id}/{key}": value for key, value in vars(data).items()}
        if self.unseen is not None:
            arrays |= {"unseen/x": self.unseen[0], "unseen/y": self.unseen[1]}
        return digest(arrays.items())


def digest(arrays: Iterable[tuple[str, npt.NDArray[Any]]]) -> str:
    """sha256 (hex) over names, types, shapes and little-endian contents, in the order given."""
    total = hashlib.sha256()
    for key, array in arrays:
        plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        total.update(f"{key} {plain.dtype.str} {plain.shape}\n".encode())
        total.update(plain.data)
    return total.hexdigest()
