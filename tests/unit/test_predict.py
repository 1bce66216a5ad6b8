"""`hidenseek-edge predict`: what a device has learned, in words, .csv and .npz; and what each fault is told."""

from __future__ import annotations

import csv
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from edge_client import cli
from edge_client.predict import predict
from edge_client.store import Store
from export.bundle import make_bundle
from export.torch_net import TorchNet
from tests.helpers import SMALL, random_signs, random_ticket, write_state
from tests.test_architecture import _without_heavy
from wire.bundle import Bundle
from wire.errors import DataError
from wire.settings import Training
from wire.state_folder import read_learned

TICKET = random_ticket(SMALL, 0.5, seed=1, magnitudes="normal")
SIGNS = random_signs(TICKET, seed=2)
SPARSE = Bundle(runtime="sparse", ticket=TICKET)
RNG = np.random.default_rng(3)
X = RNG.standard_normal((150, 2, 16)).astype(np.float32)  # more than two batches
with torch.no_grad():
    LOGITS = TorchNet(TICKET).logits(torch.from_numpy(np.where(SIGNS, 1, -1).astype(np.float32)), torch.from_numpy(X))
    LOGITS = LOGITS + torch.log(torch.arange(1, 6))  # the prior that `write_state` writes
CLASSES = LOGITS.argmax(1).numpy()
PROBABILITIES = LOGITS.softmax(1).numpy()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The state folder of a device that has trained."""
    write_state(tmp_path / "state", SPARSE, SIGNS)
    return tmp_path / "state"


def save(folder: Path, name: str = "new.npz", **arrays: np.ndarray) -> Path:
    """A file of samples."""
    folder.mkdir(exist_ok=True)
    np.savez(folder / name, **({"x": X} | arrays))
    return folder / name


def run(*arguments: object) -> int:
    """`hidenseek-edge predict` with these arguments; its exit code."""
    return cli.main(["predict", *map(str, arguments)])


@pytest.mark.parametrize(
    "bundle",
    [SPARSE, *(make_bundle(TICKET, "onnx", Training(optimiser=optimiser)) for optimiser in ("adam", "sgd"))],
    ids=["sparse", "onnx for adam", "onnx for sgd"],
)
def test_every_runtime_predicts_as_torch_does(tmp_path: Path, bundle: Bundle) -> None:
    """Classes and probabilities are those of the ticket with the personal signs, whatever it was trained with."""
    write_state(tmp_path / "state", bundle, SIGNS)
    (found,) = predict(read_learned(tmp_path / "state"), save(tmp_path))
    assert np.array_equal(found.classes, CLASSES)
    assert found.probabilities.shape == (150, 5)
    assert found.probabilities == pytest.approx(PROBABILITIES, abs=1e-5)
    assert found.correct is None


def test_the_summary_counts_every_file_by_itself(
    tmp_path: Path, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files are in order of name, right answers counted where labels are known; a running device is no hindrance."""
    wrong = (CLASSES + (np.arange(150) < 30)) % 5
    for name, arrays in (("b.npz", {"y": wrong}), ("a.npz", {"x": X[:7]}), ("test-1.npz", {"y": CLASSES})):
        save(tmp_path / "data", name, **arrays)
    with closing(Store(state)):  # the lock of `hidenseek-edge join`
        assert run("--state", state, "--data", tmp_path / "data") == 0
    lines = capsys.readouterr().out.splitlines()
    identity = TICKET.id.hex()[:16]
    assert lines[0] == f"small, ticket {identity}…: own signs of round 3, run {b'run-of-3'.hex()}"
    assert [line.split() for line in lines[1:4]] == [
        ["a.npz", "7", "samples"],
        ["b.npz", "150", "samples", "120", "right,", "80.0%"],
        ["test-1.npz", "150", "samples", "150", "right,", "100.0%"],
    ]
    assert lines[4].startswith("  classes found: ")
    counts = np.bincount(np.concatenate([CLASSES[:7], CLASSES, CLASSES]))
    assert f"{counts.argmax()} ({counts.max()})" in lines[4]


