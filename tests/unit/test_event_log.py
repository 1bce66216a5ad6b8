"""The JSON log: every line is whole, says what happened, and survives rotation and a full disk."""

from __future__ import annotations

import json
import math
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coordinator.event_log import Both, EventLog
from coordinator.fleet import Fleet
from tests.unit.test_agent import update
from wire.errors import ConfigError
from wire.messages import Evaluation

FLEET = Fleet(allowed=frozenset(), runtimes=frozenset())


def lines(path: Path) -> list[dict[str, Any]]:
    """What is in a log; a constant that JSON does not have is an error."""

    def refuse(name: str) -> None:
        raise AssertionError(name)

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def test_every_event_is_one_line_with_its_fields(tmp_path: Path) -> None:
    """Also a device's loss that is no number, and a remark that would break the line."""
    path = tmp_path / "logs" / "run.jsonl"
    failures: list[str] = []
    with closing(EventLog(path, "site", failures.append)) as first, closing(EventLog(path, "other", print)) as second:
        log = Both(first, second)
        log.device("pi-1", True, FLEET)
        log.announced(1, ("pi-1", "pi-2"))
        log.mask("pi-1", replace(update(1), correct=5, test_samples=10, loss=math.nan), 806)
        log.evaluation("pi-1", Evaluation(run=bytes(8), number=2, correct=6, test_samples=8))
        log.closed(1, 1, 0.875)
        log.remark("two\nlines \x1b[2J 100 %s")
    found = lines(path)
    assert [one["federation"] for one in found] == ["site", "other"] * 6
    assert {one.pop("time")[-6:] for one in found} == {"+00:00"}
    mine = [{k: v for k, v in one.items() if k != "federation"} for one in found[::2]]
    assert mine[:2] == [
        {"event": "device", "device": "pi-1", "online": True},
        {"event": "announced", "round": 1, "selected": 2},
    ]
    assert (mine[2]["loss"], mine[2]["bytes"], mine[2]["correct"], mine[2]["round"]) == (None, 806, 5, 1)
    assert mine[3:] == [
        {"event": "evaluation", "device": "pi-1", "round": 2, "correct": 6, "test_samples": 8},
        {"event": "closed", "round": 1, "masks": 1, "held_out": 0.875},
        {"event": "remark", "text": "two\nlines \x1b[2J 100 %s"},
    ]
    assert not failures


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
