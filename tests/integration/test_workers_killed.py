"""`hidenseek worker` as a person starts it: over mosquitto, one of two killed in the middle of a round."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coordinator.aggregate import MEMORY, next_votes
from tests.integration.fleet import Processes, rows, wait_until
from wire import mask
from wire.ticket import decode_ticket

DEVICES, ROUNDS = 20, 5
CONFIG = f"""
federation:
  name: t
  method: uniform
  rounds: {ROUNDS}
  per_round: {DEVICES}
  quorum: {DEVICES}
  deadline_s: 90
  start_devices: {DEVICES}
  defend: false
  evaluate: false
"""
HELD = "SELECT run, number, device, signs, settled FROM held"


def start_worker(processes: Processes, name: str, broker: str) -> None:
    """Start a worker, or start it again."""
    arguments = ["coordinator.cli", "worker", "--broker", broker, "--federation", "t", "--name", name]
    processes._start(name, [*arguments, "--state", str(processes.home / name)], "secret")


def held(processes: Processes, name: str) -> list[tuple[object, ...]]:
    """What is in a worker's database."""
    return rows(Path(processes.home / name / "worker.db"), HELD)


@pytest.mark.broker
@pytest.mark.slow
def test_a_worker_killed_in_a_round_costs_nothing(processes: Processes, mosquitto: str) -> None:
    """Every device's mask of every round is counted, once, and the votes are those of the masks themselves."""
    processes.serve(CONFIG, "--broker", mosquitto, "--workers", password="secret")
    wait_until(lambda: rows(processes.database, "SELECT id FROM run") != [], 60, "the coordinator has begun a run")
    for name in ("one", "two"):
        start_worker(processes, name, mosquitto)
    wait_until(lambda: "worker two is here" in processes.log("coordinator"), 60, "both workers are there")
    crowd = ["coordinator.cli", "loadtest", "--broker", mosquitto, "--federation", "t"]
    crowd += ["--devices", str(DEVICES), "--train", "1,3", "--processes", "1"]
    processes._start("crowd", crowd, "secret")

    def second_round() -> bool:
        return any(row[1] == 2 for row in held(processes, "one"))

    wait_until(second_round, 60, "a worker has a mask of the second round")
    processes.kill("one")
    kept = len([row for row in held(processes, "one") if row[1] == 2])
    assert kept
    start_worker(processes, "one", mosquitto)
    assert processes.wait("coordinator", 240) == 0, processes.log("coordinator")[-2000:]
    assert processes.wait("crowd", 60) == 0, processes.log("crowd")[-2000:]

    counted = rows(processes.database, "SELECT counted, count(DISTINCT device), count(*) FROM mask GROUP BY counted")
    assert counted == [(number, DEVICES, DEVICES) for number in range(1, ROUNDS + 1)]
    sums = rows(processes.database, "SELECT number, worker FROM partial WHERE votes != x''")
    assert {(ROUNDS, "one"), (ROUNDS, "two")} <= set(sums), "both had their share of the last round"
    _assert_sums_are_right(processes)


def _assert_sums_are_right(processes: Processes) -> None:
    """Recount the last round from the masks in the workers' databases and the coordinator's."""
    ((encoded,),) = rows(processes.database, "SELECT ticket FROM run")
    ends = decode_ticket(encoded).ends  # type: ignore[arg-type]
    votes = {
        number: mask.decode_votes(coded, ends)  # type: ignore[arg-type]
        for number, coded in rows(processes.database, "SELECT number, votes FROM round")
    }
    whole = f"SELECT device, signs FROM mask WHERE number = {ROUNDS} AND signs != x''"
    masks = dict(rows(processes.database, whole))
    for name in ("one", "two"):
        masks |= {row[2]: row[3] for row in held(processes, name) if row[1] == ROUNDS}
    assert len(masks) == DEVICES
    before = votes[ROUNDS]
    signs = (mask.decode_signs(one, before, ends) for one in masks.values())  # type: ignore[arg-type]
    recount = next_votes(before, signs, MEMORY)
    assert np.array_equal(recount.signs, votes[ROUNDS + 1].signs)
    assert np.array_equal(recount.dissent, votes[ROUNDS + 1].dissent)
