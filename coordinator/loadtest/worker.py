"""A process full of scripted devices: connects them, lets time pass, makes some vanish, tells how it goes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from random import Random

from coordinator.loadtest import room
from coordinator.loadtest.audience import Audience
from coordinator.loadtest.device import ScriptedDevice
from coordinator.loadtest.link import Link, Place
from coordinator.loadtest.script import Script
from coordinator.loadtest.tally import Tally
from wire.broker import SECURE, Broker
from wire.errors import BrokerUnreachable, HidenseekError
from wire.tls import tls_context
from wire.transport import monotonic_s

TELL_S = 0.5
TICK_S = 1.0
OPENING = 100  # connections that are being made at once; more would only wait in the broker's queue
AWAY_S = (1.0, 8.0)  # how long a device that vanished stays away
AGAIN_S = (1.0, 10.0)  # how long after a connection was lost it is made again
LEAVE_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one process is to do.

    Attributes:
        script: of its devices.
        broker: where to; of a cluster, devices take turns among its nodes.
        names: of its devices.
        passwords: at the broker, by device; where it has one account for all, that of `broker`.
        first: how many devices the processes before it have.
        per_s: connections made a second.
        churn: share of the devices that vanish in a minute.
        keepalive_s: of the connections.
        trust: the federation's public key; None: of the first one met.
        discard: have the broker forget the sessions in the end.
    """

    script: Script
    broker: Broker
    names: tuple[str, ...]
    passwords: dict[str, str] = field(default_factory=dict, repr=False)
    first: int = 0
    per_s: float = 500.0
    churn: float = 0.0
    keepalive_s: int = 60
    trust: bytes | None = None
    discard: bool = True


def work(share: Share, parent: Connection) -> None:
    """Run a process's devices until the parent says enough, or is gone."""
    room.use_all_files()
    crew = Crew(share, parent)
    try:
        asyncio.run(crew.run())
    except HidenseekError as error:
        crew.tally.fault = str(error)
    with contextlib.suppress(OSError):
        crew.tell()
    parent.close()


