"""In rounds or asynchronously: two ways a run proceeds, each a state machine, the votes and the database.

The third, in rounds whose masks nobody sees, is `coordinator.secretly`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, replace
from typing import Protocol

from coordinator import dithered, rounds, steps
from coordinator.aggregate import close_votes
from coordinator.announced import Announced
from coordinator.asynchronous import Group, close_step
from coordinator.dithered import Remainder
from coordinator.draw import Draw
from coordinator.rounds import Action, Rounds, Schedule
from coordinator.steps import Asynchrony, Steps
from coordinator.store import Store
from coordinator.store_masks import StoredMask
from coordinator.store_runs import StoredRound
from wire import mask
from wire.errors import Mismatch, WireError
from wire.federation_messages import MaskUpdate
from wire.mask import Context, Signs, Votes
from wire.secure_messages import FromDevice
from wire.ticket import Ticket


@dataclass(frozen=True, kw_only=True)
class Ballot:
    """What masks are counted with.

    Attributes:
        run: which run.
        ticket: its network.
        announced: its votes.
        store: the database.
        memory: share of the previous mean vote that stays (`coordinator.aggregate`).
        flip_chance: with which devices turn signs (`wire.settings.Training`).
        defend: hostile masks are not counted (`coordinator.robust`).
        dither: masks are dithered bits of scores (`coordinator.dithered`).
    """

    run: bytes
    ticket: Ticket
    announced: Announced
    store: Store
    memory: float
    flip_chance: float
    defend: bool
    dither: bool = False

    def read(self, masks: Iterable[StoredMask]) -> Iterator[tuple[str, Signs]]:
        """Devices and their masks; not what workers added up."""
        return ((device, signs) for device, signs, _ in self.heard(masks))

    def heard(self, masks: Iterable[StoredMask]) -> Iterator[tuple[str, Signs, Context]]:
        """As `read`, and each mask with what was known of it: by the votes that it began with."""
        for one in masks:
            if one.signs:
                known = self.announced.known(one.number, one.device)
                yield one.device, mask.decode_signs(one.signs, known, self.ticket.ends), known

    def added_up(self, number: int) -> list[Votes]:
        """What workers have counted of a round."""
        announced = self.announced[number]
        coded = self.store.partials(self.run, number)
        return [mask.decode_votes(one, self.ticket.ends, announced) for one in coded]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a round came to.

    Attributes:
        votes: to be announced with the next.
        voters: how many masks were there.
        remarks: for people.
        remainder: what of mean scores the votes leave, if masks are dithered.
    """

    votes: Votes
    voters: int
    remarks: tuple[str, ...] = ()
    remainder: Remainder | None = None


class Mode(Protocol):
    """How a run proceeds. All but `close` return what is to be done."""

    def happened(self, event: rounds.Event, now_s: float) -> list[Action]:
        """A device came or went, or time has passed."""

    def resume(self, last: StoredRound, now_s: float) -> list[Action]:
        """Take the run up where the database says it stopped."""

    def asks(self, device: str) -> bool:
        """Whether the open round wants this device's mask."""

    def place(self, device: str, began: int) -> int:
        """The round in which a device's mask for round `began` counts; raises WireError if it is not wanted."""

    def stored(self, device: str, counted: int, now_s: float) -> list[Action]:
        """A mask is on disk, with the round in which it counts."""

    def hear(self, device: str, message: FromDevice | MaskUpdate, payload_bytes: int, now_s: float) -> list[Action]:
        """Something of secure aggregation, on disk when this returns; raises WireError if it is not wanted."""

    def hold(self, held: bool) -> None:
        """From now on no round opens after the one that is open; or again they do, at the next `rounds.Tick`."""

    def reschedule(self, schedule: Schedule) -> None:
        """From now on these are the rules; what is asked of the open round stays as it was announced."""

    def end(self) -> None:
        """Nothing more happens."""

    def close(self, number: int) -> Outcome:
        """Count a round."""


class Openly:
    """Modes in which the coordinator sees every mask."""

    def hear(self, device: str, message: FromDevice | MaskUpdate, payload_bytes: int, now_s: float) -> list[Action]:
        """See `Mode.hear`."""
        raise WireError(f"'{device}' hides its mask in a run that does not add them up unseen")


