"""Any bytes at all, given to a reader, load or raise DataError; and nothing in them is run."""

from __future__ import annotations

import contextlib
import gzip
import pickle
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.datasets import cifar, har, idx, unpickle
from wire.errors import DataError

_GLOBALS = [
    b"cnumpy\ndtype\n",
    b"cnumpy.core.multiarray\n_reconstruct\n",
    b"c_codecs\nencode\n",
    b"ccopy_reg\n_reconstructor\n",
    b"cos\nsystem\n",
    b"cpandas.core.frame\nDataFrame\n",
]
_PIECES = [
    *_GLOBALS,
    b"(",
    b")",
    b"]",
    b"}",
    b"t",
    b"R",
    b"b",
    b"a",
    b"e",
    b"s",
    b"u",
    b"N",
    b"K\x01",
    b"q\x00",
    b"h\x00",
]
_PIECES += [
    b"U\x02u1",
    b"X\x06\x00\x00\x00latin1",
    b"0",
    b"l",
    b"d",
    b"\x85",
    b"\x86",
    b"\x87",
    b"J\xff\xff\xff\xff",
    b"2",
]
_VALID = pickle.dumps({"data": np.zeros((1, 3072), dtype=np.uint8), "labels": [3]}, protocol=2)


def _write(name: str, data: bytes, read: Callable[[Path], object]) -> None:
    """Put `data` into a file and read it; a DataError is as good as a result."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        with contextlib.suppress(DataError):
            read(path)


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=200), st.lists(st.sampled_from(_PIECES), max_size=40).map(b"".join)))
def test_any_bytes_unpickle_or_raise(data: bytes) -> None:
    """Random bytes, and random programs of admitted instructions, end in data or DataError."""
    with contextlib.suppress(DataError):
        assert type(unpickle.loads(data + b".", where="x")).__module__ in ("builtins", unpickle.__name__)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, len(_VALID) - 1), st.integers(0, 255), st.booleans())
def test_a_damaged_cifar_batch_loads_or_raises(position: int, value: int, cut: bool) -> None:
    """One changed byte, or a cut, in a good batch."""
    data = _VALID[:position] if cut else _VALID[:position] + bytes([value]) + _VALID[position + 1 :]
    _write("batch", data, lambda path: cifar.read_python(path, label_key="labels"))


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=100), st.integers(1, 2))
def test_any_binary_batch_loads_or_raises(data: bytes, label_bytes: int) -> None:
    """Any bytes, and any bytes padded to a whole row, as a binary CIFAR batch."""
    _write("batch.bin", data, lambda path: cifar.read_binary(path, label_bytes=label_bytes))
    _write("batch.bin", data.ljust(label_bytes + 3072), lambda path: cifar.read_binary(path, label_bytes=label_bytes))


@settings(deadline=None)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.builds(
            lambda shape, body: struct.pack(">HBB3I", 0, 8, 3, *shape) + body,
            st.tuples(*[st.integers(0, 2**32 - 1) | st.integers(0, 4)] * 3),
            st.binary(max_size=64),
        ),
    ),
    st.booleans(),
    st.integers(0, 100),
)
def test_any_idx_file_loads_or_raises(data: bytes, packed: bool, cut: int) -> None:
    """Any bytes, and any sizes in a good header, plain and as a whole or cut gzip."""
    content = gzip.compress(data)[: 100 - cut or None] if packed else data
    _write("idx", content, lambda path: idx.read_file(path, dimensions=3))


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=200), st.sampled_from(["x.tar.gz", "HAPT.pkl.gz"]), st.integers(0, 2))
def test_any_hapt_file_loads_or_raises(data: bytes, name: str, wraps: int) -> None:
    """Any bytes, wrapped in gzip up to twice, as the package or the pickle in it."""
    for _ in range(wraps):
        data = gzip.compress(data)
    _write(name, data, har.read)


@settings(deadline=None, max_examples=60)
@given(st.text(alphabet="0123456789 .-e\nnaif", max_size=80), st.sampled_from(["labels", "acc_exp01_user01"]))
def test_any_raw_text_loads_or_raises(text: str, name: str) -> None:
    """Any numbers or near-numbers in a file of UCI's raw folder."""
    with tempfile.TemporaryDirectory() as name_:
        folder = Path(name_)
        for sensor in ("acc", "gyro"):
            (folder / f"{sensor}_exp01_user01.txt").write_text("0 0 0\n" * 130)
        (folder / "labels.txt").write_text("1 1 5 0 129\n")
        (folder / f"{name}.txt").write_text(text)
        with contextlib.suppress(DataError):
            assert np.isfinite(har.read(folder).raw).all()