class Crew:
    """The devices of one process.

    Args:
        share: what they do.
        parent: gets a `Tally` now and then; whatever it says means enough.
    """

    def __init__(self, share: Share, parent: Connection) -> None:
        self._share, self._parent = share, parent
        self.tally = Tally()
        self._random = Random(share.first)
        self._devices: list[ScriptedDevice] = []
        self._return_s: dict[str, float] = {}  # when a device that is away comes back
        self._opening = asyncio.Semaphore(OPENING)
        self._tasks: set[asyncio.Task[None]] = set()
        self._sources: list[str] = []

    async def run(self) -> None:
        """Connect all, go on until enough, leave."""
        enough = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._parent.fileno(), enough.set)
        try:
            place = await self._place()
            self._sources = room.sources(place.nodes[0][0], self._share.first + len(self._share.names))
            await self._enrol(place, enough)
            while not enough.is_set():
                self._tick()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(enough.wait(), TICK_S)
            await self._leave(place)
        finally:
            loop.remove_reader(self._parent.fileno())

    async def _place(self) -> Place:
        broker = self._share.broker
        loop = asyncio.get_running_loop()
        nodes = []
        for host, port in broker.nodes:
            try:
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except OSError as error:
                raise BrokerUnreachable(f"'{host}' cannot be looked up ({error.strerror})", where="--broker") from error
            nodes.append((str(found[0][4][0]), port))
        secure = broker.scheme in SECURE
        return Place(
            nodes=tuple(nodes),
            keepalive_s=self._share.keepalive_s,
            server_name=broker.host if secure else None,
            context=tls_context(broker) if secure else None,
        )

    async def _enrol(self, place: Place, enough: asyncio.Event) -> None:
        audience = Audience(self._share.trust, self._share.script.seed)
        began_s, started = monotonic_s(), int(time.time())
        told_s = 0.0
        for index, name in enumerate(self._share.names):
            account = self._share.broker.user, self._share.broker.password
            if name in self._share.passwords:
                account = name, self._share.passwords[name]
            device = ScriptedDevice(name, self._share.script, place, account, audience, self.tally, started)
            self._devices.append(device)
            self._open(device, index)
            due_s = began_s + index / self._share.per_s
            if enough.is_set():
                return
            if (wait_s := due_s - monotonic_s()) > 0 or index % 100 == 0:
                await asyncio.sleep(max(wait_s, 0))
            while self._opening.locked() and not enough.is_set():  # as many connections are being made as may be
                await asyncio.sleep(0.01)
            if monotonic_s() - told_s > TELL_S:
                told_s = monotonic_s()
                self._tick()

    def _open(self, device: ScriptedDevice, index: int) -> None:
        """Begin to connect a device."""
        number = self._share.first + index

        async def opening() -> None:
            async with self._opening:
                await device.link.open(self._source(number), node=number)

        self._do(opening())

    def _source(self, number: int) -> tuple[str, int] | None:
        return (self._sources[number // room.PER_SOURCE % len(self._sources)], 0) if self._sources else None

    def _do(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tick(self) -> None:
        now_s = monotonic_s()
        for index, device in enumerate(self._devices):
            if device.impatient and device.link.online:
                device.tick()
            if device.lost:
                self._come_back(device, index, now_s)
        self._churn(now_s)
        self.tell()

    def _come_back(self, device: ScriptedDevice, index: int, now_s: float) -> None:
        if device.name not in self._return_s:
            self._return_s[device.name] = now_s + self._random.uniform(*AGAIN_S)
            self.tally.counts["connection lost"] += 1
        elif now_s >= self._return_s[device.name]:
            del self._return_s[device.name]
            device.lost = False
            self._open(device, index)

    def _churn(self, now_s: float) -> None:
        expected = self._share.churn * len(self._devices) * TICK_S / 60
        count = int(expected) + (self._random.random() < expected % 1)
        for device in self._random.sample(self._devices, min(count, len(self._devices))):
            if not (device.link.online and device.welcomed):
                continue
            self._return_s[device.name] = now_s + self._random.uniform(*AWAY_S)
            if self._random.random() < 0.5:
                self.tally.counts["churn: network lost"] += 1
                device.link.drop()
            else:
                self.tally.counts["churn: power cut"] += 1
                device.cut_power()

    async def _leave(self, place: Place) -> None:
        """Say goodbye device by device, and have the broker forget them."""
        self.tell()
        self.tally.leaving = True
        for task in self._tasks:
            task.cancel()
        for number, device in enumerate(self._devices):
            device.leave()
            if number % 100 == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(0.2)  # what was said is on its way
        if self._share.discard:
            await asyncio.gather(*(self._forget(place, number) for number in range(len(self._devices))))

    async def _forget(self, place: Place, number: int) -> None:
        """Have the broker forget a session, with what it holds for the device."""
        gone = asyncio.Event()
        link = Link(place, self._devices[number].link.login, self.tally, _Goodbye(gone))
        async with self._opening:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_S):
                    await link.open(self._source(self._share.first + number), node=number, clean=True)
                    await gone.wait()
        link.close()

    def tell(self) -> None:
        """Send the parent what is known."""
        tally = self.tally
        tally.devices = len(self._share.names)
        tally.connected = sum(device.link.online for device in self._devices)
        tally.welcomed = sum(device.welcomed for device in self._devices)
        tally.done = sum(device.stopped or device.refused for device in self._devices)
        tally.pending = sum(device.pending for device in self._devices)
        self._parent.send(tally)


@dataclass(frozen=True)
class _Goodbye:
    """Listens on a connection that is there to be ended."""

    gone: asyncio.Event

    def will(self) -> None:
        """See `Listener`."""

    def online(self) -> None:
        """See `Listener`."""
        self.gone.set()

    def offline(self, reason: str, *, refused: bool) -> None:
        """See `Listener`."""
        self.gone.set()

    def heard(self, topic: str, payload: bytes) -> None:
        """See `Listener`."""
