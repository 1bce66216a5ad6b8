"""The coordinator's side of secure aggregation: killed at every step, short of devices, and told nonsense."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from coordinator import rounds
from coordinator.aggregate import next_votes
from coordinator.announced import Announced
from coordinator.exchange import Phase
from coordinator.modes import Ballot
from coordinator.place import Place
from coordinator.rounds import Schedule
from coordinator.secretly import Secretly, check
from coordinator.steps import Asynchrony
from coordinator.store import Store
from edge_client import secure as edge
from edge_client.secure import Answer, Participant, read_exchange
from tests.helpers import TINY_TICKET
from tests.secure_stage import ballot_of, seeded_bytes
from wire import mask, messages, secure, signing
from wire.errors import ConfigError, Mismatch, WireError
from wire.federation_messages import MaskUpdate, Receipt
from wire.mask import Votes
from wire.secure_messages import Invitation, Reveal, RoundKeys, SealedShares, Survivors

RUN, KEPT = b"run-0001", TINY_TICKET.kept
NAMES = tuple(f"pi-{i}" for i in range(5))
SCHEDULE = Schedule(rounds=2, per_round=5, quorum=4, deadline_s=10, start_devices=5, attempts=3)


@dataclass
class Fleet:
    """Five devices, a coordinator's mode over a real database, and a network that loses nothing unless it is told to.

    Attributes:
        asleep: devices that hear and say nothing.
        deaf: kinds of messages that do not arrive, by device.
    """

    place: Place
    asleep: set[str] = field(default_factory=set)
    deaf: set[tuple[str, type]] = field(default_factory=set)
    now_s: float = 0.0
    restarts: bool = False
    remarks: list[str] = field(default_factory=list)
    confirmed: set[tuple[str, int]] = field(default_factory=set)
    outcomes: list[tuple[int, Votes, int]] = field(default_factory=list)
    failure: Exception | None = None
    heard: list[type] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = seeded_bytes(5)
        rng = np.random.default_rng(7)
        self.masks = {(name, number): rng.random(KEPT) < 0.6 for name in NAMES for number in (1, 2)}
        self.devices = {name: Participant(name=name, key=bytes([i]) * 32) for i, name in enumerate(NAMES)}
        self.store = Store(self.place)
        self.store.start_run(run=RUN, name="t", ticket=TINY_TICKET.encoded, settings="", bundle_bytes=0)
        self.start()

    def start(self) -> None:
        """The coordinator's memory, from nothing."""
        self.announced = Announced(RUN, TINY_TICKET, self.store)
        ballot = Ballot(
            run=RUN, ticket=TINY_TICKET, announced=self.announced, store=self.store,
            memory=0.0, flip_chance=0.0, defend=False,
        )  # fmt: skip
        self.online = set[str]()
        self.mode = Secretly(SCHEDULE, ballot, self.online, lambda name: signing.public_key(self.devices[name].key))

    def appear(self, name: str) -> None:
        """A device is online."""
        self.online.add(name)
        self.apply(self.mode.happened(rounds.Appeared(device=name), self.now_s))

    def kill(self) -> None:
        """Kill -9 and start again: only the database is left."""
        self.store.close()
        self.store = Store(self.place)
        self.start()
        last = self.store.newest_round(RUN)
        if last is not None:
            self.apply(self.mode.resume(last, self.now_s))
        for name in NAMES:
            self.appear(name)

    def begin(self) -> None:
        """All devices come online."""
        for name in NAMES:
            self.appear(name)

    def wait(self) -> None:
        """A deadline passes; whatever was said and not heard is said again."""
        self.now_s += SCHEDULE.deadline_s + 1
        self.apply(self.mode.happened(rounds.Tick(), self.now_s))
        for name in NAMES:
            self.say(name, edge.answer(self.devices[name]))

    def apply(self, actions: list[rounds.Action]) -> None:
        """As `coordinator.executor` does."""
        for action in actions:
            match action:
                case rounds.Announce():
                    self.announced.open(action.number, action.selected, evaluate=False, final=False)
                    for name in action.selected:
                        self.train(name, action.number)
                case rounds.Close():
                    self.store.close_round(RUN, action.number)
                    outcome = self.mode.close(action.number)
                    self.announced.put(action.number + 1, outcome.votes)
                    self.outcomes.append((action.number, outcome.votes, outcome.voters))
                    self.remarks += outcome.remarks
                case rounds.Finish():
                    self.announced.open(SCHEDULE.rounds + 1, (), evaluate=False, final=True)
                case rounds.GiveUp():
                    self.failure = action.error
                case rounds.Remark():
                    self.remarks.append(action.text)
                case rounds.Tell():
                    self.tell(action)

    def train(self, name: str, number: int) -> None:
        """A device has trained, unless it has done so already."""
        device = self.devices[name]
        if (
            name in self.asleep
            or (name, number) in self.confirmed
            or (device.ballot and device.ballot.number == number)
        ):
            return
        self.devices[name] = edge.forget(device)
        self.devices[name], answer = edge.vote(
            self.devices[name], ballot_of(self.masks[name, number], number), self.random
        )
        self.say(name, answer)

    def tell(self, action: rounds.Tell) -> None:
        """A device hears something, and answers."""
        name, message = action.device, action.message
        if name in self.asleep or (name, type(message)) in self.deaf:
            return
        if isinstance(message, Receipt):
            self.confirmed.add((name, message.number))
            self.devices[name] = edge.forget(self.devices[name])
            return
        device = self.devices[name]
        if self.restarts and device.exchange is not None:  # it was killed, and has its files
            self.devices[name] = replace(device, exchange=read_exchange(device.exchange.encoded))
        try:
            self.devices[name], answer = edge.hear(self.devices[name], message, self.random)  # type: ignore[arg-type]
        except WireError:
            return
        self.say(name, answer)

    def say(self, name: str, answer: Answer | None) -> None:
        """What a device says is heard, if it is on time."""
        if answer is None or name in self.asleep:
            return
        self.heard.append(type(answer))
        if self.store.has_mask(RUN, answer.number, name):
            self.confirmed.add((name, answer.number))
            return
        try:
            actions = self.mode.hear(name, answer, 100, self.now_s)
        except WireError as error:
            self.remarks.append(str(error))
            return
        self.apply(actions)

    def plain(self, number: int, names: tuple[str, ...], before: Votes) -> Votes:
        """What the round would have come to in the clear."""
        return next_votes(before, (self.masks[name, number] for name in names), 0.0)

    def check(self, *voters: tuple[str, ...]) -> None:
        """Every round came to exactly what these devices' masks come to, and those were told."""
        before = mask.unanimous(KEPT)
        assert [number for number, _, _ in self.outcomes] == [1, 2][: len(voters)]
        for names, (number, votes, counted) in zip(voters, self.outcomes, strict=True):
            before = self.plain(number, names, before)
            assert counted == len(names)
            assert votes.digest == before.digest
            assert {name for name, at in self.confirmed if at == number} <= set(names)
            assert sorted(self.store.masks(RUN, number)) == sorted(names)


