"""Who reads and writes what, each tried both ways: what must arrive does, and what must not does not.

What a broker says of it proves nothing (mosquitto grants subscriptions that it then does not serve, and confirms
messages that it drops), so every trial ends with a message that is allowed: when it has come, so would the other.
"""

from __future__ import annotations

from contextlib import ExitStack

from coordinator.brokers.checks.rows import Table, Target, unique
from coordinator.brokers.probe import Probe

SIDE = "topics"
GRACE_S = 0.3


def check(target: Target, table: Table) -> None:
    """Try what two devices and the coordinator may, and what they may not."""
    if target.coordinator is None or target.pair is None:
        table.skip(SIDE, "who reads and writes what", "needs accounts of the coordinator and of two devices")
        return
    with ExitStack() as stack:
        users = (target.coordinator, *target.pair)
        probes = [stack.enter_context(Probe(target.account(user))) for user in users]
        for user, probe in zip(users, probes, strict=True):
            refusal = probe.connect()
            if refusal:
                table.add(SIDE, f"{user} connects", "accepted", refusal, False)
                return
        trial = _Trial(target, table, stack, *probes)
        trial.writes()
        trial.reads()


class _Trial:
    def __init__(self, target: Target, table: Table, stack: ExitStack, hub: Probe, one: Probe, other: Probe) -> None:
        assert target.pair is not None
        self.target, self.root, self.table, self.stack = target, target.root, table, stack
        self.hub, self.one, self.other = hub, one, other
        self.me, self.neighbour = target.pair
        self.word = unique()

    def writes(self) -> None:
        """A device writes on its own topics and nowhere else."""
        root, word = self.root, self.word
        self.hub.subscribe(f"{root}/up/#")
        self.other.subscribe(f"{root}/all/#")
        self.other.subscribe(f"{root}/down/{self.neighbour}/#")
        own = f"{root}/up/{self.me}/check-{word}"
        forbidden = (
            ("as another device", f"{root}/up/{self.neighbour}/check-{word}", self.hub),
            ("to everyone, as the coordinator does", f"{root}/all/check-{word}", self.other),
            ("to another device", f"{root}/down/{self.neighbour}/check-{word}", self.other),
        )
        for _, topic, _ in forbidden:
            self._say(self._device(), topic, b"forged")
        self._say(self._device(), own, b"own")
        came = self.hub.wait(own, b"own")
        self._tell("device writes its own topics", True, came)
        self._say(self.hub, f"{root}/all/check-{word}-end", b"end")
        came = self.other.wait(f"{root}/all/check-{word}-end", b"end")
        self._tell("coordinator writes to everyone", True, came)
        for words, topic, listener in forbidden:
            listener.spin(lambda: False, GRACE_S / 3)
            heard = any(message.topic == topic for message in listener.heard)
            self._tell(f"device writes {words}", False, heard)

    def reads(self) -> None:
        """A device reads its own topics and what is for everyone, and nothing else."""
        root, word = self.root, self.word
        self._heard_by_device("own topics", True, f"{root}/down/{self.me}/#", f"{root}/down/{self.me}", self.hub)
        self._heard_by_device(
            "what is for another device",
            False,
            f"{root}/down/{self.neighbour}/#",
            f"{root}/down/{self.neighbour}",
            self.hub,
        )
        mask = f"{root}/up/{self.neighbour}/mask-{word}"
        self._heard_by_device("another device's masks", False, f"{root}/up/#", mask, self.other)
        self._heard_by_device("anything, by #", False, "#", mask, self.other)
        self._heard_by_device("anything, by +/+/+/+/+", False, "+/+/+/+/+", mask, self.other)
        # Where NATS delivers to its MQTT clients: a device's account has to be able to read there.
        self._heard_by_device("other clients' deliveries ($MQTT/#)", False, "$MQTT/#", mask, self.other)
        self._heard_by_device("other clients' deliveries ($MQTT/sub/#)", False, "$MQTT/sub/#", mask, self.other)
        self._device()
        granted = self.one.subscribe("$SYS/#")
        self.one.spin(lambda: any(m.topic.startswith("$SYS") for m in self.one.heard), 1.0)
        heard = any(m.topic.startswith("$SYS") for m in self.one.heard)
        self._tell(f"device reads the broker's own figures ($SYS{', granted' if granted else ''})", False, heard)

    def _heard_by_device(self, words: str, allowed: bool, pattern: str, topic: str, speaker: Probe) -> None:
        for ask in (f"{self.root}/all/#", pattern):
            self._device().subscribe(ask)
        payload = unique().encode()
        self._say(speaker, topic, payload)
        end = f"{self.root}/all/check-{unique()}"
        self._say(self.hub, end, payload)
        if self.one.connected:  # otherwise the broker has ended the connection for what was asked
            self.one.wait(end, payload, 3.0)
        self.one.spin(lambda: False, GRACE_S)
        # By payload: what is delivered may be read under another name.
        heard = any(payload in message.payload and message.topic != end for message in self.one.heard)
        self._tell(f"device reads {words}", allowed, heard)

    def _device(self) -> Probe:
        """The device, connected: some brokers end the connection of who goes too far.

        With another client then: the same one would repeat what has not been confirmed.
        """
        if not self.one.connected:
            self.one = self.stack.enter_context(Probe(self.target.account(self.me)))
            self.one.connect()
        return self.one

    @staticmethod
    def _say(probe: Probe, topic: str, payload: bytes) -> None:
        """Publish, and wait until the broker has said something to it."""
        number = probe.publish(topic, payload)
        probe.spin(lambda: number in probe.answered or not probe.connected, 1.0)

    def _tell(self, what: str, allowed: bool, happened: bool) -> None:
        words = {True: "arrives", False: "does not arrive"}
        self.table.add(SIDE, what, words[allowed], words[happened], allowed == happened)
