"""A device at work: carries out what `edge_client.agent` decides, over a real connection and a real runtime.

One thread does everything that is said; what takes numpy is done by an `edge_client.work.Work`, and between looks at
the inbox, so a round that closes early stops the training for it at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING

from edge_client import agent, events
from edge_client.expenses import Expenses
from edge_client.staging import Stager
from edge_client.store import Store
from edge_client.supervisor import Supervisor
from edge_client.trust import Trust
from edge_client.updates import Updater
from edge_client.work import Finished, Work
from wire import __version__, mask_kinds
from wire import update as rules
from wire.channel import Channel, Garbled
from wire.errors import BrokerRefused, HidenseekError, JoinRefused, WireError
from wire.federation_messages import Federation, Round, State, Telemetry
from wire.secure_messages import Deliveries, Invitation, Roster, Survivors
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
        store: what survives a power cut.
        work: does what takes its data and its network.
        hide_among: give masks only to sums of so many devices at least; 0: also as they are, where that is asked.
        peers: public keys of the devices that count for that; None: all do.
        updates: brings the client up to date; None: nobody does.
        staging: has bundles of runs to come ready; None: they are fetched when their run has come.
        leave: whether to end, to be started again, once no training is lost by it.
        supervisor: is told that this process lives.
    """

    device: agent.Device
    channel: Channel
    topics: Topics
    store: Store
    work: Work
    hide_among: int = 0
    peers: frozenset[bytes] | None = None
    updates: Updater | None = None
    staging: Stager | None = None
    leave: Callable[[], bool] = lambda: False
    supervisor: Supervisor = field(default_factory=Supervisor)
    _opened: bytes | None = None  # SHA-256 of the bundle that is trained with
    _greetings: int = 0
    _connection: int = 0
    _events: list[events.Event] = field(default_factory=list)
    _exchange: SecureVote | None = None
    _stop: events.Stop | None = None
    _trust: Trust = field(init=False)
    _expenses: Expenses = field(init=False)
    _online: bool = False

    def __post_init__(self) -> None:
        self._trust = Trust(self.store)
        self._expenses = Expenses(self.channel)
        self.channel.trust = self._trust.key

    def run(self) -> None:
        """Take part until the run is over (or for ever, if the device stays).

        Raises:
            HidenseekError: if the broker or the coordinator turns the device away, or the data does not fit.
        """
        confirmed = self.store.load_confirmed()
        self.device = replace(self.device, pending=self.store.load_pending(), confirmed=confirmed)
        self.device = replace(self.device, hello=replace(self.device.hello, software=self._software))
        self.supervisor.ready()
        try:
            while self._stop is None:
                self.supervisor.alive()
                self._listen()
                self._train()
                self._tell()
                self._update()
        finally:
            self._announce(online=False)
            self.channel.transport.close()
            self.work.close()
        if self._stop.error is not None:
            raise self._stop.error

    def _listen(self) -> None:
        waiting_s = self.work.pause_s if self.work.training else QUIET_S if self.device.due else TICK_S
        happened = self.channel.receive(0.0 if self._events else waiting_s)
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
            if self.staging.waits and not self.work.training:
                self._try_bundle(self.staging)
        if self.device.welcomed and not leaving and self._software != self.device.hello.software:
            # The trial is over, or something else has failed: whoever rolls it out waits for that.
            self.device = replace(self.device, hello=replace(self.device.hello, software=self._software))
            self._do(events.SayHello())
        if leaving and not self.work.training:
            self._stop = self._stop or events.Stop(error=None)

    @property
    def _software(self) -> str:
        """What a hello says of this program, and of what it was offered."""
        notes = [one.note for one in (self.updates, self.staging) if one is not None]
        return rules.software("hidenseek-edge", __version__, notes)

    def _try_out(self, updates: Updater) -> None:
        """See that this new client can do here what it is for: it has joined, and now trains."""
        try:
            self.work.try_out()
        except HidenseekError as error:
            updates.take_back(error.what)
            return
        updates.keep()

    def _try_bundle(self, staging: Stager) -> None:
        """Train one step with the bundle of a run to come; meanwhile this run's network is not in memory."""
        found = staging.begin(self._opened)
        if found is None:
            return
        self._tell(last=True)
        digest, training = found
        try:
            self.work.try_bundle(self.store.staged_file(digest), digest, training)
        except HidenseekError as error:
            staging.failed(error.what)
        else:
            staging.passed()

    def _introduced(self, federation: Federation) -> None:
        """Remember whom to trust from now on, and listen to all it says.

        Raises:
            JoinRefused: if it wants masks as they are and this device hides its own.
        """
        if self._trust.introduced(federation):
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
                self._events.append(self.work.take_votes(action.announced))
            case events.AskVotes():
                log.info("round %d: asking for votes that were missed", action.missed.number)
                self.channel.send(self.topics.up(self.device.name, "missed"), action.missed)
            case events.Evaluate():
                self._evaluate(action.announced)
            case events.Train():
                self._start_training(action.announced)
            case events.StopTraining():
                self.work.stop()
                log.info("training stopped: its round is over")
            case events.SendMask():
                if action.new:
                    self.store.save_pending(action.update)
                self._expenses.sending(action.update.number)
                if mask_kinds.is_ballot(action.update.signs):
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
        path = self.store.bundle_file(digest)
        if path is None:
            self._events.append(events.BundleNeeded(digest=digest))
            return
        try:
            self.work.open(path, digest, federation)
        except WireError as error:
            log.warning("stored bundle is damaged, downloading it again: %s", error)
            self._events.append(events.BundleNeeded(digest=digest))
            return
        self._opened = digest
        self._expenses.clear()
        self._events.append(events.BundleOpened(digest=digest))

    def _evaluate(self, announced: Round) -> None:
        self._tell(last=announced.final)
        self.channel.send(self.topics.up(self.device.name, "evaluation"), self.work.evaluate(announced))

    def _start_training(self, announced: Round) -> None:
        self.work.start(announced)

    def _train(self) -> None:
        if not self.work.training:
            self.work.rest(monotonic_s())
        elif (finished := self.work.step()) is not None:
            self._finish(finished)

    def _finish(self, finished: Finished) -> None:
        self.store.save_personal(finished.personal)
        self._expenses.trained(finished.spent)
        self._events.append(events.TrainingDone(update=finished.update))

    def _tell(self, *, last: bool = False) -> None:
        """Send telemetry that is due, once at most: masks need the connection more."""
        federation = self.device.federation
        if not self._online or federation is None:
            return
        if rounds := self._expenses.due(monotonic_s(), last=last):
            telemetry = Telemetry(run=federation.run, rounds=rounds)
            self.channel.send(self.topics.up(self.device.name, "telemetry"), telemetry, qos=0)
