"""IDX and CIFAR readers on tiny files, good and damaged."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from coordinator.datasets import catalog, cifar, debian, idx
from coordinator.datasets.dataset import TEST, TRAIN
from wire.errors import DataError, FetchError

PIXELS = np.arange(3 * 28 * 28).reshape(3, 28, 28).astype(np.uint8)


def _idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def _write_set(folder: Path, names: tuple[str, str, str, str], labels: list[int], *, packed: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    numbers = np.array(labels, dtype=np.uint8)
    for name, array in zip(names, (PIXELS, numbers, PIXELS[:2], numbers[:2]), strict=True):
        data = _idx(array)
        (folder / name).write_bytes(gzip.compress(data) if packed else data)


HYPHENS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
DOTS = ("train-images.idx3-ubyte", "train-labels.idx1-ubyte", "t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte")
PACKED = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")  # fmt: skip  # noqa: E501


@pytest.mark.parametrize("names", [HYPHENS, DOTS, PACKED])
def test_mnist_is_found_under_every_spelling(tmp_path: Path, names: tuple[str, str, str, str]) -> None:
    """Hyphens, dots and .gz all read the same; train comes before test."""
    _write_set(tmp_path, names, [0, 9, 4], packed=names is PACKED)
    dataset = idx.read(tmp_path, spec=idx.MNIST)
    assert dataset.y.tolist() == [0, 9, 4, 0, 9]
    assert dataset.part.tolist() == [TRAIN] * 3 + [TEST] * 2
    np.testing.assert_array_equal(dataset.raw[:3, 0], PIXELS)
    assert dataset.input_shape == (1, 28, 28)


def test_emnist_is_turned_upright_and_its_letters_count_from_one(tmp_path: Path) -> None:
    """EMNIST stores images on their side and letters as 1..26."""
    names = tuple(f"emnist-letters-{name.replace('t10k', 'test')}" for name in HYPHENS)
    _write_set(tmp_path / "gzip", names, [1, 26, 2])  # type: ignore[arg-type]
    dataset = catalog.load("emnist-letters", source=tmp_path)
    assert dataset.y.tolist() == [0, 25, 1, 0, 25]
    np.testing.assert_array_equal(dataset.raw[0, 0], PIXELS[0].T)


def test_class_names_of_emnist_are_as_many_as_published() -> None:
    """47, 26, 10, 62, 47 and 10 classes."""
    assert {key: len(spec.class_names) for key, spec in idx.EMNIST.items()} == {
        "balanced": 47,
        "letters": 26,
        "digits": 10,
        "byclass": 62,
        "bymerge": 47,
        "mnist": 10,
    }


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes found, a header of 8"),
        (struct.pack(">HBBI", 0, 8, 3, 5), "header 00000803 found, 00000801 expected"),
        (struct.pack(">HBBI", 0, 13, 1, 5), "header 00000d01"),
        (struct.pack(">HBBI", 0, 8, 1, 0xFFFFFFFF), "4294967295 bytes announced"),
        (struct.pack(">HBBI", 0, 8, 1, 5) + b"1234", "4 bytes of data found, 5 expected"),
        (struct.pack(">HBBI", 0, 8, 1, 5) + b"123456", "more than 5 bytes of data found"),
        (gzip.compress(struct.pack(">HBBI", 0, 8, 1, 5) + b"12345", mtime=0)[:-4], "cut short"),
        (b"\x1f\x8bnot really gzip at all", "damaged gzip"),
    ],
)
def test_damaged_idx_files_say_what_was_found_and_expected(tmp_path: Path, data: bytes, message: str) -> None:
    """Every way an IDX file can lie ends in DataError with the file's name."""
    path = tmp_path / "labels"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        idx.read_file(path, dimensions=1)
    assert caught.value.where == str(path)


def test_an_empty_side_does_not_hide_impossible_ones(tmp_path: Path) -> None:
    """No images of 2^32-1 by 2^32-1 pixels are no bytes, and still no array that numpy can make."""
    path = tmp_path / "images"
    path.write_bytes(struct.pack(">HBBIII", 0, 8, 3, 0, 0xFFFFFFFF, 0xFFFFFFFF))
    with pytest.raises(DataError, match="bytes announced"):
        idx.read_file(path, dimensions=3)


def test_images_and_labels_must_go_together(tmp_path: Path) -> None:
    """A label too few, a label out of range and a missing file are told apart."""
    _write_set(tmp_path, HYPHENS, [0, 1, 10])
    with pytest.raises(DataError, match=r"labels 0\.\.10 found, 0\.\.9 expected"):
        idx.read(tmp_path, spec=idx.MNIST)
    (tmp_path / HYPHENS[1]).write_bytes(_idx(np.zeros(2, dtype=np.uint8)))
    with pytest.raises(DataError, match="2 labels found, 3 expected"):
        idx.read(tmp_path, spec=idx.MNIST)
    (tmp_path / HYPHENS[0]).unlink()
    with pytest.raises(DataError, match="no file train-images-idx3-ubyte"):
        idx.read(tmp_path, spec=idx.MNIST)


