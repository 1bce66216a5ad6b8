"""A broker, a coordinator and workers of a load test's own, on the loopback: started, watched, ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from coordinator.broker import EmbeddedBroker
from coordinator.brokers.access import COORDINATOR
from coordinator.brokers.deployment import INFLIGHT, autosave_changes
from coordinator.brokers.process import answers, end, free_port, launch, mosquitto_binary, write_private
from coordinator.federation import DATABASE
from coordinator.keys import VARIABLE as KEY_VARIABLE
from coordinator.loadtest.usage import Watched
from coordinator.store import Store
from coordinator.store_options import VARIABLE as STORE_VARIABLE
from wire import signing
from wire.broker import Broker, parse_url
from wire.command import PASSWORD_VARIABLE
from wire.errors import BrokerUnreachable, RoundFailed

KINDS = ("mosquitto", "nats")
HOST = "127.0.0.1"
START_S = 15.0
KEY = "federation.key"
ENDS_S = 60.0  # a run that is over still writes its report


@dataclass(frozen=True, kw_only=True)
class Federation:
    """What the coordinator is told to run.

    Attributes:
        name: of the federation.
        devices: how many will come.
        rounds: how many rounds.
        per_round: devices selected for one.
        quorum: masks that suffice.
        deadline_s: seconds a round waits.
        start_devices: that must be there before the first.
        evaluate: whether all devices report accuracy every round.
        model: which network.
        density: share of its weights that is kept.
        defend: masks are looked at for hostile ones; then workers hand on masks in place of sums.
    """

    name: str
    rounds: int
    per_round: int
    quorum: int
    deadline_s: float
    start_devices: int
    evaluate: bool
    model: str
    density: float
    defend: bool

    def yaml(self) -> str:
        """As a devices.yaml."""
        lines = [f"  {key}: {str(value).lower()}" for key, value in vars(self).items()]
        return "\n".join(["federation:", *lines, "  runtimes: [sparse]", ""])


class Stand:
    """The running broker, coordinator and workers.

    Attributes:
        broker: where devices connect.
        passwords: at the broker, by device; empty where anyone may come.
        watched: what the processes use.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.passwords: dict[str, str] = {}
        self.watched: list[Watched] = []
        self._coordinator: subprocess.Popen[bytes] | None = None
        self._workers: dict[str, subprocess.Popen[bytes]] = {}
        self.broker: Broker

    def check(self) -> None:
        """Notice a coordinator that gave up, or a worker that is no more.

        Raises:
            RoundFailed: with its last words.
        """
        running = {"coordinator": self._coordinator, **self._workers}
        for name, process in running.items():
            code = process.poll() if process is not None else None
            if process is not None and code is not None and (code or process is not self._coordinator):
                log = self._folder / f"{name}.log"
                words = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
                who = "the coordinator" if process is self._coordinator else name
                raise RoundFailed(f"{who} ended with exit code {code}: {words[-1]}", where=str(log))

    def masks_stored(self) -> dict[int, int]:
        """What the coordinator's database holds: masks by round."""
        store = Store(self._folder / "serve" / DATABASE)
        try:
            run = store.newest_run()
            rows = store.query(
                "SELECT number, count(*) FROM mask WHERE run = ? GROUP BY number", run.id if run else b""
            )
            return {int(number): int(count) for number, count in rows}
        finally:
            store.close()

    def wait(self) -> None:
        """Let the coordinator finish its run: it waits for nobody any more, and writes the report."""
        if self._coordinator is not None:
            try:
                self._coordinator.wait(ENDS_S)
            except subprocess.TimeoutExpired:
                self._coordinator.terminate()
                self._coordinator.wait()

    def serve(self, federation: Federation, password: str | None, workers: int) -> None:
        """Start the coordinator, and so many workers."""
        config = self._folder / "devices.yaml"
        config.write_text(federation.yaml())
        key = self._folder / KEY
        if not key.exists():  # workers do not make one
            write_private(key, signing.as_text(signing.new_key()) + "\n")
        user = f"{self.broker.user}@" if self.broker.user else ""
        where = ["--broker", f"mqtt://{user}{self.broker.host}:{self.broker.port}"]
        options = ["serve", "--config", str(config), *where, "--state", str(self._folder / "serve")]
        self._coordinator = self._start("coordinator", [*options, *(["--workers"] if workers else [])], password)
        for name in (f"worker-{number + 1}" for number in range(workers)):
            options = ["worker", *where, "--federation", federation.name, "--name", name]
            self._workers[name] = self._start(name, [*options, "--state", str(self._folder / name)], password)

    def _start(self, name: str, options: list[str], password: str | None) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            KEY_VARIABLE: str(self._folder / KEY),
            PASSWORD_VARIABLE: password or "",
            STORE_VARIABLE: "",  # whatever runs there has nothing to do with it
            "OMP_NUM_THREADS": "1",
        }
        with (self._folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "coordinator.cli", *options],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.watched.append(Watched(name, process.pid))
        return process

    def stop(self) -> None:
        """End the coordinator and the workers."""
        running = [self._coordinator, *self._workers.values()]
        end([process for process in running if process is not None], within_s=10)