@pytest.fixture
def fleet(place: Place) -> Iterator[Fleet]:
    """Five devices that are all there, and a database of each kind."""
    fleet = Fleet(place)
    yield fleet
    fleet.store.close()


def test_two_rounds_of_all(fleet: Fleet) -> None:
    """Votes are those of the same masks in the clear; the mask table has figures, and no signs."""
    fleet.begin()
    fleet.check(NAMES, NAMES)
    assert fleet.confirmed == {(name, number) for name in NAMES for number in (1, 2)}
    assert fleet.remarks == []


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("at", range(0, 41, 8))
def test_the_coordinator_is_killed_after_any_message(tmp_path: Path, at: int, restarts: bool) -> None:
    """Whatever was said before is on disk, and the rounds come to the same; devices may be killed as well."""
    fleet = Fleet(tmp_path / "db", restarts=restarts)
    hear, count = Secretly.hear, 0

    class Killed(Exception):
        """Kill -9."""

    def dies(mode: Secretly, device: str, message: object, payload_bytes: int, now_s: float) -> list[rounds.Action]:
        nonlocal count
        actions = hear(mode, device, message, payload_bytes, now_s)  # type: ignore[arg-type]
        count += 1
        if count == at + 1:
            raise Killed
        return actions

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Secretly, "hear", dies)
        try:
            fleet.begin()
        except Killed:
            fleet.kill()
        for _ in range(6):
            fleet.wait()
    fleet.check(NAMES, NAMES)
    assert fleet.confirmed == {(name, number) for name in NAMES for number in (1, 2)}


@pytest.mark.parametrize(("closing", "finished"), [(1, 0), (2, 1)])
def test_the_coordinator_is_killed_between_closing_and_opening(fleet: Fleet, closing: int, finished: int) -> None:
    """The round is closed again, from the same sums."""
    close = fleet.store.close_round

    class Killed(Exception):
        """Kill -9."""

    def dies(run: bytes, number: int) -> None:
        close(run, number)
        if number == closing:
            raise Killed

    fleet.store.close_round = dies  # type: ignore[method-assign]
    with pytest.raises(Killed):
        fleet.begin()
    assert len(fleet.outcomes) == finished
    fleet.kill()
    fleet.wait()
    fleet.check(NAMES, NAMES)


