"""`--from`: networks of one's own through `prune` and `export`, and what is said when they cannot be had."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coordinator import cli, experiment
from coordinator.models import build_plan
from coordinator.prune import prune
from export import manifest
from wire.errors import ConfigError, ExportError, UnknownName
from wire.ticket import read_ticket

pytestmark = pytest.mark.slow  # importing and running torch.export takes seconds

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_network.py"
_NUMBERS = count()
NETWORKS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.last = nn.Linear(4, classes)

    def forward(self, x):
        return self.last(torch.relu(self.conv(x)).mean((2, 3)))

class NeedsWidth(Net):
    def __init__(self, width):
        super().__init__(width)

class Tanh(Net):
    def forward(self, x):
        return super().forward(torch.tanh(x))

def five():
    return Net(5)

def nothing():
    return None

def broken():
    return {}["width"]

instance = NeedsWidth(7)
number = 3
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The module above in a package in the current folder, under a name that was never imported before."""
    name = f"nets{next(_NUMBERS)}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    (tmp_path / name / "small.py").write_text(NETWORKS)
    (tmp_path / name / "half.py").write_text("import torch\n\nvalue = torch.nothing_of_this_name\n")
    (tmp_path / name / "typo.py").write_text("def f(:\n")
    (tmp_path / name / "lacks.py").write_text("import a_package_nobody_has\n")
    (tmp_path / name / "script.py").write_text("import sys\nsys.exit('usage: script')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return name


def run(*arguments: object) -> int:
    """A command of `hidenseek`; its exit code."""
    return cli.main([*map(str, arguments)])


@pytest.mark.parametrize(
    ("name", "classes"),
    [("{0}.small:Net", 3), ("{0}.small:five", 5), ("{0}.small:instance", 7), ("{0}/small.py:Net", 3)],
)
def test_a_class_a_function_or_an_instance(
    name: str, classes: int, package: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a module or a file, found in the current folder; the ticket is that network's, and notes are printed."""
    ticket = Path("net.hns")
    options = ("--input", "1x6x6", "--density", 0.5, "--seed", 4, "--method", "magnitude")
    assert run("prune", "--from", name.format(package), *options, "-o", ticket) == 0
    said = capsys.readouterr().out
    assert "note: 2 biases are left out: a sign-mask network is its kept weights\n" in said
    made = read_ticket(ticket)
    assert (made.plan.input_shape, made.plan.classes, made.seed) == ((1, 6, 6), classes, 4)
    assert made.plan.name == name.rpartition(":")[2]
    assert made.id == prune(made.plan, density=0.5, seed=4, method="magnitude").id


def test_export_prunes_and_exports_in_one_go(package: str) -> None:
    """The folder is the same as that of the ticket that prune makes with the same options."""
    source = ("--from", f"{package}.small:Net", "--input-shape", "1,6,6", "--density", 0.5, "--seed", 4)
    assert run("export", *source, "--method", "erk", "--target", "onnx", "-o", "direct") == 0
    assert run("prune", *source, "--method", "erk", "-o", "net.hns") == 0
    assert run("export", "net.hns", "--target", "onnx", "-o", "from-ticket") == 0
    assert manifest.read(Path("direct")).ticket.id == read_ticket(Path("net.hns")).id
    files = {path.relative_to("direct") for path in Path("direct").rglob("*") if path.is_file()}
    assert Path("onnx/train.onnx") in files
    for file in files:
        assert (Path("direct") / file).read_bytes() == (Path("from-ticket") / file).read_bytes()


def test_defaults_are_those_of_prune(package: str) -> None:
    """Density 0.10, seed 0, synflow."""
    source = ("--from", f"{package}.small:five", "--input", "1x4x4")
    assert run("export", *source, "--density", 0.4, "--target", "sparse", "-o", "out") == 0
    found = manifest.read(Path("out")).ticket
    assert found.id == prune(found.plan, density=0.4, seed=0).id


@pytest.mark.slow
def test_the_example_of_the_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """examples/my_network.py, its class and its factory."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    options = ("--input", "3x32x32", "--method", "erk")
    for name, classes in (("SmallResNet", 10), ("small_resnet_cifar100", 100)):
        assert run("prune", "--from", f"{EXAMPLE}:{name}", *options, "-o", tmp_path / "t.hns") == 0
        plan = read_ticket(tmp_path / "t.hns").plan
        assert plan.layers == build_plan("resnet8", classes=classes).layers


# What is named, the error, and words of its line. {0} is the package.
WRONG: dict[str, tuple[str, type[Exception], tuple[str, ...]]] = {
    "no colon": ("{0}.small", ConfigError, ("package.module:Name",)),
    "no name": ("{0}.small:", ConfigError, ("package.module:Name",)),
    "no package": ("{0}x.small:Net", UnknownName, ("no module '{0}x'", "Did you mean '{0}'?")),
    "no module": ("{0}.smal:Net", UnknownName, ("no module '{0}.smal'", "Did you mean 'small'?")),
    "no module in a module": ("{0}.small.x:Net", UnknownName, ("no module '{0}.small.x'",)),
    "no file": ("{0}/smal.py:Net", UnknownName, ("no file '{0}/smal.py'", "Did you mean '{0}/small.py'?")),
    "no attribute": ("{0}.small:Nett", UnknownName, ("nothing in {0}.small is called 'Nett'", "Did you mean 'Net'?")),
    "a number": ("{0}.small:number", ConfigError, ("{0}.small:number is a int, an nn.Module",)),
    "a factory of nothing": ("{0}.small:nothing", ConfigError, ("nothing() is a NoneType, an nn.Module expected",)),
    "arguments": ("{0}.small:NeedsWidth", ConfigError, ("a required argument: 'width'", "def net(): return NeedsW")),
    "fault in a call": ("{0}.small:broken", ConfigError, ("{0}/small.py:29: ", "broken() failed: KeyError: 'width'")),
    "fault in a module": ("{0}.half:Net", ConfigError, ("{0}/half.py:3: ", "AttributeError: module 'torch' has no")),
    "fault in a file": ("{0}/half.py:Net", ConfigError, ("{0}/half.py:3: ", "AttributeError: module 'torch' has no")),
    "syntax": ("{0}.typo:Net", ConfigError, ("{0}/typo.py:1: ", "SyntaxError: invalid syntax")),
    "import of its own": ("{0}.lacks:Net", ConfigError, ("{0}/lacks.py:1: ", "No module named 'a_package_nobody_has'")),
    "a script": ("{0}.script:Net", ConfigError, ("{0}/script.py:2: ", "SystemExit: usage: script")),
    "an operator": ("{0}.small:Tanh", ExportError, ("{0}/small.py:20, module '' (Tanh): operator tanh", "nn.ReLU")),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_one_line_says_what_is_wrong(name: str, package: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Where in whose file, what was found, and what to write instead; nothing is written."""
    source, error, words = WRONG[name]
    arguments = ("--from", source.format(package), "--input", "1x6x6")
    assert run("prune", *arguments, "-o", "net.hns") == error.exit_code  # type: ignore[attr-defined]
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for word in words:
        assert word.format(package) in said
    assert not Path("net.hns").exists()


def test_options_that_do_not_go_together(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No shape, classes of its own, a ticket that is pruned already, both or neither of the two sources."""
    source = f"{package}.small:Net"
    assert run("prune", "--from", source, "-o", "x.hns") == ConfigError.exit_code
    assert "--input 3x32x32" in capsys.readouterr().err
    assert run("prune", "--from", source, "--input", "1x6x6", "--classes", 4, "-o", "x.hns") == ConfigError.exit_code
    assert "as many as its last layer" in capsys.readouterr().err
    for option, value in (("--density", "0.5"), ("--input-shape", "1x6x6"), ("--seed", "0"), ("--method", "erk")):
        assert run("export", "x.hns", option, value, "-o", "out") == ConfigError.exit_code
        assert f"{option} goes with --from" in capsys.readouterr().err
    for arguments in (
        ("export", "x.hns", "--from", source, "-o", "out"),
        ("export", "-o", "out"),
        ("prune", "--model", "lenet", "--from", source, "-o", "x.hns"),
        ("prune", "-o", "x.hns"),
        ("prune", "--from", source, "--input", "1*6", "-o", "x.hns"),
    ):
        with pytest.raises(SystemExit, match="2"):
            run(*arguments)
    assert "write it as 1x28x28" in capsys.readouterr().err


def test_a_file_finds_what_lies_beside_it(package: str) -> None:
    """As a script does, wherever the command is run."""
    Path(package, "beside.py").write_text(f"from {package}_common import Net\n")
    Path(package, f"{package}_common.py").write_text(NETWORKS)
    assert (
        run("prune", "--from", f"{package}/beside.py:Net", "--input", "1x6x6", "--density", 0.5, "-o", "net.hns") == 0
    )


def test_a_simulation_takes_one_as_its_model(package: str) -> None:
    """For the data set's samples and classes; another number of classes is refused before anything is trained."""
    data: Any = SimpleNamespace(input_shape=(1, 6, 6), classes=5, name="toy")
    plan = experiment._plan(f"{package}.small:five", data)
    assert (plan.name, plan.input_shape, plan.classes, plan.weights) == ("five", (1, 6, 6), 5, 4 * 9 + 4 * 5)
    with pytest.raises(ConfigError, match=f"{package}.small:Net tells 3 classes apart, toy has 5"):
        experiment._plan(f"{package}.small:Net", data)


def test_named_networks_have_sizes_of_their_own(tmp_path: Path) -> None:
    """--model needs neither shape nor classes, and takes both."""
    for options, shape, classes in (
        (("--model", "ds-cnn"), (1, 49, 10), 12),
        (("--model", "lenet", "--input", "3x32x32", "--classes", 4), (3, 32, 32), 4),
    ):
        assert run("prune", *options, "--method", "erk", "-o", tmp_path / "t.hns") == 0
        plan = read_ticket(tmp_path / "t.hns").plan
        assert (plan.input_shape, plan.classes) == (shape, classes)