class InRounds(Openly):
    """Devices are selected, and a round waits for their masks."""

    def __init__(self, schedule: Schedule, ballot: Ballot, online: Set[str], draw: Draw | None = None) -> None:
        self._rounds, self._ballot = Rounds(schedule=schedule, online=online, draw=draw), ballot

    def happened(self, event: rounds.Event, now_s: float) -> list[Action]:
        """See `Mode.happened`."""
        return rounds.handle(self._rounds, event, now_s)

    def resume(self, last: StoredRound, now_s: float) -> list[Action]:
        """See `Mode.resume`."""
        return rounds.resume(
            self._rounds,
            number=last.number,
            selected=last.selected,
            arrived=(one.device for one in self._ballot.store.votes_in(self._ballot.run, last.number)),
            due=last.closed_s is not None,  # killed between closing and opening: close it again, from the same masks
            now_s=now_s,
        )

    def asks(self, device: str) -> bool:
        """Whether the open round wants this device's mask."""
        return self._rounds.open and self._rounds.asks(device)

    def place(self, device: str, began: int) -> int:
        """See `Mode.place`."""
        if not self._rounds.open or began != self._rounds.number:
            raise Mismatch("mask for a round that is not open", expected=self._rounds.number, got=began)
        if not self._rounds.asks(device):
            raise WireError(f"'{device}' was not selected for round {began}")
        return began

    def stored(self, device: str, counted: int, now_s: float) -> list[Action]:
        """See `Mode.stored`."""
        return self.happened(rounds.MaskStored(device=device), now_s)

    def hold(self, held: bool) -> None:
        """See `Mode.hold`."""
        self._rounds.held = held

    def reschedule(self, schedule: Schedule) -> None:
        """See `Mode.reschedule`."""
        self._rounds.schedule = schedule

    def end(self) -> None:
        """See `Mode.end`."""
        self._rounds.over = True

    def close(self, number: int) -> Outcome:
        """See `Mode.close`."""
        ballot = self._ballot
        stored = ballot.store.votes_in(ballot.run, number)
        if ballot.dither:
            scores, remarks = dithered.close(
                ballot.announced.scores(number),
                ballot.heard(stored),
                number=number,
                defend=ballot.defend,
            )
            return Outcome(votes=scores.votes, voters=len(stored), remarks=remarks, remainder=scores.remainder)
        votes, remarks = close_votes(
            ballot.announced[number],
            ballot.read(stored),
            memory=ballot.memory,
            flip_chance=ballot.flip_chance,
            defend=ballot.defend,
            counted=ballot.added_up(number),
        )
        return Outcome(votes=votes, voters=len(stored), remarks=remarks)


class Asynchronously(Openly):
    """Every step is open to all, and closes when enough masks are there, late ones among them."""

    def __init__(self, count: int, asynchrony: Asynchrony, ballot: Ballot) -> None:
        self._steps, self._ballot = Steps(rounds=count, asynchrony=asynchrony), ballot

    def happened(self, event: rounds.Event, now_s: float) -> list[Action]:
        """See `Mode.happened`: who is there does not matter."""
        return self._after(steps.begin(self._steps)) if isinstance(event, rounds.Tick) else []

    def resume(self, last: StoredRound, now_s: float) -> list[Action]:
        """See `Mode.resume`."""
        counted: dict[int, frozenset[str]] = defaultdict(frozenset)
        for one in self._ballot.store.votes_in(self._ballot.run, last.number, later=True):
            counted[one.counted] |= {one.device}
        return self._after(steps.resume(self._steps, number=last.number, counted=dict(counted)))

    def asks(self, device: str) -> bool:
        """See `Mode.asks`."""
        return True

    def place(self, device: str, began: int) -> int:
        """See `Mode.place`."""
        return steps.place(self._steps, device, began)

    def stored(self, device: str, counted: int, now_s: float) -> list[Action]:
        """See `Mode.stored`."""
        return self._after(steps.stored(self._steps, device, counted))

    def hold(self, held: bool) -> None:
        """See `Mode.hold`."""
        self._steps = replace(self._steps, held=held)

    def reschedule(self, schedule: Schedule) -> None:
        """See `Mode.reschedule`."""
        self._steps = replace(self._steps, rounds=schedule.rounds)

    def end(self) -> None:
        """See `Mode.end`."""
        self._steps = replace(self._steps, over=True)

    def close(self, number: int) -> Outcome:
        """See `Mode.close`."""
        ballot = self._ballot
        groups: dict[int, list[StoredMask]] = defaultdict(list)
        stored = ballot.store.votes_in(ballot.run, number)
        for one in stored:
            groups[one.number].append(one)
        votes, remarks = close_step(
            ballot.announced[number],
            [
                Group(staleness=number - began, began=ballot.announced[began], masks=ballot.read(masks))
                for began, masks in groups.items()
            ],
            decay=self._steps.asynchrony.decay,
            memory=ballot.memory,
            flip_chance=ballot.flip_chance,
            defend=ballot.defend,
        )
        return Outcome(votes=votes, voters=len(stored), remarks=remarks)

    def _after(self, outcome: steps.Outcome) -> list[Action]:
        self._steps, actions = outcome
        return actions
