"""`hidenseek export` and `verify`: folders that are whole and say what they hold, and checks that can fail."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import pytest

from coordinator import cli, keys
from coordinator.models import MODELS, build_plan
from coordinator.prune import prune
from edge_client.kernels import library
from export import manifest
from export.bundle import make_bundle
from tests.helpers import SMALL, random_ticket
from wire import signing
from wire.errors import ConfigError, DataError, ExportError, RuntimeMissing, UnknownName
from wire.settings import Training
from wire.ticket import decode_ticket

TICKET = random_ticket(SMALL, 0.5, seed=1)
BOTH = "sparse,onnx"
kernels = pytest.mark.skipif(library.library_path() is None, reason="kernels not built")


@pytest.fixture
def ticket(tmp_path: Path) -> Path:
    """A ticket file."""
    (tmp_path / "small.hns").write_bytes(TICKET.encoded)
    return tmp_path / "small.hns"


@pytest.fixture
def folder(ticket: Path) -> Path:
    """An exported folder of two runtimes."""
    assert run("export", ticket, "--target", BOTH, "--batch", 8, "-o", ticket.parent / "out") == 0
    return ticket.parent / "out"


def run(*arguments: object) -> int:
    """A command of `hidenseek`; its exit code."""
    return cli.main([*map(str, arguments)])


def signed_again(folder: Path) -> None:
    """Sign a manifest that was altered, so that the signature is not what is noticed."""
    key, text = keys.federation_key(), (folder / "manifest.json").read_bytes()
    parts = {"public_key": signing.public_key(key), "signature": signing.sign(key, manifest.PURPOSE, text)}
    written = json.dumps({name: signing.as_text(value) for name, value in parts.items()})
    (folder / "manifest.sig").write_text(written)


def test_the_folder_holds_what_a_device_would_download(folder: Path) -> None:
    """Ticket and graphs are those of the bundles, and nothing else is there."""
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {"manifest.json", "manifest.sig", "ticket.hns", "onnx/train.onnx", "onnx/infer.onnx"}
    exported = manifest.read(folder)
    assert exported.training == Training(batch=8)
    for runtime in ("sparse", "onnx"):
        assert exported.bundles[runtime].encoded == make_bundle(TICKET, runtime, exported.training).encoded


def test_the_manifest_says_what_is_in_it(folder: Path) -> None:
    """Hashes and sizes of the files, names, types and shapes of the graphs, kept weights, memory, and estimates."""
    found = json.loads((folder / "manifest.json").read_text())
    train = found["targets"]["onnx"]["files"]["onnx/train.onnx"]
    data = (folder / "onnx" / "train.onnx").read_bytes()
    assert (train["sha256"], train["bytes"]) == (sha256(data).hexdigest(), len(data))
    inputs = {one["name"]: (one["dtype"], one["shape"]) for one in train["inputs"]}
    assert inputs["x"] == ("float32", ["n", 2, 16])
    assert inputs["y"] == ("int64", ["n"])
    assert inputs["scores"] == ("float32", [TICKET.kept])
    assert inputs["log_prior"] == ("float32", [5])
    assert {"loss", "correct", "gradient", "new_scores"} <= {one["name"] for one in train["outputs"]}
    assert sum(found["network"]["kept_per_layer"]) == found["network"]["kept"] == TICKET.kept
    assert found["targets"]["onnx"]["made_with"] == {"onnx": onnx.__version__}
    assert 1_000 < found["targets"]["sparse"]["arena_bytes"] < 100_000
    boards = {one["profile"]: one for one in found["estimates"]}
    assert 0 < boards["pi-5-8gb"]["step_ms"] < boards["pi-zero-2w"]["step_ms"]


def test_the_same_ticket_gives_the_same_bytes(folder: Path, ticket: Path) -> None:
    """A second export, over the first or elsewhere, differs in nothing, and leaves nothing else behind."""
    before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for place in (folder, folder.with_name("again")):
        assert run("export", ticket, "--target", BOTH, "--batch", 8, "-o", place) == 0
        assert {path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in ticket.parent.iterdir()) == ["again", "out", "small.hns"]


def test_only_what_is_asked_for(ticket: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One target, one board, and what was written in words."""
    place = ticket.parent / "one"
    assert run("export", ticket, "--target", "sparse", "--profile", "pi-3b-plus", "-o", place) == 0
    said = capsys.readouterr().out
    assert "Raspberry Pi 3B+" in said
    assert "Raspberry Pi 4" not in said
    assert "estimated, not measured" in said
    assert f"wrote {place}; check it with: hidenseek verify {place}" in said
    assert sorted(path.name for path in place.iterdir()) == ["manifest.json", "manifest.sig", "ticket.hns"]


