"""A bad network between hosts on one machine: a namespace for each, and a switch that spoils their packets.

Every host is a network namespace with one TUN device; this process holds the other end of all of them and
carries whole IP packets, so that the kernel's own TCP meets loss, delay, duplicates, reordering and cuts. It does
what Linux's netem does, which many kernels are built without; TUN devices are in nearly all.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import selectors
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

NET = "10.77.0"
PREFIX = "hnschaos"  # of namespaces: PREFIX + process id + "-" + number
NAMES = Path("/run/netns")
MTU = 1500
TUNSETIFF = 0x400454CA
IFF_TUN_NO_PI = 0x0001 | 0x1000


@dataclass(frozen=True, kw_only=True)
class Weather:
    """What a host's packets meet, in both directions unless said otherwise.

    Attributes:
        loss: share of packets lost.
        twice: share of packets delivered twice.
        delay_s: how late every packet is.
        jitter_s: at most this much later still, each by itself: so they overtake one another.
        deaf: nothing reaches the host.
        mute: nothing leaves it.
    """

    loss: float = 0.0
    twice: float = 0.0
    delay_s: float = 0.0
    jitter_s: float = 0.0
    deaf: bool = False
    mute: bool = False


FAIR = Weather()


@dataclass
class Counts:
    """Packets seen by the switch."""

    carried: int = 0
    lost: int = 0
    doubled: int = 0
    cut: int = 0

    def __str__(self) -> str:
        return f"packets: {self.carried:,} carried, {self.lost} lost, {self.doubled} doubled, {self.cut} cut off"


@dataclass
class Host:
    """One namespace."""

    name: str
    namespace: str
    address: str
    tun: int
    weather: Weather = FAIR


@dataclass
class Network:
    """Hosts that reach one another through a switch run by a thread of this process.

    Args:
        names: of the hosts.
        seed: of what happens to single packets.
    """

    names: Iterable[str]
    seed: int
    counts: Counts = field(default_factory=Counts)
    hosts: dict[str, Host] = field(default_factory=dict)
    _late: list[tuple[float, int, int, bytes]] = field(default_factory=list)  # (due, order, tun, packet)
    _thread: threading.Thread | None = None
    _over: bool = False

    def __enter__(self) -> Network:
        sweep()
        try:
            for number, name in enumerate(self.names, start=1):
                self.hosts[name] = _host(name, number)
        except BaseException:
            self._remove()
            raise
        self._thread = threading.Thread(target=self._carry, name="switch", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        if self._thread is not None:
            self._thread.join()
        self._remove()

    def set(self, name: str, weather: Weather) -> None:
        """Change what a host's packets meet, from now on."""
        self.hosts[name].weather = weather

    def inside(self, name: str) -> list[str]:
        """The command prefix that runs a program on a host; it keeps its process id."""
        return ["ip", "netns", "exec", self.hosts[name].namespace]

    def _remove(self) -> None:
        for host in self.hosts.values():
            _remove(host.namespace)
            os.close(host.tun)
        self.hosts.clear()

    def _carry(self) -> None:
        rng = random.Random(self.seed)
        by_address = {bytes(map(int, host.address.split("."))): host for host in self.hosts.values()}
        with selectors.DefaultSelector() as selector:
            for host in self.hosts.values():
                selector.register(host.tun, selectors.EVENT_READ, host)
            while not self._over:
                wait_s = min(max(self._late[0][0] - time.monotonic(), 0.0), 0.1) if self._late else 0.1
                for key, _ in selector.select(wait_s):
                    packet = os.read(key.fd, 2 * MTU)
                    target = by_address.get(packet[16:20])
                    if target is not None and packet[0] >> 4 == 4:  # not what IPv6 says to everyone
                        self._meet(rng, key.data, target, packet)
                self._deliver()

    def _meet(self, rng: random.Random, source: Host, target: Host, packet: bytes) -> None:
        """Decide about one packet: both ends' weather counts."""
        if source.weather.mute or target.weather.deaf:
            self.counts.cut += 1
            return
        late_s, copies = 0.0, 1
        for weather in (source.weather, target.weather):
            if rng.random() < weather.loss:
                self.counts.lost += 1
                return
            copies += rng.random() < weather.twice
            late_s += weather.delay_s
        self.counts.carried += 1
        self.counts.doubled += copies - 1
        jitter_s = source.weather.jitter_s + target.weather.jitter_s
        for _ in range(copies):
            due_s = time.monotonic() + late_s + jitter_s * rng.random()
            heapq.heappush(self._late, (due_s, self.counts.carried, target.tun, packet))

    def _deliver(self) -> None:
        while self._late and self._late[0][0] <= time.monotonic():
            _, _, tun, packet = heapq.heappop(self._late)
            try:
                os.write(tun, packet)
            except OSError:
                self.counts.lost += 1  # the host's queue is full


def missing() -> str | None:
    """What this machine lacks for such a network, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not Path("/dev/net/tun").exists():
        return "this kernel has no TUN devices (/dev/net/tun)"
    return None


def sweep() -> None:
    """Remove what a run that was killed left behind: its namespaces and the processes in them."""
    for path in NAMES.glob(PREFIX + "*") if NAMES.exists() else ():
        owner = path.name.removeprefix(PREFIX).split("-")[0]
        if not Path("/proc", owner).exists():
            _remove(path.name)


def _host(name: str, number: int) -> Host:
    namespace, device, address = f"{PREFIX}{os.getpid()}-{number}", f"hns{number}", f"{NET}.{number}"
    _ip("netns", "add", namespace)
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    host = Host(name, namespace, address, tun)
    try:
        temporary = f"hns{os.getpid()}t{number}"[:15]
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", temporary.encode(), IFF_TUN_NO_PI))
        _ip("link", "set", temporary, "netns", namespace, "name", device, "mtu", str(MTU))
        _ip("-n", namespace, "address", "add", f"{address}/24", "dev", device)
        _ip("-n", namespace, "link", "set", device, "up")
        _ip("-n", namespace, "link", "set", "lo", "up")
    except BaseException:
        _remove(namespace)
        os.close(tun)
        raise
    return host


def _remove(namespace: str) -> None:
    found = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, timeout=20, check=False)
    for pid in map(int, found.stdout.split()):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    subprocess.run(["ip", "netns", "delete", namespace], capture_output=True, timeout=20, check=False)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr.strip()}"
