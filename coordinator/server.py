"""The coordinator at work: carries out what `coordinator.modes` decides, over a broker and a database.

The order that keeps the promise "nothing acknowledged is lost, nothing is counted twice": a mask is
checked, committed to the database, then acknowledged to the broker, then confirmed to its device.
Kill this process between any two of these and the mask is either sent again or found stored already.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from coordinator import privacy, rounds
from coordinator.aggregate import DEFEND
from coordinator.announced import AT_HAND, Announced
from coordinator.evaluate import Evaluator
from coordinator.fleet import Fleet, Member
from coordinator.limits import Limits
from coordinator.modes import Asynchronously, Ballot, InRounds, Mode
from coordinator.observer import Observer
from coordinator.rounds import Schedule
from coordinator.secretly import NOTICE, Secretly
from coordinator.steps import Asynchrony
from coordinator.store import Store, StoredRound
from coordinator.telemetry import Inbox
from wire import mask, signing
from wire.bundle import Bundle
from wire.channel import Channel, Garbled, Received
from wire.errors import BrokerRefused, Mismatch, RoundFailed, WireError
from wire.fields import MAX_TEXT
from wire.messages import (
    EVERYONE,
    BundleBytes,
    Evaluation,
    Federation,
    Hello,
    MaskUpdate,
    Message,
    Missed,
    Receipt,
    Refusal,
    State,
    Telemetry,
    Welcome,
    encode,
)
from wire.secure_messages import FromDevice, Reveal, RoundKeys, SealedShares
from wire.settings import Training
from wire.ticket import Ticket
from wire.topics import Topics, speaker
from wire.transport import Connected, Disconnected, monotonic_s

log = logging.getLogger("hidenseek")
TICK_S = 0.25
MAX_VALUES = 1_000  # of a device's message: before its signature is checked, little is to be done for it
REVOCATIONS_S = 1.0  # how often the database is asked for them


@dataclass
class Coordinator:
    """One run of one federation.

    Args:
        run: identity of the run; the store knows it.
        issued: when the run began, milliseconds since 1970.
        name: the federation's name.
        ticket: the network.
        bundles: what devices download, by runtime.
        training: local training.
        schedule: rounds and deadlines.
        fleet: who may join.
        channel: a connected channel that signs with the federation's key.
        store: the database.
        observer: told what happens.
        asynchrony: how to proceed asynchronously; None: in rounds.
        memory: share of the previous mean vote that stays (`coordinator.aggregate`).
        defend: hostile masks are not counted (`coordinator.robust`).
        secure_aggregation: masks are added up unseen (`coordinator.secretly`).
        evaluator: held-out samples, if there are any.
        evaluate: whether devices report the global network's accuracy every round.
        telemetry: whether they may say what training costs them.
        watch: called a few times a second; may raise to end the run.
        linger_s: seconds to wait for the last evaluations after the last round.
    """

    run: bytes
    issued: int
    name: str
    ticket: Ticket
    bundles: Mapping[str, Bundle]
    training: Training
    schedule: Schedule
    fleet: Fleet
    channel: Channel
    store: Store
    observer: Observer
    asynchrony: Asynchrony | None = None
    memory: float = 0.0
    defend: bool = DEFEND
    secure_aggregation: bool = False
    evaluator: Evaluator | None = None
    evaluate: bool = True
    telemetry: bool = True
    watch: Callable[[], None] = lambda: None
    linger_s: float = 10.0
    _mode: Mode = field(init=False)
    _telemetry: Inbox = field(init=False)
    _announced: Announced = field(init=False)
    _limits: Limits = field(default_factory=Limits)
    _revoked_s: float = 0.0
    _started: bool = False
    _finished_s: float | None = None
    _evaluated: set[str] = field(default_factory=set)
    _failure: RoundFailed | None = None

    def __post_init__(self) -> None:
        self._telemetry = Inbox(self.store)
        late = self.asynchrony.staleness if self.asynchrony else 0
        self._announced = Announced(self.run, self.ticket, self.store, at_hand=min(AT_HAND + late, 2 * AT_HAND))
        ballot = Ballot(
            run=self.run,
            ticket=self.ticket,
            announced=self._announced,
            store=self.store,
            memory=self.memory,
            flip_chance=self.training.flip_chance,
            defend=self.defend,
        )
        if self.secure_aggregation:
            self._mode = Secretly(self.schedule, ballot, lambda device: self.fleet.members[device].hello.key)
        elif self.asynchrony is None:
            self._mode = InRounds(self.schedule, ballot)
        else:
            self._mode = Asynchronously(self.schedule.rounds, self.asynchrony, ballot)
        self.channel.trust = self._trusted
        self.channel.admit = self._admit
        self.channel.max_values = MAX_VALUES
        self.fleet.revoked = self.store.revoked()
        self.topics = Topics(self.name)
        for device, hello in self.store.devices().items():
            if not self.fleet.allowed or device in self.fleet.allowed:
                self.fleet.members[device] = Member.remembered(hello)

    def serve(self) -> mask.Votes:
        """Run all rounds; return the last votes.

        Raises:
            RoundFailed: if a round gets no quorum however often it is extended.
            BrokerRefused: if the broker no longer lets the coordinator in.
        """
        while not self._done():
            self._listen()
            self.watch()
            self.observer.tick()
            self._heed_revocations()
            self._telemetry.flush(monotonic_s())
            if self._started:  # not before it is known where the run stopped
                self._happened(rounds.Tick())
            if self._failure is not None:
                raise self._failure
        self._telemetry.flush(math.inf)
        self.store.finish_run(self.run)
        return self._announced[self.schedule.rounds + 1]

    def _done(self) -> bool:
        if self._finished_s is None:
            return False
        # Of all that are known: right after a restart nobody is online again, and the broker may be ours.
        waiting = self.evaluate and not self._evaluated.issuperset(self.fleet.members.keys() - self.fleet.revoked)
        return not waiting or monotonic_s() - self._finished_s > self.linger_s

    # What arrives.

    def _listen(self) -> None:
        happened = self.channel.receive(TICK_S)
        match happened:
            case None:
                pass
            case Connected():
                self._on_connected()
            case Disconnected(refused=True):
                raise BrokerRefused(f"the broker no longer lets the coordinator in: {happened.reason}")
            case Disconnected():
                self.observer.broker(False)
                self.observer.remark(f"connection to the broker lost ({happened.reason}); trying again")
            case Garbled():
                self.observer.refused(happened.topic, happened.error.code)
                # Not of every one: who forges much shall not fill the log as well.
                if self._limits.forged(speaker(happened.topic), monotonic_s()):
                    self.observer.remark(f"ignored a message on {happened.topic}: {happened.error}")
            case Received():
                if self._limits.proven(speaker(happened.topic), monotonic_s()):
                    self._on_received(happened)
                else:
                    self.observer.refused(happened.topic, "too-fast")
                    happened.acknowledge()

    def _on_connected(self) -> None:
        self.observer.broker(True)
        self.channel.subscribe(self.topics.all_up)
        # Every time: a broker may have been killed and have lost what it was to retain.
        for runtime, bundle in self.bundles.items():
            self.channel.send(self.topics.bundle(runtime), BundleBytes(data=bundle.encoded), retain=True)
        announcement = Federation(
            run=self.run,
            name=self.name,
            rounds=self.schedule.rounds,
            ticket=self.ticket.id,
            bundles={runtime: bundle.id for runtime, bundle in self.bundles.items()},
            training=self.training,
            seed=self.schedule.seed,
            key=signing.public_key(self.channel.key),
            issued=self.issued,
            telemetry=self.telemetry,
            secure_aggregation=self.secure_aggregation,
        )
        self.channel.send(self.topics.announcement, announcement, retain=True)
        last = self.store.newest_round(self.run)
        if self._started and last is not None:
            self._publish_round(last.number, last.selected, final=last.number > self.schedule.rounds)
        elif not self._started:
            self._started = True
            if notice := privacy.notice(
                self.training, kept=self.ticket.kept, rounds=self.schedule.rounds, voters=self.schedule.per_round
            ):
                self.observer.remark(notice)
            if self.secure_aggregation:
                self.observer.remark(NOTICE)
            self._resume(last)

    def _resume(self, last: StoredRound | None) -> None:
        """Take up the run where the database says it stopped."""
        if last is None:
            return
        self.observer.remark(f"taking up run {self.run.hex()} in round {last.number}")
        self._apply(self._mode.resume(last, monotonic_s()))

    def _trusted(self, topic: str, message: Message) -> bytes:
        return self.fleet.key(self.topics.sender(topic), message)

    def _admit(self, topic: str) -> bool:
        """Whether a device may be listened to now: nobody is heard more often than a device at work speaks."""
        device = speaker(topic)  # also of a topic that is none, which is refused later
        admitted, first = self._limits.admit(device, monotonic_s())
        if not admitted:
            self.observer.refused(topic, "too-fast")
        if first:
            self.observer.remark(
                f"{device.rpartition('/')[2]} sends more than {Limits.per_s:g} messages a second; ignoring the rest"
            )
        return admitted

    def _heed_revocations(self) -> None:
        now_s = monotonic_s()
        if now_s - self._revoked_s < REVOCATIONS_S:
            return
        self._revoked_s = now_s
        revoked, before = self.store.revoked(), self.fleet.revoked
        self.fleet.revoked = revoked
        for device in sorted(revoked - before):
            self.observer.revoked(device)
            self.observer.remark(f"{device} is revoked: it takes part no more")
            member = self.fleet.members.get(device)
            if member is None:
                continue
            refusal = Refusal(instance=member.hello.instance, code="revoked", reason=f"'{device}' was revoked")
            self.channel.send(self.topics.down(device), refusal)
            member.online = False
            self._vanish(device)

    def _on_received(self, received: Received) -> None:
        try:
            device = self.topics.sender(received.topic)
            match received.message:
                case Hello() as hello:
                    self._on_hello(device, hello)
                case State() as state:
                    self._on_state(device, state)
                case RoundKeys() | SealedShares() | Reveal() as said:
                    self._on_exchange(device, said, received.payload_bytes)
                case MaskUpdate() as update if self.secure_aggregation:
                    self._on_exchange(device, update, received.payload_bytes)
                case MaskUpdate() as update:
                    self._on_mask(device, update, received.payload_bytes)
                case Evaluation() as evaluation:
                    self._on_evaluation(device, evaluation, received.payload_bytes)
                case Missed() as missed:
                    self._on_missed(device, missed)
                case Telemetry() as telemetry:
                    self._on_telemetry(device, telemetry, received.payload_bytes)
                case other:
                    raise WireError(f"a device does not send {type(other).__name__}")
        except WireError as error:
            self.observer.refused(received.topic, error.code)
            self.observer.remark(f"ignored a message on {received.topic}: {error}")
        received.acknowledge()  # not after any other error: then the broker shall deliver it again

    def _on_hello(self, device: str, hello: Hello) -> None:
        if not self.store.knows(device):  # never seen, or a person has had it forgotten
            self.fleet.members.pop(device, None)
        answer = self.fleet.hello(device, hello)
        if isinstance(answer, Welcome):
            self.store.save_device(device, hello)
            self.channel.send(self.topics.down(device), answer)
            self._appear(device)
            return
        for refusal in answer:
            self.channel.send(self.topics.down(device), refusal)
            self.observer.refused(self.topics.up(device, "hello"), refusal.code)
            self.observer.remark(f"refused {device}: {refusal.reason}")

    def _on_state(self, device: str, state: State) -> None:
        changed = self.fleet.state(device, state)
        if changed is True:
            self._appear(device)
        elif changed is False:
            self._vanish(device)

    def _vanish(self, device: str) -> None:
        self.observer.device(device, False, self.fleet)
        self._happened(rounds.Vanished(device=device))

    def _appear(self, device: str) -> None:
        self.observer.device(device, True, self.fleet)
        self._happened(rounds.Appeared(device=device))

    def _on_mask(self, device: str, update: MaskUpdate, payload_bytes: int) -> None:
        receipt = Receipt(run=update.run, number=update.number)
        if self.store.has_mask(update.run, update.number, device):
            self.channel.send(self.topics.down(device), receipt)  # its first receipt was lost
            return
        try:
            counted = self._check_mask(device, update)
        except WireError as error:
            member = self.fleet.members.get(device)
            if member is not None:
                refusal = Refusal(
                    instance=member.hello.instance,
                    code="mask",
                    reason=str(error)[:MAX_TEXT],
                    number=update.number,
                )
                self.channel.send(self.topics.down(device), refusal)
            raise
        if self.store.add_mask(device, update, payload_bytes, len(encode(receipt)), counted):
            self.observer.mask(device, replace(update, number=counted), payload_bytes)
        self.channel.send(self.topics.down(device), receipt)
        self._apply(self._mode.stored(device, counted, monotonic_s()))

    def _on_exchange(self, device: str, said: FromDevice | MaskUpdate, payload_bytes: int) -> None:
        """A step of secure aggregation (`coordinator.secretly`)."""
        if said.run != self.run:
            raise Mismatch("about another run", expected=self.run.hex(), got=said.run.hex())
        if self.store.has_mask(said.run, said.number, device):  # counted without it, or its receipt was lost
            self.store.add_late_bytes(said.run, said.number, device, payload_bytes)
            self.channel.send(self.topics.down(device), Receipt(run=said.run, number=said.number))
            return
        actions = self._mode.hear(device, said, payload_bytes, monotonic_s())
        if isinstance(said, MaskUpdate):
            self.observer.mask(device, said, payload_bytes)
        self._apply(actions)

    def _check_mask(self, device: str, update: MaskUpdate) -> int:
        """The round in which a mask counts; raises WireError if it is not wanted, or not what it should be."""
        if update.run != self.run:
            raise Mismatch("mask for another run", expected=self.run.hex(), got=update.run.hex())
        counted = self._mode.place(device, update.number)
        if update.correct > update.test_samples or not update.train_samples:
            raise WireError(
                f"mask with {update.correct} of {update.test_samples} right and {update.train_samples} samples"
            )
        mask.decode_signs(update.signs, self._announced[update.number], self.ticket.ends)
        return counted

    def _on_missed(self, device: str, missed: Missed) -> None:
        """Tell a device the newest votes in the context of those that it has, or in none if that is shorter."""
        self.channel.send(self.topics.down(device), self._announced.catch_up(missed))

    def _on_evaluation(self, device: str, evaluation: Evaluation, payload_bytes: int) -> None:
        if evaluation.run != self.run or evaluation.correct > evaluation.test_samples:
            raise WireError(
                f"evaluation of run {evaluation.run.hex()}, {evaluation.correct} of {evaluation.test_samples}"
            )
        if not 1 <= evaluation.number <= self.schedule.rounds + 1:
            raise Mismatch("evaluation", expected=f"round 1..{self.schedule.rounds + 1}", got=evaluation.number)
        self.store.add_evaluation(device, evaluation, payload_bytes)
        self.observer.evaluation(device, evaluation)
        if evaluation.number > self.schedule.rounds:
            self._evaluated.add(device)

    def _on_telemetry(self, device: str, telemetry: Telemetry, payload_bytes: int) -> None:
        if telemetry.run != self.run:
            raise Mismatch("telemetry of another run", expected=self.run.hex(), got=telemetry.run.hex())
        for spent in telemetry.rounds:
            if not 1 <= spent.number <= self.schedule.rounds:
                raise Mismatch("telemetry", expected=f"round 1..{self.schedule.rounds}", got=spent.number)
        if self.telemetry:
            self._telemetry.add(device, telemetry, payload_bytes)
            self.observer.telemetry(device, telemetry)

    # What is to be done.

    def _happened(self, event: rounds.Event) -> None:
        self._apply(self._mode.happened(event, monotonic_s()))

    def _apply(self, actions: list[rounds.Action]) -> None:
        for action in actions:
            match action:
                case rounds.Announce():
                    self._publish_round(action.number, action.selected, final=False)
                case rounds.Close():
                    self._close(action.number)
                case rounds.Finish():
                    self._publish_round(self.schedule.rounds + 1, (), final=True)
                    self._finished_s = monotonic_s()
                case rounds.GiveUp():
                    self._failure = action.error
                case rounds.Remark():
                    self.observer.remark(action.text)
                case rounds.Tell():
                    sent = self.channel.send(self.topics.down(action.device), action.message)
                    if not isinstance(action.message, Receipt):  # which a mask's own row counts
                        self.store.add_told(self.run, action.number, action.device, sent)

    def _publish_round(self, number: int, selected: tuple[str, ...], *, final: bool) -> None:
        announcement = self._announced.open(number, selected, evaluate=self.evaluate, final=final)
        sent = self.channel.send(self.topics.round, announcement, retain=True)
        self.store.add_announced_bytes(self.run, number, sent)
        self.observer.announced(number, tuple(self.fleet.online) if EVERYONE in selected else selected)

    def _close(self, number: int) -> None:
        self.store.close_round(self.run, number)
        votes, voters, remarks = self._mode.close(number)
        self._announced[number + 1] = votes
        for remark in remarks:
            self.observer.remark(remark)
        accuracy = None
        if self.evaluator is not None:
            correct = self.evaluator.count_correct(votes.mean)
            self.store.add_held_out(self.run, number, correct, self.evaluator.y.size)
            accuracy = correct / self.evaluator.y.size
        self.observer.closed(number, voters, accuracy)
