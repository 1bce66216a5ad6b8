"""A federation whose database is PostgreSQL: its coordinator is killed, its server crashes, and nothing differs."""

from __future__ import annotations

from pathlib import Path
from socket import gethostname
from typing import TypeAlias

import pytest

from coordinator.place import Server
from tests.integration.fleet import Processes, assert_every_mask_counted_once, rows, wait_until
from tests.postgres import Cluster, started_postgres
from wire.errors import StateError

pytestmark = [pytest.mark.broker, pytest.mark.slow]
DEVICES = ("pi-1", "pi-2", "pi-3")
ROUNDS = 4
# All are asked, and all have to answer: who is quick and who is not makes no difference to the outcome.
CONFIG = f"""
federation:
  name: t
  method: uniform
  rounds: {ROUNDS}
  per_round: 3
  quorum: 3
  deadline_s: 120
  start_devices: 3
  runtimes: [sparse]
  training: {{epochs: 12}}
devices: {{pi-1: {{}}, pi-2: {{}}, pi-3: {{}}}}
"""
Rows: TypeAlias = list[tuple[object, ...]]
OUTCOME = "SELECT number, votes FROM round ORDER BY number"
MASKS = "SELECT number, device, signs, correct FROM mask ORDER BY number, device"


def _begin(processes: Processes) -> None:
    """Start a coordinator with a broker of its own, and devices."""
    processes.serve(CONFIG, "--listen", "127.0.0.1:0")
    address, passwords = processes.embedded_broker()
    for device in DEVICES:
        processes.edge(device, f"mqtt://{device}@{address}", password=passwords[device])


def _finish(processes: Processes) -> tuple[Rows, Rows]:
    """Wait for all; the votes of all rounds, and the masks."""
    assert processes.wait("coordinator", 300) == 0, processes.log("coordinator")[-3000:]
    for device in DEVICES:
        assert processes.wait(device, 30) == 0, processes.log(device)[-2000:]
    assert_every_mask_counted_once(processes, ROUNDS)
    return rows(processes.database, OUTCOME), rows(processes.database, MASKS)


def _in_the_middle_of(processes: Processes, number: int) -> None:
    """Wait until a round has one mask, but not all."""

    def so() -> bool:
        assert processes.running["coordinator"].poll() is None, processes.log("coordinator")[-3000:]
        return bool(rows(processes.database, f"SELECT 1 FROM mask WHERE number = {number}"))

    wait_until(so, 120, f"a first mask of round {number} is stored")


def test_kill_and_crash_with_postgres(tmp_path: Path, mosquitto: str) -> None:
    """Nothing acknowledged is lost or counted twice, and votes and masks are those of an undisturbed run in a file."""
    undisturbed = Processes(tmp_path / "file")
    undisturbed.home.mkdir()
    try:
        _begin(undisturbed)
        expected = _finish(undisturbed)
    finally:
        undisturbed.stop()
    with started_postgres() as cluster:
        processes = Processes(tmp_path / "server", server=Server(cluster.url(cluster.database())))
        processes.home.mkdir()
        try:
            found = _disturbed(processes, cluster, mosquitto)
        finally:
            processes.stop()
    assert found == expected
    assert not list((tmp_path / "server").rglob("coordinator.db"))


def _disturbed(processes: Processes, cluster: Cluster, broker: str) -> tuple[Rows, Rows]:
    def serve(name: str = "coordinator") -> None:
        processes.serve(CONFIG, "--broker", broker, password="secret", name=name)

    serve()
    wait_until(lambda: bool(rows(processes.database, "SELECT 1 FROM run")), 120, "the run has begun")
    processes.state = processes.home / "another-machine"
    serve("second")
    assert processes.wait("second", 120) == StateError.exit_code
    process = processes.running["coordinator"].pid
    assert f"another coordinator is at work on it: t on {gethostname()}, process {process}" in processes.log("second")
    for device in DEVICES:
        processes.edge(device, broker, password="secret")
    _in_the_middle_of(processes, 2)
    processes.kill("coordinator")
    serve()  # there: nothing is brought from where it was killed
    wait_until(lambda: "taking up run" in processes.log("coordinator"), 120, "the run goes on")

    _in_the_middle_of(processes, 3)
    cluster.stop("immediate")
    assert processes.wait("coordinator", 120) == StateError.exit_code
    said = processes.log("coordinator")
    assert "Start again when the server answers: a run goes on where it stopped" in said
    serve()
    assert processes.wait("coordinator", 120) == StateError.exit_code
    assert "cannot be reached" in processes.log("coordinator")[len(said) :]
    cluster.start()
    serve()
    return _finish(processes)
