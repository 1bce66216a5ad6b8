"""A broker, a coordinator and devices as real processes, each on a host of its own and started again when it ends."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.network import Network
from tests.chaos.programs import Programs
from tests.integration.fleet import rows

COORDINATOR, BROKER = "coordinator", "broker"
# How a process may end by itself: the run is over, no broker there, no quorum for long, no room on its disk.
EXPECTED_ENDS = {0, 15, 25, 26}


@dataclass
class Timeline:
    """What was done to the fleet, and when."""

    began_s: float = field(default_factory=time.monotonic)
    lines: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Add a line."""
        self.lines.append(f"{self.seconds:7.2f} s  {text}")

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.began_s


@dataclass
class Unit:
    """One process that is to run."""

    name: str
    command: list[str]
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    start_s: float | None = 0.0  # when to start it next; None while it runs or when it need not any more


@dataclass
class Fleet:
    """One federation.

    Args:
        home: folder of everything.
        network: with hosts `coordinator`, `broker` and the devices.
        kind: "mosquitto" or "nats", the embedded one.
        devices: their ids.
        rounds: to run.
        per_round: devices selected for a round; half of them are a quorum.
        hub: folder of the coordinator's and the broker's files; below home if None.
        cards: state folders of single devices; below home if not there.
    """

    home: Path
    network: Network
    kind: str
    devices: list[str]
    rounds: int
    per_round: int
    hub: Path | None = None
    cards: dict[str, Path] = field(default_factory=dict)
    timeline: Timeline = field(default_factory=Timeline)
    units: dict[str, Unit] = field(default_factory=dict)
    kills: dict[str, int] = field(default_factory=dict)
    crashes: list[str] = field(default_factory=list)
    _stalled: dict[int, float] = field(default_factory=dict)  # process id: when to let it go on
    _round: int = 0
    _masks: int = 0

    def __post_init__(self) -> None:
        self.hub = self.hub or self.home / "hub"
        self.programs = Programs(self.home, self.hub, self.kind, self.network.hosts[self.host(BROKER)].address)

    def __enter__(self) -> Fleet:
        schedule = {"rounds": self.rounds, "per_round": self.per_round, "quorum": self.quorum}
        schedule["start_devices"] = len(self.devices)
        self.programs.prepare(list(self.network.hosts), self.devices, schedule)
        every = self.programs.environment()
        if self.kind == "mosquitto":
            self.units[BROKER] = Unit(BROKER, self.programs.broker(), every)
        self.units[COORDINATOR] = Unit(COORDINATOR, self.programs.coordinator(), every)
        self.wait(lambda: self.kind != "nats" or self.programs.nats() is not None, 60, "the broker has its passwords")
        for device in self.devices:
            command = self.programs.device(device, self.state(device))
            self.units[device] = Unit(device, command, self.programs.environment(device))
        return self

    def __exit__(self, *_: object) -> None:
        for unit in self.units.values():
            if unit.process is not None:
                unit.process.kill()
                unit.process.wait()
        if self.kind == "nats" and (pid := self.programs.nats()):
            os.kill(pid, signal.SIGKILL)

    # What can be done to it.

    def kill(self, name: str, pause_s: float) -> bool:
        """Kill -9, to be started again after a pause; False if it does not run."""
        pid = self.pid(name)
        if pid is None:
            return False
        os.kill(pid, signal.SIGKILL)
        self._stalled.pop(pid, None)
        if name in self.units:  # not the embedded broker, which is the coordinator's to start again
            unit = self.units[name]
            assert unit.process is not None
            unit.process.wait()
            unit.process, unit.start_s = None, time.monotonic() + pause_s
        kind = name if name in (COORDINATOR, BROKER) else "device"
        self.kills[kind] = self.kills.get(kind, 0) + 1
        self.timeline.note(f"kill -9 {name}" + (f", started again after {pause_s:.2f} s" if name in self.units else ""))
        return True

    def stall(self, name: str, seconds: float) -> None:
        """Stop a process for some seconds, as on a board that swaps or is too hot."""
        pid = self.pid(name)
        if pid is not None and pid not in self._stalled:
            self._stalled[pid] = time.monotonic() + seconds
            os.kill(pid, signal.SIGSTOP)
            self.timeline.note(f"stall {name} for {seconds:.2f} s")

    def set_clock(self, name: str, seconds: int) -> None:
        """Let a host's wall clock jump to this many seconds from the true time."""
        self.programs.set_clock(name, seconds)
        self.timeline.note(f"clock of {name} set {seconds:+,d} s off")

    def tend(self) -> None:
        """Start what is to be started, let go on what was stalled, note what ended by itself."""
        now_s = time.monotonic()
        for pid, wake_s in list(self._stalled.items()):
            if now_s >= wake_s:
                del self._stalled[pid]
                os.kill(pid, signal.SIGCONT)
        for unit in self.units.values():
            if unit.process is not None and (code := unit.process.poll()) is not None:
                self._ended(unit, code)
            if unit.start_s is not None and now_s >= unit.start_s:
                self._start(unit)

    def _ended(self, unit: Unit, code: int) -> None:
        unit.process = None
        done = code == 0 and (unit.name == COORDINATOR or self.announced_end)
        unit.start_s = None if done else time.monotonic() + 1.0
        self.timeline.note(f"{unit.name} ended with exit code {code}")
        if code not in EXPECTED_ENDS or (code == 0 and not done):
            last = self.log(unit.name).strip().splitlines()[-1:]
            self.crashes.append(f"{unit.name} ended with exit code {code}: {' '.join(last)}")
            raise AssertionError(self.crashes[-1])

    def wait(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Tend the fleet until a condition holds."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
            self.tend()
            time.sleep(0.005)

    # What is known of it.

    @property
    def database(self) -> Path:
        """The coordinator's."""
        assert self.hub is not None
        return self.hub / "coordinator.db"

    @property
    def quorum(self) -> int:
        """Masks a round needs."""
        return self.per_round // 2

    @property
    def masks(self) -> int:
        """Masks stored so far."""
        self._masks = max(self._masks, self._number("SELECT count(*) FROM mask"))
        return self._masks

    @property
    def round(self) -> int:
        """The newest announced round."""
        self._round = max(self._round, self._number("SELECT max(number) FROM round"))
        return self._round

    def _number(self, sql: str) -> int:
        """One number out of the database; 0 at moments when nobody can tell, after a kill above all."""
        found = rows(self.database, sql)
        return int(str(found[0][0] or 0)) if found else 0

    @property
    def announced_end(self) -> bool:
        """The final announcement is written down."""
        return self.round > self.rounds

    @property
    def over(self) -> bool:
        """The run is over and everybody has left."""
        return self.announced_end and all(
            unit.process is None and unit.start_s is None for name, unit in self.units.items() if name != BROKER
        )

    def pid(self, name: str) -> int | None:
        """Process id of the broker, the coordinator or a device, if it runs."""
        if name == BROKER and self.kind == "nats":
            return self.programs.nats()
        process = self.units[name].process
        return process.pid if process is not None and process.poll() is None else None

    def host(self, name: str) -> str:
        """Where it runs: the embedded broker is on the coordinator's host."""
        return COORDINATOR if name == BROKER and self.kind == "nats" else name

    def log(self, name: str) -> str:
        """What a process said, all of its lives in one."""
        path = self.home / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def state(self, device: str) -> Path:
        """A device's state folder."""
        return self.cards.get(device, self.home / "state" / device)

    def _start(self, unit: Unit) -> None:
        # Not when the run is over: it would start another.
        if unit.name == COORDINATOR and self._finished():
            unit.start_s = None
            return
        command = [*self.network.inside(unit.name), *self.programs.with_clock(unit.name), *unit.command]
        with (self.home / f"{unit.name}.log").open("ab") as log:
            unit.process = subprocess.Popen(command, stdout=log, stderr=log, env=unit.environment)
        unit.start_s = None

    def _finished(self) -> bool:
        """Whether the database of a coordinator that does not run holds a finished run."""
        with tempfile.TemporaryDirectory() as folder:
            copy = copy_database(self.database, Path(folder))
            return bool(rows(copy, "SELECT 1 FROM run WHERE finished_s IS NOT NULL"))


def copy_database(database: Path, folder: Path) -> Path:
    """Copy a database and what of it is not checkpointed yet, mended as its next user would; return the copy."""
    for suffix in ("", "-wal"):
        if (part := database.with_name(database.name + suffix)).exists():
            shutil.copy(part, folder / part.name)
    copy = folder / database.name
    with closing(sqlite3.connect(copy)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
    return copy