@pytest.mark.parametrize("kind", [SealedShares, MaskUpdate, Reveal])
def test_one_device_dies_in_any_phase(fleet: Fleet, kind: type) -> None:
    """The round waits a deadline for it and goes on; its mask counts if it had come."""
    before = {SealedShares: "Roster", MaskUpdate: "Deliveries", Reveal: "Survivors"}[kind]
    fleet.deaf = {("pi-2", cls) for cls in messages.KINDS.values() if cls.__name__ in (before, "Survivors")}
    fleet.begin()
    if kind is not Reveal:
        assert not fleet.outcomes
        fleet.wait()
    names = NAMES if kind is Reveal else tuple(name for name in NAMES if name != "pi-2")
    assert fleet.outcomes[0][2] == len(names)
    assert fleet.outcomes[0][1].digest == fleet.plain(1, names, mask.unanimous(KEPT)).digest
    assert ("dropped out" in " ".join(fleet.remarks)) == (kind is not Reveal)


def test_too_few_are_left_and_it_is_tried_again(fleet: Fleet) -> None:
    """Below the quorum nothing is revealed; with the devices back the round succeeds, without training again."""
    deliveries = next(cls for cls in messages.KINDS.values() if cls.__name__ == "Deliveries")
    fleet.deaf = {("pi-1", deliveries), ("pi-2", deliveries)}
    fleet.begin()
    assert Reveal not in fleet.heard
    fleet.deaf = set()
    fleet.wait()
    assert any("trying again" in text for text in fleet.remarks)
    fleet.check(NAMES, NAMES)


def test_it_gives_up_in_the_end(fleet: Fleet) -> None:
    """After as many attempts as a round has otherwise; nothing was revealed."""
    roster = next(cls for cls in messages.KINDS.values() if cls.__name__ == "Roster")
    fleet.deaf = {(name, roster) for name in NAMES[:2]}
    fleet.begin()
    for _ in range(4):
        fleet.wait()
    assert "round 1 has 0 of 4 masks" in str(fleet.failure)
    assert Reveal not in fleet.heard
    assert fleet.outcomes == []


def test_survivors_are_waited_for_and_nobody_else(fleet: Fleet) -> None:
    """With the survivors named there is no other attempt; a missing device makes the sum when it is back."""
    fleet.deaf = {(name, Survivors) for name in NAMES[:2]}
    fleet.begin()
    assert fleet.mode._exchange.phase == Phase.REVEAL
    fleet.wait()
    assert Invitation not in {type(edge.answer(device)) for device in fleet.devices.values()}
    assert not fleet.outcomes
    fleet.deaf = {("pi-0", Survivors)}
    fleet.wait()
    assert fleet.outcomes[0][2] == 5


def test_it_gives_up_on_survivors_that_never_reveal(fleet: Fleet) -> None:
    """With a sentence that says how many; started again it goes on there."""
    fleet.deaf = {(name, Survivors) for name in NAMES[:2]}
    fleet.begin()
    for _ in range(4):
        fleet.wait()
    assert "3 of 5 devices have revealed their shares, 4 are needed" in str(fleet.failure)
    fleet.deaf, fleet.failure = set(), None
    fleet.kill()
    assert fleet.failure is None
    fleet.check(NAMES, NAMES)


def test_a_late_device_is_told_nothing_and_is_in_the_next_round(fleet: Fleet) -> None:
    """Who has trained after the roster was closed waits."""
    fleet.asleep = {"pi-4"}
    fleet.begin()
    fleet.wait()
    assert fleet.outcomes == [] or fleet.outcomes[0][2] == 4
    fleet.asleep = set()
    fleet.train("pi-4", fleet.mode._rounds.number)
    fleet.wait()
    assert fleet.outcomes[0][2] == 4
    assert fleet.outcomes[0][1].digest == fleet.plain(1, NAMES[:4], mask.unanimous(KEPT)).digest


def test_what_is_not_wanted_is_refused(fleet: Fleet) -> None:
    """Another round's, a stranger's, plain masks, signs nobody asked for."""
    fleet.asleep = set(NAMES)
    fleet.begin()
    keys = secure.make_keys(secure.secrets(bytes(32)), fleet.devices["pi-1"].key, RUN, 1, 1)
    with pytest.raises(Mismatch, match="not open"):
        fleet.mode.hear("pi-1", replace(keys, number=2), 1, 0.0)
    with pytest.raises(WireError, match="not signed by"):
        fleet.mode.hear("pi-2", keys, 1, 0.0)
    assert fleet.mode.hear("pi-1", keys, 1, 0.0) == []
    other = secure.make_keys(secure.secrets(bytes(32)), fleet.devices["pi-2"].key, RUN, 1, 1)
    with pytest.raises(WireError, match="another device's key"):
        fleet.mode.hear("pi-2", other, 1, 0.0)
    with pytest.raises(WireError, match="signs of kind 2, masked ones expected"):
        fleet.mode.hear("pi-1", ballot_of(fleet.masks["pi-1", 1]), 1, 0.0)
    early = SealedShares(run=RUN, number=1, attempt=1, shares=b"")
    with pytest.raises(WireError, match="not in the roster"):
        fleet.mode.hear("pi-1", early, 1, 0.0)
    with pytest.raises(WireError, match="that everybody can read"):
        fleet.mode.place("pi-1", 1)
    assert isinstance(keys, RoundKeys)


