"""A fleet that is rarely all awake, in one process and on a clock of its own: the real coordinator and real clients.

Time stands still while a message waits, so a run is the same every time. A device that sleeps is offline and does
nothing, not even training; what is announced meanwhile waits for it, as in a persistent MQTT session.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

import numpy as np

from coordinator import arrivals, executor, server
from coordinator.evaluate import Evaluator
from coordinator.federation import Federation, prepare
from coordinator.keys import federation_key
from coordinator.observer import Observer
from coordinator.server import Coordinator
from coordinator.store import Store
from edge_client import agent, client
from edge_client.client import Client
from edge_client.data import DeviceData
from edge_client.store import Store as DeviceStore
from edge_client.workshop import Workshop
from wire import prng
from wire.channel import Channel
from wire.federation_messages import Hello, Round
from wire.signing import public_key
from wire.topics import Topics
from wire.transport import MemoryBus, MemoryTransport

MOST_S = 86_400


@dataclass
class Clock:
    """Seconds."""

    now_s: float = 0.0

    def __call__(self) -> float:
        """In the place of `wire.transport.monotonic_s`."""
        return self.now_s


@dataclass(frozen=True, kw_only=True)
class Habits:
    """When devices are awake and how fast they are.

    Attributes:
        awake_s: mean of the time awake (exponential), each device for itself.
        asleep_s: mean of the time asleep; 0: never.
        slowest: how many times as long the slowest device needs for a training step as the fastest.
        step_s: what the fastest needs.
        seed: of all of it.
    """

    awake_s: float
    asleep_s: float
    slowest: float = 1.0
    step_s: float = 1.0
    seed: int = 0


class Sleeper(Client):
    """A client that is called instead of waiting for messages, and sleeps between."""

    awake = False
    until_s = 0.0
    pace_s = 1.0
    worked_s = 0.0
    left = False
    begun = 0  # trainings

    def start(self) -> None:
        """As `Client.run` begins."""
        known = self.store.load_confirmed()
        self.device = replace(self.device, pending=self.store.load_pending(), confirmed=known)

    def fall_asleep(self) -> None:
        """As the broker says it for whoever is gone."""
        self.awake = False
        self._announce(online=False)

    def wake(self, now_s: float) -> None:
        """Connect again."""
        self.awake, self.worked_s = True, now_s
        self._events.append(agent.Online())

    def _start_training(self, announced: Round) -> None:
        self.begun += 1
        super()._start_training(announced)

    def go_on(self, now_s: float) -> None:
        """Do all there is to do until now."""
        transport = self.channel.transport
        assert isinstance(transport, MemoryTransport)
        while self._stop is None:
            while self._stop is None and (self._events or not transport.inbox.empty()):
                self._listen()
            if self._stop is None and not self.work.training:
                self._listen()  # nothing has come
            if self._stop is not None or not self.work.training or self.worked_s + self.pace_s > now_s:
                break
            self.worked_s += self.pace_s
            self._train()
        if not self.work.training:
            self.worked_s = now_s
        if self._stop is not None:
            self.left = True
            transport.close()
            if self._stop.error is not None:
                raise self._stop.error


@dataclass
class Watcher(Observer):
    """An observer that notes when a round closed and what it came to."""

    clock: Clock
    closed_s: list[float] = field(default_factory=list)
    accuracies: list[float | None] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def closed(self, number: int, voters: int, held_out: float | None) -> None:
        """Note it."""
        self.closed_s.append(self.clock.now_s)
        self.accuracies.append(held_out)

    def remark(self, text: str) -> None:
        """Note it."""
        self.remarks.append(text)


@dataclass
class Sleepers:
    """The fleet."""

    clock: Clock
    habits: Habits
    devices: Sequence[Sleeper]
    server: MemoryTransport
    tick_s: float
    _rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._rng = prng.generator((self.habits.seed, "sleepers"))
        share = self.habits.awake_s / (self.habits.awake_s + self.habits.asleep_s)
        for at, device in enumerate(self.devices):
            device.start()
            device.pace_s = self.habits.step_s * self.habits.slowest ** (at / max(len(self.devices) - 1, 1))
            if self._rng.random() < share:
                device.wake(0.0)
            device.until_s = self._lasts(device.awake)

    def tick(self) -> None:
        """Let time pass, unless the coordinator has something to read."""
        if not self.server.inbox.empty():
            return
        self.clock.now_s += self.tick_s
        if self.clock.now_s > MOST_S:
            raise TimeoutError(f"the run is not over after {MOST_S} s")
        now_s = self.clock.now_s
        for device in self.devices:
            while device.until_s <= now_s and not device.left:
                if device.awake:
                    device.fall_asleep()
                else:
                    device.wake(now_s)
                device.until_s += self._lasts(device.awake)
            if device.awake and not device.left:
                device.go_on(now_s)

    def _lasts(self, awake: bool) -> float:
        mean_s = self.habits.awake_s if awake else self.habits.asleep_s
        return float(self._rng.exponential(mean_s)) if self.habits.asleep_s else float("inf")


@dataclass
class Scene:
    """A coordinator whose `serve` runs the fleet too.

    Attributes:
        federation: what to run.
        bus: its broker.
        store: its database.
        watcher: who watched.
        fleet: the devices.
        evaluator: held-out samples.
    """

    federation: Federation
    bus: MemoryBus
    store: Store
    watcher: Watcher
    fleet: Sleepers
    evaluator: Evaluator | None = None

    def coordinator(self) -> Coordinator:
        """One that starts a run, or takes up what another one has left."""
        self.fleet.server = self.bus.connect()
        channel = Channel(self.fleet.server, federation_key())
        coordinator = prepare(
            self.federation, store=self.store, channel=channel, observer=self.watcher, evaluator=self.evaluator
        )
        coordinator.watch = self.fleet.tick
        return coordinator


@contextmanager
def sleepers(
    federation: Federation,
    data: Mapping[str, DeviceData],
    habits: Habits,
    folder: Path,
    *,
    tick_s: float = 1.0,
    runtime: str = "sparse",
    evaluator: Evaluator | None = None,
) -> Iterator[Scene]:
    """A federation whose devices sleep.

    Args:
        federation: what to run.
        data: of every device.
        habits: of the devices.
        folder: where all state is kept.
        tick_s: how long a moment is.
        runtime: what devices train with.
        evaluator: held-out samples.
    """
    clock, bus = Clock(), MemoryBus()
    with ExitStack() as stack:
        for module in (server, arrivals, executor, client):
            stack.enter_context(mock.patch.object(module, "monotonic_s", clock))
        for module in (arrivals, client):
            stack.enter_context(mock.patch.object(module, "TICK_S", 0.0))
        stack.enter_context(mock.patch.object(client, "QUIET_S", 0.0))
        store = stack.enter_context(closing(Store(folder / "coordinator.db")))
        devices = []
        for name in sorted(data):
            kept = stack.enter_context(closing(DeviceStore(folder / name)))
            devices.append(_sleeper(bus, federation.name, name, data[name], kept, runtime))
        fleet = Sleepers(clock=clock, habits=habits, devices=devices, server=bus.connect(), tick_s=tick_s)
        watcher = Watcher(clock)
        yield Scene(federation, bus, store, watcher, fleet, evaluator)


def _sleeper(bus: MemoryBus, federation: str, name: str, data: DeviceData, store: DeviceStore, runtime: str) -> Sleeper:
    hello = Hello(
        instance=name.encode()[:8].ljust(8),
        software="sleeper",
        runtime=runtime,
        profile="",
        train_samples=int(data.y_train.size),
        test_samples=int(data.y_test.size),
        key=public_key(store.key()),
        started=store.count_start(),
        greetings=1,
    )
    return Sleeper(
        device=agent.Device(name=name, hello=hello, stay=False),
        channel=Channel(bus.connect(), store.key()),
        topics=Topics(federation),
        store=store,
        work=Workshop(device=name, load=lambda: data),
    )
