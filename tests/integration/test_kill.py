"""Kill -9 a device, then the coordinator, in the middle of a round: nothing acknowledged is lost or counted twice."""

from __future__ import annotations

import re

import pytest

from tests.integration.fleet import Processes, assert_every_mask_counted_once, rows, wait_until

DEVICES = ["pi-1", "pi-2", "pi-3", "pi-4"]
ROUNDS = 4
CONFIG = f"""
federation:
  name: t
  method: uniform
  rounds: {ROUNDS}
  per_round: 3
  quorum: 2
  deadline_s: 20
  start_devices: 4
  training: {{epochs: 12}}
devices: {{pi-1: {{}}, pi-2: {{}}, pi-3: {{}}, pi-4: {{}}}}
"""


# Nobody is selected and no deadline helps: a device that is killed has to come back with its mask, or make another.
ASYNCHRONOUS = CONFIG.replace("quorum: 2", "quorum: 2\n  mode: async\n  buffer: 3\n  staleness: 2")


def _masks(processes: Processes) -> list[tuple[object, ...]]:
    return rows(processes.database, "SELECT number, device FROM mask")


def _kill_and_finish(
    processes: Processes, broker: str, serve: list[str], passwords: dict[str, str], config: str = CONFIG
) -> None:
    """Run a federation, kill a training device and later the coordinator, start both again, see it through."""
    start = {device: (broker.replace("USER", device), passwords.get(device, "")) for device in DEVICES}
    for device, (address, password) in start.items():
        processes.edge(device, address, password=password)
    wait_until(lambda: any("round 1: training" in processes.log(d) for d in DEVICES), 60, "a device trains")
    victim = next(d for d in DEVICES if "round 1: training" in processes.log(d))
    processes.kill(victim)
    processes.edge(victim, start[victim][0], password=start[victim][1])

    wait_until(lambda: any(number == 2 for number, _ in _masks(processes)), 60, "a first mask of round 2 is stored")
    processes.kill("coordinator")
    processes.serve(config, *serve, password=passwords.get("coordinator", ""))
    assert processes.wait("coordinator", 120) == 0
    assert "taking up run" in processes.log("coordinator")
    for device in DEVICES:
        assert processes.wait(device, 30) == 0, processes.log(device)[-2000:]
    assert_every_mask_counted_once(processes, ROUNDS)
    assert (processes.home / "serve" / "report.html").stat().st_size > 0


@pytest.mark.slow
def test_kill_with_the_embedded_broker(processes: Processes) -> None:
    """The coordinator's death takes its NATS server's parent away; the server and its sessions are found again."""
    processes.serve(CONFIG, "--listen", "127.0.0.1:0")
    address, passwords = processes.embedded_broker()
    listen = ["--listen", address]
    _kill_and_finish(processes, f"mqtt://USER@{address}", listen, passwords)


@pytest.mark.slow
def test_kill_in_asynchronous_mode(processes: Processes) -> None:
    """The same promise where masks may be late: every one that was confirmed is counted, once, with its weight."""
    processes.serve(ASYNCHRONOUS, "--listen", "127.0.0.1:0")
    address, passwords = processes.embedded_broker()
    _kill_and_finish(processes, f"mqtt://USER@{address}", ["--listen", address], passwords, ASYNCHRONOUS)
    voters = rows(processes.database, "SELECT counted, count(DISTINCT device), count(*) FROM mask GROUP BY counted")
    assert voters == [(number, 3, 3) for number in range(1, ROUNDS + 1)]
    trained = {device: re.findall(r"round (\d+): mask \w+ sent", processes.log(device)) for device in DEVICES}
    stored = rows(processes.database, "SELECT device, number FROM mask")
    assert all(str(number) in trained[str(device)] for device, number in stored)


@pytest.mark.broker
def test_kill_with_mosquitto(processes: Processes, mosquitto: str) -> None:
    """The same over a broker the site already has."""
    everyone = dict.fromkeys([*DEVICES, "coordinator"], "secret")
    processes.serve(CONFIG, "--broker", mosquitto, password="secret")
    _kill_and_finish(processes, mosquitto, ["--broker", mosquitto], everyone)
