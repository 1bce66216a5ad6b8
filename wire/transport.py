"""How bytes travel: the protocol a broker connection fulfils, and an in-memory bus for tests and simulation."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias


@dataclass(frozen=True, kw_only=True)
class Connected:
    """The connection stands; subscriptions must be made (again).

    Attributes:
        number: how many times this transport has set out to connect, failures included.
    """

    number: int = 1


@dataclass(frozen=True, kw_only=True)
class Disconnected:
    """The connection is lost and is being made again; `refused` says the broker will not have us."""

    reason: str
    refused: bool = False


@dataclass(frozen=True, kw_only=True)
class Packet:
    """One payload; `acknowledge` tells the broker that it is safe here."""

    topic: str
    payload: bytes
    acknowledge: Callable[[], None]


Event: TypeAlias = Connected | Disconnected | Packet
Will: TypeAlias = Callable[[int], tuple[str, bytes]]
"""Of a connection's `Connected.number`: topic and retained payload that the broker publishes if it breaks."""


class Transport(Protocol):
    """A connection to a broker. Used from one thread, but for `backlog` and `certificate_end_s`."""

    @property
    def certificate_end_s(self) -> float | None:
        """When the broker's certificate ends, seconds since 1970; None without TLS."""

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> None:
        """Send at least once (QoS 1), kept and repeated while the connection is down; or once at most (QoS 0)."""

    def subscribe(self, pattern: str, *, qos: int = 1) -> None:
        """Ask for every topic matching an MQTT pattern: at least once each, also what comes while away; or QoS 0."""

    def unsubscribe(self, pattern: str) -> None:
        """Take a subscription back; what came before may still be received."""

    def receive(self, timeout_s: float) -> Event | None:
        """Wait for what happens next, at most `timeout_s` seconds; None when nothing did."""

    def backlog(self) -> tuple[int, float]:
        """How many events wait to be received, and how many seconds the last one had waited (0 if none waits)."""

    def close(self) -> None:
        """Say goodbye and wait until everything published has been sent."""


def matches(pattern: str, topic: str) -> bool:
    """Tell whether an MQTT subscription pattern (with + and #) covers a topic."""
    want, have = pattern.split("/"), topic.split("/")
    for i, level in enumerate(want):
        if level == "#":
            return True
        if i >= len(have) or level not in ("+", have[i]):
            return False
    return len(want) == len(have)


@dataclass
class MemoryBus:
    """A broker in memory: retained messages, patterns, last wills; every client in one process."""

    retained: dict[str, bytes] = field(default_factory=dict)
    clients: list[MemoryTransport] = field(default_factory=list)

    def connect(self, *, will: Will | None = None) -> MemoryTransport:
        """Make a client of this bus; `will` is published when it is `kill`ed."""
        client = MemoryTransport(self, will)
        self.clients.append(client)
        client.inbox.put(Connected())
        return client

    def deliver(self, topic: str, payload: bytes, retain: bool) -> None:
        """Hand one message to everyone who asked for it."""
        if retain:
            self.retained[topic] = payload
        for client in list(self.clients):
            client.offer(topic, payload)


@dataclass
class MemoryTransport:
    """One client of a `MemoryBus`; a `Transport`."""

    bus: MemoryBus
    will: Will | None
    patterns: list[str] = field(default_factory=list)
    inbox: queue.SimpleQueue[Event] = field(default_factory=queue.SimpleQueue)
    acknowledged: int = 0
    certificate_end_s: float | None = None

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> None:
        """See `Transport.publish`."""
        self.bus.deliver(topic, payload, retain)

    def subscribe(self, pattern: str, *, qos: int = 1) -> None:
        """See `Transport.subscribe`."""
        if pattern not in self.patterns:
            self.patterns.append(pattern)
        for topic, payload in list(self.bus.retained.items()):
            if matches(pattern, topic):
                self.inbox.put(self._packet(topic, payload))

    def unsubscribe(self, pattern: str) -> None:
        """See `Transport.unsubscribe`."""
        if pattern in self.patterns:
            self.patterns.remove(pattern)

    def receive(self, timeout_s: float) -> Event | None:
        """See `Transport.receive`."""
        try:
            return self.inbox.get(timeout=timeout_s) if timeout_s > 0 else self.inbox.get_nowait()
        except queue.Empty:
            return None

    def backlog(self) -> tuple[int, float]:
        """See `Transport.backlog`."""
        return self.inbox.qsize(), 0.0

    def close(self) -> None:
        """See `Transport.close`."""
        if self in self.bus.clients:
            self.bus.clients.remove(self)

    def kill(self) -> None:
        """Vanish as a process does that was killed: the last will is published."""
        self.close()
        if self.will:
            self.bus.deliver(*self.will(1), True)

    def offer(self, topic: str, payload: bytes) -> None:
        """Put a message into the inbox if any pattern covers its topic."""
        if any(matches(pattern, topic) for pattern in self.patterns):
            self.inbox.put(self._packet(topic, payload))

    def _packet(self, topic: str, payload: bytes) -> Packet:
        return Packet(topic=topic, payload=payload, acknowledge=self._acknowledge)

    def _acknowledge(self) -> None:
        self.acknowledged += 1


def monotonic_s() -> float:
    """Seconds that never go back: the clock of every deadline and timeout here."""
    return time.monotonic()
