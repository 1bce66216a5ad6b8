"""IDX files, plain or gzipped, and the image sets that come in them: MNIST, Fashion-MNIST, EMNIST.

An IDX file is `00 00 08 d`, then d sizes as big-endian 32-bit numbers, then the bytes.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits
from typing import IO

import numpy as np
import numpy.typing as npt

from coordinator.datasets.dataset import TEST, TRAIN, Dataset, Scale
from wire.errors import DataError

MAGIC = struct.Struct(">HBB")  # 0, element type (8: unsigned byte), dimensions
MAX_BYTES = 1 << 30  # of one file's contents; EMNIST byclass has 547 million
_UNSIGNED_BYTE = 8
_CHUNK = 1 << 20  # bytes


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One image set: how its files are called and what is in them."""

    name: str
    class_names: tuple[str, ...]
    scale: Scale  # of pixels 0..255
    prefix: str = ""  # in front of `train-images...`
    first_label: int = 0  # what the files call class 0
    transposed: bool = False  # are rows and columns swapped in the files?


def _emnist(split: str, class_names: str, first_label: int = 0) -> Spec:
    return Spec(
        name=f"emnist-{split}",
        class_names=tuple(class_names),
        scale=_EMNIST_SCALE,
        prefix=f"emnist-{split}-",
        first_label=first_label,
        transposed=True,
    )


# Pixel mean and deviation of the training images, rounded. Fashion-MNIST's are measured here; the
# others are the widely published ones (0.1307/0.3081 and 0.1751/0.3332 of 255).
FASHION = Spec(
    name="fashion-mnist",
    class_names=("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"),
    scale=Scale(mean=(72.9,), deviation=(90.0,)),
)
MNIST = Spec(name="mnist", class_names=tuple(digits), scale=Scale(mean=(33.3,), deviation=(78.6,)))
_EMNIST_SCALE = Scale(mean=(44.7,), deviation=(85.0,))
_MERGED = digits + ascii_uppercase + "abdefghnqrt"
EMNIST = {
    "balanced": _emnist("balanced", _MERGED),
    "letters": _emnist("letters", ascii_lowercase, first_label=1),
    "digits": _emnist("digits", digits),
    "byclass": _emnist("byclass", digits + ascii_uppercase + ascii_lowercase),
    "bymerge": _emnist("bymerge", _MERGED),
    "mnist": _emnist("mnist", digits),
}


def read(folder: Path, *, spec: Spec) -> Dataset:
    """An image set from the four IDX files in `folder` (or in its gzip/ or raw/ subfolder).

    Raises:
        DataError: if a file is missing, damaged, or does not go with the others.
    """
    images, labels = [], []
    for side in ("train", "test"):
        image_path, label_path = _find(folder, spec, side, "images-idx3"), _find(folder, spec, side, "labels-idx1")
        pixels, numbers = read_file(image_path, dimensions=3), read_file(label_path, dimensions=1)
        if pixels.shape[1:] != (28, 28) or len(pixels) == 0:
            raise DataError(f"images of shape {pixels.shape} found, (n, 28, 28) expected", where=str(image_path))
        if len(pixels) != len(numbers):
            raise DataError(f"{len(numbers)} labels found, {len(pixels)} expected", where=str(label_path))
        last = spec.first_label + len(spec.class_names) - 1
        if numbers.min() < spec.first_label or numbers.max() > last:
            raise DataError(
                f"labels {numbers.min()}..{numbers.max()} found, {spec.first_label}..{last} expected",
                where=str(label_path),
            )
        images.append(pixels.swapaxes(1, 2) if spec.transposed else pixels)
        labels.append(numbers.astype(np.int64) - spec.first_label)
    return Dataset(
        name=spec.name,
        class_names=spec.class_names,
        scale=spec.scale,
        raw=np.concatenate(images)[:, None],
        y=np.concatenate(labels),
        part=np.repeat(np.array([TRAIN, TEST], dtype=np.uint8), [len(part) for part in labels]),
    )


def read_file(path: Path, *, dimensions: int) -> npt.NDArray[np.uint8]:
    """One IDX file of unsigned bytes; gzip is recognised by its contents.

    Raises:
        DataError: if the header is not that of `dimensions` dimensions, or more or fewer bytes follow
            than it announces. No more than that is ever held.
    """
    where = str(path)
    try:
        with path.open("rb") as file:
            stream = _Bytes(file)
            header = stream.take(MAGIC.size + 4 * dimensions)
            if len(header) < MAGIC.size + 4 * dimensions:
                raise DataError(f"{len(header)} bytes found, a header of {4 + 4 * dimensions} expected", where=where)
            zero, kind, found = MAGIC.unpack_from(header)
            if (zero, kind, found) != (0, _UNSIGNED_BYTE, dimensions):
                raise DataError(
                    f"header {header[:4].hex()} found, {MAGIC.pack(0, _UNSIGNED_BYTE, dimensions).hex()} expected",
                    where=where,
                )
            shape = struct.unpack_from(f">{dimensions}I", header, MAGIC.size)
            size = prod(shape)
            largest = prod(max(side, 1) for side in shape)  # a side of 0 must not hide sides numpy cannot multiply
            if largest > MAX_BYTES:
                raise DataError(f"{largest} bytes announced, at most {MAX_BYTES} accepted", where=where)
            body = stream.take(size + 1)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=where) from None
    except zlib.error as error:
        raise DataError(f"damaged gzip ({error})", where=where) from None
    if len(body) != size:
        more = "more than " if len(body) > size else ""
        raise DataError(f"{more}{min(len(body), size)} bytes of data found, {size} expected", where=where)
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)


class _Bytes:
    """A file's contents, unpacked if it is a gzip, a bounded piece at a time."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._packed = file.read(2) == b"\x1f\x8b"
        self._unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        file.seek(0)

    def take(self, count: int) -> bytearray:
        """The next `count` bytes, or as many as there are."""
        taken = bytearray()
        while len(taken) < count:
            room = min(count - len(taken), _CHUNK)
            piece = self._unpack(room) if self._packed else self._file.read(room)
            if not piece:
                break
            taken += piece
        return taken

    def _unpack(self, room: int) -> bytes:
        """At most `room` bytes; none only at the end, which must be gzip's own end mark."""
        while not self._unpacker.eof:
            waiting = self._unpacker.unconsumed_tail or self._file.read(_CHUNK)
            piece = self._unpacker.decompress(waiting, room)
            if piece:
                return piece
            if not waiting:
                raise zlib.error("cut short")
        return b""


def _find(folder: Path, spec: Spec, side: str, what: str) -> Path:
    """The one file of its kind: `t10k` or `test`, `-idx3` or `.idx3`, with the prefix or without, plain or .gz."""
    sides = ("train",) if side == "train" else (("test", "t10k") if spec.prefix else ("t10k", "test"))
    names = [
        f"{prefix}{side_name}-{spelt}-ubyte{ending}"
        for prefix in dict.fromkeys((spec.prefix, ""))
        for side_name in sides
        for spelt in (what, what.replace("-", "."))
        for ending in ("", ".gz")
    ]
    for place in (folder, folder / "gzip", folder / "raw"):
        for name in names:
            if (place / name).is_file():
                return place / name
    raise DataError(f"no file {names[0]} (or .gz) in this folder", where=str(folder))
