"""A device at work: carries out what `edge_client.agent` decides, over a real connection and a real runtime.

One thread does everything; local training runs step by step between looks at the inbox, so a round
that closes early stops the training for it at once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from edge_client import agent, profiler, trainer
from edge_client.data import DeviceData
from edge_client.runtimes.base import Floats, Runtime
from edge_client.runtimes.registry import open_runtime
from edge_client.store import Store
from wire import mask
from wire.bundle import Bundle, decode_bundle
from wire.channel import Channel, Garbled
from wire.errors import BrokerRefused, WireError
from wire.messages import TICKET_PREFIX_BYTES, Evaluation, MaskUpdate, Round, State
from wire.personal import Personal
from wire.prng import mix
from wire.topics import Topics
from wire.transport import Connected, Disconnected, monotonic_s

log = logging.getLogger("hidenseek.edge")
TICK_S = 1.0


@dataclass
class Client:
    """One device in one federation.

    Args:
        device: the agent's first state; says the device's name.
        channel: a connected channel.
        topics: the federation's topics.
        data: what to train on.
        store: what survives a power cut.
        threads: for the runtime.
    """

    device: agent.Device
    channel: Channel
    topics: Topics
    data: DeviceData
    store: Store
    threads: int = 1
    _bundle: Bundle | None = None
    _runtime: Runtime | None = None
    _training: Iterator[trainer.Trained | None] | None = None
    _round: Round | None = None
    _events: list[agent.Event] = field(default_factory=list)
    _stop: agent.Stop | None = None

    def run(self) -> None:
        """Take part until the run is over (or for ever, if the device stays).

        Raises:
            HidenseekError: if the broker or the coordinator turns the device away, or the data does not fit.
        """
        self.device = replace(self.device, pending=self.store.load_pending())
        try:
            while self._stop is None:
                self._listen()
                self._train_one_step()
        finally:
            self._announce(online=False)
            self.channel.transport.close()
        if self._stop.error is not None:
            raise self._stop.error

    def _listen(self) -> None:
        happened = self.channel.receive(0.0 if self._training or self._events else TICK_S)
        match happened:
            case None:
                self._events.append(agent.Tick())
            case Connected():
                self._events.append(agent.Online())
            case Disconnected(refused=True):
                raise BrokerRefused(f"the broker no longer lets '{self.device.name}' in: {happened.reason}")
            case Disconnected():
                log.warning("connection lost (%s); trying again", happened.reason)
            case Garbled():
                log.warning("ignored a message on %s: %s", happened.topic, happened.error)
            case _:
                happened.acknowledge()
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

    def _do(self, action: agent.Action) -> None:
        match action:
            case agent.Subscribe():
                for topic in (self.topics.down(self.device.name), self.topics.announcement, self.topics.round):
                    self.channel.subscribe(topic)
                self._announce(online=True)
            case agent.SayHello():
                self.channel.send(self.topics.up(self.device.name, "hello"), self.device.hello)
            case agent.OpenBundle():
                self._open(action.federation.bundles[self.device.hello.runtime])
            case agent.Download():
                self.channel.subscribe(self.topics.bundle(self.device.hello.runtime))
            case agent.KeepBundle():
                self.store.save_bundle(action.digest, action.data)
            case agent.Evaluate():
                self._evaluate(action.announced)
            case agent.Train():
                self._start_training(action.announced)
            case agent.StopTraining():
                self._training = None
                log.info("training stopped: its round is over")
            case agent.SendMask():
                if action.new:
                    self.store.save_pending(action.update)
                self.channel.send(self.topics.up(self.device.name, "mask"), action.update)
            case agent.DropPending():
                self.store.drop_pending()
            case agent.Log():
                log.info("%s", action.text)
            case agent.Stop():
                self._stop = action

    def _announce(self, *, online: bool) -> None:
        state = State(instance=self.device.hello.instance, online=online)
        self.channel.send(self.topics.up(self.device.name, "state"), state, retain=True)

    def _open(self, digest: bytes) -> None:
        federation = self.device.federation
        assert federation is not None
        stored = self.store.load_bundle(digest)
        if stored is None:
            self._events.append(agent.BundleNeeded(digest=digest))
            return
        try:
            bundle = decode_bundle(stored, expected_id=digest)
        except WireError as error:
            log.warning("stored bundle is damaged, downloading it again: %s", error)
            self._events.append(agent.BundleNeeded(digest=digest))
            return
        self.data.check(bundle.ticket.plan)
        self._runtime = open_runtime(bundle, federation.training, self.threads)
        self._bundle = bundle
        self._events.append(agent.BundleOpened(digest=digest))

    def _ready(self) -> tuple[Bundle, Runtime]:
        assert self._bundle is not None
        assert self._runtime is not None
        return self._bundle, self._runtime

    def _evaluate(self, announced: Round) -> None:
        bundle, runtime = self._ready()
        votes = mask.decode_votes(announced.votes, bundle.ticket.kept)
        runtime.set_multipliers(votes.mean)
        correct = trainer.count_correct(runtime, self.data.x_test, self.data.y_test)
        self.channel.send(
            self.topics.up(self.device.name, "evaluation"),
            Evaluation(run=announced.run, number=announced.number, correct=correct, test_samples=self.data.y_test.size),
        )

    def _start_training(self, announced: Round) -> None:
        bundle, runtime = self._ready()
        federation = self.device.federation
        assert federation is not None
        votes = mask.decode_votes(announced.votes, bundle.ticket.kept)
        self._round = announced
        self._training = trainer.train(
            runtime,
            self.data.x_train,
            self.data.y_train,
            prior=self._prior(),
            training=federation.training,
            start=votes.start_scores(federation.training.start),
            seed=mix(federation.seed, announced.number, self.device.name),
        )
        log.info("round %d: training on %d samples", announced.number, self.data.y_train.size)

    def _prior(self) -> Floats:
        bundle, _ = self._ready()
        return trainer.log_prior(self.data.y_train, bundle.ticket.plan.classes)

    def _train_one_step(self) -> None:
        if self._training is None:
            return
        trained = next(self._training)
        if trained is None:
            return
        self._training = None
        self._events.append(agent.TrainingDone(update=self._finish(trained)))

    def _finish(self, trained: trainer.Trained) -> MaskUpdate:
        bundle, runtime = self._ready()
        announced = self._round
        assert announced is not None
        personal = Personal(
            ticket=bundle.ticket.id,
            run=announced.run,
            number=announced.number,
            log_prior=self._prior(),
            signs=trained.signs,
        )
        self.store.save_personal(personal)
        reference = mask.decode_votes(announced.votes, bundle.ticket.kept).signs
        correct = trainer.count_correct(runtime, self.data.x_test, self.data.y_test, personal.log_prior)
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
            ticket=bundle.ticket.id[:TICKET_PREFIX_BYTES],
            signs=mask.encode_signs(trained.signs, reference),
            train_samples=int(self.data.y_train.size),
            loss=trained.loss,
            correct=correct,
            test_samples=int(self.data.y_test.size),
            train_s=trained.train_s,
            step_ms=trained.step_ms,
            peak_memory_kb=profiler.peak_memory_kb(),
        )
