"""A small fleet for integration tests: learnable data, processes that can be killed, and what must hold after."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from coordinator.aggregate import MEMORY
from coordinator.asynchronous import Group, close_step
from coordinator.place import Place, Server
from coordinator.steps import DECAY
from coordinator.store import Store
from tests.recount import Recount
from wire import mask
from wire.errors import DataError, StateError
from wire.mask import Votes
from wire.ticket import Ticket, decode_ticket

CLASSES = 6
SAMPLES = 96


def write_person(folder: Path, seed: int, *, samples: int = SAMPLES) -> Path:
    """Save (samples, 6, 128) recordings in which one channel, the class's, is loud; return the folder."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, samples)
    x = rng.normal(size=(samples, 6, 128)) * np.where(np.arange(6) == y[:, None], 3.0, 0.5)[:, :, None]
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "train.npz", x=x.astype(np.float32)[: samples * 3 // 4], y=y[: samples * 3 // 4])
    np.savez(folder / "test.npz", x=x.astype(np.float32)[samples * 3 // 4 :], y=y[samples * 3 // 4 :])
    return folder


@dataclass
class Processes:
    """hidenseek and hidenseek-edge as a user starts them, in folders below `home`."""

    home: Path
    server: Server | None = None  # where the coordinator's database is, if it is no file
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    state: Path = field(init=False)  # the coordinator's

    def __post_init__(self) -> None:
        self.state = self.home / "serve"

    def edge(self, device: str, broker: str, *extra: str, password: str = "", once: bool = True) -> None:
        """Start (or start again) a device; for one run, or for any that come."""
        data = self.home / "data" / device
        if not data.exists():
            write_person(data, seed=sum(device.encode()))
        arguments = [
            "edge_client.cli",
            "join",
            *(["--once"] if once else []),
            "--federation",
            "t",
            "--broker",
            broker,
            "--device",
            device,
        ]
        arguments += ["--data", str(data), "--state", str(self.home / "state" / device), *extra]
        self._start(device, arguments, password)

    def serve(self, config: str, *extra: str, password: str = "", name: str = "coordinator") -> None:
        """Start (or start again) the coordinator with this devices.yaml; by another name, one more."""
        (self.home / "devices.yaml").write_text(config)
        arguments = ["coordinator.cli", "serve", "--config", str(self.home / "devices.yaml")]
        store = ["--store", self.server.url] if self.server else []
        self._start(name, [*arguments, "--state", str(self.state), *store, *extra], password)

    def _start(self, name: str, arguments: list[str], password: str) -> None:
        environment = os.environ | {"HIDENSEEK_PASSWORD": password, "OMP_NUM_THREADS": "1"}
        with (self.home / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", *arguments], stdout=log, stderr=log, env=environment, cwd=Path.cwd()
            )

    def kill(self, name: str) -> None:
        """Kill -9."""
        self.running[name].send_signal(signal.SIGKILL)
        self.running[name].wait()

    def wait(self, name: str, timeout_s: float) -> int:
        """Wait for a process to end by itself; its exit code."""
        try:
            return self.running[name].wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{name} is still running after {timeout_s} s:\n{self.log(name)[-3000:]}") from None

    def embedded_broker(self) -> tuple[str, dict[str, str]]:
        """Wait for the coordinator's own broker; its HOST:PORT and the passwords by user."""
        said = "broker: mqtt://"

        def up() -> bool:
            assert self.running["coordinator"].poll() is None, self.log("coordinator")
            return said in self.log("coordinator")

        wait_until(up, 60, "the broker is up")
        address = self.log("coordinator").split(said)[1].split(";")[0].strip()
        return address, json.loads((self.state / "broker" / "passwords.json").read_text())

    def log(self, name: str) -> str:
        """What a process said so far."""
        path = self.home / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def stop(self) -> None:
        """End whatever still runs."""
        for process in self.running.values():
            process.terminate()  # not kill: the coordinator has a broker to end
        for name, process in self.running.items():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill(name)

    @property
    def database(self) -> Place:
        """The coordinator's database."""
        return self.server or self.state / "coordinator.db"


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Poll until a condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(0.05)


def rows(database: Place, sql: str) -> list[tuple[object, ...]]:
    """Read the coordinator's database while it runs; nothing if it is not there yet."""
    if isinstance(database, Server):
        try:
            with closing(Store(database, make=False, read_only=True)) as store:
                return [tuple(row) for row in store.query(sql)]
        except (DataError, StateError):
            return []
    if not database.exists():
        return []
    db = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        return db.execute(sql).fetchall()
    except sqlite3.OperationalError:
        return []
    finally:
        db.close()


def _step(number: int, announced: dict[int, Votes], masks: list[tuple[int, str, bytes]], ticket: Ticket) -> Votes:
    """What an asynchronous step comes to."""
    groups = [
        Group(
            staleness=number - began,
            began=announced[began],
            masks=[
                (device, mask.decode_signs(coded, announced[began], ticket.ends))
                for late, device, coded in masks
                if late == began
            ],
        )
        for began in {began for began, _, _ in masks}
    ]
    return close_step(announced[number], groups, decay=DECAY, memory=MEMORY)[0]


def assert_every_mask_counted_once(processes: Processes, rounds: int) -> None:
    """Recount every round from the stored masks; compare with what was announced and what devices were told."""
    database = processes.database
    ((ticket_bytes, settings),) = rows(database, "SELECT ticket, settings FROM run")
    ticket = decode_ticket(ticket_bytes)  # type: ignore[arg-type]
    recount = Recount.of(ticket, str(settings))
    announced: dict[int, Votes] = {
        int(number): mask.decode_votes(votes, ticket.ends)  # type: ignore[call-overload, arg-type]
        for number, votes in rows(database, "SELECT number, votes FROM round")
    }
    assert sorted(announced) == list(range(1, rounds + 2)), "one round after the other, and the final announcement"
    scores = recount.start()
    for number in range(1, rounds + 1):
        sql = f"SELECT number, device, signs FROM mask WHERE counted = {number} ORDER BY device"
        masks: list[tuple[int, str, bytes]] = rows(database, sql)  # type: ignore[assignment]
        assert masks, f"round {number} has no masks"
        if {began for began, _, _ in masks} == {number}:
            scores = recount.close(number, scores, [(device, coded) for _, device, coded in masks])
        else:  # some came late, in an asynchronous run
            scores = replace(scores, votes=_step(number, announced, masks, ticket))
        after = announced[number + 1]
        assert np.array_equal(scores.votes.signs, after.signs), f"round {number}: every stored mask is counted, once"
        assert np.array_equal(scores.votes.dissent, after.dissent)
    stored = {(device, number) for device, number in rows(database, "SELECT device, number FROM mask")}
    for name in processes.running:
        for number in re.findall(r"round (\d+): mask confirmed", processes.log(name)):
            assert (name, int(number)) in stored, f"{name} was told that its mask of round {number} is safe"
