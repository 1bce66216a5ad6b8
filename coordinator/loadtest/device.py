"""A scripted device: `edge_client.agent` decides as it does on every device, and nothing is trained.

What the agent asks for is carried out as `edge_client.client` would, in the same messages, over a connection among
thousands; state that a real device keeps on its card is kept in memory over a simulated power cut.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from coordinator.loadtest.audience import Audience
from coordinator.loadtest.link import Link, Place
from coordinator.loadtest.script import Pretence, Script
from coordinator.loadtest.tally import Tally
from coordinator.mqtt_packets import Login
from edge_client import agent, events
from edge_client.outbox import Outbox
from wire import messages
from wire.channel import pattern, seal
from wire.envelope import Joiner, split
from wire.errors import HidenseekError, WireError
from wire.federation_messages import BundleBytes, Federation, MaskUpdate, Refusal, Round, State, Telemetry, Welcome
from wire.messages import Message
from wire.prng import mix
from wire.topics import DEVICE_QOS
from wire.transport import monotonic_s


class ScriptedDevice:
    """One of them; a `coordinator.loadtest.link.Listener`.

    Args:
        name: its device id.
        script: what it does.
        place: where the broker is.
        account: user and password at the broker, if it wants any.
        audience: what it shares with the others of its process.
        tally: theirs, too.
        started: how often it has started before.
    """

    __slots__ = (
        "_agent",
        "_audience",
        "_bundle",
        "_connection",
        "_events",
        "_greetings",
        "_heard",
        "_joiner",
        "_key",
        "_outbox",
        "_pretence",
        "_script",
        "_tally",
        "link",
        "lost",
        "name",
        "refused",
        "stopped",
        "welcomed",
    )

    def __init__(
        self,
        name: str,
        script: Script,
        place: Place,
        account: tuple[str | None, str | None],
        audience: Audience,
        tally: Tally,
        started: int,
    ) -> None:
        self.name = name
        self._script, self._audience, self._tally = script, audience, tally
        self._key = mix("loadtest", script.seed, name).to_bytes(8, "little") * 4  # nothing to protect here
        self._pretence = Pretence(name, script, self._key, audience, tally)
        self._greetings = self._connection = 0
        self._bundle: bytes | None = None
        self._events: deque[events.Event] = deque()
        self._joiner: Joiner | None = None
        self._outbox: Outbox | None = None
        self._heard = 0
        self.stopped = self.refused = self.welcomed = False
        self.lost = False  # the connection, and it is to be made again
        hello = script.hello(self._key, started)
        self._agent = agent.Device(name=name, hello=hello, stay=script.stay)
        login = Login(
            client_id=f"hns-{script.topics.federation}-{name}",
            user=account[0],
            password=account[1],
        )
        self.link = Link(place, login, tally, self)

    @property
    def pending(self) -> bool:
        """Whether a mask waits for its receipt."""
        return self._agent.pending is not None

    @property
    def impatient(self) -> bool:
        """Whether time alone may have it do something."""
        waits = self._agent.pending is not None or self._agent.asked_s is not None or self._agent.due
        return waits or not self._agent.ready

    def tick(self) -> None:
        """Time has passed."""
        self._happened(events.Tick())

    def cut_power(self) -> None:
        """Vanish, and be another process when the connection is made again: what is on its card stays."""
        before = self._agent
        hello = self._script.hello(self._key, before.hello.started + 1)
        self._agent = agent.Device(
            name=self.name, hello=hello, stay=self._script.stay, pending=before.pending, confirmed=before.confirmed
        )
        self._greetings, self._connection, self._outbox = 0, 0, None
        self._pretence.stop()
        self._events.clear()
        self.link.forget()
        self.link.drop()

    def leave(self) -> None:
        """Say goodbye, as `hidenseek-edge` does when it is stopped."""
        self.stopped = True
        self._pretence.stop()
        if self.link.online:
            self._announce(online=False)
            self.link.close()

    # What the connection tells.

    def will(self) -> tuple[str, bytes]:
        """See `Listener`."""
        self._connection += 1
        topic = self._script.topics.up(self.name, "state")
        return topic, seal(self._key, topic, self._state(online=False))

    def online(self) -> None:
        """See `Listener`."""
        self.lost = False
        self._happened(events.Online())

    def offline(self, reason: str, *, refused: bool) -> None:
        """See `Listener`."""
        if refused:
            self.refused = True
            self._tally.counts["refused by the broker"] += 1
            self._tally.remark(f"the broker refuses {self.name}: {reason}")
        self.lost = not (self.stopped or self.refused)

    def heard(self, topic: str, payload: bytes) -> None:
        """See `Listener`."""
        if self.stopped:
            return
        try:
            self._joiner = self._joiner or Joiner(messages.MAX_MESSAGE_BYTES)
            whole = self._joiner.add(topic, payload)
            if whole is None:
                return
            self._joiner = None
            everyone = not whole.topic.startswith(self._script.topics.down(self.name))
            message = self._audience.open(whole.topic, whole.data, everyone=everyone)
        except WireError as error:
            self._tally.counts["garbled"] += 1
            self._tally.remark(f"ignored a message on {topic}: {error}")
            return
        self._note(message)
        self._happened(message)

    def _note(self, message: Message) -> None:
        now_s = monotonic_s()
        match message:
            case Federation():
                self._tally.federation = message.name, message.run.hex(), message.rounds
                if self._agent.federation is None:
                    self._listen(self._script.topics.round)  # not before: nobody was trusted yet
            case Round():
                seen = self._tally.round(message.number)
                seen.first_s = seen.first_s or now_s
                if self._heard < message.number:
                    self._heard = message.number
                    seen.heard, seen.last_s = seen.heard + 1, now_s
            case Welcome():
                self.welcomed = True
            case Refusal(code="mask"):
                self._tally.counts["mask refused"] += 1
                self._tally.remark(f"mask refused: {message.reason}")

    # What the agent asks for.

    def _happened(self, event: events.Event) -> None:
        self._events.append(event)
        while self._events and not self.stopped:
            self._agent, actions = agent.handle(self._agent, self._events.popleft(), monotonic_s())
            for action in actions:
                try:
                    self._do(action)
                except WireError as error:
                    self._tally.counts["garbled"] += 1
                    self._tally.remark(f"ignored: {error}")

    def _do(self, action: events.Action) -> None:
        topics = self._script.topics
        match action:
            case events.Subscribe():
                known = (topics.round,) if self._agent.federation is not None else ()
                for topic in (topics.down(self.name), topics.announcement, *known):
                    self._listen(topic)
            case events.SayHello():
                self._greetings += 1
                self._say("hello", replace(self._agent.hello, greetings=self._greetings, connection=self._connection))
                self._announce(online=True)
            case events.OpenBundle():
                digest = action.federation.bundles[self._script.runtime]
                here = self._bundle == digest and self._audience.knows_bundle(digest)
                self._events.append((events.BundleOpened if here else events.BundleNeeded)(digest=digest))
            case events.Download():
                self._listen(topics.bundle(self._script.runtime))
            case events.KeepBundle():
                self._audience.read_bundle(action.digest, BundleBytes(data=action.data))
                self._bundle = action.digest
            case events.TakeVotes():
                announced = action.announced
                self._events.append(
                    events.VotesTaken(run=announced.run, number=announced.number)
                    if self._audience.take_votes(announced)
                    else events.VotesUnusable(base=announced.base)
                )
            case events.AskVotes():
                self._tally.counts["asked for missed votes"] += 1
                self._say("missed", action.missed)
            case events.Evaluate():
                self._say("evaluation", self._pretence.evaluate(action.announced))
            case events.Train():
                assert self._agent.federation is not None
                self._pretence.train(self._agent.federation, action.announced, self._trained)
            case events.StopTraining():
                self._pretence.stop()
            case events.SendMask():
                self._send_mask(action.update, new=action.new)
            case events.DropPending():
                if action.confirmed is None:
                    self._pretence.dropped()
                else:
                    self._pretence.confirmed(action.confirmed[1])
            case events.Log():
                pass
            case events.Stop():
                self._stop(action.error)

    def _listen(self, topic: str) -> None:
        self.link.subscribe(pattern(topic), qos=DEVICE_QOS)

    def _trained(self, update: MaskUpdate) -> None:
        self._happened(events.TrainingDone(update=update))

    def _send_mask(self, update: MaskUpdate, *, new: bool) -> None:
        self._publish(self._pretence.topic, self._pretence.send(update, new=new))
        federation = self._agent.federation
        if not new or federation is None or not federation.telemetry:
            return
        self._outbox = self._outbox or Outbox()
        self._outbox.add(self._pretence.spent(update))
        if rounds := self._outbox.take(monotonic_s()):
            self._say("telemetry", Telemetry(run=update.run, rounds=rounds), qos=0)

    def _stop(self, error: HidenseekError | None) -> None:
        if error is not None:
            self.refused = True
            self._tally.counts["turned away"] += 1
            self._tally.remark(str(error))
        self.leave()

    def _announce(self, *, online: bool) -> None:
        self._say("state", self._state(online=online), retain=True)

    def _state(self, *, online: bool) -> State:
        return State(instance=self._agent.hello.instance, online=online, connection=self._connection)

    def _say(self, kind: str, message: Message, *, retain: bool = False, qos: int = 1) -> None:
        topic = self._script.topics.up(self.name, kind)
        self._publish(topic, seal(self._key, topic, message), retain=retain, qos=qos)

    def _publish(self, topic: str, data: bytes, *, retain: bool = False, qos: int = 1) -> None:
        for part_topic, payload in split(topic, data, self._script.packet_bytes):
            self.link.publish(part_topic, payload, retain=retain, qos=qos)
