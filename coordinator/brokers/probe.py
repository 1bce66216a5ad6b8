"""An MQTT 3.1.1 client that does what no device does: asks what it may not, vanishes, speaks old TLS. One thread."""

from __future__ import annotations

import secrets
import socket
import ssl
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from wire.broker import SECURE, Broker

KEEPALIVE_S = 30
ANSWER_S = 5.0
WINDOW = 200  # messages on their way at once


@dataclass(frozen=True, kw_only=True)
class Heard:
    """One message that came."""

    topic: str
    payload: bytes
    retained: bool


def context(ca: Path | None, *, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """TLS that trusts a certificate authority (the system's if None), of one version alone if one is given.

    Versions that OpenSSL no longer speaks by itself are asked for in earnest: whoever refuses them, it is not we.
    """
    made = ssl.create_default_context(cafile=str(ca) if ca else None)
    if version is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that the old versions are insecure is the point
            made.set_ciphers("ALL:@SECLEVEL=0")
            made.minimum_version = version
            made.maximum_version = version
    return made


class Probe:
    """One client.

    Args:
        broker: where to; its user and password are those of the account.
        client_id: of its session; a random one if empty.
        clean: forget the session at the end.
        tls: instead of one that trusts the broker's `ca`.
        will: topic and payload that the broker publishes if it vanishes.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        client_id: str = "",
        clean: bool = True,
        tls: ssl.SSLContext | None = None,
        will: tuple[str, bytes] | None = None,
    ) -> None:
        self._broker = broker
        self.heard: list[Heard] = []
        self._answer: ReasonCode | None = None
        self._granted: dict[int, bool] = {}
        self.answered: set[int] = set()  # numbers of messages that the broker has confirmed
        websocket = broker.scheme in ("ws", "wss")
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id or f"hns-check-{secrets.token_hex(6)}",
            clean_session=clean,
            protocol=paho.MQTTv311,
            transport="websockets" if websocket else "tcp",
            reconnect_on_failure=False,
        )
        if websocket:
            self._client.ws_set_options(path=broker.path)
        if broker.scheme in SECURE:
            self._client.tls_set_context(tls or context(broker.ca))
        if broker.user is not None:
            self._client.username_pw_set(broker.user, broker.password)
        if will is not None:
            self._client.will_set(will[0], will[1], qos=1, retain=False)
        self._client.connect_timeout = ANSWER_S
        self._client.max_inflight_messages_set(WINDOW)
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.on_subscribe = self._on_subscribe
        self._client.on_publish = self._on_publish

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self, timeout_s: float = 10.0) -> str:
        """Connect; empty if the broker takes us, else why not.

        Raises:
            ssl.SSLError: if there is no TLS to be had.
            OSError: if nothing answers.
        """
        self._answer = None
        try:
            self._client.connect(self._broker.host, self._broker.port, keepalive=KEEPALIVE_S)
        except paho.WebsocketConnectionError as error:
            raise ConnectionError(f"no websocket: {error}") from error
        self.spin(lambda: self._answer is not None, timeout_s)
        if self._answer is None:
            return "closed without an answer" if not self._client.is_connected() else "no answer"
        return str(self._answer) if self._answer.is_failure else ""

    def subscribe(self, pattern: str, timeout_s: float = 5.0) -> bool:
        """Ask for a filter with QoS 1; whether the broker says that it is granted."""
        _, number = self._client.subscribe(pattern, qos=1)
        self.spin(lambda: number in self._granted, timeout_s)
        return self._granted.get(number or 0, False)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Publish with QoS 1; its number."""
        return self._client.publish(topic, payload, qos=1, retain=retain).mid

    def confirmed(self, numbers: list[int], timeout_s: float = 10.0) -> int:
        """Wait until the broker has confirmed these; how many it has."""
        self.spin(lambda: self.answered.issuperset(numbers), timeout_s)
        return len(self.answered.intersection(numbers))

    def wait(self, topic: str, payload: bytes, timeout_s: float = 5.0) -> bool:
        """Wait for a message; whether it came."""
        return self.spin(lambda: any((one.topic, one.payload) == (topic, payload) for one in self.heard), timeout_s)

    def spin(self, until: Callable[[], bool], timeout_s: float) -> bool:
        """Let the client work until something holds; whether it does."""
        deadline = time.monotonic() + timeout_s
        while not until():
            if time.monotonic() > deadline:
                return False
            if self._client.loop(0.02) != paho.MQTT_ERR_SUCCESS:
                return until()
        return True

    @property
    def connected(self) -> bool:
        """Whether the broker has not ended the connection."""
        return self._client.is_connected()

    def vanish(self) -> None:
        """End the connection as a power cut does: without a word."""
        end: Any = self._client.socket()
        if end is not None:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        """Say goodbye."""
        with suppress(OSError, ValueError):
            self._client.disconnect()
            self.spin(lambda: not self._client.is_connected(), 1.0)
        self.vanish()

    def _on_connect(self, _c: Any, _u: Any, _flags: Any, reason: ReasonCode, _p: Any) -> None:
        self._answer = reason

    def _on_message(self, _c: Any, _u: Any, message: paho.MQTTMessage) -> None:
        self.heard.append(Heard(topic=message.topic, payload=bytes(message.payload), retained=message.retain))

    def _on_subscribe(self, _c: Any, _u: Any, number: int, reasons: list[ReasonCode], _p: Any) -> None:
        self._granted[number] = not any(reason.is_failure for reason in reasons)

    def _on_publish(self, _c: Any, _u: Any, number: int, _reason: ReasonCode, _p: Any) -> None:
        self.answered.add(number)