def test_a_sum_that_is_none_is_not_counted(fleet: Fleet) -> None:
    """Somebody's input was no mask: the votes stay, it is said, and the run goes on."""
    hear = fleet.mode.hear

    def spoiled(device: str, message: object, payload_bytes: int, now_s: float) -> list[rounds.Action]:
        if device == "pi-3" and isinstance(message, MaskUpdate) and message.number == 1:
            noise = np.random.default_rng(3).integers(0, 8, KEPT).astype(np.uint8)
            message = replace(message, signs=message.signs[:3] + secure.pack(noise, 3))
        return hear(device, message, payload_bytes, now_s)  # type: ignore[arg-type]

    fleet.mode.hear = spoiled  # type: ignore[method-assign]
    fleet.begin()
    assert any("one of them was no mask" in text for text in fleet.remarks)
    assert [voters for _, _, voters in fleet.outcomes] == [0, 5]
    assert fleet.outcomes[0][1].digest == mask.unanimous(KEPT).digest
    assert not fleet.store.masks(RUN, 1)


def test_wrong_shares_of_one_device_are_left_out(fleet: Fleet) -> None:
    """What they make does not fit the commitments, so others' are taken."""
    hear = fleet.mode.hear

    def lying(device: str, message: object, payload_bytes: int, now_s: float) -> list[rounds.Action]:
        if device == "pi-0" and isinstance(message, Reveal):
            message = replace(message, shares=bytes(len(message.shares)))
        return hear(device, message, payload_bytes, now_s)  # type: ignore[arg-type]

    fleet.mode.hear = lying  # type: ignore[method-assign]
    fleet.begin()
    fleet.check(NAMES, NAMES)


ASYNC = Asynchrony(buffer=4, staleness=2, decay=0.5)


@pytest.mark.parametrize(
    ("schedule", "asynchrony", "defend", "text"),
    [
        (SCHEDULE, ASYNC, False, "mode is async"),
        (SCHEDULE, None, True, "defend is true"),
        (replace(SCHEDULE, quorum=2), None, False, "quorum is 2, at least 3"),
        (replace(SCHEDULE, per_round=256), None, False, "per_round is 256, at most 255"),
    ],
)
def test_settings_that_do_not_go_with_it_are_refused(
    schedule: Schedule, asynchrony: Asynchrony | None, defend: bool, text: str
) -> None:
    """With what to do."""
    with pytest.raises(ConfigError, match=text):
        check(schedule, asynchrony, defend=defend)


def test_a_device_revoked_in_mid_round(fleet: Fleet) -> None:
    """Not heard any more once its masked signs are there: they are in the sum, which the others reveal."""
    hear = fleet.mode.hear

    def revoked(device: str, message: object, payload_bytes: int, now_s: float) -> list[rounds.Action]:
        if device == "pi-3" and isinstance(message, Reveal):
            raise WireError("'pi-3' takes part no more")  # as `coordinator.fleet` has it
        return hear(device, message, payload_bytes, now_s)  # type: ignore[arg-type]

    fleet.mode.hear = revoked  # type: ignore[method-assign]
    fleet.begin()
    fleet.check(NAMES, NAMES)


@pytest.mark.parametrize("how", ["says something again", "comes back"])
def test_who_has_missed_the_invitation_is_told_again(fleet: Fleet, how: str) -> None:
    """A device that was away when another attempt began takes part in it as soon as it is heard of."""
    deliveries = next(cls for cls in messages.KINDS.values() if cls.__name__ == "Deliveries")
    fleet.deaf = {("pi-1", deliveries), ("pi-2", deliveries)}
    fleet.begin()
    fleet.deaf, fleet.asleep = set(), {"pi-1", "pi-2"}
    fleet.wait()
    assert fleet.mode._exchange.attempt == 2
    assert not fleet.outcomes
    fleet.asleep = set()
    for name in ("pi-1", "pi-2"):
        if how == "comes back":
            fleet.appear(name)
        else:
            fleet.say(name, edge.answer(fleet.devices[name]))
    fleet.check(NAMES, NAMES)
