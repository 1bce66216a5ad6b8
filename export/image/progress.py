"""How far a long job on an image has come: a bar where there is a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

FIRST_S, LINE_S = 5.0, 30.0  # where nothing is drawn: the first line of a step, and the next ones
LEFT_FROM = 0.03  # of a step: with less of it done, what is left is anybody's guess


class Progress(Protocol):
    """What a job calls as it goes on."""

    def __call__(self, step: str, done: int, total: int, doing: str = "") -> None:
        """The step that it is in; how much of it is done, of how much (0 if nobody knows); and what is done now."""


@dataclass
class Steps:
    """One step after the other, in words.

    Attributes:
        unit: what is counted.
    """

    unit: Literal["bytes", "packages"]
    _step: str = ""
    _doing: str = ""
    _done: int = 0
    _total: int = 0
    _began_s: float = field(default_factory=time.monotonic)

    def tell(self, step: str, done: int, total: int, doing: str = "") -> None:
        """See `Progress`."""
        if step != self._step:
            self._step, self._began_s = step, time.monotonic()
        self._done, self._total, self._doing = done, total, doing

    @property
    def began_s(self) -> float:
        """When this step began."""
        return self._began_s

    def title(self) -> str:
        """Which step, and what of it."""
        return f"{self._step}: {self._doing}" if self._doing else self._step

    def numbers(self, now_s: float) -> str:
        """How much is done, how long that took, and about how long the rest of the step will take."""
        seconds = now_s - self._began_s
        parts = []
        if self._total:
            if self.unit == "bytes":
                rate = self._done / max(seconds, 1e-3)
                parts = [f"{self._done / 1e6:,.0f} of {self._total / 1e6:,.0f} MB", f"{rate / 1e6:,.1f} MB/s"]
            else:
                parts = [f"{self._done / self._total:.0%}"]
        parts.append(f"{_clock(seconds)} so far")
        if self._total and LEFT_FROM < self._done / self._total < 1:
            parts.append(f"about {_clock(seconds * (self._total / self._done - 1))} left")
        return ", ".join(parts)

    def drawn(self) -> Table:
        """The same with a bar."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        row = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=self._total or None, completed=self._done, pulse=not self._total, width=30)
        row.add_row(Text(self.title()), bar, Text(self.numbers(time.monotonic())))
        return row


@contextmanager
def shown(console: Console, unit: Literal["bytes", "packages"] = "bytes") -> Iterator[Progress]:
    """Show what is told, until it is left.

    Args:
        console: where to.
        unit: what the numbers that are told count.
    """
    steps = Steps(unit)
    if console.is_terminal:
        from rich.live import Live

        with Live(get_renderable=steps.drawn, console=console, transient=True, refresh_per_second=4):
            yield steps.tell
        return
    over = threading.Event()
    # By a thread, as the bar is: a step may say nothing for minutes, and a log is not to look as if it had stopped.
    lines = threading.Thread(target=_lines, args=(console, steps, over), daemon=True)
    lines.start()
    try:
        yield steps.tell
    finally:
        over.set()
        lines.join()


def _lines(console: Console, steps: Steps, over: threading.Event) -> None:
    began_s, next_s = steps.began_s, FIRST_S
    while not over.wait(min(FIRST_S, LINE_S) / 10):
        now_s = time.monotonic()
        if steps.began_s != began_s:
            began_s, next_s = steps.began_s, FIRST_S
        if now_s - began_s >= next_s:
            next_s = now_s - began_s + LINE_S
            console.print(f"{steps.title()} ({steps.numbers(now_s)})", highlight=False, markup=False, soft_wrap=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
