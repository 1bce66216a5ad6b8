"""A device at work: carries out what `edge_client.agent` decides, over a real connection and a real runtime.

One thread does everything; local training runs step by step between looks at the inbox, so a round
that closes early stops the training for it at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING

from edge_client import agent, events, privacy, readings, trainer, trial
from edge_client.data import DeviceData
from edge_client.outbox import Outbox
from edge_client.runtimes.base import Floats, Runtime
from edge_client.runtimes.registry import open_runtime
from edge_client.sampler import Sampler
from edge_client.staging import Stager
from edge_client.store import KnownFederation, Store
from edge_client.supervisor import Supervisor
from edge_client.updates import Updater
from wire import __version__, dither, mask, signing
from wire import update as rules
from wire.bundle import Bundle, decode_bundle
from wire.channel import Channel, Garbled
from wire.errors import BrokerRefused, HidenseekError, JoinRefused, WireError
from wire.messages import CatchUp, Evaluation, Federation, MaskUpdate, Message, Round, State, Telemetry, single
from wire.personal import Personal
from wire.prng import training_seed
from wire.secure_messages import Deliveries, Invitation, Roster, Survivors
from wire.telemetry import RoundTelemetry
from wire.topics import DEVICE_QOS, Topics
from wire.transport import Connected, Disconnected, monotonic_s
from wire.update import FilePart, Staged, Update

if TYPE_CHECKING:
    from edge_client.secure_vote import SecureVote

log = logging.getLogger("hidenseek.edge")
TICK_S = 1.0
QUIET_S = 0.2  # without news: what is announced is the newest


@dataclass
class Client:
    """One device in one federation.

    Args:
        device: the agent's first state; says the device's name.
        channel: a connected channel that signs with this device's key.
        topics: the federation's topics.
        data: what to train on.
        store: what survives a power cut.
        threads: for the runtime.
        hide_among: give masks only to sums of so many devices at least; 0: also as they are, where that is asked.
        peers: public keys of the devices that count for that; None: all do.
        telemetry: say what training costs, where the federation wants to know.
        updates: brings the client up to date; None: nobody does.
        staging: has bundles of runs to come ready; None: they are fetched when their run has come.
        peak_mb: a new client that takes more memory to train is taken back, 1e6 bytes; None: whatever it takes.
        leave: whether to end, to be started again, once no training is lost by it.
    """

    device: agent.Device
    channel: Channel
    topics: Topics
    data: DeviceData
    store: Store
    threads: int = 1
    hide_among: int = 0
    peers: frozenset[bytes] | None = None
    telemetry: bool = True
    updates: Updater | None = None
    staging: Stager | None = None
    peak_mb: float | None = None
    leave: Callable[[], bool] = lambda: False
    _bundle: Bundle | None = None
    _runtime: Runtime | None = None
    _training: Iterator[trainer.Trained | None] | None = None
    _round: Round | None = None
    _seed: int = 0  # of the training that runs
    _votes: mask.Votes | None = None  # the newest
    _began: mask.Votes | None = None  # those that training began with
    _greetings: int = 0
    _connection: int = 0
    _events: list[events.Event] = field(default_factory=list)
    _exchange: SecureVote | None = None
    _stop: events.Stop | None = None
    _sampler: Sampler | None = None
    _outbox: Outbox = field(default_factory=Outbox)
    _spent: RoundTelemetry | None = None  # of the round whose mask is about to be sent
    _cold_start_s: float | None = None  # opening the runtime; not told yet
    _evaluate_s: float = 0.0
    _told: tuple[int, int, int | None] = (0, 0, None)  # bytes sent, received and written that are told already
    _online: bool = False
    _supervisor: Supervisor = field(default_factory=Supervisor)

    def __post_init__(self) -> None:
        self.channel.trust = self._trusted

    def run(self) -> None:
        """Take part until the run is over (or for ever, if the device stays).

        Raises:
            HidenseekError: if the broker or the coordinator turns the device away, or the data does not fit.
        """
        confirmed = self.store.load_confirmed()
        self.device = replace(self.device, pending=self.store.load_pending(), confirmed=confirmed)
        self.device = replace(self.device, hello=replace(self.device.hello, software=self._software))
        self._supervisor.ready()
        try:
            while self._stop is None:
                self._supervisor.alive()
                self._listen()
                self._train_one_step()
                self._tell()
                self._update()
        finally:
            self._announce(online=False)
            self.channel.transport.close()
        if self._stop.error is not None:
            raise self._stop.error

    def _listen(self) -> None:
        waiting_s = QUIET_S if self.device.due else TICK_S
        happened = self.channel.receive(0.0 if self._training or self._events else waiting_s)
        match happened:
            case None:
                self._events.append(events.Tick())
            case Connected(number=number):
                self._online, self._connection = True, number
                self._events.append(events.Online())
            case Disconnected(refused=True):
                raise BrokerRefused(f"the broker no longer lets '{self.device.name}' in: {happened.reason}")
            case Disconnected():
                self._online = False
                log.warning("connection lost (%s); trying again", happened.reason)
            case Garbled():
                log.warning("ignored a message on %s: %s", happened.topic, happened.error)
            case _:
                happened.acknowledge()
                if isinstance(happened.message, Federation):
                    self._introduced(happened.message)
                if isinstance(happened.message, Invitation | Roster | Deliveries | Survivors):
                    self._secure_vote().hear(happened.message)
                elif isinstance(happened.message, Update | Staged | FilePart):
                    self._hear_update(happened.message)
                else:
                    self._events.append(happened.message)
        while self._events and self._stop is None:
            event = self._events.pop(0)
            self.device, actions = agent.handle(self.device, event, monotonic_s())
            for action in actions:
                try:
                    self._do(action)
                except WireError as error:
                    # Whoever sent it, a device outlives a bad announcement: the next one may be good.
                    log.warning("ignored: %s", error)

    def _hear_update(self, said: Update | Staged | FilePart) -> None:
        try:
            if self.updates is not None and not isinstance(said, Staged):
                self.updates.hear(said)
            if self.staging is not None and not isinstance(said, Update):
                self.staging.hear(said)
        except WireError as error:
            log.warning("ignored: %s", error)

    def _update(self) -> None:
        """Leave for another version of this program, when no training is lost by it; try bundles of runs to come."""
        if self.updates is not None:
            if self.updates.on_trial and self.device.welcomed:
                self._try_out(self.updates)
            self.updates.tick()
        leaving = (self.updates is not None and self.updates.restart) or self.leave()
        if self.staging is not None and not leaving:
            self.staging.tick()
            if self.staging.waits and self._training is None:
                self._try_bundle(self.staging)
        if self.device.welcomed and not leaving and self._software != self.device.hello.software:
            # The trial is over, or something else has failed: whoever rolls it out waits for that.
            self.device = replace(self.device, hello=replace(self.device.hello, software=self._software))
            self._do(events.SayHello())
        if leaving and self._training is None:
            self._stop = self._stop or events.Stop(error=None)

    @property
    def _software(self) -> str:
        """What a hello says of this program, and of what it was offered."""
        notes = [one.note for one in (self.updates, self.staging) if one is not None]
        return rules.software("hidenseek-edge", __version__, notes)

    def _try_out(self, updates: Updater) -> None:
        """See that this new client can do here what it is for: it has joined, and now trains."""
        federation = self.device.federation
        assert federation is not None
        try:
            if self._training is None:  # else a round has it train already
                trial.step(self._ready()[1], self.data, self._prior(), federation.training)
            trial.check_memory(self.peak_mb)
        except HidenseekError as error:
            updates.take_back(error.what)
            return
        updates.keep()

    def _try_bundle(self, staging: Stager) -> None:
        """Train one step with the bundle of a run to come; meanwhile this run's network is not in memory."""
        found = staging.begin(self._bundle.id if self._bundle is not None else None)
        if found is None:
            return
        self._tell(last=True)
        self._runtime = self._sampler = None
        tried, training = found
        try:
            trial.bundle(tried, self.data, training, threads=self.threads, peak_mb=self.peak_mb)
        except HidenseekError as error:
            staging.failed(error.what)
        else:
            staging.passed()
        if self._bundle is not None and self.device.federation is not None:
            self._load(self._bundle, self.device.federation)

    def _trusted(self, topic: str, message: Message) -> bytes:
        """Whose word this device takes: that of the federation it was told to trust, or of the first it met."""
        known = self.store.federation()
        if known is None:
            if isinstance(message, Federation):
                return message.key
            raise WireError("said before the federation has introduced itself")
        if isinstance(message, Federation) and message.key != known.key:
            raise WireError(
                f"it is of a federation with the key {signing.fingerprint(message.key)}, this device trusts "
                f"{signing.fingerprint(known.key)} only; to trust the other, join with --trust "
                f"{signing.as_text(message.key)}"
            )
        if isinstance(message, Federation) and message.issued < known.issued:
            raise WireError("it is of a run that is over")
        return known.key

    def _introduced(self, federation: Federation) -> None:
        """Remember whom to trust from now on, and listen to all it says.

        Raises:
            JoinRefused: if it wants masks as they are and this device hides its own.
        """
        known = self.store.federation()
        if known is None:
            log.info("trusting the federation with the key %s from now on", signing.fingerprint(federation.key))
        if known is None or known.issued < federation.issued:
            self.store.save_federation(KnownFederation(key=federation.key, issued=federation.issued))
        if known is None:
            self._subscribe()
        if self.hide_among and not federation.secure_aggregation:
            raise JoinRefused(
                f"federation '{federation.name}' does not add masks up unseen, and '{self.device.name}' hides among "
                f"{self.hide_among} devices",
                hint="Set secure_aggregation: true in the coordinator's devices.yaml, or join without --hide-among",
            )

    def _subscribe(self) -> None:
        """Not to rounds before the federation is known: they would be refused, and not be said again."""
        topics = [self.topics.down(self.device.name), self.topics.announcement]
        for topic in topics if self.store.federation() is None else [*topics, self.topics.round]:
            self.channel.subscribe(topic, qos=DEVICE_QOS)
        if self.store.federation() is not None:
            for one in (self.updates, self.staging):
                if one is not None:
                    one.subscribe()

    def _do(self, action: events.Action) -> None:
        match action:
            case events.Subscribe():
                self._subscribe()
            case events.SayHello():
                self._greetings += 1
                hello = replace(self.device.hello, greetings=self._greetings, connection=self._connection)
                self.channel.send(self.topics.up(self.device.name, "hello"), hello)
                self._announce(online=True)  # not before: who has not said hello is not believed
            case events.OpenBundle():
                self._open(action.federation.bundles[self.device.hello.runtime])
            case events.Download():
                self.channel.subscribe(self.topics.bundle(self.device.hello.runtime), qos=DEVICE_QOS)
            case events.KeepBundle():
                self.store.save_bundle(action.digest, action.data)
            case events.TakeVotes():
                self._events.append(self._take_votes(action.announced))
            case events.AskVotes():
                log.info("round %d: asking for votes that were missed", action.missed.number)
                self.channel.send(self.topics.up(self.device.name, "missed"), action.missed)
            case events.Evaluate():
                self._evaluate(action.announced)
            case events.Train():
                self._start_training(action.announced)
            case events.StopTraining():
                self._training = None
                log.info("training stopped: its round is over")
            case events.SendMask():
                if action.new:
                    self.store.save_pending(action.update)
                self._account(action.update)
                if mask.is_ballot(action.update.signs):
                    self._secure_vote().give(action.update)
                    return
                log.info("round %d: mask %s sent", action.update.number, sha256(action.update.signs).hexdigest()[:16])
                self.channel.send(self.topics.up(self.device.name, "mask"), action.update)
            case events.DropPending():
                if action.confirmed is not None:
                    self.store.save_confirmed(*action.confirmed)
                self.store.drop_pending()
                if self._exchange is not None or self.store.load_exchange() is not None:
                    self._secure_vote().forget()
            case events.Log():
                log.info("%s", action.text)
            case events.Stop():
                self._stop = action

    def _secure_vote(self) -> SecureVote:
        """Imported here, for most devices never hide anything."""
        from edge_client.secure_vote import SecureVote

        if self._exchange is None:
            self._exchange = SecureVote(
                self.device.name, self.channel, self.topics, self.store, self.hide_among, self.peers
            )
        return self._exchange

    def _announce(self, *, online: bool) -> None:
        state = State(instance=self.device.hello.instance, online=online, connection=self._connection)
        self.channel.send(self.topics.up(self.device.name, "state"), state, retain=True)

    def _open(self, digest: bytes) -> None:
        federation = self.device.federation
        assert federation is not None
        stored = self.store.load_bundle(digest)
        if stored is None:
            self._events.append(events.BundleNeeded(digest=digest))
            return
        try:
            bundle = decode_bundle(stored, expected_id=digest)
        except WireError as error:
            log.warning("stored bundle is damaged, downloading it again: %s", error)
            self._events.append(events.BundleNeeded(digest=digest))
            return
        self.data.check(bundle.ticket.plan)
        began_s = time.perf_counter()
        self._load(bundle, federation)
        self._cold_start_s = time.perf_counter() - began_s
        self._outbox.clear()
        self._events.append(events.BundleOpened(digest=digest))

    def _load(self, bundle: Bundle, federation: Federation) -> None:
        self._runtime = open_runtime(bundle, federation.training, self.threads)
        self._bundle = bundle
        self._sampler = Sampler(self._runtime) if self.telemetry and federation.telemetry else None

    def _ready(self) -> tuple[Bundle, Runtime]:
        assert self._bundle is not None
        assert self._runtime is not None
        return self._bundle, self._runtime

    def _take_votes(self, announced: Round | CatchUp) -> events.VotesTaken | events.VotesUnusable:
        ends = self._ready()[0].ticket.ends
        try:
            votes = mask.decode_votes(announced.votes, ends, self._votes if announced.base else None)
        except WireError as error:
            log.warning("round %d: its votes do not decode: %s", announced.number, error)
            return events.VotesUnusable(base=announced.base)
        if votes.digest != announced.digest:
            log.warning("round %d: its votes do not fit those that this device has", announced.number)
            return events.VotesUnusable(base=announced.base)
        self._votes = votes
        return events.VotesTaken(run=announced.run, number=announced.number)

    def _evaluate(self, announced: Round) -> None:
        _, runtime = self._ready()
        assert self._votes is not None
        self._tell(last=announced.final)
        runtime.set_multipliers(self._votes.mean)
        correct = self._count_correct(runtime)
        self.channel.send(
            self.topics.up(self.device.name, "evaluation"),
            Evaluation(run=announced.run, number=announced.number, correct=correct, test_samples=self.data.y_test.size),
        )

    def _start_training(self, announced: Round) -> None:
        _, runtime = self._ready()
        federation = self.device.federation
        assert federation is not None
        assert self._votes is not None
        self._round, self._began = announced, self._votes
        self._seed = training_seed(federation.seed, announced.number, self.device.name)
        self._training = trainer.train(
            runtime,
            self.data.x_train,
            self.data.y_train,
            prior=self._prior(),
            training=federation.training,
            start=dither.start_scores(self._votes, federation.training),
            seed=self._seed,
        )
        if self._sampler is not None:
            self._sampler.start()
        log.info("round %d: training on %d samples", announced.number, self.data.y_train.size)

    def _count_correct(self, runtime: Runtime, prior: Floats | float = 0.0) -> int:
        """Test samples right with the runtime's weights; how long that took is added to what evaluation has cost."""
        began_s = time.perf_counter()
        correct = trainer.count_correct(runtime, self.data.x_test, self.data.y_test, prior)
        self._evaluate_s += time.perf_counter() - began_s
        return correct

    def _prior(self) -> Floats:
        bundle, _ = self._ready()
        return trainer.log_prior(self.data.y_train, bundle.ticket.plan.classes)

    def _train_one_step(self) -> None:
        if self._training is None:
            return
        if self._sampler is not None:
            self._sampler.before_step()
        trained = next(self._training)
        if trained is None:
            return
        self._training = None
        self._events.append(events.TrainingDone(update=self._finish(trained)))

    def _finish(self, trained: trainer.Trained) -> MaskUpdate:
        bundle, runtime = self._ready()
        announced = self._round
        assert announced is not None
        self._spent = self._sampler.finish(announced.number, trained) if self._sampler else None
        if self._cold_start_s is not None:
            self._cold_start_s += trained.steps_s[0]
        personal = Personal(
            ticket=bundle.ticket.id,
            run=announced.run,
            number=announced.number,
            log_prior=self._prior(),
            signs=trained.signs,
        )
        self.store.save_personal(personal)
        federation = self.device.federation
        assert federation is not None
        assert self._began is not None
        sent = privacy.randomise(dither.signs_of(trained.scores, federation.training, self._seed), federation.training)
        known = dither.context(self._began, federation.training, self._seed)
        hidden = federation.secure_aggregation
        coded = mask.ballot(sent) if hidden else mask.encode_signs(sent, known, bundle.ticket.ends)
        correct = self._count_correct(runtime, personal.log_prior)
        log.info(
            "round %d: loss %.3f, %d of %d test samples right, %.1f ms a step",
            announced.number,
            trained.loss,
            correct,
            self.data.y_test.size,
            trained.step_ms,
        )
        return MaskUpdate(
            run=announced.run,
            number=announced.number,
            signs=coded,
            train_samples=int(self.data.y_train.size),
            loss=single(trained.loss),
            correct=correct,
            test_samples=int(self.data.y_test.size),
            train_s=single(trained.train_s),
            step_ms=single(trained.step_ms),
            peak_memory_kb=readings.peak_memory_kb(),
        )

    def _account(self, update: MaskUpdate) -> None:
        """Put down what the round of a mask that was just sent has cost, if that was not done before."""
        spent, self._spent = self._spent, None
        if spent is None or spent.number != update.number:
            return
        cold_s, self._cold_start_s = self._cold_start_s, None
        sent, received, written = self._told
        now_written = readings.written_bytes()
        self._told = (self.channel.sent_bytes, self.channel.received_bytes, now_written)
        self._outbox.add(
            replace(
                spent,
                evaluate_ms=round(self._evaluate_s * 1000),
                cold_start_ms=None if cold_s is None else round(cold_s * 1000),
                sent_bytes=self.channel.sent_bytes - sent,
                received_bytes=self.channel.received_bytes - received,
                written_bytes=None if now_written is None else now_written - (written or 0),
            )
        )
        self._evaluate_s = 0.0

    def _tell(self, *, last: bool = False) -> None:
        """Send telemetry that is due, once at most: masks need the connection more."""
        federation = self.device.federation
        if not self._online or federation is None:
            return
        if rounds := self._outbox.take(monotonic_s(), last=last):
            telemetry = Telemetry(run=federation.run, rounds=rounds)
            self.channel.send(self.topics.up(self.device.name, "telemetry"), telemetry, qos=0)
