"""What arrives: the broker lets the coordinator in, devices and workers speak. Written down, and what follows from it.

Who says too much, or in another's name, is not listened to (`coordinator.limits`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from coordinator import rounds
from coordinator.announcing import Announcer
from coordinator.fleet import Fleet
from coordinator.intake import Intake
from coordinator.limits import Limits
from coordinator.modes import Mode
from coordinator.observer import Observer
from coordinator.outbox import Outbox
from coordinator.presence import Presence
from coordinator.progress import Progress
from coordinator.rounds import Action
from coordinator.store import Store
from coordinator.telemetry import Inbox
from coordinator.workforce import Workforce
from wire.channel import Garbled, Happening, Received
from wire.errors import BrokerRefused, Mismatch, WireError
from wire.federation_messages import Evaluation, Federation, Hello, MaskUpdate, Missed, Receipt, State, Telemetry
from wire.messages import Message
from wire.secure_messages import FromDevice, Reveal, RoundKeys, SealedShares
from wire.topics import UP_KINDS, Topics, speaker
from wire.transport import Connected, Disconnected, monotonic_s
from wire.worker_messages import Report, Tally

TICK_S = 0.25
MAX_VALUES = 1_000  # of a device's message: before its signature is checked, little is to be done for it


@dataclass(kw_only=True)
class Arrivals:
    """Listens for one run.

    Args:
        progress: noted here: that it has started, and who has tried the result.
        mode: how the run proceeds.
        announcer: speaks to all devices.
        presence: says who takes part.
        intake: takes masks.
        workforce: the workers, if there are any.
        telemetry: takes what devices say training costs them.
        outbox: the channel, where what arrives is written down and answered.
        fleet: the devices.
        topics: of the federation.
        observer: told of all of it.
        notices: what people are told when the run starts or is taken up.
    """

    progress: Progress
    mode: Mode
    announcer: Announcer
    presence: Presence
    intake: Intake
    workforce: Workforce | None
    telemetry: Inbox
    outbox: Outbox[Store]
    fleet: Fleet
    topics: Topics
    observer: Observer
    notices: tuple[str, ...]
    _limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        channel = self.outbox.channel
        channel.trust, channel.admit, channel.max_values = self._trusted, self._admit, MAX_VALUES

    def listen(self) -> list[Action]:
        """Deal with what has arrived, in one commit, up to a message that something follows from; return what does.

        Raises:
            BrokerRefused: if the broker no longer lets the coordinator in.
            StateError: if the database cannot be written.
        """
        with self.outbox.batch():
            for happened in self.outbox.arriving(TICK_S):
                if actions := self._heed(happened):
                    return actions
        return []

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
                self.outbox.then(happened.acknowledge)
                if self._limits.proven(speaker(happened.topic), monotonic_s()):
                    return self._on_received(happened)
                self.observer.refused(happened.topic, "too-fast")
        return []

    def _on_connected(self) -> list[Action]:
        self.observer.broker(True)
        channel = self.outbox.channel
        if self.workforce is None:
            channel.subscribe(self.topics.all_up)
        else:
            for kind in UP_KINDS:
                if kind != "mask":
                    channel.subscribe(self.topics.every(kind))
            self.workforce.connected()
        self.announcer.introduce()
        run = self._federation.run
        last = self.outbox.store.newest_round(run)
        if self.progress.started:
            return [rounds.Announce(number=last.number, selected=last.selected, again=True)] if last else []
        self.progress.started = True
        for notice in self.notices:
            self.observer.remark(notice)
        if last is None:
            return []
        self.observer.remark(f"taking up run {run.hex()} in round {last.number}")
        return self.mode.resume(last, monotonic_s())

    @property
    def _federation(self) -> Federation:
        return self.announcer.federation

    def _trusted(self, topic: str, message: Message) -> bytes:
        if self.workforce is not None and self.topics.worker(topic) is not None:
            return self._federation.key
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
            if self.workforce is not None and (worker := self.topics.worker(received.topic)) is not None:
                return self._on_worker(self.workforce, worker, received)
            device = self.topics.sender(received.topic)
            match received.message:
                case Hello() as hello:
                    return self._happened(self.presence.hello(device, hello))
                case State() as state:
                    return self._happened(self.presence.state(device, state))
                case RoundKeys() | SealedShares() | Reveal() as said:
                    return self._on_exchange(device, said, received.payload_bytes)
                case MaskUpdate() as update if self._federation.secure_aggregation:
                    return self._on_exchange(device, update, received.payload_bytes)
                case MaskUpdate() as update:
                    counted = self.intake.take(device, update, received.payload_bytes, self.mode.place)
                    return [] if counted is None else self.mode.stored(device, counted, monotonic_s())
                case Evaluation() as evaluation:
                    self._on_evaluation(device, evaluation, received.payload_bytes)
                case Missed() as missed:
                    self.announcer.catch_up(device, missed)
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
                for device in workforce.take(worker, tally, received.payload_bytes, self.mode.place):
                    # What closes the round closes it with all of them: they are written down together.
                    if actions := self.mode.stored(device, tally.number, monotonic_s()):
                        return actions
            case other:
                raise WireError(f"a worker does not send {type(other).__name__}")
        return []

    def _happened(self, event: rounds.Event | None) -> list[Action]:
        if event is None:
            return []
        if self.workforce is not None and isinstance(event, rounds.Appeared) and self.mode.asks(event.device):
            self.workforce.asks(event.device)
        return self.mode.happened(event, monotonic_s())

    def _on_exchange(self, device: str, said: FromDevice | MaskUpdate, payload_bytes: int) -> list[Action]:
        """A step of secure aggregation (`coordinator.secretly`)."""
        store, run = self.outbox.store, self._federation.run
        if said.run != run:
            raise Mismatch("about another run", expected=run.hex(), got=said.run.hex())
        if store.has_mask(said.run, said.number, device):  # counted without it, or its receipt was lost
            store.add_late_bytes(said.run, said.number, device, payload_bytes)
            self.outbox.send(self.topics.down(device), Receipt(run=said.run, number=said.number))
            return []
        if self.progress.finished_s is not None:
            raise Mismatch("of a run that is over", expected="nothing", got=type(said).__name__)
        actions = self.mode.hear(device, said, payload_bytes, monotonic_s())
        if isinstance(said, MaskUpdate):
            self.observer.mask(device, said, payload_bytes)
        return actions

    def _on_evaluation(self, device: str, evaluation: Evaluation, payload_bytes: int) -> None:
        federation = self._federation
        if evaluation.run != federation.run or evaluation.correct > evaluation.test_samples:
            raise WireError(
                f"evaluation of run {evaluation.run.hex()}, {evaluation.correct} of {evaluation.test_samples}"
            )
        if not 1 <= evaluation.number <= federation.rounds + 1:
            raise Mismatch("evaluation", expected=f"round 1..{federation.rounds + 1}", got=evaluation.number)
        self.outbox.store.add_evaluation(device, evaluation, payload_bytes)
        self.observer.evaluation(device, evaluation)
        if evaluation.number == self.progress.result:
            self.progress.unheard.discard(device)

    def _on_telemetry(self, device: str, telemetry: Telemetry, payload_bytes: int) -> None:
        federation = self._federation
        if telemetry.run != federation.run:
            raise Mismatch("telemetry of another run", expected=federation.run.hex(), got=telemetry.run.hex())
        for spent in telemetry.rounds:
            if not 1 <= spent.number <= federation.rounds:
                raise Mismatch("telemetry", expected=f"round 1..{federation.rounds}", got=spent.number)
        if federation.telemetry:
            self.telemetry.add(device, telemetry, payload_bytes)
            self.observer.telemetry(device, telemetry)
