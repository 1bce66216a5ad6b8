"""Rounds whose masks nobody sees: the third way a run proceeds, by secure aggregation (`coordinator.exchange`).

Devices are selected and train as in `coordinator.modes.InRounds`, and the round would close when enough are ready; here
that is when those who are begin to add their masks up. Everything is on disk before anything follows from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from coordinator import exchange as ex
from coordinator import rounds
from coordinator.aggregate import remember
from coordinator.exchange import Exchange, Phase
from coordinator.modes import Ballot, Outcome
from coordinator.rounds import Action, Rounds, Schedule
from coordinator.steps import Asynchrony
from coordinator.store_runs import StoredRound
from coordinator.unmask import count
from wire import messages, secure
from wire.errors import ConfigError, Mismatch, RoundFailed, WireError
from wire.federation_messages import MaskUpdate, Receipt
from wire.mask import votes_of
from wire.messages import Message
from wire.secure import Counts
from wire.secure_messages import FromDevice
from wire.signing import SIGNATURE_BYTES

NOTICE = "masks are added up unseen; hostile ones are not found that way, and are counted (docs/secure-aggregation.md)"
Identity: TypeAlias = Callable[[str], bytes]


def check(schedule: Schedule, asynchrony: Asynchrony | None, *, defend: bool) -> None:
    """Accept settings for secure aggregation.

    Raises:
        ConfigError: if something needs single masks, or rounds are too small or too large.
    """
    why = ""
    if asynchrony is not None:
        why = (
            "mode is async, but secure_aggregation needs rounds: devices that add their masks up must do so together. "
            "Set one of them back"
        )
    elif defend:
        why = (
            "defend is true, but with secure_aggregation there are no single masks to look at. Set defend: false, and "
            "read what that means in docs/robustness.md"
        )
    elif schedule.quorum < secure.LEAST:
        why = (
            f"quorum is {schedule.quorum}, at least {secure.LEAST} expected with secure_aggregation: of two devices "
            "each knows the other's mask from the sum"
        )
    elif schedule.per_round > secure.MOST:
        why = (
            f"per_round is {schedule.per_round}, at most {secure.MOST} expected with secure_aggregation: every two "
            "devices of a round agree on keys"
        )
    if why:
        raise ConfigError(why, where="federation")


class Secretly:
    """Devices are selected, and those that have trained add their masks up.

    Args:
        schedule: of the rounds; every later phase has `deadline_s` of its own.
        ballot: what votes are counted with.
        online: devices that can be selected, always up to date.
        identity: a device's public key.
    """

    def __init__(self, schedule: Schedule, ballot: Ballot, online: Set[str], identity: Identity) -> None:
        self._rounds, self._ballot, self._identity = Rounds(schedule=schedule, online=online), ballot, identity
        self._exchange = self._attempt(1, 1)
        self._done = self._exchange  # the one that is being closed
        self._counts: Counts | WireError | None = None  # what it came to
        self._tried = 0  # reveals that were there when it was last tried to add up
        self._deadline_s = 0.0  # of the phase, after that of keys

    def happened(self, event: rounds.Event, now_s: float) -> list[Action]:
        """See `coordinator.modes.Mode.happened`."""
        missed = [event.device] if isinstance(event, rounds.Appeared) and self._rounds.asks(event.device) else []
        if self._exchange.phase != Phase.KEYS and not self._rounds.over:
            return [*self._remind(missed), *self._go_on(now_s)]
        actions = self._collect(event, now_s)
        return [*actions, *self._remind(missed)] if self._exchange.phase == Phase.KEYS else actions

    def resume(self, last: StoredRound, now_s: float) -> list[Action]:
        """See `coordinator.modes.Mode.resume`."""
        schedule, store, run = self._rounds.schedule, self._ballot.store, self._ballot.run
        if last.number > schedule.rounds:
            return rounds.resume(self._rounds, number=last.number, selected=(), arrived=(), due=False, now_s=now_s)
        blank = self._attempt(last.number, store.newest_attempt(run, last.number))
        self._exchange = ex.replay(blank, store.exchange(run, last.number, blank.attempt))
        self._rounds.begin(last.number)
        self._rounds.ask(last.selected)
        for device in self._exchange.keys:
            self._rounds.arrive(device)
        self._rounds.attempt, self._rounds.deadline_s = 1, now_s + schedule.deadline_s
        self._deadline_s = now_s + schedule.deadline_s
        actions = self.happened(rounds.Tick(), now_s)
        if any(isinstance(action, rounds.Close) for action in actions):
            return actions
        announce = rounds.Announce(number=last.number, selected=last.selected, again=True)
        return [announce, *actions, *self._remind(last.selected)]

    def asks(self, device: str) -> bool:
        """See `coordinator.modes.Mode.asks`."""
        return self._rounds.open and self._rounds.asks(device)

    def place(self, device: str, began: int) -> int:
        """See `coordinator.modes.Mode.place`: no mask is wanted as it is."""
        raise WireError(f"'{device}' sends a mask that everybody can read, in a run that adds them up unseen")

    def stored(self, device: str, counted: int, now_s: float) -> list[Action]:
        """See `coordinator.modes.Mode.stored`: never called, for `place` wants no mask."""
        return []

    def hear(self, device: str, message: FromDevice | MaskUpdate, payload_bytes: int, now_s: float) -> list[Action]:
        """What a device says of the open round; on disk when this returns.

        Raises:
            WireError: if it is not wanted, or not what it should be.
        """
        before = self._exchange
        if not self._rounds.open or message.number != before.number:
            raise Mismatch("said about a round that is not open", expected=before.number, got=message.number)
        if not self._rounds.asks(device):
            raise WireError(f"'{device}' was not selected for round {before.number}")
        identity = self._identity(device)
        after = ex.hear(before, device, identity, message)
        if after is before:  # again, or late: it may not know how far things are
            return self._remind([device])
        self._keep(device, identity, messages.encode(message), payload_bytes)
        self._exchange = after
        if after.phase == Phase.KEYS:
            return self._collect(rounds.MaskStored(device=device), now_s)
        return self._go_on(now_s)

    def hold(self, held: bool) -> None:
        """See `coordinator.modes.Mode.hold`."""
        self._rounds.held = held

    def reschedule(self, schedule: Schedule) -> None:
        """See `coordinator.modes.Mode.reschedule`."""
        self._rounds.schedule = schedule

    def end(self) -> None:
        """See `coordinator.modes.Mode.end`."""
        self._rounds.over = True

    def close(self, number: int) -> Outcome:
        """See `coordinator.modes.Mode.close`."""
        ballot, done, counts = self._ballot, self._done, self._counts
        previous = ballot.announced[number]
        if isinstance(counts, WireError):
            remark = f"round {number} is not counted, the votes stay as they are: {counts}"
            return Outcome(votes=previous, voters=0, remarks=(remark,))
        assert counts is not None
        receipt = len(messages.encode(Receipt(run=ballot.run, number=number))) + SIGNATURE_BYTES
        took = ballot.store.exchange_bytes(ballot.run, number)
        with ballot.store.together():
            for place in done.survivors:  # as they came they are in the exchange, and there they say nothing
                update, (up, down) = replace(done.masked[place], signs=b""), took[done.names[place]]
                ballot.store.add_mask(done.names[place], update, up, down + receipt)
        voters = len(done.survivors)
        fresh = votes_of(counts.astype(np.uint32), voters, previous.signs)
        lost = [name for place, name in enumerate(done.names) if place not in done.survivors]
        remark = f"round {number}: dropped out before their masks were added up, and not counted: {', '.join(lost)}"
        votes = remember(previous, fresh, ballot.memory, ballot.flip_chance)
        return Outcome(votes=votes, voters=voters, remarks=(remark,) if lost else ())

    # Until enough devices have trained.

    def _collect(self, event: rounds.Event, now_s: float) -> list[Action]:
        if isinstance(event, rounds.MaskStored):
            self._rounds.arrive(event.device)
        if self._rounds.due(now_s):  # not yet: first the sum
            return self._decide(now_s)
        return self._adopt(rounds.handle(self._rounds, event, now_s))

    def _adopt(self, actions: list[Action]) -> list[Action]:
        if self._rounds.number != self._exchange.number:
            self._exchange = self._attempt(self._rounds.number, 1)
        return actions

    # From then on.

    def _go_on(self, now_s: float) -> list[Action]:
        """Close phases that everybody has answered in, or whose time is over."""
        actions: list[Action] = []
        while self._exchange.phase != Phase.REVEAL:
            found = self._exchange
            missing = len(found.asked) - len(found.answered)
            if missing and now_s < self._deadline_s:
                return actions
            if len(found.answered) < max(found.needed, self._rounds.schedule.quorum):
                return [*actions, *self._try_again(now_s)]
            actions += self._decide(now_s)
        if self._add_up():
            return [*actions, *self._finish(now_s)]
        return actions if now_s < self._deadline_s else [*actions, *self._wait_longer(now_s)]

    def _decide(self, now_s: float) -> list[Action]:
        """Go on with those who have answered; what to tell them."""
        self._exchange = ex.decide(self._exchange)
        self._keep("", b"", ex.decision(self._exchange), 0)
        self._deadline_s, self._tried = now_s + self._rounds.schedule.deadline_s, 0
        return self._remind(self._exchange.names)

    def _add_up(self) -> bool:
        """Whether the sum is there, or it is known that it is none."""
        revealed = len(self._exchange.reveals)
        if revealed == self._tried:
            return False
        self._tried = revealed
        try:
            self._counts = count(self._exchange)
        except WireError as error:
            self._counts = error
        return self._counts is not None

    def _finish(self, now_s: float) -> list[Action]:
        self._done = self._exchange
        close, *opening = rounds.close(self._rounds, now_s)
        receipt = Receipt(run=self._ballot.run, number=self._done.number)
        counted = () if isinstance(self._counts, WireError) else self._done.survivors
        receipts = [self._tell(self._done.names[place], receipt) for place in counted]
        return self._adopt([close, *receipts, *opening])

    def _try_again(self, now_s: float) -> list[Action]:
        """Too few are left, and nobody has revealed anything: another attempt, with new keys."""
        found = self._exchange
        needed = max(found.needed, self._rounds.schedule.quorum)
        text = (
            f"round {found.number}: of {len(found.names)} devices {len(found.answered)} were left when masks were to "
            f"be added up, {needed} are needed: trying again"
        )
        self._exchange = self._attempt(found.number, found.attempt + 1)
        actions = self._adopt(rounds.again(self._rounds, now_s))
        return [rounds.Remark(text=text), *actions, *self._remind(self._rounds.selected)]

    def _wait_longer(self, now_s: float) -> list[Action]:
        """Survivors were named: of this round no other sum may ever be made, so it waits for those who can reveal."""
        found, schedule = self._exchange, self._rounds.schedule
        if self._rounds.attempt >= schedule.attempts:
            self._rounds.over = True
            error = RoundFailed(
                f"the masks of round {found.number} cannot be added up: {len(found.reveals)} of {len(found.sharers)} "
                f"devices have revealed their shares, {found.needed} are needed and have to agree, after "
                f"{self._rounds.attempt} times {schedule.deadline_s:g} s",
                hint="Bring the missing devices back and start again to go on where it stopped, or over with --new",
            )
            return [rounds.GiveUp(error=error)]
        self._rounds.attempt += 1
        self._deadline_s = now_s + schedule.deadline_s
        return self._remind(found.names)

    def _attempt(self, number: int, attempt: int) -> Exchange:
        return Exchange(run=self._ballot.run, number=number, kept=self._ballot.ticket.kept, attempt=attempt)

    def _remind(self, devices: Iterable[str]) -> list[Action]:
        """Say again what is wanted of these devices now."""
        asked = ((device, ex.ask(self._exchange, device)) for device in devices)
        return [self._tell(device, message) for device, message in asked if message is not None]

    def _tell(self, device: str, message: Message) -> rounds.Tell:
        return rounds.Tell(number=self._exchange.number, device=device, message=message)

    def _keep(self, device: str, identity: bytes, data: bytes, payload_bytes: int) -> None:
        found = self._exchange
        self._ballot.store.add_to_exchange(
            found.run, found.number, found.attempt, device, identity, data, payload_bytes
        )
