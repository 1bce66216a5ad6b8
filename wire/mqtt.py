"""The transport over an MQTT broker. The only file that imports paho.

MQTT 3.1.1 on purpose: it is what every broker speaks (NATS speaks nothing newer), and nothing here
needs more. Sessions are persistent, everything that must arrive is QoS 1, and incoming messages are acknowledged
only when the receiver says so.
"""

from __future__ import annotations

import queue
import random
import ssl
import time
from collections.abc import Callable
from typing import Any

from wire.broker import SECURE, Broker  # before paho: it has a module of the standard library load later
from wire.lazy import load_later

# paho looks for HTTP proxies with it, and otherwise never; with all it imports it is 3 MB of a Pi Zero's memory.
load_later("urllib.request")
load_later("uuid")  # paho names clients with it that have no name; 0.1 MB

import paho.mqtt.client as paho  # noqa: E402
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode  # noqa: E402
from paho.mqtt.reasoncodes import ReasonCode  # noqa: E402

from wire.errors import BrokerRefused, BrokerUnreachable  # noqa: E402
from wire.routes import Routes  # noqa: E402
from wire.tls import certificate_of, refusal, tls_context, unanswered, why  # noqa: E402
from wire.transport import Connected, Disconnected, Event, Packet, Will, monotonic_s  # noqa: E402

KEEPALIVE_S = 60  # 4 bytes each: 5.8 kB a day; a device that vanished is known for it after 90 s
UNAVAILABLE = 0x88  # "Server unavailable": a cluster that elects a leader, a broker that starts
MAX_QUEUED = 65_535  # as many as there are packet numbers
IN_FLIGHT = 100  # sent and not acknowledged yet; what AWS IoT takes of a client, and five times paho's own
ASK_WHY_S = 60.0  # between questions why a broker ends connections without a word
FULL_S = 30.0  # publishing waits so long for room, once all numbers are taken
RETRY_HINT = "Check that the broker runs and that the address is right: hidenseek-edge join --broker mqtt://HOST:PORT"


