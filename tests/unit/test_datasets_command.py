"""`hidenseek data`: list, get and split, on a data set of a few images."""

from __future__ import annotations

import argparse
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from coordinator.datasets import catalog, command
from wire.errors import ConfigError, DataError, UnknownName


def _run(*words: str) -> int:
    parser = argparse.ArgumentParser(prog="hidenseek")
    command.add_parser(parser.add_subparsers())
    args = parser.parse_args(["data", *words])
    code: int = args.run(args)
    return code


@pytest.fixture
def mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with 40 training and 20 test images of four classes, and an empty cache."""
    monkeypatch.setenv("HIDENSEEK_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "mnist"
    folder.mkdir()
    for side, count in (("train", 40), ("t10k", 20)):
        pixels = np.random.default_rng(0).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 4).astype(np.uint8)
        header = struct.pack(">HBB3I", 0, 8, 3, *pixels.shape)
        (folder / f"{side}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        header = struct.pack(">HBBI", 0, 8, 1, count)
        (folder / f"{side}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    return folder


def test_list_shows_every_data_set_and_what_is_cached(mnist: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every name has a line; only what was got is marked as cached."""
    assert _run("get", "mnist", "--from", str(mnist)) == 0
    capsys.readouterr()
    assert _run("list") == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split() for line in lines if line.split() and line.split()[0] in catalog.names()}
    assert list(rows) == catalog.names()
    assert rows["mnist"][1:] == ["digits", "70,000", "1x28x28", "10", "-", "yes", "--from"]
    assert rows["har"][1:] == ["activity", "10,017", "6x128", "6", "yes", "-", "fetch"]


def test_get_keeps_the_data_so_that_the_files_can_go(mnist: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After `get --from` the set loads by name alone, equal to what was read."""
    before = catalog.load("mnist", source=mnist)
    assert _run("get", "mnist", "--from", str(mnist)) == 0
    assert "mnist: 60 samples of shape (1, 28, 28), 10 classes (40 train, 20 test" in capsys.readouterr().out
    for path in mnist.iterdir():
        path.unlink()
    after = catalog.load("mnist")
    np.testing.assert_array_equal(before.raw, after.raw)
    np.testing.assert_array_equal(before.y, after.y)
    np.testing.assert_array_equal(before.part, after.part)


def test_what_cannot_be_downloaded_says_how_to_get_it(mnist: Path) -> None:
    """An uncached set without a source names the command to run; a misspelt one gets a suggestion."""
    with pytest.raises(DataError, match="hidenseek data get cifar10 --from DIR"):
        _run("get", "cifar10")
    with pytest.raises(UnknownName, match="Did you mean 'emnist-letters'"):
        _run("get", "emnist-leters")


def test_split_writes_a_folder_for_each_device(mnist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """train.npz and test.npz of every device together hold each sample once, scaled."""
    _run("get", "mnist", "--from", str(mnist))
    target = tmp_path / "shares"
    words = ("split", "mnist", "--how", "iid", "--devices", "3", "--seed", "5", "--to", str(target))
    assert _run(*words) == 0
    assert sorted(path.name for path in target.iterdir()) == ["device-001", "device-002", "device-003", "split.json"]
    sizes = []
    for device in ("device-001", "device-002", "device-003"):
        with np.load(target / device / "train.npz") as train, np.load(target / device / "test.npz") as test:
            assert train["x"].dtype == np.float32
            assert train["x"].shape[1:] == (1, 28, 28)
            assert train["y"].dtype == np.int64
            sizes.append((len(train["y"]), len(test["y"])))
    assert sizes == [(14, 7), (13, 7), (13, 6)]
    about = json.loads((target / "split.json").read_text())
    assert about["how"] == "iid, seed 5"
    assert about["scale"] == {"mean": [33.3], "deviation": [78.6]}
    assert "mnist: 3 devices, iid, seed 5" in capsys.readouterr().out

    with pytest.raises(ConfigError, match="not a new or empty folder"):
        _run(*words)


def test_help_has_examples_to_copy(capsys: pytest.CaptureFixture[str]) -> None:
    """Each example in the help of `data` is a command its own parser accepts."""
    with pytest.raises(SystemExit):
        _run("--help")
    examples = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  hidenseek data ")]
    assert len(examples) == 5
    parser = argparse.ArgumentParser(prog="hidenseek")
    command.add_parser(parser.add_subparsers())
    for words in examples:
        assert callable(parser.parse_args(words[1:]).run)
