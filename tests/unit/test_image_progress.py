"""What `hidenseek flash` shows while it works: on a terminal, and in a log."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from export.image import progress
from export.image.progress import Steps


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nothing is told meanwhile; none for what is done at once."""
    monkeypatch.setattr(progress, "FIRST_S", 0.1)
    monkeypatch.setattr(progress, "LINE_S", 0.2)
    out = io.StringIO()
    with progress.shown(Console(file=out, width=40), "packages") as tell:
        tell("at once", 0, 0)
        tell("1 of 2, system", 75, 300, "setting up libc6")
        deadline = time.monotonic() + 5
        while out.getvalue().count("\n") < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
    lines = out.getvalue().splitlines()
    assert len(lines) >= 2
    assert all(line.startswith("1 of 2, system: setting up libc6 (25%, 0:0") for line in lines)


def test_a_terminal_gets_a_bar_with_the_same_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is left as it was."""
    monkeypatch.setenv("TERM", "xterm")  # of a dumb one nothing is drawn
    out = io.StringIO()
    with progress.shown(Console(file=out, force_terminal=True, width=120)) as tell:
        tell("writing", 5_000_000, 10_000_000)
        time.sleep(0.4)
    assert "writing" in out.getvalue()
    assert "5 of 10 MB" in out.getvalue()
    assert out.getvalue().endswith("\x1b[2K")


def test_what_is_left_is_as_fast_as_what_is_done() -> None:
    """Of a quarter in a minute three are left; nothing is said at the very beginning, nor of what nobody knows."""
    steps = Steps("packages")
    steps.tell("system", 25, 100)
    began_s = steps.began_s
    assert steps.numbers(began_s + 60) == "25%, 1:00 so far, about 3:00 left"
    steps.tell("system", 100, 100, "processing triggers for man-db")
    assert steps.numbers(began_s + 3700) == "100%, 1:01:40 so far"
    steps.tell("system", 1, 100)
    assert "left" not in steps.numbers(began_s + 60)
    steps.tell("packing", 0, 0)
    assert steps.numbers(steps.began_s + 5) == "0:05 so far"
    assert steps.title() == "packing"
