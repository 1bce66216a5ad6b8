"""One device's connection to a broker, among thousands in one thread: asyncio beneath, few bytes for each."""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass
from typing import Protocol

from coordinator import mqtt_packets as packets
from coordinator.loadtest.tally import Tally
from coordinator.mqtt_packets import Login, Reader
from wire.errors import WireError
from wire.transport import monotonic_s

CONNECT_S = 30.0
LAST_NUMBER = 65_535
KINDS = {
    packets.CONNACK: "connack",
    packets.PUBLISH: "publish",
    packets.PUBACK: "puback",
    packets.SUBACK: "suback",
    packets.PINGRESP: "pong",
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the broker is, for all devices of a process.

    Attributes:
        nodes: host and port of each of the cluster's nodes, hosts as numbers.
        server_name: what its certificate must say; None without TLS.
        context: of TLS.
        keepalive_s: a connection says something at least so often.
    """

    nodes: tuple[tuple[str, int], ...]
    keepalive_s: int
    server_name: str | None = None
    context: ssl.SSLContext | None = None


class Listener(Protocol):
    """Whose connection it is."""

    def will(self) -> tuple[str, bytes] | None:
        """Topic and retained payload for the broker to publish when the connection that is now made is lost."""

    def online(self) -> None:
        """It stands."""

    def offline(self, reason: str, *, refused: bool) -> None:
        """It is lost, or the broker has said no."""

    def heard(self, topic: str, payload: bytes) -> None:
        """A message has come."""


class Link(asyncio.Protocol):
    """A persistent session: what was published stays until the broker has acknowledged it, over many connections."""

    __slots__ = (
        "_answered",
        "_heard_s",
        "_number",
        "_place",
        "_reader",
        "_said_s",
        "_tally",
        "_timer",
        "_transport",
        "_unacknowledged",
        "listener",
        "login",
    )

    def __init__(self, place: Place, login: Login, tally: Tally, listener: Listener) -> None:
        self.login, self.listener = login, listener
        self._place, self._tally = place, tally
        self._transport: asyncio.Transport | None = None
        self._reader = Reader()
        self._unacknowledged: dict[int, bytes] = {}
        self._number = 0
        self._answered: bool | None = None  # by the broker; None: asked, or not asked yet
        self._timer: asyncio.TimerHandle | None = None
        self._heard_s = self._said_s = 0.0  # when the broker had last said something, and when we had

    @property
    def online(self) -> bool:
        """Whether the broker has let the device in, and the connection stands."""
        return self._transport is not None and self._answered is True

    async def open(self, source: tuple[str, int] | None, node: int = 0, *, clean: bool = False) -> None:
        """Connect; how that ends, the listener is told.

        Args:
            source: local address; None: the system's choice.
            node: which of the broker's.
            clean: have the broker forget the session.
        """
        host, port = self._place.nodes[node % len(self._place.nodes)]
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_S):
                await loop.create_connection(
                    lambda: self,
                    host,
                    port,
                    local_addr=source,
                    ssl=self._place.context,
                    server_hostname=self._place.server_name,
                )
        except (OSError, TimeoutError) as error:
            self._tally.counts["connection failed"] += 1
            self.listener.offline(_why(error), refused=isinstance(error, ssl.SSLCertVerificationError))
            return
        hello = packets.connect(self.login, self.listener.will(), keepalive_s=self._place.keepalive_s, clean=clean)
        self._send("connect", hello)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> None:
        """Send now if there is a connection, and (QoS 1) again with the next one until it is acknowledged."""
        number = self._next() if qos else None
        packet = packets.publish(topic, payload, number=number, retain=retain)
        if number is not None:
            self._unacknowledged[number] = packet
        self._send("publish", packet)

    def subscribe(self, pattern: str, *, qos: int = 1) -> None:
        """Ask for a pattern; nothing happens without a connection."""
        self._send("subscribe", packets.subscribe(pattern, self._next(), qos))

    @property
    def unacknowledged(self) -> int:
        """Messages that the broker has not acknowledged."""
        return len(self._unacknowledged)

    def drop(self) -> None:
        """Vanish without a word, as a device that loses power: the broker publishes its will."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Say goodbye."""
        if self._transport is not None:
            self._send("goodbye", packets.GOODBYE)
            self._transport.close()

    def forget(self) -> None:
        """Lose what was not acknowledged, as a process does that is started anew."""
        self._unacknowledged.clear()

    # What asyncio tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        made = transport.get_extra_info("socket")
        if made is not None:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._transport, self._reader, self._answered = transport, Reader(), None

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._answered is False:
            return  # the listener was told why
        self._answered = None
        self.listener.offline(_why(exc) if exc else "closed", refused=False)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        try:
            for first, body in self._reader.feed(data):
                self._on_packet(first, body)
        except WireError as error:
            self._tally.remark(f"the broker says what is no MQTT 3.1.1: {error}")
            self.drop()

    def _on_packet(self, first: int, body: bytes) -> None:
        kind = first >> 4
        self._count("in", KINDS.get(kind, "other"), _packet_bytes(body))
        self._heard_s = monotonic_s()
        match kind:
            case packets.PUBLISH:
                topic, payload, number = packets.read_publish(first, body)
                if number is not None:
                    self._send("puback", packets.acknowledge(number))
                self.listener.heard(topic, payload)
            case packets.PUBACK:
                self._unacknowledged.pop(packets.number_of(body), None)
            case packets.SUBACK if body[2:] == packets.NOT_SUBSCRIBED:
                self._tally.counts["subscription refused"] += 1
                self._tally.remark(f"the broker lets {self.login.client_id} subscribe to less than it has to")
            case packets.CONNACK:
                self._on_answer(body)

    def _on_answer(self, body: bytes) -> None:
        code = body[1] if len(body) == 2 else -1
        self._answered = code == 0
        if code != 0:
            reason = packets.REFUSED.get(code, f"answer {code}")
            self.drop()
            self.listener.offline(reason, refused=code != packets.UNAVAILABLE)
            return
        self._wake_in(self._place.keepalive_s)
        for packet in list(self._unacknowledged.values()):
            self._send("publish", packets.again(packet))
        self.listener.online()

    # Keepalive. A broker drops whom it has not heard for one and a half of it, however much it has told them meanwhile:
    # what is heard with QoS 0 is not answered.

    def _wake_in(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._keep_alive)

    def _keep_alive(self) -> None:
        now_s = monotonic_s()
        silent_s = now_s - min(self._heard_s, self._said_s)
        if now_s - self._heard_s > 2 * self._place.keepalive_s:
            self._tally.counts["no answer to a ping"] += 1
            self.drop()
        elif silent_s < self._place.keepalive_s:
            self._wake_in(self._place.keepalive_s - silent_s)
        else:
            self._send("ping", packets.PING)
            self._wake_in(self._place.keepalive_s)

    def _send(self, kind: str, packet: bytes) -> None:
        if self._transport is None or (self._answered is not True and kind != "connect"):
            return
        self._transport.write(packet)
        self._said_s = monotonic_s()
        self._count("out", kind, len(packet))

    def _count(self, direction: str, kind: str, size: int) -> None:
        counts = self._tally.counts
        counts[f"{direction} {kind}"] += 1
        counts[f"{direction} {kind} bytes"] += size

    def _next(self) -> int:
        while True:
            self._number = self._number % LAST_NUMBER + 1
            if self._number not in self._unacknowledged:
                return self._number


def _packet_bytes(body: bytes) -> int:
    size = len(body)
    return size + 2 + (size > 0x7F) + (size > 0x3FFF) + (size > 0x1FFFFF)


def _why(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS failed: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "timed out"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
