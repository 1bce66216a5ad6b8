"""The coordinator at work: carries out what `coordinator.modes` decides, over a broker and a database.

The order that keeps the promise "nothing acknowledged is lost, nothing is counted twice": masks are checked,
committed to the database, then acknowledged to the broker and confirmed to their devices. What has arrived meanwhile is
dealt with together and committed once, for a commit takes as long as ten masks. Kill this process between any two of
these and a mask is either sent again or found stored already.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import groupby

from coordinator import privacy, rounds
from coordinator.aggregate import DEFEND
from coordinator.announced import AT_HAND, Announced
from coordinator.announcing import Announcer
from coordinator.draw import NAMED, Draw
from coordinator.evaluate import Evaluator
from coordinator.fleet import Fleet
from coordinator.intake import Intake
from coordinator.limits import Limits
from coordinator.modes import Asynchronously, Ballot, InRounds, Mode
from coordinator.observer import Observer
from coordinator.orders import Orders
from coordinator.outbox import Outbox
from coordinator.presence import NOBODY, Presence
from coordinator.rounds import Action, Schedule
from coordinator.secretly import NOTICE, Secretly
from coordinator.steps import Asynchrony
from coordinator.store import Store
from coordinator.telemetry import Inbox
from coordinator.workforce import Workforce
from wire import mask, signing
from wire.bundle import Bundle
from wire.channel import Channel, Garbled, Happening, Received
from wire.errors import BrokerRefused, Mismatch, RoundFailed, WireError
from wire.messages import (
    EVERYONE,
    Evaluation,
    Federation,
    Hello,
    MaskUpdate,
    Message,
    Missed,
    Receipt,
    State,
    Telemetry,
)
from wire.secure_messages import FromDevice, Reveal, RoundKeys, SealedShares
from wire.settings import Training
from wire.ticket import Ticket
from wire.topics import UP_KINDS, Topics, speaker
from wire.transport import Connected, Disconnected, monotonic_s
from wire.worker_messages import Report, Tally

TICK_S = 0.25
MAX_VALUES = 1_000  # of a device's message: before its signature is checked, little is to be done for it


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
        workers: others may take masks in its place (`coordinator.worker`).
        evaluator: held-out samples, if there are any.
        evaluate: whether devices report the global network's accuracy every round.
        telemetry: whether they may say what training costs them.
        enrolled: keys of devices that have claimed their accounts, as they are now (`coordinator.presence`).
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
    workers: bool = False
    evaluator: Evaluator | None = None
    evaluate: bool = True
    telemetry: bool = True
    enrolled: Callable[[], Mapping[str, bytes]] = lambda: NOBODY
    watch: Callable[[], None] = lambda: None
    linger_s: float = 10.0
    topics: Topics = field(init=False)
    _mode: Mode = field(init=False)
    _telemetry: Inbox = field(init=False)
    _announced: Announced = field(init=False)
    _outbox: Outbox[Store] = field(init=False)
    _announcer: Announcer = field(init=False)
    _presence: Presence = field(init=False)
    _intake: Intake = field(init=False)
    _workforce: Workforce | None = field(init=False)
    _orders: Orders = field(init=False)
    _limits: Limits = field(default_factory=Limits)
    _started: bool = False
    _paused: bool = False
    _finished_s: float | None = None
    _result: int = 0  # the number that it is announced with
    _unheard: set[str] = field(default_factory=set)  # who has not tried the result yet, once there is one
    _failure: RoundFailed | None = None

    def __post_init__(self) -> None:
        self.topics = Topics(self.name)
        self._telemetry = Inbox(self.store)
        self._outbox = Outbox(self.channel, self.store)
        self._presence = Presence(self.fleet, self._outbox, self.topics, self.observer, self.enrolled)
        late = self.asynchrony.staleness if self.asynchrony else 0
        self._announced = Announced(
            self.run,
            self.ticket,
            self.store,
            self.training,
            self.schedule.seed,
            at_hand=min(AT_HAND + late, 2 * AT_HAND),
        )
        named = self.secure_aggregation or self.asynchrony is not None or self.schedule.per_round <= NAMED
        draw = None if named else Draw(self.channel.key, self.run)
        self._orders = Orders(self.store, self.run, self.schedule)
        self.schedule = self._orders.schedule()
        self._announcer = Announcer(
            federation=self._federation(),
            bundles=self.bundles,
            announced=self._announced,
            outbox=self._outbox,
            topics=self.topics,
            fleet=self.fleet,
            draw=draw,
            evaluate=self.evaluate,
        )
        self._intake = Intake(
            self.run, self.ticket, self._announced, self.fleet, self._outbox, self.topics, self.observer
        )
        self._workforce = self._workers() if self.workers else None
        self._mode = self._proceed(draw)
        self._heed_orders()
        self.channel.trust = self._trusted
        self.channel.admit = self._admit
        self.channel.max_values = MAX_VALUES

    def _workers(self) -> Workforce:
        return Workforce(
            self.run,
            self.ticket,
            self._announced,
            self.fleet,
            self._outbox,
            self.topics,
            self.observer,
            sums=not self.defend,
        )

    def _proceed(self, draw: Draw | None) -> Mode:
        ballot = Ballot(
            run=self.run,
            ticket=self.ticket,
            announced=self._announced,
            store=self.store,
            memory=self.memory,
            flip_chance=self.training.flip_chance,
            defend=self.defend,
            dither=bool(self.training.dither),
        )
        online = self.fleet.online
        if self.secure_aggregation:
            return Secretly(self.schedule, ballot, online, lambda device: self.fleet.members[device].hello.key)
        if self.asynchrony is None:
            return InRounds(self.schedule, ballot, online, draw)
        return Asynchronously(self.schedule.rounds, self.asynchrony, ballot)

    def _federation(self) -> Federation:
        return Federation(
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

    def serve(self) -> mask.Votes:
        """Run all rounds; return the last votes.

        Raises:
            RoundFailed: if a round gets no quorum however often it is extended.
            BrokerRefused: if the broker no longer lets the coordinator in.
            StateError: if the database cannot be written.
        """
        while not self._done():
            self._turn()
            if self._failure is not None:
                raise self._failure
        self._telemetry.flush(math.inf)
        self.store.finish_run(self.run)
        return self._announced[self._result]

    def attend(self, until: Callable[[], bool]) -> None:
        """After `serve`: go on listening to devices, who are told how it ended, until something else is to be done.

        Raises:
            BrokerRefused, StateError: as `serve`.
        """
        while not until():
            self._turn()

    def _turn(self) -> None:
        self._listen()
        self.watch()
        self.observer.tick()
        self._apply(self._time_passes())

    def _done(self) -> bool:
        if self._finished_s is None:
            return False
        return not (self.evaluate and self._unheard) or monotonic_s() - self._finished_s > self.linger_s

    def _time_passes(self) -> list[Action]:
        now_s = monotonic_s()
        self._telemetry.flush(now_s)
        actions: list[Action] = []
        with self._outbox.batch():
            for gone in self._presence.heed_changes(now_s):
                self._unheard.discard(gone.device)
                actions += self._mode.happened(gone, now_s)
            self._heed_orders()
            if self._workforce is not None:
                self._workforce.tick(now_s)
            if self._started:  # not before it is known where the run stopped
                actions += self._mode.happened(rounds.Tick(), now_s)
        return actions

    def _heed_orders(self) -> None:
        """A person may have the rounds paused, or go on, by other rules or not at all."""
        if self._finished_s is not None:
            return
        if self._orders.stopped():
            self._stop()
            return
        if (wanted := self._orders.schedule()) != self.schedule:
            self._reschedule(wanted)
        paused = self.store.paused()
        if paused != self._paused:
            self._paused = paused
            self._mode.hold(paused)
            self.observer.remark("paused: no round opens until it is resumed" if paused else "resumed")

    def _reschedule(self, schedule: Schedule) -> None:
        announce, self.schedule = schedule.rounds != self.schedule.rounds, schedule
        self._mode.reschedule(schedule)
        if announce:
            self._announcer = replace(self._announcer, federation=self._federation())
            self._announcer.speak()
        self.observer.scheduled(schedule)
        self.observer.remark("the settings of the run were changed")

    def _stop(self) -> None:
        """End with what the rounds came to that have closed; masks of the open one are not counted."""
        newest = self.store.newest_round(self.run)
        number = newest.number + 1 if newest else 1
        if newest and newest.closed_s is None:
            self._announced.put(number, self._announced[newest.number])
        self._mode.end()
        self._finish(number)
        self.observer.remark("the run is stopped")

    # What arrives.

    def _listen(self) -> None:
        """Deal with what has arrived, in one commit, up to a message that something follows from."""
        actions: list[Action] = []
        with self._outbox.batch():
            for happened in self._outbox.arriving(TICK_S):
                actions = self._heed(happened)
                if actions:
                    break
        self._apply(actions)

    def _heed(self, happened: Happening) -> list[Action]:
        match happened:
            case Connected():
                return self._on_connected()
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
                self._outbox.then(happened.acknowledge)
                if self._limits.proven(speaker(happened.topic), monotonic_s()):
                    return self._on_received(happened)
                self.observer.refused(happened.topic, "too-fast")
        return []

    def _on_connected(self) -> list[Action]:
        self.observer.broker(True)
        if self._workforce is None:
            self.channel.subscribe(self.topics.all_up)
        else:
            for kind in UP_KINDS:
                if kind != "mask":
                    self.channel.subscribe(self.topics.every(kind))
            self._workforce.connected()
        self._announcer.introduce()
        last = self.store.newest_round(self.run)
        if self._started:
            if last is not None:
                self._open(last.number, last.selected)
            return []
        self._started = True
        if notice := privacy.notice(
            self.training, kept=self.ticket.kept, rounds=self.schedule.rounds, voters=self.schedule.per_round
        ):
            self.observer.remark(notice)
        if self.secure_aggregation:
            self.observer.remark(NOTICE)
        if last is None:
            return []
        self.observer.remark(f"taking up run {self.run.hex()} in round {last.number}")
        return self._mode.resume(last, monotonic_s())

    def _trusted(self, topic: str, message: Message) -> bytes:
        if self._workforce is not None and self.topics.worker(topic) is not None:
            return signing.public_key(self.channel.key)
        return self.fleet.key(self.topics.sender(topic), message)

    def _admit(self, topic: str) -> bool:
        """Whether a device may be listened to now: nobody is heard more often than a device at work speaks."""
        device = speaker(topic)  # also of a topic that is none, which is refused later
        admitted, first = self._limits.admit(device, monotonic_s())
        if first:
            self.observer.remark(
                f"{device.rpartition('/')[2]} sends more than {Limits.per_s:g} messages a second; ignoring the rest"
            )
        if not admitted:
            self.observer.refused(topic, "too-fast")
        return admitted

    def _on_received(self, received: Received) -> list[Action]:
        try:
            if self._workforce is not None and (worker := self.topics.worker(received.topic)) is not None:
                return self._on_worker(self._workforce, worker, received)
            device = self.topics.sender(received.topic)
            match received.message:
                case Hello() as hello:
                    return self._happened(self._presence.hello(device, hello))
                case State() as state:
                    return self._happened(self._presence.state(device, state))
                case RoundKeys() | SealedShares() | Reveal() as said:
                    return self._on_exchange(device, said, received.payload_bytes)
                case MaskUpdate() as update if self.secure_aggregation:
                    return self._on_exchange(device, update, received.payload_bytes)
                case MaskUpdate() as update:
                    counted = self._intake.take(device, update, received.payload_bytes, self._mode.place)
                    return [] if counted is None else self._mode.stored(device, counted, monotonic_s())
                case Evaluation() as evaluation:
                    self._on_evaluation(device, evaluation, received.payload_bytes)
                case Missed() as missed:
                    self._announcer.catch_up(device, missed)
                case Telemetry() as telemetry:
                    self._on_telemetry(device, telemetry, received.payload_bytes)
                case other:
                    raise WireError(f"a device does not send {type(other).__name__}")
        except WireError as error:
            self.observer.refused(received.topic, error.code)
            self.observer.remark(f"ignored a message on {received.topic}: {error}")
        return []

    def _on_worker(self, workforce: Workforce, worker: str, received: Received) -> list[Action]:
        match received.message:
            case Report() as report:
                workforce.report(worker, report, monotonic_s())
            case Tally() as tally:
                for device in workforce.take(worker, tally, received.payload_bytes, self._mode.place):
                    # What closes the round closes it with all of them: they are written down together.
                    if actions := self._mode.stored(device, tally.number, monotonic_s()):
                        return actions
            case other:
                raise WireError(f"a worker does not send {type(other).__name__}")
        return []

    def _happened(self, event: rounds.Event | None) -> list[Action]:
        if event is None:
            return []
        if self._workforce is not None and isinstance(event, rounds.Appeared) and self._mode.asks(event.device):
            self._workforce.asks(event.device)
        return self._mode.happened(event, monotonic_s())

    def _on_exchange(self, device: str, said: FromDevice | MaskUpdate, payload_bytes: int) -> list[Action]:
        """A step of secure aggregation (`coordinator.secretly`)."""
        if said.run != self.run:
            raise Mismatch("about another run", expected=self.run.hex(), got=said.run.hex())
        if self.store.has_mask(said.run, said.number, device):  # counted without it, or its receipt was lost
            self.store.add_late_bytes(said.run, said.number, device, payload_bytes)
            self._outbox.send(self.topics.down(device), Receipt(run=said.run, number=said.number))
            return []
        if self._finished_s is not None:
            raise Mismatch("of a run that is over", expected="nothing", got=type(said).__name__)
        actions = self._mode.hear(device, said, payload_bytes, monotonic_s())
        if isinstance(said, MaskUpdate):
            self.observer.mask(device, said, payload_bytes)
        return actions

    def _on_evaluation(self, device: str, evaluation: Evaluation, payload_bytes: int) -> None:
        if evaluation.run != self.run or evaluation.correct > evaluation.test_samples:
            raise WireError(
                f"evaluation of run {evaluation.run.hex()}, {evaluation.correct} of {evaluation.test_samples}"
            )
        if not 1 <= evaluation.number <= self.schedule.rounds + 1:
            raise Mismatch("evaluation", expected=f"round 1..{self.schedule.rounds + 1}", got=evaluation.number)
        self.store.add_evaluation(device, evaluation, payload_bytes)
        self.observer.evaluation(device, evaluation)
        if evaluation.number == self._result:
            self._unheard.discard(device)

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

    def _apply(self, actions: list[Action]) -> None:
        """Carry out actions; those between two counts, which take long, are committed together."""
        for counting, some in groupby(actions, lambda action: isinstance(action, rounds.Close)):
            with nullcontext() if counting else self._outbox.batch():
                for action in some:
                    self._do(action)

    def _do(self, action: Action) -> None:
        match action:
            case rounds.Announce():
                self._open(action.number, action.selected)
            case rounds.Close():
                self._close(action.number)
            case rounds.Finish():
                self._finish(self.schedule.rounds + 1)
            case rounds.GiveUp():
                self._failure = action.error
            case rounds.Remark():
                self.observer.remark(action.text)
            case rounds.Tell():
                sent = self._outbox.send(self.topics.down(action.device), action.message)
                if not isinstance(action.message, Receipt):  # which a mask's own row counts
                    self.store.add_told(self.run, action.number, action.device, sent)

    def _finish(self, number: int) -> None:
        """Announce the result, as if a round of this number were."""
        self._open(number, ())
        self._result, self._finished_s = number, monotonic_s()
        # All that are known: right after a restart nobody is online again, and the broker may be ours.
        self._unheard = set(self.fleet.members) - self.fleet.revoked

    def _open(self, number: int, selected: tuple[str, ...]) -> None:
        if self._workforce is not None:
            self._workforce.open(number, selected)
        self._announcer.open(number, selected)
        asked = tuple(sorted(self.fleet.online)) if EVERYONE in selected else selected
        self._outbox.then(lambda: self.observer.announced(number, asked))

    def _close(self, number: int) -> None:
        self.store.close_round(self.run, number)
        outcome = self._mode.close(number)
        self._announced.put(number + 1, outcome.votes, outcome.remainder)
        for remark in outcome.remarks:
            self.observer.remark(remark)
        accuracy = None
        if self.evaluator is not None:
            correct = self.evaluator.count_correct(outcome.votes.mean)
            self.store.add_held_out(self.run, number, correct, self.evaluator.y.size)
            accuracy = correct / self.evaluator.y.size
        self.observer.closed(number, outcome.voters, accuracy)
