"""A device's own files: what loads, and what each bad one is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coordinator.models import build_plan
from edge_client import data
from wire.errors import DataError

PLAN = build_plan("har-cnn", input_shape=(6, 128), classes=6)


def save(path: Path, *, samples: int = 10, shape: tuple[int, ...] = (6, 128), **arrays: np.ndarray) -> Path:
    """Write a sound .npz file, or one with these arrays instead."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = {"x": np.zeros((samples, *shape), np.float32), "y": np.arange(samples) % 6}
    np.savez(path, **{**sound, **arrays})
    return path


def test_single_file_holds_back_every_fifth_sample(tmp_path: Path) -> None:
    """Without a test file 10 samples become 8 to train and 2 to test."""
    found = data.load(save(tmp_path / "me.npz"))
    assert (found.y_train.size, found.y_test.size) == (8, 2)
    assert found.y_test.tolist() == [4, 3]
    assert (found.x_train.dtype, found.y_train.dtype) == (np.float32, np.int64)


def test_folder_joins_training_files_and_keeps_tests_apart(tmp_path: Path) -> None:
    """Files named test* are for evaluation only."""
    for name, samples in (("a.npz", 3), ("b.npz", 4), ("test-1.npz", 5)):
        save(tmp_path / name, samples=samples)
    found = data.load(tmp_path)
    assert (found.y_train.size, found.y_test.size) == (7, 5)
    found.check(PLAN)


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"x": np.zeros((10, 6, 128), "datetime64[s]")}, "x is datetime64"),
        ({"y": np.zeros(10, np.float32)}, "y is float32"),
        ({"y": np.zeros(9, np.int64)}, r"y \(9,\)"),
        ({"y": np.full(10, -1)}, "label -1"),
        ({"x": np.full((10, 6, 128), np.nan, np.float32)}, "sample 0 of x"),
        ({"x": np.zeros((0, 6, 128), np.float32), "y": np.zeros(0, np.int64)}, r"x has shape \(0, 6, 128\)"),
        ({"x": np.array([{}] * 10, dtype=object)}, "allow_pickle"),
    ],
)
def test_wrong_arrays_are_refused_with_file_and_reason(
    tmp_path: Path, arrays: dict[str, np.ndarray], complaint: str
) -> None:
    """Each fault is told with the file it is in; objects are never unpickled."""
    path = save(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError, match=complaint) as caught:
        data.load(path)
    assert caught.value.where == str(path)


def test_missing_array_bytes_and_files_are_refused(tmp_path: Path) -> None:
    """No y, no zip file, no file, no .npz in the folder, nothing to train on."""
    np.savez(tmp_path / "no-y.npz", x=np.zeros((2, 6, 128), np.float32))
    with pytest.raises(DataError, match="array y missing, found x"):
        data.load(tmp_path / "no-y.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(DataError, match="not a readable"):
        data.load(tmp_path / "text.npz")
    with pytest.raises(DataError, match="no such file"):
        data.load(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \.npz file"):
        data.load(tmp_path / "empty")
    save(tmp_path / "only" / "test.npz")
    with pytest.raises(DataError, match="only test files"):
        data.load(tmp_path / "only")


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    """A copy that stopped half-way is no data."""
    path = save(tmp_path / "cut.npz")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="not a readable"):
        data.load(path)


def test_files_of_different_shapes_are_refused(tmp_path: Path) -> None:
    """The two files are named."""
    save(tmp_path / "a.npz")
    save(tmp_path / "b.npz", shape=(6, 64))
    with pytest.raises(DataError, match=r"a\.npz has samples of shape \(6, 128\), b\.npz of \(6, 64\)"):
        data.load(tmp_path)


def test_data_that_does_not_fit_the_network_is_refused(tmp_path: Path) -> None:
    """Shape and labels are compared with the plan before any training."""
    with pytest.raises(DataError, match=r"shape \(3, 128\), the network 'har-cnn' takes \(6, 128\)"):
        data.load(save(tmp_path / "a.npz", shape=(3, 128))).check(PLAN)
    with pytest.raises(DataError, match=r"label 6 found, the network 'har-cnn' knows classes 0\.\.5"):
        data.load(save(tmp_path / "b.npz", y=np.full(10, 6))).check(PLAN)
