"""A broker connection for whoever hears thousands of messages a second: many at a time, in the thread that wants them.

paho takes a packet from the socket in several reads, hands it to another thread, and sends every acknowledgement by
itself: some 200 us a message. Here a read takes what has come, and acknowledgements and messages leave together when
there is nothing more to take out. It keeps what `wire.mqtt` promises: MQTT 3.1.1, a persistent session, acknowledged
when the receiver says so, sent again until acknowledged, connecting again for ever. No websockets.
"""

from __future__ import annotations

import random
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable

from coordinator import mqtt_packets as packets
from coordinator.mqtt_packets import Login, Reader
from wire.broker import SECURE, Broker
from wire.errors import BrokerRefused, BrokerUnreachable, WireError
from wire.mqtt import KEEPALIVE_S, RETRY_HINT
from wire.routes import Routes
from wire.tls import tls_context, unanswered, why
from wire.transport import Connected, Disconnected, Event, Packet, monotonic_s

READ_BYTES = 1 << 18
READS = 16  # of the socket, before what came is looked at
FULL_BYTES = 1 << 20  # waiting to be sent: it is sent before more is taken
CONNECT_S = 5.0
RETRY_S = 1.0, 30.0  # between attempts to connect again: the shortest and the longest wait
LAST_NUMBER = 65_535
BLOCKED = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class BulkTransport:
    """A `wire.transport.Transport`.

    Args:
        broker: where to; mqtt or mqtts.
        client_id: identity of the persistent session.
    """

    def __init__(self, broker: Broker, *, client_id: str) -> None:
        self._broker = broker
        self._login = Login(client_id=client_id, user=broker.user, password=broker.password)
        self._routes = Routes(broker.nodes, discover=broker.discover)
        self._tls = self._routes.named(tls_context(broker)) if broker.scheme in SECURE else None
        self._socket: socket.socket | None = None
        self._reader = Reader()
        self._answered = False  # by the broker, with yes
        self._events: deque[Event] = deque()
        self._out = bytearray()
        self._unacknowledged: dict[int, bytes] = {}
        self._number = 0
        self._attempts = 0
        self._met = False  # something that takes connections
        self._retry_s, self._wait_s = 0.0, RETRY_S[0]
        self._said_s = self._heard_s = 0.0
        self.certificate_end_s: float | None = None

    def connect(self, timeout_s: float, waiting: Callable[[str], None] = lambda reason: None) -> None:
        """Connect for the first time, trying again until `timeout_s` has passed.

        Args:
            timeout_s: how long to keep trying an address that does not answer.
            waiting: told once why it does not answer yet.

        Raises:
            BrokerRefused: if the broker answers and says no.
            BrokerUnreachable: if nothing answers in time.
        """
        deadline, told = monotonic_s() + timeout_s, False
        while True:
            reason = self._try(max(deadline - monotonic_s(), 0.1))
            if not reason:
                return
            if monotonic_s() + 0.5 > deadline:
                if self._met and self._tls is not None:
                    raise unanswered(self._broker)
                raise BrokerUnreachable(
                    f"no broker at {self._broker} within {timeout_s:g} s: {reason}", hint=RETRY_HINT
                )
            if not told:
                waiting(reason)
                told = True
            time.sleep(0.5)

    def _try(self, timeout_s: float) -> str:
        """Connect and wait for the broker's answer; why there is no connection, or "".

        Raises:
            BrokerRefused: if the broker says no, or its certificate is not the one expected.
        """
        if reason := self._open(min(timeout_s, CONNECT_S)):
            return reason
        deadline = monotonic_s() + min(timeout_s, CONNECT_S)
        while not self._events:
            if monotonic_s() > deadline:
                self._drop("it accepts connections but does not answer as an MQTT 3.1.1 broker")
            else:
                self._turn(0.1)
        if isinstance(self._events[0], Connected):
            return ""  # it may be lost again already, which is the next event
        lost = self._events.popleft()
        assert isinstance(lost, Disconnected)
        if lost.refused:
            raise BrokerRefused(
                f"the broker at {self._broker} refused the connection: {lost.reason}",
                hint="Check user and password: mqtt://USER@HOST with HIDENSEEK_PASSWORD set, or --password-file",
            )
        return lost.reason

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> None:
        """See `Transport.publish`."""
        number = self._next() if qos else None
        packet = packets.publish(topic, payload, number=number, retain=retain)
        if number is not None:
            self._unacknowledged[number] = packet
        self._say(packet)

    def subscribe(self, pattern: str, *, qos: int = 1) -> None:
        """See `Transport.subscribe`."""
        self._say(packets.subscribe(pattern, self._next(), qos))

    def unsubscribe(self, pattern: str) -> None:
        """See `Transport.unsubscribe`."""
        self._say(packets.unsubscribe(pattern, self._next()))

    def receive(self, timeout_s: float) -> Event | None:
        """See `Transport.receive`."""
        until_s = monotonic_s() + timeout_s
        while not self._events:
            self._turn(max(until_s - monotonic_s(), 0))
            if monotonic_s() >= until_s:
                break
        return self._events.popleft() if self._events else None

    def backlog(self) -> tuple[int, float]:
        """See `Transport.backlog`."""
        return len(self._events), 0.0

    def close(self, timeout_s: float = 5.0) -> None:
        """See `Transport.close`; a broker that acknowledges nothing for so long is not waited for."""
        left, deadline = len(self._unacknowledged), monotonic_s() + timeout_s
        while self._answered and (self._unacknowledged or self._out) and monotonic_s() < deadline:
            self._turn(0.05)
            if len(self._unacknowledged) < left:
                left, deadline = len(self._unacknowledged), monotonic_s() + timeout_s
        if self._socket is not None:
            if self._answered:
                self._out += packets.GOODBYE
                self._flush()
            self._socket.close()
            self._socket, self._answered = None, False

    # One connection: opened, used, lost.

    def _open(self, timeout_s: float) -> str:
        """Open a connection and introduce ourselves; why that failed, or ""."""
        self._attempts += 1
        host, port = self._routes.here
        try:
            made = socket.create_connection((host, port), timeout_s)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                made = self._tls.wrap_socket(made, server_hostname=host)
        except (OSError, ValueError) as error:
            if isinstance(error, ssl.SSLError) and self._attempts == 1 and not self._routes.is_hearsay:
                raise BrokerRefused(
                    f"TLS with {self._broker} failed: {why(error)}", hint="Give the broker's CA with --ca FILE"
                ) from error
            self._routes.advance(failed=True)
            return why(error) if isinstance(error, OSError) else str(error)
        made.setblocking(False)
        self._met = True
        self._socket, self._reader, self._answered = made, Reader(), False
        self._said_s = self._heard_s = monotonic_s()
        self._out = bytearray(packets.connect(self._login, None, keepalive_s=KEEPALIVE_S))
        return ""

    def _drop(self, reason: str, *, refused: bool = False) -> None:
        """The connection is lost."""
        if self._socket is not None:
            self._socket.close()
            self._routes.advance(failed=not self._answered)
        self._socket, self._answered = None, False
        self._out.clear()
        self._retry_s = monotonic_s() + random.uniform(0.5, 1) * self._wait_s
        self._wait_s = min(2 * self._wait_s, RETRY_S[1])
        self._events.append(Disconnected(reason=reason, refused=refused))

    def _say(self, packet: bytes) -> None:
        """Send with what is said next; nothing, if there is no connection."""
        if self._answered:
            self._out += packet
            if len(self._out) > FULL_BYTES:
                self._flush()

    def _turn(self, timeout_s: float) -> None:
        """Send what is to be said, wait for the broker so long at most, and take what it says."""
        now_s = monotonic_s()
        if self._socket is None:
            if now_s < self._retry_s:
                time.sleep(min(timeout_s, self._retry_s - now_s))
                return
            if reason := self._open(CONNECT_S):
                self._drop(reason)
                return
        self._keep_alive(now_s)
        self._flush()
        if self._socket is None:
            return
        waits = [self._socket] if self._out else []
        pending = isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()
        readable, _, _ = select.select([self._socket], waits, [], 0 if pending else timeout_s)
        if readable or pending:
            self._take_in(self._socket)

    def _keep_alive(self, now_s: float) -> None:
        if self._answered and now_s - max(self._said_s, self._heard_s) > KEEPALIVE_S / 2:
            self._out += packets.PING
        elif now_s - self._heard_s > 1.5 * KEEPALIVE_S or (not self._answered and now_s - self._said_s > 2 * CONNECT_S):
            self._drop("it is silent")

    def _flush(self) -> None:
        """Send as much as the system takes."""
        try:
            while self._out and self._socket is not None:
                sent = self._socket.send(self._out)
                del self._out[:sent]
                self._said_s = monotonic_s()
        except BLOCKED:
            return
        except OSError as error:
            self._drop(why(error))

    def _take_in(self, connection: socket.socket) -> None:
        try:
            for _ in range(READS):
                data = connection.recv(READ_BYTES)
                if not data:
                    self._drop("the broker ends the connection")
                    return
                self._heard_s = monotonic_s()
                for first, body in self._reader.feed(data):
                    self._on_packet(first, body)
                if self._socket is not connection:
                    return
        except BLOCKED:
            return
        except OSError as error:
            self._drop(why(error))
        except WireError as error:
            self._drop(f"what the broker says is no MQTT 3.1.1: {error}")

    def _on_packet(self, first: int, body: bytes) -> None:
        match first >> 4:
            case packets.PUBLISH:
                topic, payload, number = packets.read_publish(first, body)
                self._events.append(Packet(topic=topic, payload=payload, acknowledge=self._acknowledgement(number)))
            case packets.PUBACK:
                self._unacknowledged.pop(packets.number_of(body), None)
            case packets.CONNACK:
                self._on_answer(body[1] if len(body) == 2 else -1)

    def _acknowledgement(self, number: int | None) -> Callable[[], None]:
        """What acknowledges a packet; nothing if it came on a connection that is no more, for it comes again."""
        if number is None:
            return lambda: None
        connection, packet = self._socket, packets.acknowledge(number)

        def acknowledge() -> None:
            if self._socket is connection:
                self._say(packet)

        return acknowledge

    def _on_answer(self, code: int) -> None:
        if code != 0:
            reason = packets.REFUSED.get(code, f"answer {code}")
            self._drop(reason, refused=code != packets.UNAVAILABLE)
            return
        self._answered, self._wait_s = True, RETRY_S[0]
        for packet in self._unacknowledged.values():
            self._out += packets.again(packet)
        self._events.append(Connected(number=self._attempts))

    def _next(self) -> int:
        while True:
            self._number = self._number % LAST_NUMBER + 1
            if self._number not in self._unacknowledged:
                return self._number
