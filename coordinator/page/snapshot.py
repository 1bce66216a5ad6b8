"""The run and its fleet at one moment, as the page shows them."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from coordinator import orders
from coordinator.backend import Row as SqlRow
from coordinator.brokers import claims
from coordinator.brokers.claims import Card
from coordinator.monitoring.figures import DeviceFigures, Figures
from coordinator.orders import Orders
from coordinator.page.options import NO_EXTENT, PageExtent
from coordinator.place import Place
from coordinator.rounds import Schedule
from coordinator.store import Store
from wire.errors import StateError

PACE_ROUNDS = 5  # that say how long one takes
# One device: state, profile, temperature in degrees Celsius, memory in bytes, newest round, time of its mask in seconds
# since 1970, accuracy in 0 to 1. A list, for a thousand of them are sent at once.
Row: TypeAlias = tuple[str, str, float | None, int | None, int | None, float | None, float | None]


@dataclass(frozen=True, kw_only=True)
class RunState:
    """A run. Times are seconds since 1970, None where there is none.

    Attributes:
        id: which, hexadecimal.
        name: of the federation.
        round: the one that is open; 0 before the first, one more than `rounds` at the end.
        rounds: how many there are.
        closed: how many of them have closed.
        selected: devices that it asks.
        masks: that it has.
        deadline_s: when it closes, or asks more devices; between rounds: when the next opens with whoever is there.
        end_s: when the last round will close if they go on as the last five did.
        online, known: devices.
        own, seen, held_out: accuracies, see `Figures`.
        connected: the connection to the broker stands.
        paused: no round opens after the one that is open.
        over: it goes on no more.
        stopped: by a person, before its last round.
        next: a run is to be started.
        problem: why that cannot be.
        now_s: of this snapshot.
    """

    id: str
    name: str
    round: int
    rounds: int
    closed: int
    selected: int
    masks: int
    deadline_s: float | None
    end_s: float | None
    online: int
    known: int
    own: float | None
    seen: float | None
    held_out: float | None
    connected: bool
    paused: bool
    over: bool
    stopped: bool
    next: bool
    problem: str
    now_s: float


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A run, and its devices by id."""

    run: RunState
    devices: dict[str, Row]


@dataclass(kw_only=True)
class Source:
    """What is shown, and where it is read: from the coordinator's figures and its database, which it never holds up.

    Args:
        name: of the federation.
        run: which run.
        database: where it is.
        schedule: of the run when it began, or later.
        asynchronous: no deadline closes its steps.
        figures: as the coordinator's thread keeps them.
        deploy: folder of the broker, where flashed cards are kept.
        allowed: ids that may join; empty: any.
        key: the federation's public key.
        extent: what can be done.
        problem: why the run that was to be started cannot be.
    """

    name: str
    run: bytes
    database: Place
    schedule: Schedule
    asynchronous: bool
    figures: Figures
    deploy: Path | None = None
    allowed: frozenset[str] = frozenset()
    key: bytes | None = None
    extent: PageExtent = NO_EXTENT
    problem: str = ""
    _watched: claims.Watched | None = field(init=False)

    def __post_init__(self) -> None:
        self._watched = claims.Watched(self.deploy) if self.deploy else None

    def writing(self) -> closing[Store]:
        """The database, for what a person does; as `hidenseek fleet` opens it, beside the coordinator.

        Raises:
            StateError: if it cannot be.
        """
        return closing(Store(self.database))

    def reading(self) -> closing[Store]:
        """The database, to be read while this is open.

        Raises:
            StateError: if it cannot be.
        """
        return closing(Store(self.database, read_only=True))

    def take(self) -> Snapshot:
        """How everything stands now.

        Raises:
            StateError: if the database cannot be read.
        """
        now_s = time.time()
        with self.reading() as store:
            known = dict(map(tuple, store.query("SELECT name, profile FROM device")))
            revoked = store.revoked()
            paused = store.paused()
            of_run = Orders(store, self.run, self.schedule)
            schedule, over, next_run = of_run.schedule(), of_run.stopped(), orders.asked(store) is not None
            newest = store.query(
                "SELECT number, opened_s, closed_s FROM round WHERE run = ? ORDER BY number DESC LIMIT ?",
                self.run,
                PACE_ROUNDS + 1,
            )
        figures = {name: one for name, one in self.figures.devices.copy().items() if name in known or one.online}
        cards = self.cards()
        devices = {
            name: self._row(name, figures.get(name), known.get(name, ""), name in revoked, cards.get(name), now_s, over)
            for name in sorted({*known, *figures, *revoked, *cards})
        }
        run = self._run(newest, schedule, paused=paused, over=over, next_run=next_run, now_s=now_s)
        return Snapshot(run=run, devices=devices)

    def cards(self) -> dict[str, Card]:
        """Cards by device; none where they cannot be read."""
        try:
            return self._watched.now().cards if self._watched else {}
        except StateError:
            return {}

    def _run(
        self, newest: list[SqlRow], schedule: Schedule, *, paused: bool, over: bool, next_run: bool, now_s: float
    ) -> RunState:
        """The run.

        Args:
            newest: its last rounds, the newest first.
            schedule: its rules.
            paused: it is.
            over: it goes on no more.
            next_run: another is to be started.
            now_s: seconds since 1970.
        """
        figures, rounds = self.figures, schedule.rounds
        closed = min(next((one["number"] for one in newest if one["closed_s"] is not None), 0), rounds)
        over = over or figures.round > rounds
        going = 0 < figures.round <= rounds and closed < figures.round and not over
        end_s = deadline_s = None
        if len(newest) > 1 and closed < rounds and not paused and not over:
            pace_s = (newest[0]["opened_s"] - newest[-1]["opened_s"]) / (len(newest) - 1)
            end_s = max(newest[0]["opened_s"] + pace_s * (rounds - newest[0]["number"] + 1), now_s)
        waits = bool(newest) and not over and not paused
        since_s = figures.asked_s if going else newest[0]["closed_s"] if waits else None
        if since_s is not None and not self.asynchronous:
            deadline_s = since_s + schedule.deadline_s
        return RunState(
            id=self.run.hex(),
            name=self.name,
            round=figures.round,
            rounds=rounds,
            closed=closed,
            selected=figures.selected,
            masks=figures.masks,
            deadline_s=deadline_s,
            end_s=end_s,
            online=figures.online,
            known=figures.known,
            own=figures.own,
            seen=figures.seen,
            held_out=figures.held_out,
            connected=figures.connected,
            paused=paused,
            over=over,
            stopped=over and closed < rounds,
            next=next_run,
            problem=self.problem,
            now_s=now_s,
        )

    def _row(
        self,
        name: str,
        one: DeviceFigures | None,
        profile: str,
        revoked: bool,
        card: Card | None,
        now_s: float,
        over: bool,
    ) -> Row:
        if revoked:
            state = "revoked"
        elif one is not None and one.online:
            asked = name in self.figures.asked and not over
            state = "training" if asked and one.round != self.figures.round else "online"
        else:
            state = "offline"
        if card is not None and not revoked and (one is None or card.refused):
            state = card.in_words(now_s)  # it waits, or somebody has a copy of it
        if one is None:
            return state, profile, None, None, None, None, None
        return state, profile, one.temperature_c, one.memory_bytes, one.round, one.mask_s, one.accuracy