def test_cifar10_python_and_binary_batches_agree(tmp_path: Path) -> None:
    """The two forms of CIFAR-10 give the same arrays, from the folder or the one above it."""
    rng = np.random.default_rng(0)
    python, binary = tmp_path / "cifar-10-batches-py", tmp_path / "binary"
    python.mkdir()
    binary.mkdir()
    for name in (*cifar.CIFAR10.train, cifar.CIFAR10.test):
        pixels, labels = rng.integers(0, 256, (4, 3072), dtype=np.uint8), [int(v) for v in rng.integers(0, 10, 4)]
        (python / name).write_bytes(pickle.dumps({"data": pixels, "labels": labels}, protocol=2))
        rows = np.concatenate([np.array(labels, dtype=np.uint8)[:, None], pixels], axis=1)
        (binary / f"{name}.bin").write_bytes(rows.tobytes())
    first, second = catalog.load("cifar10", source=tmp_path), catalog.load("cifar10", source=binary)
    assert first.raw.shape == (24, 3, 32, 32)
    assert first.part.tolist() == [TRAIN] * 20 + [TEST] * 4
    np.testing.assert_array_equal(first.raw, second.raw)
    np.testing.assert_array_equal(first.y, second.y)


def test_cifar100_takes_the_fine_labels(tmp_path: Path) -> None:
    """Of CIFAR-100's two labels the second, fine one counts, in both forms."""
    pixels = np.zeros((2, 3072), dtype=np.uint8)
    (tmp_path / "bin").mkdir()
    for name in ("train", "test"):
        batch = {b"data": pixels, b"fine_labels": [99, 3], b"coarse_labels": [19, 1]}
        (tmp_path / name).write_bytes(pickle.dumps(batch, protocol=3))
        rows = np.concatenate([np.array([[19, 99], [1, 3]], dtype=np.uint8), pixels], axis=1)
        (tmp_path / "bin" / f"{name}.bin").write_bytes(rows.tobytes())
    assert cifar.read(tmp_path, spec=cifar.CIFAR100).y.tolist() == [99, 3, 99, 3]
    assert cifar.read(tmp_path / "bin", spec=cifar.CIFAR100).y.tolist() == [99, 3, 99, 3]


def test_damaged_cifar_batches_are_refused(tmp_path: Path) -> None:
    """Wrong shapes, missing keys, bad labels, odd lengths and missing files raise DataError."""
    path = tmp_path / "batch"
    pixels = np.zeros((2, 3072), dtype=np.uint8)
    for batch, message in (
        ({"data": pixels[:, :9], "labels": [1, 2]}, r"pixels of shape \(2, 9\)"),
        ({"data": pixels, "labels": [1]}, r"uint8 \(1, 3072\) expected"),
        ({"data": pixels}, "a list 'labels' expected"),
        ({"data": pixels, "labels": [1, "x"]}, "not small whole numbers"),
        ([1], "a dict expected"),
    ):
        path.write_bytes(pickle.dumps(batch, protocol=2))
        with pytest.raises(DataError, match=message):
            cifar.read_python(path, label_key="labels")
    path.write_bytes(bytes(3072))
    with pytest.raises(DataError, match="3072 bytes found, a multiple of 3073"):
        cifar.read_binary(path, label_bytes=1)
    with pytest.raises(DataError, match=r"no test_batch or test_batch\.bin"):
        cifar.read(tmp_path, spec=cifar.CIFAR10)
    for name in (*cifar.CIFAR10.train, cifar.CIFAR10.test):
        (tmp_path / f"{name}.bin").write_bytes(b"\x0a" + bytes(3072))
    with pytest.raises(DataError, match=r"labels 10\.\.10 found, 0\.\.9 expected"):
        cifar.read(tmp_path, spec=cifar.CIFAR10)


def test_without_apt_fashion_mnist_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without apt-get the error names the package and the --from way."""
    monkeypatch.setenv("HIDENSEEK_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(debian, "INSTALLED", Path("/nowhere/fashion-mnist"))
    with pytest.raises(FetchError, match="apt-get is not on this machine") as caught:
        debian.obtain_fashion_mnist()
    assert "hidenseek data get fashion-mnist --from DIR" in caught.value.hint


def test_fashion_mnist_is_unpacked_from_the_debian_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """apt-get and dpkg-deb are called once; afterwards the unpacked folder is taken as it is."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "apt-get").write_text("#!/bin/sh\n: > fake_1_all.deb\n")
    (tools / "dpkg-deb").write_text(f"#!/bin/sh\n/bin/mkdir -p root/{debian.INSTALLED}\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("HIDENSEEK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setattr(debian, "INSTALLED", Path("/usr/share/datasets/not-installed"))
    (tools / "dpkg-deb").write_text("#!/bin/sh\n/bin/mkdir -p root/usr/share/datasets/not-installed\n")
    folder = debian.obtain_fashion_mnist()
    assert folder == tmp_path / "cache/downloads/dataset-fashion-mnist/usr/share/datasets/not-installed"
    (tools / "apt-get").write_text("#!/bin/sh\necho 'E: no network' >&2\nexit 100\n")
    assert debian.obtain_fashion_mnist() == folder
    folder.rmdir()
    with pytest.raises(FetchError, match="apt-get failed: E: no network"):
        debian.obtain_fashion_mnist()
