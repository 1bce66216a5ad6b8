"""The JSON log: every line is whole, says what happened, and survives rotation and a full disk."""

from __future__ import annotations

import json
import math
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coordinator.event_log import EventLog
from coordinator.fleet import Fleet
from coordinator.observer import Several
from tests.unit.test_agent import update
from wire.errors import ConfigError
from wire.federation_messages import Evaluation, Telemetry
from wire.telemetry import RoundTelemetry

FLEET = Fleet(allowed=frozenset(), runtimes=frozenset())


def lines(path: Path) -> list[dict[str, Any]]:
    """What is in a log; a constant that JSON does not have is an error."""

    def refuse(name: str) -> None:
        raise AssertionError(name)

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def test_every_event_is_one_line_with_its_fields(tmp_path: Path) -> None:
    """Also a device's loss that is no number, and a remark that would break the line; the document has them all."""
    path = tmp_path / "logs" / "run.jsonl"
    failures: list[str] = []
    with closing(EventLog(path, "site", failures.append)) as first, closing(EventLog(path, "other", print)) as second:
        log = Several(first, second)
        log.device("pi-1", True, FLEET)
        log.announced(1, ("pi-1", "pi-2"))
        log.mask("pi-1", replace(update(1), correct=5, test_samples=10, loss=math.nan), 806)
        log.evaluation("pi-1", Evaluation(run=bytes(8), number=2, correct=6, test_samples=8))
        spent = RoundTelemetry(number=1, steps=9, rss_kib=50_000, temperature_c=math.inf)
        log.telemetry("pi-1", Telemetry(run=bytes(8), rounds=(spent,)))
        log.broker(False)
        log.revoked("pi-2")
        log.refused("hns/site/up/pi-1/mask", "forged")
        log.closed(1, 1, 0.875)
        log.remark("two\nlines \x1b[2J 100 %s")
    found = lines(path)
    assert [one["federation"] for one in found] == ["site", "other"] * 9
    assert {one.pop("time")[-6:] for one in found} == {"+00:00"}
    mine = [{k: v for k, v in one.items() if k != "federation"} for one in found[::2]]
    assert mine[:2] == [
        {"event": "device", "device": "pi-1", "online": True},
        {"event": "announced", "round": 1, "selected": 2},
    ]
    assert (mine[2]["loss"], mine[2]["bytes"], mine[2]["correct"], mine[2]["round"]) == (None, 806, 5, 1)
    assert (mine[4]["event"], mine[4]["rss_kib"], mine[4]["temperature_c"]) == ("telemetry", 50_000, None)
    assert [mine[3], *mine[5:]] == [
        {"event": "evaluation", "device": "pi-1", "round": 2, "correct": 6, "test_samples": 8},
        {"event": "broker", "connected": False},
        {"event": "revoked", "device": "pi-2"},
        {"event": "closed", "round": 1, "masks": 1, "held_out": 0.875},
        {"event": "remark", "text": "two\nlines \x1b[2J 100 %s"},
    ]
    assert not failures
    table = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    for one in mine:
        (row,) = [line for line in table.splitlines() if line.startswith(f"| `{one['event']}` |")]
        assert all(f"`{name}`" in row for name in one if name != "event"), (
            f"docs/operations.md does not say all of: {row}"
        )


def test_a_rotated_log_goes_on_in_a_new_file(tmp_path: Path) -> None:
    """As logrotate does it: moved away, nobody told."""
    path = tmp_path / "run.jsonl"
    with closing(EventLog(path, "site", print)) as log:
        log.remark("before")
        path.rename(tmp_path / "run.jsonl.1")
        log.remark("after")
    assert [one["text"] for one in lines(tmp_path / "run.jsonl.1")] == ["before"]
    assert [one["text"] for one in lines(path)] == ["after"]


def test_a_full_disk_is_told_once_and_ends_nothing() -> None:
    """A log is worth less than the run."""
    failures: list[str] = []
    with closing(EventLog(Path("/dev/full"), "site", failures.append)) as log:
        log.remark("lost")
        log.remark("lost too")
    (told,) = failures
    assert "/dev/full cannot be written" in told


def test_a_log_that_cannot_be_opened_is_refused_before_the_run(tmp_path: Path) -> None:
    """With its name and what to do."""
    with pytest.raises(ConfigError, match=r"log cannot be opened \(Is a directory\).*--log"):
        EventLog(tmp_path, "site", print)
