"""Who says what of every mask, and whether it agrees: the devices' logs against the coordinator's database."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from tests.integration.fleet import rows
from tests.recount import Recount
from wire import mask, personal
from wire.errors import HidenseekError
from wire.mask import Votes
from wire.state_folder import PERSONAL
from wire.ticket import decode_ticket

SENT = re.compile(r"round (\d+): mask ([0-9a-f]{16}) sent")
CONFIRMED = re.compile(r"round (\d+): mask confirmed")
Key = tuple[int, str]  # round, device


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A round as the coordinator's database has it."""

    selected: tuple[str, ...]
    votes: bytes
    closed: bool
    masks: dict[str, bytes]


@dataclass
class Ledger:
    """Both sides' records of one run, and what is wrong with them.

    Attributes:
        rounds: by number; the last is the final announcement.
        sent: hashes of the masks a device says it sent.
        confirmed: masks that a device says the coordinator has.
        lost: confirmed, and not in the database.
        doubled: counted more than once.
        broken: a sentence for each broken invariant, with device and round.
    """

    rounds: dict[int, Stored]
    sent: dict[Key, set[str]] = field(default_factory=dict)
    confirmed: set[Key] = field(default_factory=set)
    lost: set[Key] = field(default_factory=set)
    doubled: set[Key] = field(default_factory=set)
    broken: list[str] = field(default_factory=list)

    @property
    def stored(self) -> int:
        """Masks in the database."""
        return sum(len(one.masks) for one in self.rounds.values())


def audit(database: Path, logs: Mapping[str, str], states: Mapping[str, Path], rounds: int, quorum: int) -> Ledger:
    """Compare the records of a finished run.

    Args:
        database: the coordinator's.
        logs: every device's log, all of its lives in one.
        states: every device's state folder.
        rounds: planned.
        quorum: masks a round needs.
    """
    ledger = Ledger(_read(database))
    for device, log in logs.items():
        for number, digest in SENT.findall(log):
            ledger.sent.setdefault((int(number), device), set()).add(digest)
        ledger.confirmed |= {(int(number), device) for number in CONFIRMED.findall(log)}
    finished = rows(database, "SELECT count(*), count(finished_s) FROM run")
    if finished != [(1, 1)]:
        ledger.broken.append(f"one run, finished, is expected; (runs, finished) are {finished}")
    if sorted(ledger.rounds) != list(range(1, rounds + 2)):
        ledger.broken.append(f"rounds 1 to {rounds + 1} are expected, there are {sorted(ledger.rounds)}")
        return ledger
    ledger.broken += _masks(ledger)
    ledger.broken += _rounds(ledger, quorum)
    encoded, settings = rows(database, "SELECT ticket, settings FROM run")[0]
    assert isinstance(encoded, bytes)
    recount = Recount.of(decode_ticket(encoded), str(settings))
    try:
        ledger.broken += _votes(ledger, recount)
        ledger.broken += _learned(ledger, recount, states)
    except HidenseekError as error:
        ledger.broken.append(f"the database holds what does not decode: {error}")
    return ledger


def _read(database: Path) -> dict[int, Stored]:
    masks: dict[int, dict[str, bytes]] = {}
    for number, device, signs in rows(database, "SELECT number, device, signs FROM mask ORDER BY device"):
        masks.setdefault(int(str(number)), {})[str(device)] = bytes(signs)  # type: ignore[call-overload]
    found = rows(database, "SELECT number, selected, votes, closed_s IS NOT NULL FROM round")
    return {
        int(str(number)): Stored(
            selected=tuple(filter(None, str(selected).split(","))),
            votes=bytes(votes),  # type: ignore[call-overload]
            closed=bool(closed),
            masks=masks.get(int(str(number)), {}),
        )
        for number, selected, votes, closed in found
    }


def _masks(ledger: Ledger) -> Iterator[str]:
    """Nothing confirmed is lost; what is stored is what was sent, byte for byte."""
    there = {(number, device) for number, one in ledger.rounds.items() for device in one.masks}
    ledger.lost = ledger.confirmed - there
    for number, device in sorted(ledger.lost):
        yield f"round {number}, {device}: the device has a receipt, and the mask is not in the database"
    for number, device in sorted(ledger.confirmed - ledger.sent.keys()):
        yield f"round {number}, {device}: a receipt for a mask that was never sent"
    for number, device in sorted(there):
        digest = sha256(ledger.rounds[number].masks[device]).hexdigest()[:16]
        said = ledger.sent.get((number, device), set())
        if digest not in said:
            yield f"round {number}, {device}: stored is mask {digest}, sent was {sorted(said) or 'none'}"
    for (number, device), said in sorted(ledger.sent.items()):
        if len(said) > 1:
            yield f"round {number}, {device}: trained again after a restart, it came to other bytes: {sorted(said)}"


def _rounds(ledger: Ledger, quorum: int) -> Iterator[str]:
    """Only who was asked is counted, and no round without a quorum."""
    for number, one in sorted(ledger.rounds.items()):
        if number == max(ledger.rounds):
            if one.masks:
                yield f"the final announcement has masks, of {sorted(one.masks)}"
            continue
        if not one.closed:
            yield f"round {number} was never closed"
        if len(one.masks) < quorum:
            yield f"round {number} closed with {len(one.masks)} masks, the quorum is {quorum}"
        for device in sorted(one.masks.keys() - set(one.selected)):
            yield f"round {number}, {device}: its mask is counted, and it was not asked"


def _votes(ledger: Ledger, recount: Recount) -> Iterator[str]:
    """Every round's announced votes are those of its stored masks, each counted once."""
    ends = recount.ticket.ends
    announced = {number: mask.decode_votes(one.votes, ends) for number, one in ledger.rounds.items()}
    scores = recount.start()
    if not _same(announced[1], scores.votes):
        yield "round 1: the votes announced with it are not the ones every run starts with"
    for number in sorted(ledger.rounds)[:-1]:
        before, after = replace(scores, votes=announced[number]), announced[number + 1]
        masks = sorted(ledger.rounds[number].masks.items())
        if not masks:
            continue
        scores = recount.close(number, before, masks)
        if _same(scores.votes, after):
            continue
        yield f"round {number}: the votes announced after it are not those of its {len(masks)} stored masks"
        for device, coded in masks:
            if _same(recount.close(number, before, [*masks, (device, coded)]).votes, after):
                ledger.doubled.add((number, device))
                yield f"round {number}, {device}: its mask is counted twice"
            others = [(name, other) for name, other in masks if name != device]
            if others and _same(recount.close(number, before, others).votes, after):
                yield f"round {number}, {device}: its mask is stored and not counted"


def _same(one: Votes, other: Votes) -> bool:
    return np.array_equal(one.signs, other.signs) and np.array_equal(one.mean, other.mean)


def _learned(ledger: Ledger, recount: Recount, states: Mapping[str, Path]) -> Iterator[str]:
    """What a device last ended with goes with what the coordinator reads out of its mask: both knew the same votes."""
    ticket = recount.ticket
    for device, folder in states.items():
        path = folder / PERSONAL
        if not path.exists():
            continue
        learned = personal.decode(path.read_bytes(), ticket.kept, ticket.plan.classes)
        one = ledger.rounds.get(learned.number)
        if one is None or device not in one.masks:
            continue
        votes = mask.decode_votes(one.votes, ticket.ends)
        wrong = recount.contradicted(learned.number, votes, device, one.masks[device], learned.signs)
        if wrong:
            yield f"round {learned.number}, {device}: {wrong} of {ticket.kept} signs differ between card and mask"
