"""When a round opens, who is selected, when it closes: a pure function of events and time.

No sockets, database or network weights in here: `handle` takes a state and an event and returns the
next state and the actions for `coordinator.server` to carry out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

from wire.errors import ConfigError, RoundFailed
from wire.messages import Message
from wire.prng import generator


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


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """Where a run stands.

    Attributes:
        schedule: the rules.
        online: devices that can be selected.
        number: the round that is open, or opens next (1, 2, ...).
        selected: devices asked in the open round; empty before it opens.
        arrived: devices whose mask for it is stored.
        deadline_s: when it closes or is extended; same clock as `handle`'s `now_s`. Between rounds: when the next
            opens even if fewer devices than wanted are online.
        attempt: how often it was announced.
        over: nothing more happens.
    """

    schedule: Schedule
    online: frozenset[str] = frozenset()
    number: int = 1
    selected: tuple[str, ...] = ()
    arrived: frozenset[str] = frozenset()
    deadline_s: float = 0.0
    attempt: int = 0
    over: bool = False

    @property
    def open(self) -> bool:
        """A round has been announced and takes masks."""
        return bool(self.selected) and not self.over


Outcome: TypeAlias = tuple[Rounds, list[Action]]


def handle(rounds: Rounds, event: Event, now_s: float) -> Outcome:
    """Return the next state and what to do, given what happened at `now_s` (any monotonic clock, seconds)."""
    if rounds.over:
        return rounds, []
    match event:
        case Appeared():
            return _go_on(replace(rounds, online=rounds.online | {event.device}), now_s)
        case Vanished():
            return replace(rounds, online=rounds.online - {event.device}), []
        case MaskStored():
            if event.device not in rounds.selected:
                return rounds, []
            return _go_on(replace(rounds, arrived=rounds.arrived | {event.device}), now_s)
        case Tick():
            return _go_on(rounds, now_s)


def resume(
    rounds: Rounds, *, number: int, selected: tuple[str, ...], arrived: frozenset[str], due: bool, now_s: float
) -> Outcome:
    """Take up a round after a restart: announce it again with a whole deadline, or (due) close it at once."""
    if number > rounds.schedule.rounds:
        return replace(rounds, number=number, over=True), [Finish()]
    rounds = replace(
        rounds,
        number=number,
        selected=selected,
        arrived=arrived,
        attempt=1,
        deadline_s=now_s if due else now_s + rounds.schedule.deadline_s,
    )
    rounds, actions = _go_on(rounds, now_s)
    return rounds, actions or [Announce(number=number, selected=selected, again=True)]


def again(rounds: Rounds, now_s: float) -> Outcome:
    """What arrived for the open round is of no use: have it collected anew, from other devices too, or give up."""
    return _extend(replace(rounds, arrived=frozenset()), now_s)


def _go_on(rounds: Rounds, now_s: float) -> Outcome:
    schedule = rounds.schedule
    if not rounds.open:
        if rounds.number == 1:
            enough = len(rounds.online) >= schedule.start_devices
        else:  # after a restart or an outage devices come back one by one: do not open with the first alone
            enough = len(rounds.online) >= schedule.per_round or (bool(rounds.online) and now_s >= rounds.deadline_s)
        return _open(rounds, now_s) if enough else (rounds, [])
    if rounds.arrived.issuperset(rounds.selected) and len(rounds.arrived) >= schedule.quorum:
        return _close(rounds, now_s)
    if now_s < rounds.deadline_s:
        return rounds, []
    if len(rounds.arrived) >= schedule.quorum:
        return _close(rounds, now_s)
    return _extend(rounds, now_s)


def _open(rounds: Rounds, now_s: float) -> Outcome:
    rounds = replace(rounds, arrived=frozenset(), attempt=1, deadline_s=now_s + rounds.schedule.deadline_s)
    selected = _select(rounds, rounds.online, rounds.schedule.per_round)
    rounds = replace(rounds, selected=selected)
    return rounds, [Announce(number=rounds.number, selected=selected, again=False)]


def _close(rounds: Rounds, now_s: float) -> Outcome:
    closing: list[Action] = [Close(number=rounds.number)]
    schedule = rounds.schedule
    if rounds.number == schedule.rounds:
        return replace(rounds, over=True), [*closing, Finish()]
    rounds = replace(
        rounds, number=rounds.number + 1, selected=(), arrived=frozenset(), deadline_s=now_s + schedule.deadline_s
    )
    rounds, opening = _go_on(rounds, now_s)
    return rounds, closing + opening


def _extend(rounds: Rounds, now_s: float) -> Outcome:
    """A deadline passed without quorum: ask other devices too. Masks already in keep counting."""
    schedule = rounds.schedule
    if rounds.attempt >= schedule.attempts:
        error = RoundFailed(
            f"round {rounds.number} has {len(rounds.arrived)} of {schedule.quorum} masks needed after "
            f"{rounds.attempt} times {schedule.deadline_s:g} s; {len(rounds.online)} devices are online",
            hint="Look at the devices' own logs, or lower quorum; the run goes on where it stopped when started again",
        )
        return replace(rounds, over=True), [GiveUp(error=error)]
    rounds = replace(rounds, attempt=rounds.attempt + 1, deadline_s=now_s + schedule.deadline_s)
    missing = schedule.per_round - len(rounds.arrived)
    others = _select(rounds, rounds.online.difference(rounds.selected), missing)
    rounds = replace(rounds, selected=rounds.selected + others)
    return rounds, [Announce(number=rounds.number, selected=rounds.selected, again=True)]


def _select(rounds: Rounds, candidates: frozenset[str], count: int) -> tuple[str, ...]:
    """Draw at most `count` devices; the same state draws the same devices."""
    ordered = sorted(candidates)
    rng = generator((rounds.schedule.seed, "select", rounds.number, rounds.attempt))
    if not ordered:
        return ()
    chosen = rng.choice(len(ordered), size=min(count, len(ordered)), replace=False)
    return tuple(sorted(ordered[i] for i in chosen))
