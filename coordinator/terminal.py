"""A run in the terminal: a live board where there is a screen, plain lines where there is none."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from statistics import fmean

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from coordinator.fleet import Fleet
from coordinator.live import LiveView
from coordinator.observer import Observer
from coordinator.rounds import Schedule
from wire.federation_messages import Evaluation, MaskUpdate

STYLES = {"offline": "dim", "idle": "cyan", "training": "yellow", "sent": "green"}
SYMBOLS = {"offline": "·", "idle": "○", "training": "◐", "sent": "●"}
BARS = "▁▂▃▄▅▆▇█"
REMARKS_SHOWN = 3
NAMES_SHOWN = 200  # devices; more are only counted


def wide(columns: int = 130) -> Console:
    """A console for tables: squeezed into a pipe's 80 columns one would lose its numbers."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, columns)
    return console


@dataclass
class RoundLine:
    """What is known of one round so far."""

    number: int
    selected: int
    voters: int = 0
    own: list[float] = field(default_factory=list)  # accuracy of each voter's own signs
    seen_right: int = 0
    seen_tried: int = 0
    unseen: float | None = None
    up_bytes: int = 0
    began_s: float = field(default_factory=time.monotonic)
    seconds: float | None = None

    @property
    def personalised(self) -> float | None:
        """Accuracy of the voters' own signs."""
        return fmean(self.own) if self.own else None

    @property
    def seen(self) -> float | None:
        """Accuracy of the round's outcome on the devices that reported."""
        return self.seen_right / self.seen_tried if self.seen_tried else None


class Board(LiveView, Observer):
    """Shows the run while it goes on.

    Args:
        console: where to.
        title: name of the run.
        rounds: how many are planned.
        fedavg_bytes: what FedAvg would send up per device and round, for comparison.
    """

    def __init__(self, console: Console, *, title: str, rounds: int, fedavg_bytes: int) -> None:
        super().__init__(console)
        self._title = title
        self._planned = rounds
        self._fedavg_bytes = fedavg_bytes
        self._rounds: dict[int, RoundLine] = {}
        self._devices: dict[str, str] = {}
        self._remarks: list[str] = []
        self._began_s = time.monotonic()
        self._over = False

    # What the coordinator tells.

    def device(self, name: str, online: bool, fleet: Fleet) -> None:
        """See `Observer.device`."""
        self._devices[name] = "idle" if online else "offline"
        if not online and not self._over:
            self._say(f"{name} is offline; {len(fleet.online)} devices online")

    def announced(self, number: int, selected: tuple[str, ...]) -> None:
        """See `Observer.announced`."""
        asked = frozenset(selected)
        for name, state in self._devices.items():
            if state != "offline":
                self._devices[name] = "training" if name in asked else "idle"
        self._over = not selected  # devices leave when the run is over: no news
        if not self._over:
            line = self._rounds.setdefault(number, RoundLine(number, len(selected)))
            line.selected = len(selected)

    def mask(self, name: str, update: MaskUpdate, payload_bytes: int) -> None:
        """See `Observer.mask`."""
        self._devices[name] = "sent"
        line = self._rounds.setdefault(update.number, RoundLine(update.number, 0))
        line.voters += 1
        if update.test_samples:
            line.own.append(update.correct / update.test_samples)
        line.up_bytes += payload_bytes

    def evaluation(self, name: str, evaluation: Evaluation) -> None:
        """See `Observer.evaluation`."""
        line = self._rounds.get(evaluation.number - 1)
        if line is not None:
            line.seen_right += evaluation.correct
            line.seen_tried += evaluation.test_samples

    def closed(self, number: int, voters: int, held_out: float | None) -> None:
        """See `Observer.closed`."""
        line = self._rounds.setdefault(number, RoundLine(number, voters))
        line.unseen = held_out
        line.seconds = time.monotonic() - line.began_s
        if self._live is None:
            self._console.print(
                f"round {number:>2}/{self._planned}  {_masks(voters)}  personalised {_percent(line.personalised)}  "
                f"unseen {_percent(held_out)}  {line.up_bytes / max(line.voters, 1):,.0f} B up  {line.seconds:.1f} s",
                highlight=False,
            )

    def scheduled(self, schedule: Schedule) -> None:
        """See `Observer.scheduled`."""
        self._planned = schedule.rounds

    def remark(self, text: str) -> None:
        """See `Observer.remark`."""
        self._say(printable(text))

    def _say(self, text: str) -> None:
        if self._live is None:
            self._console.print(text, highlight=False, markup=False)
        else:
            self._remarks = [*self._remarks, text][-REMARKS_SHOWN:]

    # What a person sees.

    def _render(self) -> RenderableType:
        done = sum(1 for line in self._rounds.values() if line.seconds is not None)
        heading = Table.grid(expand=True)
        heading.add_column(ratio=1)
        heading.add_column(justify="right")
        heading.add_row(self._status(done), f"{time.monotonic() - self._began_s:.0f} s")
        parts: list[RenderableType] = [
            heading,
            ProgressBar(total=self._planned, completed=done),
            Text(),
            self._fleet(),
            Text(),
            self._table(),
        ]
        if self._remarks:
            parts += [Text(), Text("\n".join(self._remarks), style="yellow")]
        return Panel(Group(*parts), title=f"[bold]{self._title}[/]", border_style="blue", padding=(0, 1))

    def _status(self, done: int) -> Text:
        online = sum(1 for state in self._devices.values() if state != "offline")
        if not self._rounds:
            return Text(f"waiting for devices: {online} online")
        current = self._rounds[max(self._rounds)]
        if self._over or done == self._planned:
            return Text("all rounds done; last evaluations coming in")
        return Text(f"round {current.number} of {self._planned}: {current.voters} of {_masks(current.selected)} in")

    def _fleet(self) -> Text:
        text = Text()
        if len(self._devices) <= NAMES_SHOWN:
            for name, state in sorted(self._devices.items()):
                text.append(f"{SYMBOLS[state]}\u00a0{name}  ", style=STYLES[state])
            text.append("\n")
        counts = Counter(self._devices.values())
        for state, style in STYLES.items():
            text.append(f"{SYMBOLS[state]} {state} {counts[state]}   ", style=style)
        return text

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("round", "masks", "personalised", "seen", "unseen", "up/device", "of FedAvg", "seconds"):
            table.add_column(name, justify="right")
        for line in list(self._rounds.values())[-10:]:
            each = line.up_bytes / line.voters if line.voters else None
            table.add_row(
                str(line.number),
                f"{line.voters}/{line.selected}",
                _bar(line.personalised),
                _bar(line.seen),
                _bar(line.unseen),
                f"{each:,.0f} B" if each else "–",
                f"1/{self._fedavg_bytes / each:,.0f}" if each else "–",
                f"{line.seconds:.1f}" if line.seconds is not None else "…",
            )
        return table


def printable(text: str) -> str:
    """What a device has said about itself, without what would command the terminal; rich's markup is not touched."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def _masks(number: int) -> str:
    return f"{number} mask{'' if number == 1 else 's'}"


def _percent(value: float | None) -> str:
    return f"{value:.1%}" if value is not None else "–"


def _bar(value: float | None) -> str:
    """A percentage with a small bar that spans 50 % to 100 %."""
    if value is None:
        return "–"
    step = round((min(max(value, 0.5), 1.0) - 0.5) * 2 * (len(BARS) - 1))
    return f"{BARS[step]} {value:.1%}"