def test_what_cannot_be_exported_is_named(ticket: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown target or board, and a folder with someone's files, which stay as they are."""
    assert run("export", ticket, "--target", "onix", "-o", ticket.parent / "x") == UnknownName.exit_code
    assert "Did you mean 'onnx'" in capsys.readouterr().err
    assert (
        run("export", ticket, "--target", "sparse", "--profile", "pi-zero", "-o", ticket.parent / "x")
        == UnknownName.exit_code
    )
    assert run("export", ticket, "--target", "sparse", "-o", ticket.parent) == ConfigError.exit_code
    assert "holds other files" in capsys.readouterr().err
    assert [path.name for path in ticket.parent.iterdir()] == ["small.hns"]


@pytest.mark.parametrize("name", ["ticket.hns", "onnx/infer.onnx"])
def test_altered_and_missing_files_are_noticed(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By their hash, before anything is run; the line names the file and both hashes."""
    path = folder / name
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert run("verify", folder) == DataError.exit_code
    said = capsys.readouterr().err
    assert str(path) in said
    assert sha256(data).hexdigest()[:16] in said
    path.unlink()
    assert run("verify", folder) == DataError.exit_code
    assert f"{path}: cannot be read (No such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("was", "now", "complaint"),
    [
        ('"version": 1', '"version": 2', "version"),
        ('"format"', '"formal"', "formal"),
        ("onnx/train.onnx", "../train.onnx", "is not a file of 'onnx/'"),
        ("onnx/train.onnx", "onnx/../train.onnx", "is not a file of 'onnx/'"),
        ("{", "", "JSON"),
    ],
)
def test_a_strange_manifest_is_refused(folder: Path, was: str, now: str, complaint: str) -> None:
    """Another version, other fields, a path out of the folder, no JSON."""
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace(was, now, 1))
    signed_again(folder)
    with pytest.raises(DataError, match=complaint) as caught:
        manifest.read(folder)
    assert caught.value.where == str(path)


@pytest.mark.slow
@kernels
def test_right_numbers_agree(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0 and every comparison in a table."""
    assert run("verify", folder, "--target", "sparse", "--verbose") == 0
    said = capsys.readouterr().out
    assert "agrees" in said
    assert "gradient of conv0" in said
    assert "50 steps of adam" in said
    assert "DIFFERS" not in said


@pytest.mark.slow
def test_wrong_numbers_differ(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One initial weight's sign turned in a graph whose hash is right: exit code 22, and what differs is shown."""
    path = folder / "onnx" / "train.onnx"
    model = onnx.load(path)
    packed = next(
        one for one in model.graph.initializer if onnx.numpy_helper.to_array(one).size == -(-TICKET.kept // 8)
    )
    values = onnx.numpy_helper.to_array(packed).copy()
    values[0] ^= 1
    packed.CopyFrom(onnx.numpy_helper.from_array(values, packed.name))
    data = model.SerializeToString()
    before = sha256(path.read_bytes()).hexdigest()
    path.write_bytes(data)
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace(before, sha256(data).hexdigest()))
    signed_again(folder)
    assert run("verify", folder, "--target", "onnx") == ExportError.exit_code
    said = capsys.readouterr().out
    assert "DIFFERS" in said
    assert "gradient of conv0" in said


def test_a_runtime_that_is_not_here_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own exit code, in a table with the others."""
    monkeypatch.setenv("HIDENSEEK_KERNELS", "none")
    assert run("verify", folder, "--target", "sparse") == RuntimeMissing.exit_code
    said = capsys.readouterr().out
    assert "not checked" in said
    assert "kernels are not built" in " ".join(said.split())


@pytest.mark.slow
def test_exports_are_small() -> None:
    """har-cnn at 0.10: sparse under 40 kB, onnx under 80 kB; conv4 at 0.05 under 1 MB each, with the ticket."""
    for model, shape, classes, density, limits in (
        ("har-cnn", (6, 128), 6, 0.10, {"sparse": 40_000, "onnx": 80_000}),
        ("conv4", (3, 32, 32), 10, 0.05, {"sparse": 1_000_000, "onnx": 1_000_000}),
    ):
        made = prune(build_plan(model, input_shape=shape, classes=classes), density=density, seed=0, method="magnitude")
        for runtime, limit in limits.items():
            assert len(make_bundle(made, runtime, Training()).encoded) < limit


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_every_model_of_the_zoo_verifies(model: str, tmp_path: Path) -> None:
    """In all runtimes that are installed here; ExecuTorch takes minutes to lower larger nets of the same parts."""
    (tmp_path / "t.hns").write_bytes(prune(build_plan(model), density=0.05, seed=1, passes=10).encoded)
    targets = ("--target", "sparse,onnx") if model in ("resnet20", "conv4") else ()
    assert run("export", tmp_path / "t.hns", "--batch", 4, *targets, "-o", tmp_path / "out") == 0
    exported = manifest.read(tmp_path / "out")
    assert decode_ticket((tmp_path / "out" / "ticket.hns").read_bytes()).id == exported.ticket.id
    assert np.prod(exported.ticket.plan.input_shape) > 0
    assert run("verify", tmp_path / "out") == 0
