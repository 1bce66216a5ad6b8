"""`hidenseek loadtest` as a person starts it: a small fleet over mosquitto, some of it vanishing; and Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator import cli
from tests.helpers import hear_ctrl_c
from tests.integration.conftest import started_mosquitto
from tests.integration.fleet import rows, wait_until
from wire.errors import ConfigError

LOADTEST = [sys.executable, "-m", "coordinator.cli", "loadtest"]


def of_this(folder: Path) -> list[str]:
    """Command lines of processes whose files are in this folder."""
    asked = subprocess.run(["ps", "-ww", "-eo", "args="], capture_output=True, text=True, check=True)
    return [line for line in asked.stdout.splitlines() if str(folder) in line and "loadtest" not in line]


@pytest.mark.broker
@pytest.mark.slow
def test_a_fleet_that_comes_and_goes_loses_no_mask(tmp_path: Path) -> None:
    """Fifty devices, two or three of which vanish every second; every mask that was sent is confirmed and kept."""
    result = tmp_path / "result.json"
    options = ["--self", "mosquitto", "--devices", "50", "--rounds", "2", "--per-round", "20", "--churn", "3"]
    options += ["--train", "0.5,2", "--density", "0.02", "--state", str(tmp_path / "state"), "--json", str(result)]
    done = subprocess.run([*LOADTEST, *options], capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "50 devices, connected within" in done.stdout
    found = json.loads(result.read_text())
    assert [one["confirmed"] for one in found["rounds"]] == [20, 20]
    assert all(40 < one["heard"] <= 50 for one in found["rounds"]), "but those that are away when one opens"
    assert found["masks"]["stored"] == found["masks"]["sent"] == 40
    assert found["masks"]["lost"] == 0
    counts = found["counts"]
    assert counts["churn: power cut"] + counts["churn: network lost"] > 5
    assert counts["in connack"] > 55
    assert found["processes"]["coordinator"]["cpu_s"] > 0
    assert not of_this(tmp_path)


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mosquitto", "nats"])
def test_workers_take_the_masks(tmp_path: Path, kind: str) -> None:
    """Two of them, each with a share: every mask is kept once, and most came as sums."""
    result = tmp_path / "result.json"
    options = ["--self", kind, "--devices", "60", "--rounds", "3", "--per-round", "60", "--workers", "2"]
    options += ["--train", "0.5,1", "--density", "0.02", "--state", str(tmp_path / "state"), "--json", str(result)]
    done = subprocess.run([*LOADTEST, *options], capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(result.read_text())
    assert found["masks"]["stored"] == found["masks"]["confirmed"] == 180
    assert {"broker", "coordinator", "worker-1", "worker-2"} <= found["processes"].keys()
    database = tmp_path / "state" / "serve" / "coordinator.db"
    (last,) = rows(database, "SELECT count(DISTINCT worker) FROM partial WHERE number = 3 AND votes != x''")
    assert last == (2,)
    assert rows(database, "SELECT count(*) FROM mask WHERE number = 3 AND signs = x''") == [(60,)]
    assert not of_this(tmp_path)


@pytest.mark.broker
def test_workers_of_a_coordinator_that_runs_are_not_ours(capsys: pytest.CaptureFixture[str]) -> None:
    """The load test says how to start them."""
    options = ["loadtest", "--broker", "mqtt://127.0.0.1:9", "--workers", "1"]
    assert cli.main(options) == ConfigError.exit_code
    assert "Start them with hidenseek worker" in capsys.readouterr().err


@pytest.mark.broker
def test_ctrl_c_leaves_no_session_behind_and_a_result(tmp_path: Path) -> None:
    """Against a broker that runs, with no coordinator there: the devices wait, leave, and are forgotten."""
    result, log = tmp_path / "result.json", tmp_path / "mosquitto.log"
    with started_mosquitto(tmp_path, "allow_anonymous true\nlog_type all\n") as port:
        arguments = [*LOADTEST, "--broker", f"mqtt://127.0.0.1:{port}", "--devices", "20", "--json", str(result)]
        running = subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c
        )
        wait_until(lambda: log.read_text().count("Received SUBSCRIBE") >= 40, 60, "all devices are connected")
        running.send_signal(signal.SIGINT)
        said, errors = running.communicate(timeout=60)
        assert running.returncode == 130, said + errors
        assert errors == "hidenseek: stopped\n"
        words = log.read_text()
    assert words.count(" c1, k60") == 20, "each asked for its session to be forgotten"
    found = json.loads(result.read_text())
    assert (found["devices"], found["connected"], found["interrupted"]) == (20, 20, True)
    assert "no federation was announced" in said
