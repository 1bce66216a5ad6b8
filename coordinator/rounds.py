"""When a round opens, who is selected, when it closes: a function of events and time.

No sockets, clocks, database or network weights in here: `handle` takes an event into a run's state and returns the
actions for `coordinator.executor` to carry out. Of a device that comes or goes, or whose mask is stored, it costs the
same in every fleet.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from typing import TypeAlias

from coordinator.draw import Draw
from wire.errors import ConfigError, RoundFailed
from wire.messages import Message
from wire.prng import generator

CHANGEABLE = ("rounds", "per_round", "quorum", "deadline_s", "start_devices")  # while a run goes on


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How a run proceeds.

    Attributes:
        rounds: how many.
        per_round: devices selected for a round (fewer if fewer are online).
        quorum: masks a round needs to count.
        deadline_s: seconds a round waits for its masks before it closes with a quorum, or asks more devices.
        start_devices: devices that must be online before the first round opens.
        attempts: how often a round without quorum is extended before the run gives up.
        seed: fixes which devices are selected.

    Raises:
        ConfigError: if the numbers contradict each other.
    """

    rounds: int
    per_round: int
    quorum: int
    deadline_s: float
    start_devices: int
    attempts: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rounds", "per_round", "quorum", "start_devices", "attempts"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, at least 1 expected", where="federation")
        if self.quorum > self.per_round:
            raise ConfigError(
                f"quorum is {self.quorum}, but only {self.per_round} devices are selected a round", where="federation"
            )
        if self.deadline_s <= 0:
            raise ConfigError(f"deadline_s is {self.deadline_s}, a positive number expected", where="federation")


# What can happen.


@dataclass(frozen=True, kw_only=True)
class Appeared:
    """A device is online."""

    device: str


@dataclass(frozen=True, kw_only=True)
class Vanished:
    """A device is offline."""

    device: str


@dataclass(frozen=True, kw_only=True)
class MaskStored:
    """A selected device's mask for the open round is on disk."""

    device: str


@dataclass(frozen=True, kw_only=True)
class Tick:
    """Time has passed."""


Event: TypeAlias = Appeared | Vanished | MaskStored | Tick


# What is to be done.


@dataclass(frozen=True, kw_only=True)
class Announce:
    """Publish the round; `again` when it was announced before with fewer devices."""

    number: int
    selected: tuple[str, ...]
    again: bool


@dataclass(frozen=True, kw_only=True)
class Close:
    """Count the round's votes; always followed by Announce or Finish."""

    number: int


@dataclass(frozen=True, kw_only=True)
class Finish:
    """Publish the result: the run is over."""


@dataclass(frozen=True, kw_only=True)
class GiveUp:
    """The run cannot go on."""

    error: RoundFailed


@dataclass(frozen=True, kw_only=True)
class Tell:
    """Send a device a message about a round."""

    number: int
    device: str
    message: Message


@dataclass(frozen=True, kw_only=True)
class Remark:
    """Tell the person who looks."""

    text: str


Action: TypeAlias = Announce | Close | Finish | GiveUp | Tell | Remark


@dataclass(kw_only=True)
class Rounds:
    """Where a run stands.

    Attributes:
        schedule: the rules.
        online: devices that can be selected; whoever says that one came or went has it up to date.
        draw: how devices are selected that are not named; None: all are named.
        number: the round that is open, or opens next (1, 2, ...).
        selected: devices asked in the open round, that it waits for; empty before it opens.
        arrived: devices whose mask for it is stored.
        deadline_s: when it closes or is extended; same clock as `handle`'s `now_s`. Between rounds: when the next
            opens even if fewer devices than wanted are online.
        attempt: how often it was announced.
        held: no round opens; the one that is open goes on.
        over: nothing more happens.
    """

    schedule: Schedule
    online: Set[str] = frozenset()
    draw: Draw | None = None
    number: int = 1
    selected: tuple[str, ...] = ()
    arrived: set[str] = field(default_factory=set)
    deadline_s: float = 0.0
    attempt: int = 0
    held: bool = False
    over: bool = False
    _missing: set[str] = field(default_factory=set)  # selected, and not arrived
    _below: int = 0  # lots that are drawn

    @property
    def open(self) -> bool:
        """A round has been announced and takes masks."""
        return bool(self.selected) and not self.over

    def asks(self, device: str) -> bool:
        """Whether a device is asked for its mask in the open round.

        Also one that is drawn and was not online when it opened, and so is not waited for.
        """
        if device in self._missing or device in self.arrived:
            return True
        return self.draw is not None and self.draw.draws(self.number, device, self._below)

    def due(self, now_s: float) -> bool:
        """Whether the open round is to be closed: all its masks are there, or at the deadline enough of them."""
        enough = len(self.arrived) >= self.schedule.quorum
        return self.open and enough and (not self._missing or now_s >= self.deadline_s)

    def ask(self, devices: Iterable[str]) -> None:
        """Wait for these devices' masks too."""
        devices = tuple(devices)
        self.selected += devices
        self._missing.update(devices)
        if self.draw is not None:
            self._below = max(self._below, self.draw.below(self.number, devices))

    def arrive(self, device: str) -> bool:
        """A device's mask is stored; whether the round has asked for it."""
        asked = self.asks(device)
        if asked:
            self._missing.discard(device)
            self.arrived.add(device)
        return asked

    def begin(self, number: int) -> None:
        """Wait to open a round: nobody is asked yet."""
        self.number, self.selected, self.arrived, self._missing, self._below = number, (), set(), set(), 0