@contextmanager
def standing(
    kind: str, folder: Path, federation: Federation, devices: tuple[str, ...], workers: int = 0
) -> Iterator[Stand]:
    """Start broker, coordinator and workers; at the end stop them.

    Args:
        kind: of the broker, one of `KINDS`.
        folder: for all their files.
        federation: what to run.
        devices: their ids; each has an account of its own with NATS, as with `hidenseek serve --listen`.
        workers: how many; they have the coordinator's account.

    Raises:
        RuntimeMissing: if the broker is not installed.
        BrokerUnreachable: if it does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stand = Stand(folder)
    started = _nats(folder, federation.name, devices) if kind == "nats" else _mosquitto(folder, devices)
    with started as (pid, broker, passwords):
        stand.broker = broker
        stand.passwords = {name: password for name, password in passwords.items() if name != COORDINATOR}
        stand.watched.append(Watched("broker", pid))
        try:
            stand.serve(federation, passwords.get(COORDINATOR), workers)
            yield stand
        finally:
            stand.stop()


@contextmanager
def _nats(folder: Path, federation: str, devices: tuple[str, ...]) -> Iterator[tuple[int, Broker, dict[str, str]]]:
    broker = EmbeddedBroker(folder / "broker", federation, devices, HOST, 0)
    try:
        broker.start()
        pid = int((folder / "broker" / "nats.pid").read_text())
        yield pid, parse_url(broker.url(COORDINATOR)), dict(broker.passwords)
    finally:
        broker.stop()


@contextmanager
def _mosquitto(folder: Path, devices: tuple[str, ...]) -> Iterator[tuple[int, Broker, dict[str, str]]]:
    """As `hidenseek broker init` sets it up, but for TLS, accounts and a limit of the queue."""
    port, home, log = free_port(HOST), folder / "broker", folder / "broker.log"
    home.mkdir(exist_ok=True)
    settings = [f"listener {port} {HOST}", "allow_anonymous true", "max_connections -1"]
    settings += ["persistence true", f"persistence_location {home}/", "autosave_on_changes true"]
    settings += [f"autosave_interval {autosave_changes(len(devices))}"]
    settings += ["max_queued_messages 0", f"max_inflight_messages {INFLIGHT}"]
    settings += ["set_tcp_nodelay true", "sys_interval 60"]
    if os.geteuid() == 0:
        settings.append("user root")  # another user could not write here
    write_private(home / "mosquitto.conf", "\n".join([*settings, ""]))
    with log.open("ab") as words:
        process = launch([str(mosquitto_binary()), "-c", str(home / "mosquitto.conf")], words)
    try:
        deadline = time.monotonic() + START_S
        while not answers(HOST, port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise BrokerUnreachable("mosquitto did not start", where=str(log))
            time.sleep(0.05)
        yield process.pid, parse_url(f"mqtt://{HOST}:{port}"), {}
    finally:
        end([process], within_s=20)