def test_every_prediction_is_a_row(tmp_path: Path, state: Path) -> None:
    """The .csv has a header and a row a sample, counted from 0 in every file."""
    for name in ("a.npz", "b.npz"):
        save(tmp_path / "data", name)
    assert run("--state", state, "--data", tmp_path / "data", "--output", tmp_path / "out.csv") == 0
    with (tmp_path / "out.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["source", "index", "class", "probability"]
    assert [row[:3] for row in rows] == [
        [name, str(i), str(chosen)] for name in ("a.npz", "b.npz") for i, chosen in enumerate(CLASSES)
    ]
    assert [float(row[3]) for row in rows[:150]] == pytest.approx(PROBABILITIES.max(1), abs=1e-4)


def test_arrays_have_the_names_of_the_columns(tmp_path: Path, state: Path) -> None:
    """The .npz says the same, and the probability of every class, with nothing to unpickle."""
    assert run("--state", state, "--data", save(tmp_path), "--output", tmp_path / "out.npz") == 0
    with np.load(tmp_path / "out.npz", allow_pickle=False) as found:
        assert set(found["source"]) == {"new.npz"}
        assert np.array_equal(found["index"], np.arange(150))
        assert np.array_equal(found["class"], CLASSES)
        assert found["probability"] == pytest.approx(PROBABILITIES.max(1), abs=1e-5)
        assert found["probabilities"] == pytest.approx(PROBABILITIES, abs=1e-5)


def test_the_default_state_is_the_one_of_join(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --state the folder follows from --device, and its absence is told."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    write_state(tmp_path / "hidenseek" / "pi-01", SPARSE, SIGNS)
    assert run("--device", "pi-01", "--data", save(tmp_path)) == 0
    assert run("--device", "pi-02", "--data", save(tmp_path)) == 25
    assert "pi-02: no such state folder. Name the folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"x": X[:, :, :9]}, r"samples have shape \(2, 9\), the network 'small' takes \(2, 16\)"),
        ({"y": np.full(150, 5)}, r"label 5 found, the network 'small' knows classes 0\.\.4"),
        ({"y": np.zeros(150)}, "y is float64, whole numbers expected"),
        ({"y": np.zeros(149, int)}, r"x has shape \(150, 2, 16\) and y \(149,\)"),
        ({"x": X[:0]}, r"x has shape \(0, 2, 16\), one or more samples expected"),
        ({"x": np.full((1, 2, 16), np.inf, np.float32)}, "sample 0 of x holds a value that is not finite"),
    ],
)
def test_samples_the_network_cannot_take_are_refused(
    tmp_path: Path, state: Path, arrays: dict[str, np.ndarray], complaint: str
) -> None:
    """Each fault is told with the file it is in."""
    path = save(tmp_path, **arrays)
    with pytest.raises(DataError, match=complaint) as caught:
        predict(read_learned(state), path)
    assert caught.value.where == str(path)


def test_missing_samples_and_wrong_outputs_are_refused(
    tmp_path: Path, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No x, no file, an output of another kind, one that cannot be written: a line and an exit code for each."""
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "y.npz", y=CLASSES)
    for arguments, code, line in (
        (["--data", tmp_path / "data"], 11, "array x missing, found y. Save it with numpy.savez(FILE, x=...)"),
        (["--data", tmp_path / "absent"], 11, "no such file or folder"),
        (["--data", save(tmp_path), "--output", tmp_path / "out.json"], 10, "ends in none of .csv, .npz"),
        (["--data", save(tmp_path), "--output", tmp_path / "no" / "out.csv"], 10, "cannot be written"),
    ):
        assert run("--state", state, *arguments) == code
        assert line in capsys.readouterr().err


def test_the_device_needs_neither_torch_nor_onnx(tmp_path: Path, state: Path) -> None:
    """With the sparse runtime, prediction works where the heavy packages are absent."""
    arguments = ["predict", "--state", str(state), "--data", str(save(tmp_path, y=CLASSES))]
    done = _without_heavy(f"from edge_client.cli import main\nsys.exit(main({arguments!r}))")
    assert done.returncode == 0, done.stderr
    assert "150 right, 100.0%" in done.stdout
