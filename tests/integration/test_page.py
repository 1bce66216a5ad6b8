"""The live page of a real federation: `hidenseek serve --page` with devices that train."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from tests.integration.fleet import Processes, rows, wait_until
from tests.page import Visitor, listening

pytestmark = pytest.mark.slow
CONFIG = """
federation: {name: t, model: har-cnn, density: 0.05, rounds: 60, per_round: 2, quorum: 1,
  deadline_s: 60, start_devices: 2, runtimes: [sparse], training: {epochs: 1}}
devices: {pi-1: {}, pi-2: {}}
"""


@dataclass
class Printed:
    """A page as `hidenseek serve` prints its address."""

    url: str
    token: str


def printed(processes: Processes) -> Printed:
    """Wait for it."""
    wait_until(lambda: "page: http" in processes.log("coordinator"), 60, "the page is served")
    (found,) = re.findall(r"page: (https?://\S+/)login#(\S+)", processes.log("coordinator"))
    return Printed(*found)


def test_a_federation_is_seen_to_its_end(processes: Processes) -> None:
    """Waiting, training, then finished, with the figures of the database; and then it ends."""
    processes.serve(CONFIG, "--listen", "127.0.0.1:0", "--page", "127.0.0.1:0", "--no-stay")
    page = printed(processes)
    states: dict[str, set[str]] = {"pi-1": set(), "pi-2": set()}
    visitor = Visitor(page).log_in()
    assert "No round has closed yet" in visitor.get("/").text
    with listening(visitor) as events:
        _, first = next(events)
        assert (first["run"]["round"], first["run"]["rounds"], first["devices"]) == (0, 60, {})
        address, passwords = processes.embedded_broker()
        for name in states:
            processes.edge(name, f"mqtt://{name}@{address}", password=passwords[name])
        last, devices = first, {}
        for kind, told in events:  # until the coordinator ends
            if kind == "fleet":
                last = told
                devices |= told["devices"]
                for name, row in told["devices"].items():
                    states[name].add(row[0])
    assert last["run"]["round"] == 61
    assert all("training" in seen for seen in states.values()), states  # one look a second
    assert processes.wait("coordinator", 60) == 0, processes.log("coordinator")
    for name, number, correct, samples in rows(
        processes.database, "SELECT device, max(number), correct, test_samples FROM mask GROUP BY device"
    ):
        assert (devices[name][4], devices[name][6]) == (number, correct / samples)
