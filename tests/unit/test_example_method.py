"""The example of a method of one's own works as its docstring says."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coordinator import baselines, simulate
from coordinator.baselines.method import Method, Task, Update, make_settings
from coordinator.cli import build_parser
from coordinator.datasets.dataset import DeviceData, FederatedData, Scale
from coordinator.rounds import Schedule
from wire.errors import Mismatch
from wire.layers import Flatten, Linear, Relu
from wire.plan import Plan

EXAMPLES = Path(__file__).parents[2] / "examples"
PLAN = Plan(name="tiny", input_shape=(2, 4), layers=(Flatten(), Linear(out_features=8), Relu(), Linear(out_features=3)))
DEVICES = ("pi-1", "pi-2", "pi-3")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Method[Any]]]:
    """The example's class, found as --method finds it; afterwards torch is set as it was."""
    monkeypatch.syspath_prepend(EXAMPLES)
    threads = torch.get_num_threads()
    yield baselines.get("my_method:HalfFedAvg")
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def made(cls: type[Method[Any]], **settings: Any) -> Any:
    """A method on the tiny network."""
    return cls(Task(plan=PLAN, devices=DEVICES, seed=1), make_settings(cls.Config, settings))


def toy() -> FederatedData:
    """Three devices with noisy copies of three patterns."""
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(3, 2, 4))
    y = np.arange(30) % 3
    devices = {}
    for name in DEVICES:
        x = (patterns[y] + 0.3 * rng.normal(size=(30, 2, 4))).astype(np.float32)
        devices[name] = DeviceData(x_train=x[:21], y_train=y[:21], x_test=x[21:], y_test=y[21:])
    return FederatedData(
        name="toy",
        how="toy",
        class_names=("a", "b", "c"),
        input_shape=(2, 4),
        scale=Scale(mean=(0.0, 0.0), deviation=(1.0, 1.0)),
        devices=devices,
        unseen=None,
    )


@pytest.mark.parametrize("difference", [False, True])
def test_it_learns_with_half_the_uplink(example: type[Method[Any]], difference: bool, tmp_path: Path) -> None:
    """Two bytes a weight up, where FedAvg sends four, and about FedAvg's accuracy."""
    rows = {}
    for name, cls, settings in (
        ("half", example, {"difference": difference, "learning_rate": 0.05}),
        ("fedavg", baselines.get("fedavg"), {"learning_rate": 0.05}),
    ):
        rows[name] = simulate.run(
            lambda cls=cls, settings=settings: made(cls, **settings),
            toy(),
            simulate.Plan(
                schedule=Schedule(rounds=8, per_round=2, quorum=2, deadline_s=1.0, start_devices=3), evaluate_every=1
            ),
            folder=tmp_path / name,
            about={},
            report=lambda row: None,
        )
    half, whole = rows["half"][-1], rows["fedavg"][-1]
    assert (half["payload_bytes"], whole["payload_bytes"]) == (2 * 2 * 88, 2 * 4 * 88)
    assert half["down_bytes"] == whole["down_bytes"]
    assert half["loss"] < 0.5 * rows["half"][0]["loss"]
    assert half["seen"] > 0.8
    assert half["loss"] == pytest.approx(whole["loss"], rel=0.05)
    assert half["loss"] != whole["loss"]


def test_it_averages_by_samples(example: type[Method[Any]]) -> None:
    """One sample of 1.0 and three of 5.0 make 4.0, or move the weights by 4.0."""
    one, five = (np.full(88, value, dtype="<f2").tobytes() for value in (1.0, 5.0))
    updates = [Update(device="a", samples=1, payload=one), Update(device="b", samples=3, payload=five)]
    state = {"weights": np.full(88, 10.0, dtype=np.float32)}
    assert made(example).aggregate(state, updates)["weights"].tolist() == [4.0] * 88
    assert made(example, difference="true").aggregate(state, updates)["weights"].tolist() == [14.0] * 88


def test_it_refuses_bytes_of_another_length(example: type[Method[Any]]) -> None:
    """What comes from a network is checked in examples too."""
    with pytest.raises(Mismatch, match="float16 array: expected 176 bytes, got 175 bytes"):
        made(example).aggregate({}, [Update(device="a", samples=1, payload=bytes(175))])


def test_its_docstring_shows_commands_that_are_taken() -> None:
    """Every line a reader will copy has options that exist."""
    text = (EXAMPLES / "my_method.py").read_text()
    shown = re.findall(r"^ +PYTHONPATH=examples hidenseek (simulate .*)$", text, flags=re.MULTILINE)
    assert len(shown) == 2
    for line in shown:
        arguments = build_parser().parse_args(shlex.split(line))
        assert arguments.method == "my_method:HalfFedAvg"
        assert arguments.rounds == 5
