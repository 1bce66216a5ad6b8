"""The live board: what it shows is what happened."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from coordinator.fleet import Fleet
from coordinator.terminal import Board
from tests.unit.test_agent import update
from wire.federation_messages import Evaluation


def shown(*, terminal: bool) -> str:
    """What a short run prints."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=110, height=40, color_system=None)
    fleet = Fleet(allowed=frozenset(), runtimes=frozenset({"onnx"}))
    with Board(console, title="t", rounds=2, fedavg_bytes=1000) as board:
        for name in ("pi-1", "pi-2", "pi-3"):
            board.device(name, True, fleet)
        board.announced(1, ("pi-1", "pi-2"))
        board.mask("pi-1", replace(update(1), correct=5, test_samples=10), 100)
        board.mask("pi-2", replace(update(1), correct=9, test_samples=10), 150)
        board.closed(1, 2, 0.875)
        board.announced(2, ("pi-3",))
        board.evaluation("pi-1", Evaluation(run=bytes(8), number=2, correct=6, test_samples=8))
        board.remark("pi-9: something odd")
    return out.getvalue()


def test_board_shows_rounds_devices_and_remarks() -> None:
    """Personalised is the mean over devices, bytes the mean over masks, seen what the evaluations said."""
    text = shown(terminal=True)
    for part in ("round 2 of 2", "2/2", "70.0%", "75.0%", "87.5%", "125 B", "1/8", "pi-9: something odd"):
        assert part in text, part
    assert "◐\u00a0pi-3" in text
    assert "○\u00a0pi-1" in text


def test_without_a_screen_there_is_a_line_a_round() -> None:
    """Pipes and logs get plain lines."""
    (line,) = [line for line in shown(terminal=False).splitlines() if line.startswith("round")]
    assert "1/2" in line
    assert "2 masks  " in line
    assert "70.0%" in line
    assert "125 B" in line


def test_presence_is_not_reported_once_the_run_is_over() -> None:
    """Devices that leave after the last round are no news."""
    out = io.StringIO()
    fleet = Fleet(allowed=frozenset(), runtimes=frozenset())
    with Board(Console(file=out, width=100), title="t", rounds=1, fedavg_bytes=1) as board:
        board.announced(1, ("pi",))
        board.device("pi", False, fleet)
        board.announced(2, ())
        board.device("other", False, fleet)
    assert "pi is offline" in out.getvalue()
    assert "other" not in out.getvalue()


def test_who_is_online_is_not_counted_for_each_that_comes() -> None:
    """Counting sorts the fleet: 10,000 devices that connect would take as long as 10,000 sorts."""

    class Uncounted(Fleet):
        @property
        def online(self) -> list[str]:
            raise AssertionError

    out = io.StringIO()
    with Board(Console(file=out, width=100), title="t", rounds=1, fedavg_bytes=1) as board:
        board.device("pi", True, Uncounted(allowed=frozenset(), runtimes=frozenset()))
    assert not out.getvalue()
