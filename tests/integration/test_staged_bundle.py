"""The ticket of a run to come, with devices before the run: a real broker, a real coordinator, a real device."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.models import build_plan
from tests.helpers import pooled_plan, random_ticket
from tests.integration.deployed import deployed
from tests.integration.fleet import Processes, rows, wait_until
from tests.integration.updating import closed, offer, software
from wire import __version__

pytestmark = [pytest.mark.broker, pytest.mark.slow]
CONFIG = """\
federation: {name: t, rounds: 9000, per_round: 1, quorum: 1, start_devices: 1, deadline_s: 30, evaluate: false%s,
  training: {epochs: 2}}
devices: {pi-1: {}}
"""


def test_devices_have_a_ticket_before_its_run_and_one_that_fits_nobody_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fetched, tried and kept while another is trained; one that does not fit is told of; its run downloads nothing."""
    processes = Processes(tmp_path)
    good = random_ticket(build_plan("har-resnet"), 0.1, seed=4)
    (tmp_path / "next.hns").write_bytes(good.encoded)
    (tmp_path / "narrow.hns").write_bytes(random_ticket(pooled_plan("narrow", 32, 3), 0.2, seed=1).encoded)
    with deployed(tmp_path, "mosquitto", devices="{pi-1: {}}") as made:
        ca = ["--ca", str(made.folder / "ca.crt")]
        serve = ["--broker", made.url("coordinator"), *ca]
        processes.serve(CONFIG % "", *serve, password=made.password("coordinator"))
        processes.edge("pi-1", made.url("pi-1"), *ca, "--peak-mb", "150", password=made.password("pi-1"))
        try:
            wait_until(lambda: closed(processes) >= 2, 60, "two rounds")
            assert offer(made, tmp_path, monkeypatch, "--bundle", str(tmp_path / "next.hns"), "--stages", "50,100") == 0
            first, said = software(processes), processes.log("pi-1")
            assert first.startswith(f"{__version__} (bundle ")
            assert first.endswith(" ready)")
            assert "works here, and waits for its run" in said
            done = closed(processes)
            wait_until(lambda: closed(processes) >= done + 2, 60, "it to go on training")

            narrow = ["--bundle", str(tmp_path / "narrow.hns"), "--stages", "100", "--wait", "2"]
            assert offer(made, tmp_path, monkeypatch, *narrow) == 31
            assert software(processes).endswith(" failed)")
            assert "does not work here and goes" in processes.log("pi-1")
            done = closed(processes)
            wait_until(lambda: closed(processes) >= done + 2, 60, "it to go on training")

            assert offer(made, tmp_path, monkeypatch, "--bundle", str(tmp_path / "next.hns"), "--stop-after", "1") == 0
            assert software(processes) == first
            before = processes.log("pi-1").count("downloading bundle")
            processes.kill("coordinator")
            again = CONFIG % ", ticket: next.hns"
            processes.serve(again, *serve, "--new", password=made.password("coordinator"))
            done = processes.log("pi-1").count("mask confirmed")
            wait_until(lambda: len(rows(processes.database, "SELECT id FROM run")) == 2, 60, "the run to begin")
            wait_until(lambda: processes.log("pi-1").count("mask confirmed") >= done + 2, 90, "it to train the new one")
            assert processes.log("pi-1").count("downloading bundle") == before
        finally:
            processes.stop()