def handle(rounds: Rounds, event: Event, now_s: float) -> list[Action]:
    """Take in what happened at `now_s` (any monotonic clock, seconds); what to do."""
    if rounds.over:
        return []
    match event:
        case Vanished():
            return []
        case MaskStored() if not rounds.arrive(event.device):
            return []
    return _go_on(rounds, now_s)


def resume(
    rounds: Rounds, *, number: int, selected: tuple[str, ...], arrived: Iterable[str], due: bool, now_s: float
) -> list[Action]:
    """Take up a round after a restart: announce it again with a whole deadline, or (due) close it at once."""
    rounds.begin(number)
    if number > rounds.schedule.rounds:
        rounds.over = True
        return [Finish()]
    rounds.ask(selected)
    for device in arrived:
        rounds.arrive(device)
    rounds.attempt, rounds.deadline_s = 1, now_s if due else now_s + rounds.schedule.deadline_s
    return _go_on(rounds, now_s) or [Announce(number=number, selected=selected, again=True)]


def again(rounds: Rounds, now_s: float) -> list[Action]:
    """What arrived for the open round is of no use: have it collected anew, from other devices too, or give up."""
    selected = rounds.selected
    rounds.begin(rounds.number)
    rounds.ask(selected)
    return _extend(rounds, now_s)


def close(rounds: Rounds, now_s: float) -> list[Action]:
    """Close the open round, and open the next if that can be."""
    closing: list[Action] = [Close(number=rounds.number)]
    schedule = rounds.schedule
    if rounds.number == schedule.rounds:
        rounds.over = True
        return [*closing, Finish()]
    rounds.begin(rounds.number + 1)
    rounds.deadline_s = now_s + schedule.deadline_s
    return closing + _go_on(rounds, now_s)


def _go_on(rounds: Rounds, now_s: float) -> list[Action]:
    schedule = rounds.schedule
    if not rounds.open:
        if rounds.held:
            return []
        if rounds.number == 1:
            enough = len(rounds.online) >= schedule.start_devices
        else:  # after a restart or an outage devices come back one by one: do not open with the first alone
            enough = len(rounds.online) >= schedule.per_round or (bool(rounds.online) and now_s >= rounds.deadline_s)
        return _open(rounds, now_s) if enough else []
    if rounds.due(now_s):
        return close(rounds, now_s)
    return _extend(rounds, now_s) if now_s >= rounds.deadline_s else []


def _open(rounds: Rounds, now_s: float) -> list[Action]:
    rounds.attempt, rounds.deadline_s = 1, now_s + rounds.schedule.deadline_s
    rounds.ask(_select(rounds, rounds.online, rounds.schedule.per_round))
    return [Announce(number=rounds.number, selected=rounds.selected, again=False)]


def _extend(rounds: Rounds, now_s: float) -> list[Action]:
    """A deadline passed without quorum: ask other devices too. Masks already in keep counting."""
    schedule = rounds.schedule
    if rounds.attempt >= schedule.attempts:
        rounds.over = True
        error = RoundFailed(
            f"round {rounds.number} has {len(rounds.arrived)} of {schedule.quorum} masks needed after "
            f"{rounds.attempt} times {schedule.deadline_s:g} s; {len(rounds.online)} devices are online",
            hint="Look at the devices' own logs, or lower quorum; the run goes on where it stopped when started again",
        )
        return [GiveUp(error=error)]
    rounds.attempt, rounds.deadline_s = rounds.attempt + 1, now_s + schedule.deadline_s
    others = rounds.online - set(rounds.selected) - rounds.arrived
    rounds.ask(_select(rounds, others, schedule.per_round - len(rounds.arrived)))
    return [Announce(number=rounds.number, selected=rounds.selected, again=True)]


def _select(rounds: Rounds, candidates: Set[str], count: int) -> tuple[str, ...]:
    """Draw at most `count` devices; the same state draws the same devices."""
    if rounds.draw is not None:
        return tuple(sorted(rounds.draw.first(rounds.number, candidates, count)))
    ordered = sorted(candidates)
    rng = generator((rounds.schedule.seed, "select", rounds.number, rounds.attempt))
    if not ordered:
        return ()
    chosen = rng.choice(len(ordered), size=min(count, len(ordered)), replace=False)
    return tuple(sorted(ordered[i] for i in chosen))
