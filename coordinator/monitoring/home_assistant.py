"""A federation in Home Assistant: what is published there, when, and how it is taken back.

`coordinator.monitoring.discovery` has the topics and what is said on them. All of it depends on `hns/NAME/home/status`,
which the coordinator's last will sets to offline.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path

from coordinator.brokers.process import write_whole
from coordinator.fleet import Fleet
from coordinator.monitoring import discovery
from coordinator.monitoring.figures import Figures
from coordinator.observer import Observer
from wire.errors import ConfigError, StateError
from wire.federation_messages import MaskUpdate, Telemetry
from wire.topics import Topics
from wire.transport import Transport, Will, monotonic_s

RECORD = "home-assistant.json"  # in the state folder: what was published, so that it can be taken back
PERIOD_S, BURST = 1.0, 200  # devices told of at once: a fleet that comes back must not fill the connection
ONLINE, OFFLINE = b"online", b"offline"


def will(federation: str) -> Will:
    """What the broker says for a coordinator that vanishes, on every connection the same."""
    topic = Topics(federation).home_status
    return lambda number: (topic, OFFLINE)


class HomeAssistant(Observer):
    """Shows a federation and its devices.

    Args:
        federation: its name.
        prefix: Home Assistant's discovery prefix.
        transport: the coordinator's; its last will has to be `will`.
        figures: how things stand; kept by somebody else, who hears of everything before.
        record: file of what was published.
    """

    def __init__(self, federation: str, prefix: str, transport: Transport, figures: Figures, record: Path) -> None:
        self._topics = Topics(federation)
        self._prefix = prefix
        self._transport = transport
        self._figures = figures
        self._record = record
        self._connected = False
        self._described: set[str] = set()  # since the connection was made
        self._recorded: set[str] = set()
        self._waiting: dict[str, None] = {}  # devices that there is something new of
        self._federation: dict[str, object] = {}  # as published last
        self._told_s = 0.0

    def know(self) -> None:
        """Take back what an earlier start told of devices that are gone, and wait to tell of the others."""
        prefix, recorded = read_record(self._record)
        devices = self._figures.devices.keys() - self._figures.revoked_devices
        if prefix == self._prefix:
            withdraw(self._transport, self._topics, prefix, recorded - devices)
            self._recorded = recorded & devices
        else:
            withdraw(self._transport, self._topics, prefix, recorded, whole=True)
        self._waiting = dict.fromkeys(sorted(devices))

    def broker(self, connected: bool) -> None:
        """See `Observer.broker`. After every connection all is told again: a broker may have lost it."""
        self._connected = connected
        if connected:
            self._described.clear()
            self._federation = {}
            self._waiting |= dict.fromkeys(sorted(self._recorded))
            self._transport.publish(self._topics.home_status, ONLINE, retain=True)

    def device(self, name: str, online: bool, fleet: Fleet) -> None:
        """See `Observer.device`."""
        self._changed(name)

    def mask(self, name: str, update: MaskUpdate, payload_bytes: int) -> None:
        """See `Observer.mask`."""
        self._changed(name)

    def telemetry(self, name: str, telemetry: Telemetry) -> None:
        """See `Observer.telemetry`."""
        self._changed(name)

    def revoked(self, name: str) -> None:
        """See `Observer.revoked`."""
        self._waiting.pop(name, None)
        self._described.discard(name)
        withdraw(self._transport, self._topics, self._prefix, [name])
        self._write(self._recorded - {name})

    def tick(self) -> None:
        """See `Observer.tick`."""
        if not self._connected or monotonic_s() - self._told_s < PERIOD_S:
            return
        self._told_s = monotonic_s()
        batch = list(islice(self._waiting, BURST))
        # Written down first: what is published and not recorded would never be taken back.
        self._write(self._recorded | set(batch))
        self._tell_federation()
        for name in batch:
            del self._waiting[name]
            figures = self._figures.devices[name]
            if name not in self._described:
                described = discovery.describe_device(self._topics, name, figures)
                self._publish(discovery.device_topic(self._prefix, self._topics, name), described)
                self._described.add(name)
            self._publish(self._topics.home_device(name), discovery.device_state(figures))

    def close(self) -> None:
        """Say that nothing is known any more, until the next start."""
        self._transport.publish(self._topics.home_status, OFFLINE, retain=True)

    def _changed(self, name: str) -> None:
        if name not in self._figures.revoked_devices:
            self._waiting[name] = None

    def _tell_federation(self) -> None:
        state = discovery.federation_state(self._figures)
        if not self._federation:
            described = discovery.describe_federation(self._topics)
            self._publish(discovery.federation_topic(self._prefix, self._topics), described)
        if state != self._federation:
            self._publish(self._topics.home_federation, state)
            self._federation = state

    def _publish(self, topic: str, content: Mapping[str, object]) -> None:
        data = json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
        self._transport.publish(topic, data, retain=True)

    def _write(self, devices: set[str]) -> None:
        if devices != self._recorded or not self._record.exists():
            content = {"prefix": self._prefix, "devices": sorted(devices)}
            write_whole(self._record, json.dumps(content).encode() + b"\n", 0o644)
            self._recorded = devices


def withdraw(transport: Transport, topics: Topics, prefix: str, devices: Iterable[str], *, whole: bool = False) -> None:
    """Take devices, and if wanted the federation, out of Home Assistant again: empty retained messages."""
    gone = [
        topic for name in devices for topic in (discovery.device_topic(prefix, topics, name), topics.home_device(name))
    ]
    if whole:
        gone += [discovery.federation_topic(prefix, topics), topics.home_federation, topics.home_status]
    for topic in gone:
        transport.publish(topic, b"", retain=True)


def withdraw_all(transport: Transport, federation: str, record: Path) -> bool:
    """Take back all that an earlier start has published, if it has; whether it had.

    Raises:
        StateError: if the record is damaged.
    """
    if not record.exists():
        return False
    prefix, devices = read_record(record)
    withdraw(transport, Topics(federation), prefix, devices, whole=True)
    record.unlink()
    return True


def read_record(record: Path) -> tuple[str, set[str]]:
    """Prefix and devices that were published; the default and none if nothing was.

    Raises:
        StateError: if it is damaged.
    """
    try:
        found = json.loads(record.read_text())
        return discovery.check_prefix(found["prefix"]), {name for name in found["devices"] if isinstance(name, str)}
    except FileNotFoundError:
        return discovery.DEFAULT_PREFIX, set()
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise StateError(
            f"damaged ({error})", where=str(record), hint="Remove it; what it named stays in Home Assistant"
        ) from error
