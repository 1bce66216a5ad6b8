"""`hidenseek demo` as a user runs it: real data, real broker, real processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers import hear_ctrl_c
from tests.integration.fleet import wait_until

DEMO = [sys.executable, "-m", "coordinator.cli", "demo", "--devices", "5", "--per-round", "3"]


def ours(out: Path) -> list[str]:
    """Command lines of processes that belong to the demo in this folder."""
    listed = subprocess.run(["ps", "-eo", "args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if str(out) in line and "coordinator.cli demo" not in line]


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["sparse", "onnx"])
def test_demo_ends_with_a_report_and_its_figures(tmp_path: Path, runtime: str) -> None:
    """The page's path comes last, the JSON has every field, bytes are below a bit a weight, no process is left."""
    out, figures = tmp_path / "out", tmp_path / "result.json"
    arguments = ["--rounds", "3", "--runtime", runtime, "--out", str(out), "--json", str(figures)]
    done = subprocess.run([*DEMO, *arguments], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"report: {(out / 'report.html').resolve()}"
    found = json.loads(figures.read_text())
    assert (found["rounds"], found["devices"]) == (3, 5)
    assert found["bytes"]["fedavg_up_per_device_round"] == 1_212_928
    assert 500 < found["bytes"]["up_per_device_round"] < 3_800
    assert found["bytes"]["down_per_device_round"] > 100
    assert all(0 < found["accuracy"][name] <= 1 for name in ("seen", "unseen", "personalised"))
    assert found["accuracy"]["personalised"] > 0.5, "three rounds beat guessing by far"
    assert ours(out) == []


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_running_and_a_run_to_report_on(tmp_path: Path) -> None:
    """Exit code 130, no broker or device left behind, and `hidenseek report` works on what there is."""
    out = tmp_path / "out"
    command = [*DEMO, "--rounds", "500", "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("round  2/"):
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    time.sleep(0.5)
    wait_until(lambda: ours(out) == [], 10, "every process of the demo is gone")
    report = [sys.executable, "-m", "coordinator.cli", "report", str(out)]
    assert "accuracy" in subprocess.run(report, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_device_that_cannot_start_ends_the_demo_with_its_own_words(tmp_path: Path) -> None:
    """A wrong runtime is not waited for: the device's error is the demo's."""
    arguments = ["--rounds", "1", "--runtime", "sparce", "--out", str(tmp_path / "out")]
    done = subprocess.run([*DEMO, *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 26
    assert "Did you mean 'sparse'?" in done.stderr
    assert ours(tmp_path / "out") == []
