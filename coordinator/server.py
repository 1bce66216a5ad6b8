"""The coordinator at work: one run, composed and kept going over a broker and a database.

`coordinator.arrivals` hears, `coordinator.modes` decides, `coordinator.executor` carries out.

The order that keeps the promise "nothing acknowledged is lost, nothing is counted twice": masks are checked,
committed to the database, then acknowledged to the broker and confirmed to their devices. What has arrived meanwhile is
dealt with together and committed once, for a commit takes as long as ten masks. Kill this process between any two of
these and a mask is either sent again or found stored already.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from coordinator import privacy, rounds
from coordinator.aggregate import DEFEND
from coordinator.announced import AT_HAND, Announced
from coordinator.announcing import Announcer
from coordinator.arrivals import Arrivals
from coordinator.draw import NAMED, Draw
from coordinator.evaluate import Evaluator
from coordinator.executor import Executor
from coordinator.fleet import Fleet
from coordinator.intake import Intake
from coordinator.modes import Asynchronously, Ballot, InRounds, Mode
from coordinator.observer import Observer
from coordinator.orders import Orders
from coordinator.outbox import Outbox
from coordinator.presence import NOBODY, Presence
from coordinator.progress import Progress
from coordinator.rounds import Action, Schedule
from coordinator.secretly import NOTICE, Secretly
from coordinator.steps import Asynchrony
from coordinator.store import Store
from coordinator.telemetry import Inbox
from coordinator.workforce import Workforce
from wire import mask, signing
from wire.bundle import Bundle
from wire.channel import Channel
from wire.federation_messages import Federation
from wire.settings import Training
from wire.ticket import Ticket
from wire.topics import Topics
from wire.transport import monotonic_s


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
    _workforce: Workforce | None = None
    _orders: Orders = field(init=False)
    _arrivals: Arrivals = field(init=False)
    _executor: Executor = field(init=False)
    _progress: Progress = field(default_factory=Progress)
    _paused: bool = False

    def __post_init__(self) -> None:
        self.topics = Topics(self.name)
        self._telemetry = Inbox(self.store)
        self._outbox = Outbox(self.channel, self.store)
        self._presence = Presence(self.fleet, self._outbox, self.topics, self.observer, self.enrolled)
        late = self.asynchrony.staleness if self.asynchrony else 0
        at_hand = min(AT_HAND + late, 2 * AT_HAND)
        self._announced = Announced(
            self.run, self.ticket, self.store, self.training, self.schedule.seed, at_hand=at_hand
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
        if self.workers:
            self._workforce = Workforce(
                self.run,
                self.ticket,
                self._announced,
                self.fleet,
                self._outbox,
                self.topics,
                self.observer,
                sums=not self.defend,
            )
        self._mode = self._proceed(draw)
        self._arrivals = Arrivals(
            progress=self._progress,
            mode=self._mode,
            announcer=self._announcer,
            presence=self._presence,
            intake=Intake(self.run, self.ticket, self._announced, self.fleet, self._outbox, self.topics, self.observer),
            workforce=self._workforce,
            telemetry=self._telemetry,
            outbox=self._outbox,
            fleet=self.fleet,
            topics=self.topics,
            observer=self.observer,
            notices=self._notices(),
        )
        self._executor = Executor(
            progress=self._progress,
            mode=self._mode,
            announced=self._announced,
            announcer=self._announcer,
            workforce=self._workforce,
            outbox=self._outbox,
            fleet=self.fleet,
            topics=self.topics,
            observer=self.observer,
            evaluator=self.evaluator,
        )
        self._heed_orders()

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

    def _notices(self) -> tuple[str, ...]:
        """What a person is to know who starts this run."""
        responds = privacy.notice(
            self.training, kept=self.ticket.kept, rounds=self.schedule.rounds, voters=self.schedule.per_round
        )
        return tuple(filter(None, (responds, NOTICE if self.secure_aggregation else None)))

    def serve(self) -> mask.Votes:
        """Run all rounds; return the last votes.

        Raises:
            RoundFailed: if a round gets no quorum however often it is extended.
            BrokerRefused: if the broker no longer lets the coordinator in.
            StateError: if the database cannot be written.
        """
        while not self._done():
            self._turn()
            if self._progress.failure is not None:
                raise self._progress.failure
        self._telemetry.flush(math.inf)
        self.store.finish_run(self.run)
        return self._announced[self._progress.result]

    def attend(self, until: Callable[[], bool]) -> None:
        """After `serve`: go on listening to devices, who are told how it ended, until something else is to be done.

        Raises:
            BrokerRefused, StateError: as `serve`.
        """
        while not until():
            self._turn()

    def _turn(self) -> None:
        self._executor.apply(self._arrivals.listen())
        self.watch()
        self.observer.tick()
        self._executor.apply(self._time_passes())

    def _done(self) -> bool:
        finished_s = self._progress.finished_s
        if finished_s is None:
            return False
        return not (self.evaluate and self._progress.unheard) or monotonic_s() - finished_s > self.linger_s

    def _time_passes(self) -> list[Action]:
        now_s = monotonic_s()
        self._telemetry.flush(now_s)
        actions: list[Action] = []
        with self._outbox.batch():
            for gone in self._presence.heed_changes(now_s):
                self._progress.unheard.discard(gone.device)
                actions += self._mode.happened(gone, now_s)
            self._heed_orders()
            if self._workforce is not None:
                self._workforce.tick(now_s)
            if self._progress.started:  # not before it is known where the run stopped
                actions += self._mode.happened(rounds.Tick(), now_s)
        return actions

    def _heed_orders(self) -> None:
        """A person may have the rounds paused, or go on, by other rules or not at all."""
        if self._progress.finished_s is not None:
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
            self._announcer.amend(schedule.rounds)
        self.observer.scheduled(schedule)
        self.observer.remark("the settings of the run were changed")

    def _stop(self) -> None:
        """End with what the rounds came to that have closed; masks of the open one are not counted."""
        newest = self.store.newest_round(self.run)
        number = newest.number + 1 if newest else 1
        if newest and newest.closed_s is None:
            self._announced.put(number, self._announced[newest.number])
        self._mode.end()
        self._executor.finish(number)
        self.observer.remark("the run is stopped")
