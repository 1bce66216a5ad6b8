"""`hidenseek simulate` as people use it: stopped, taken up again, and with settings that are wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coordinator.cli import main
from tests.helpers import hear_ctrl_c

COMMAND = [sys.executable, "-m", "coordinator.cli", "simulate", "--workers", "2", "--rounds", "4", "--method", "topk"]


@pytest.mark.slow
def test_ctrl_c_stops_it_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """Interrupted in a round, it ends within seconds with 130 and leaves whole rounds; then it does the rest only."""
    process = subprocess.Popen(
        [*COMMAND, "--out", tmp_path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=hear_ctrl_c
    )
    deadline = time.monotonic() + 240
    while not rows(tmp_path):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in said
    before = rows(tmp_path)
    assert 1 <= len(before) < 4
    done = subprocess.run([*COMMAND, "--out", tmp_path, "--json", tmp_path / "result.json"], check=True, timeout=240)
    assert done.returncode == 0
    assert [json.loads(row)["round"] for row in rows(tmp_path)] == [1, 2, 3, 4]
    assert rows(tmp_path)[: len(before)] == before
    (result,) = json.loads((tmp_path / "result.json").read_text())
    assert result["method"] == "topk"
    assert result["rounds"] == 4
    assert 0.3 < result["personalised"] <= 1


def rows(out: Path) -> list[str]:
    """Lines of the only run's rounds."""
    return [line for path in out.glob("*/seed-0/rounds.jsonl") for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--method", "fedavgg"], 12, "no method is called 'fedavgg'. Did you mean 'fedavg'?"),
        (["--set", "densty=0.1"], 10, "--set densty: there is no setting 'densty' here. Did you mean 'density'?"),
        (["--set", "density"], 10, "--set: 'density' found, NAME=VALUE expected"),
        (["--rounds", "0"], 10, "--rounds: 0 found, at least 1 expected"),
        (["--data", "mars"], 12, "no data set is called 'mars'"),
        (["--method", "nowhere:Thing"], 10, "method 'nowhere:Thing' cannot be imported"),
    ],
)
def test_wrong_options_are_named(
    options: list[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line: the option, what was found, what to do."""
    assert main(["simulate", "--out", str(tmp_path), *options]) == code
    assert said in capsys.readouterr().err


def test_settings_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Every setting of a method with its default."""
    assert main(["simulate", "--method", "lotteryfl", "--settings"]) == 0
    lines = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert lines["prune"] == "0.2"
    assert lines["epochs"] == "2"
