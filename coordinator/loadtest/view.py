"""A load test in the terminal: a live board where there is a screen, a line now and then where there is none."""

from __future__ import annotations

import time

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from coordinator.live import LiveView
from coordinator.loadtest.result import Result, masks_of, rounds_of
from coordinator.terminal import printable

ROUNDS_SHOWN = 8
LINE_S = 5.0


class View(LiveView):
    """Shows a `Result` as it grows.

    Args:
        console: where to.
        title: of the board.
        result: what is shown.
    """

    PER_SECOND = 2

    def __init__(self, console: Console, title: str, result: Result) -> None:
        super().__init__(console)
        self._title, self._result = title, result
        self._line_s = 0.0
        self._before: tuple[float, int] = (time.monotonic(), 0)
        self._per_s = 0.0
        self.phase = "starting"

    def look(self) -> None:
        """The result has changed."""
        now_s, counts = time.monotonic(), self._result.tally.counts
        since_s, before = self._before
        if now_s - since_s >= 1:
            messages = counts["in publish"] + counts["out publish"]
            self._per_s, self._before = (messages - before) / (now_s - since_s), (now_s, messages)
        if self._live is None and now_s - self._line_s >= LINE_S:
            self._line_s = now_s
            self._console.print(self._status(), highlight=False, soft_wrap=True)

    def _status(self) -> str:
        tally, masks = self._result.tally, masks_of(self._result.tally)
        parts = [
            f"{self._result.seconds:5.0f} s  {self.phase}",
            f"{tally.connected:,} connected",
            f"{tally.welcomed:,} let in",
            f"{masks['confirmed']:,} of {masks['sent']:,} masks confirmed",
            f"{self._per_s:,.0f} messages/s",
        ]
        return ", ".join(parts)

    def _render(self) -> RenderableType:
        tally = self._result.tally
        grid = Table.grid(padding=(0, 1))
        for name, count in (("connected", tally.connected), ("let in", tally.welcomed)):
            bar = ProgressBar(total=max(tally.devices, 1), completed=count, width=40)
            grid.add_row(Text(name, style="bold"), bar, Text(f"{count:,} of {tally.devices:,}"))
        parts: list[RenderableType] = [
            grid,
            Text(),
            Text(self._said()),
            Text(),
            self._rounds(),
            Text(),
            self._processes(),
        ]
        if tally.remarks:
            parts += [Text(), Text("\n".join(printable(text) for text in tally.remarks[-3:]), style="yellow")]
        return Panel(Group(*parts), title=f"[bold]{self._title}[/]", border_style="blue", padding=(0, 1))

    def _said(self) -> str:
        tally, masks = self._result.tally, masks_of(self._result.tally)
        p50, p99 = (tally.latency.percentile_s(percent) for percent in (50, 99))
        receipts = f"; a receipt after {p50:.2f} s, 99 % within {p99:.2f} s" if p50 and p99 else ""
        away = f"; {tally.counts['connection lost']:,} connections lost" if tally.counts["connection lost"] else ""
        return (
            f"{self._result.seconds:.0f} s, {self.phase}: {self._per_s:,.0f} messages a second, "
            f"{masks['confirmed']:,} of {masks['sent']:,} masks confirmed{receipts}{away}"
        )

    def _rounds(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in (
            "round",
            "heard by",
            "within s",
            "masks",
            "confirmed",
            "training s",
            "round s",
            "beyond training s",
        ):
            table.add_column(name, justify="right")
        for one in rounds_of(self._result.tally)[-ROUNDS_SHOWN:]:
            seen = one.tally
            table.add_row(
                str(one.number),
                f"{seen.heard:,}",
                f"{seen.last_s - seen.first_s:.2f}",
                f"{seen.sent:,}",
                f"{seen.confirmed:,}",
                f"{seen.longest_s:.2f}",
                "…" if one.seconds is None else f"{one.seconds:.2f}",
                "…" if one.overhead_s is None else f"{one.overhead_s:.2f}",
            )
        return table

    def _processes(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("process", "CPU s", "memory MB", "at most"):
            table.add_column(name, justify="left" if name == "process" else "right")
        for one in self._result.watched:
            table.add_row(one.name, f"{one.cpu_s:.1f}", f"{one.rss_kib / 1024:,.0f}", f"{one.peak_kib / 1024:,.0f}")
        return table

    def conclude(self) -> None:
        """Print what it came to."""
        self._console.print()
        if rounds_of(self._result.tally):
            self._console.print(self._rounds())
            self._console.print()
        self._console.print(self._processes())
        self._console.print()
        idle = self._result.idle
        if idle.bytes_a_day is not None:
            self._console.print(
                f"idle: {idle.bytes_a_day:,.0f} bytes of MQTT a device and day, measured over {idle.seconds:,.0f} s",
                highlight=False,
            )
        for text in self._result.faults():
            self._console.print(f"[bold red]not as it should be:[/] {printable(text)}", highlight=False)
        for text in self._result.tally.remarks:
            self._console.print(printable(text), style="yellow", markup=False, highlight=False)
        self._console.print(self._summary(), highlight=False, soft_wrap=True)

    def _summary(self) -> str:
        """The whole test in a sentence."""
        result, masks = self._result, masks_of(self._result.tally)
        connected = f", connected within {result.connected_s:.1f} s" if result.connected_s else ""
        welcomed = f", let in within {result.welcomed_s:.1f} s" if result.welcomed_s else ""
        return (
            f"{result.tally.devices:,} devices{connected}{welcomed}; {masks['confirmed']:,} of {masks['sent']:,} masks "
            f"confirmed, {masks['lost']:,} lost; {result.seconds:.0f} s"
        )
