"""A run as metrics for Prometheus: what is counted while it goes on, and how it stands when somebody collects."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coordinator.database import measure
from coordinator.monitoring.figures import DeviceFigures, Figures
from coordinator.observer import Observer
from coordinator.place import Place
from coordinator.rounds import Schedule
from coordinator.store import Store
from wire import __version__
from wire.channel import Channel
from wire.federation_messages import Evaluation, MaskUpdate
from wire.topics import UP_KINDS

MOST_DEVICES = 500  # with series of their own: of a large fleet they would burden whoever collects them
ROUND_S = (0.1, 0.3, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 4 * 3600)
TRAIN_S = (0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600, 1800)
COMMIT_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
_RUN: tuple[tuple[str, str, Callable[[Figures], float | None]], ...] = (
    ("round", "Round that is open, or was last; one more than planned at the end.", lambda run: run.round),
    ("round_opened_timestamp_seconds", "When it was announced.", lambda run: run.opened_s),
    ("round_selected_devices", "Devices that it asks.", lambda run: run.selected),
    ("round_masks", "Masks that it has.", lambda run: run.masks),
    ("devices_online", "Devices that are online.", lambda run: run.online),
    ("devices_known", "Devices that were ever seen, and may take part.", lambda run: run.known),
    ("devices_revoked", "Devices that take part no more.", lambda run: len(run.revoked_devices)),
    ("held_out_accuracy_ratio", "Of the global network on the coordinator's samples.", lambda run: run.held_out),
    ("own_accuracy_ratio", "Of devices' own signs on their test samples, mean of a round.", lambda run: run.own),
    ("seen_accuracy_ratio", "Of the global network on the devices' test samples.", lambda run: run.seen),
)
_DEVICE: tuple[tuple[str, str, Callable[[DeviceFigures], float | None]], ...] = (
    ("device_online", "Whether a device is online.", lambda device: device.online),
    ("device_round", "Newest round that it sent a mask for.", lambda device: device.round),
    ("device_mask_timestamp_seconds", "When its last mask was stored.", lambda device: device.mask_s),
    ("device_accuracy_ratio", "Of its own signs on its test samples.", lambda device: device.accuracy),
    ("device_temperature_celsius", "Its processor, after training.", lambda device: device.temperature_c),
    ("device_memory_bytes", "Resident memory of its process, after training.", lambda device: device.memory_bytes),
)


class Metrics(Observer):
    """Counts what happens in a run.

    Args:
        federation: label of everything.
        schedule: of the run.
        figures: how it stands; kept by somebody else.

    Attributes:
        registry: all metrics of the run, and of this process.
    """

    def __init__(self, federation: str, schedule: Schedule, figures: Figures) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._federation = federation

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"hidenseek_{name}", text, ["federation"], registry=self.registry).labels(federation)

        def counter(name: str, text: str) -> Counter:
            return Counter(f"hidenseek_{name}", text, ["federation"], registry=self.registry).labels(federation)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            found = Histogram(f"hidenseek_{name}", text, ["federation"], registry=self.registry, buckets=buckets)
            return found.labels(federation)

        Info("hidenseek_build", "This program.", registry=self.registry).info({"version": __version__})
        self._planned = gauge("rounds_planned", "Rounds that the run is to have.")
        self._quorum = gauge("round_quorum", "Masks that a round needs.")
        self._deadline_s = gauge("round_deadline_seconds", "How long a round waits for its masks.")
        self.scheduled(schedule)
        self._rounds = counter("rounds_closed", "Rounds that were closed.")
        self._round_s = histogram("round_duration_seconds", "From a round's announcement to its end.", ROUND_S)
        self._masks = counter("masks_accepted", "Masks that were stored.")
        self._mask_bytes = counter("mask_bytes", "Payload bytes of masks that were stored.")
        self._train_s = histogram("train_duration_seconds", "Training for a mask, as devices say.", TRAIN_S)
        self._evaluations = counter("evaluations", "Accuracies that devices reported.")
        self._refused = Counter(
            "hidenseek_messages_refused",
            "What came from devices, or in their name, and was not accepted.",
            ["federation", "kind", "reason"],
            registry=self.registry,
        )
        self._remarks = counter("remarks", "Sentences for a person.")
        self._connected = gauge("broker_connected", "Whether the connection to the broker stands.")
        self._disconnects = counter("broker_disconnects", "Times that the connection to the broker was lost.")
        self._reconnects = counter("broker_reconnects", "Times that it was made again.")
        self._commit_s = histogram("store_commit_duration_seconds", "Committing to the database.", COMMIT_S)
        self._up: bool | None = None
        self._opened: tuple[int, float] = (0, 0.0)
        ProcessCollector(registry=self.registry)
        self.registry.register(_Standing(federation, figures))

    def attach(self, channel: Channel, store: Store) -> None:
        """Show what a connection and a database are doing, too."""
        self.registry.register(_Plumbing(self._federation, channel, store.place))
        store.committed = self._commit_s.observe

    def scheduled(self, schedule: Schedule) -> None:
        """See `Observer.scheduled`."""
        self._planned.set(schedule.rounds)
        self._quorum.set(schedule.quorum)
        self._deadline_s.set(schedule.deadline_s)

    def announced(self, number: int, selected: tuple[str, ...]) -> None:
        """See `Observer.announced`."""
        if number != self._opened[0]:
            self._opened = number, time.monotonic()

    def mask(self, name: str, update: MaskUpdate, payload_bytes: int) -> None:
        """See `Observer.mask`."""
        self._masks.inc()
        self._mask_bytes.inc(payload_bytes)
        self._train_s.observe(update.train_s)

    def evaluation(self, name: str, evaluation: Evaluation) -> None:
        """See `Observer.evaluation`."""
        self._evaluations.inc()

    def refused(self, topic: str, reason: str) -> None:
        """See `Observer.refused`."""
        kind = (topic.split("/", 5)[4:5] or [""])[0]
        self._refused.labels(self._federation, kind if kind in UP_KINDS else "other", reason).inc()

    def broker(self, connected: bool) -> None:
        """See `Observer.broker`."""
        self._connected.set(connected)
        if not connected and self._up:
            self._disconnects.inc()
        elif connected and self._up is False:
            self._reconnects.inc()
        self._up = connected

    def closed(self, number: int, voters: int, held_out: float | None) -> None:
        """See `Observer.closed`."""
        self._rounds.inc()
        opened, opened_s = self._opened
        if number == opened:
            self._round_s.observe(time.monotonic() - opened_s)

    def remark(self, text: str) -> None:
        """See `Observer.remark`."""
        self._remarks.inc()


@dataclass(eq=False)
class _Standing(Collector):
    """How a run and its devices stand; what is not known has no series."""

    federation: str
    figures: Figures

    def collect(self) -> Iterable[Metric]:
        for name, text, read in _RUN:
            gauge = GaugeMetricFamily(f"hidenseek_{name}", text, labels=["federation"])
            value = read(self.figures)
            if value is not None:
                gauge.add_metric([self.federation], value)
            yield gauge
        yield from self._devices()

    def _devices(self) -> Iterator[Metric]:
        revoked = self.figures.revoked_devices.copy()
        devices = {name: one for name, one in self.figures.devices.copy().items() if name not in revoked}
        shown = devices if len(devices) <= MOST_DEVICES else {}
        for name, text, read in _DEVICE:
            gauge = GaugeMetricFamily(f"hidenseek_{name}", text, labels=["federation", "device"])
            for device, figures in shown.items():
                value = read(figures)
                if value is not None:
                    gauge.add_metric([self.federation, device], value)
            yield gauge


@dataclass(eq=False)
class _Plumbing(Collector):
    """A connection, a database and its disk."""

    federation: str
    channel: Channel
    database: Place

    def collect(self) -> Iterable[Metric]:
        channel, transport = self.channel, self.channel.transport
        waiting, lag_s = transport.backlog()
        size_bytes, free_bytes = measure(self.database)
        counters = (
            ("received_bytes", "Payload bytes that came from the broker.", channel.received_bytes),
            (
                "sent_bytes",
                "Payload bytes given to the broker, however many devices it hands them to.",
                channel.sent_bytes,
            ),
        )
        for name, text, value in counters:
            counter = CounterMetricFamily(f"hidenseek_{name}", text, labels=["federation"])
            counter.add_metric([self.federation], value)
            yield counter
        gauges: tuple[tuple[str, str, float | None], ...] = (
            ("ingest_waiting_messages", "Messages that came and were not looked at yet.", waiting),
            ("ingest_lag_seconds", "How long the one looked at last had waited; 0 if none waits.", lag_s),
            (
                "broker_certificate_expiry_timestamp_seconds",
                "When the broker's certificate ends.",
                transport.certificate_end_s,
            ),
            ("store_bytes", "The database, with its log.", size_bytes),
            ("store_free_bytes", "Room on its disk.", free_bytes),
        )
        for name, text, found in gauges:
            gauge = GaugeMetricFamily(f"hidenseek_{name}", text, labels=["federation"])
            if found is not None:
                gauge.add_metric([self.federation], found)
            yield gauge