class MqttTransport:
    """A `wire.transport.Transport` over paho, reconnecting by itself for ever once it has been connected."""

    def __init__(self, broker: Broker, *, client_id: str, will: Will | None = None) -> None:
        """Prepare a connection; nothing is sent before `connect`.

        Args:
            broker: where to.
            client_id: identity of the persistent session; one connection at a time may use it.
            will: what the broker publishes if this process vanishes, said anew for every connection.
        """
        self._broker = broker
        self._events: queue.SimpleQueue[tuple[float, Event]] = queue.SimpleQueue()  # and when each came
        self._lag_s = 0.0
        self._shown: dict[str, Any] = {}  # the broker's certificate
        self._first: Event | None = None
        self._routes = Routes(broker.nodes, discover=broker.discover, certified=broker.certificate is not None)
        self._refusal: str | None = None
        self._unavailable = False
        self._greeted = False  # by the broker, on this connection
        self._asked_s = float("-inf")  # what it has against our certificate
        websocket = broker.scheme in ("ws", "wss")
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=False,
            protocol=paho.MQTTv311,
            transport="websockets" if websocket else "tcp",
            manual_ack=True,
        )
        if websocket:
            self._client.ws_set_options(path=broker.path)
        if broker.scheme in SECURE:
            self._client.tls_set_context(self._routes.named(tls_context(broker)))
        if broker.user is not None:
            self._client.username_pw_set(broker.user, broker.password)
        self._client.max_queued_messages_set(MAX_QUEUED)
        self._client.max_inflight_messages_set(IN_FLIGHT)
        # A fleet that lost its broker must not come back in one instant; paho has no jitter of its own.
        self._client.reconnect_delay_set(min_delay=1, max_delay=random.randint(20, 40))
        self._will = will
        self._number = 0
        self._client.on_pre_connect = self._on_pre_connect
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message

    def connect(self, timeout_s: float, waiting: Callable[[str], None] = lambda reason: None) -> None:
        """Connect for the first time, trying again until `timeout_s` has passed.

        Args:
            timeout_s: how long to keep trying an address that does not answer.
            waiting: told once why it does not answer yet.

        Raises:
            BrokerRefused: if the broker answers and says no.
            BrokerUnreachable: if nothing answers in time.
        """
        deadline = time.monotonic() + timeout_s
        told = False
        while True:
            try:
                self._client.connect(*self._routes.here, keepalive=KEEPALIVE_S)
                break
            except (OSError, ValueError, paho.WebsocketConnectionError) as error:
                reason = why(error)
                if isinstance(error, ssl.SSLError) and not self._routes.is_hearsay:
                    raise refusal(self._broker, error) or BrokerRefused(
                        f"TLS with {self._broker} failed: {reason}", hint="Give the broker's CA with --ca FILE"
                    ) from error
                if time.monotonic() + 0.5 > deadline:
                    raise BrokerUnreachable(
                        f"no broker at {self._broker} within {timeout_s:g} s: {reason}", hint=RETRY_HINT
                    ) from error
                if not told:
                    waiting(reason)
                    told = True
                self._routes.advance(failed=True)
                time.sleep(0.5)
        self._client.loop_start()
        first = self.receive(max(deadline - time.monotonic(), 5.0))
        # A node of a cluster ends connections until all have agreed who leads; meanwhile paho tries again.
        while self._waits(first) and time.monotonic() < deadline:
            first = self.receive(max(deadline - time.monotonic(), 0.1))
        if isinstance(first, Connected):
            # Not back into the queue: what a persistent session held may follow at once, and be there by now.
            self._first = first
            return
        self._client.loop_stop()
        if self._refusal:
            raise BrokerRefused(
                f"the broker at {self._broker} refused the connection: {self._refusal}",
                hint="Check user and password: mqtt://USER@HOST with HIDENSEEK_PASSWORD set, or --password-file",
            )
        if self._broker.scheme in SECURE:  # with TLS 1.3 a client hears last that its certificate is not taken
            raise unanswered(self._broker)
        raise BrokerUnreachable(
            f"{self._broker} accepts connections but does not answer as an MQTT 3.1.1 broker", hint=RETRY_HINT
        )

    def _waits(self, happened: Event | None) -> bool:
        """Whether a first connection that has come to this may still come to be."""
        refused = isinstance(happened, Disconnected) and happened.refused
        return (self._unavailable or bool(self._broker.others)) and not refused and not isinstance(happened, Connected)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> None:
        """See `Transport.publish`."""
        deadline = monotonic_s() + FULL_S
        while self._client.publish(topic, payload, qos=qos, retain=retain).rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
            if not self._client.is_connected() or monotonic_s() > deadline:
                return  # what matters is said again; receipts and votes are asked for
            time.sleep(0.01)

    def subscribe(self, pattern: str, *, qos: int = 1) -> None:
        """See `Transport.subscribe`."""
        self._client.subscribe(pattern, qos=qos)

    def unsubscribe(self, pattern: str) -> None:
        """See `Transport.unsubscribe`."""
        self._client.unsubscribe(pattern)

    def receive(self, timeout_s: float) -> Event | None:
        """See `Transport.receive`."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        try:
            came_s, event = self._events.get(timeout=timeout_s) if timeout_s > 0 else self._events.get_nowait()
        except queue.Empty:
            return None
        self._lag_s = monotonic_s() - came_s
        return event

    def backlog(self) -> tuple[int, float]:
        """See `Transport.backlog`."""
        waiting = self._events.qsize()
        return waiting, self._lag_s if waiting else 0.0

    def close(self, timeout_s: float = 5.0) -> None:
        """Wait until everything published is with the broker, then disconnect.

        A broker that is slow gets the time that it takes; one that acknowledges nothing for `timeout_s` does not.
        """
        # Messages leave paho's table only when acknowledged; there is no public count of them.
        left, deadline = len(self._client._out_messages), time.monotonic() + timeout_s
        while self._client.is_connected() and self._client._out_messages and time.monotonic() < deadline:
            time.sleep(0.02)
            if (waiting := len(self._client._out_messages)) < left:
                left, deadline = waiting, time.monotonic() + timeout_s
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def certificate_end_s(self) -> float | None:
        """When the certificate that the broker has shown ends, seconds since 1970; None without TLS."""
        shown = self._shown  # turned into a number only where somebody asks: devices do not
        return float(ssl.cert_time_to_seconds(str(shown["notAfter"]))) if shown else None

    # Callbacks run on paho's thread, which an exception would end in silence: they only fill the queue.

    def _on_pre_connect(self, client: paho.Client, _u: Any) -> None:
        self._number += 1
        self._greeted = False
        if self._will is not None:
            topic, payload = self._will(self._number)
            client.will_set(topic, payload, qos=1, retain=True)

    def _on_connect(self, _c: Any, _u: Any, _flags: Any, reason: ReasonCode, _p: Any) -> None:
        if reason.is_failure:
            self._refusal = str(reason)
            self._unavailable = reason.value == UNAVAILABLE
            self._put(Disconnected(reason=str(reason), refused=not self._unavailable))
        else:
            self._shown, self._greeted = certificate_of(self._client.socket()), True
            self._put(Connected(number=self._number))

    def _put(self, event: Event) -> None:
        self._events.put((monotonic_s(), event))

    def _try_another(self, *, failed: bool = False) -> None:
        """Let paho's next attempt go to the next node."""
        if self._routes.several:
            self._routes.advance(failed=failed)
            self._client.connect_async(*self._routes.here, keepalive=KEEPALIVE_S)

    def _on_connect_fail(self, _c: Any, _u: Any) -> None:
        self._try_another(failed=True)
        self._put(self._refusal_of_certificate() or Disconnected(reason="no answer"))

    def _on_disconnect(self, _c: Any, _u: Any, _flags: Any, reason: ReasonCode, _p: Any) -> None:
        if reason.is_failure:  # otherwise it was our wish
            self._try_another()
        refused = self._refusal_of_certificate() if reason.is_failure else None
        self._put(refused or Disconnected(reason=str(reason)))

    def _refusal_of_certificate(self) -> Disconnected | None:
        """That our certificate was taken back, or has ended, since it was last taken: it is no use to go on trying."""
        if not self._broker.certificate or self._greeted or time.monotonic() - self._asked_s < ASK_WHY_S:
            return None
        self._asked_s = time.monotonic()
        said = refusal(self._broker)
        return Disconnected(reason=said.what, refused=True) if said else None

    def _on_message(self, client: paho.Client, _u: Any, message: paho.MQTTMessage) -> None:
        def acknowledge() -> None:
            client.ack(message.mid, message.qos)

        self._put(Packet(topic=message.topic, payload=bytes(message.payload), acknowledge=acknowledge))
