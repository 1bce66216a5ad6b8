"""How fast masks are taken in: signed, over a real mosquitto, by a coordinator alone or with workers.

One connection speaks for all devices (`benchmarks.crowd`), so what is measured is broker, coordinator and workers, and
not training. A round's masks are signed before its clock starts; it stops when every device has its receipt and the
next round is announced. CPU time is taken of each process, and only while the clock runs.

    python -m benchmarks.ingest -o benchmarks/results/ingest.json
    python -m benchmarks.ingest --workers 1 2 -o benchmarks/results/ingest-workers.json
    python -m benchmarks.ingest --postgres -o benchmarks/results/ingest-postgres.json

The first compares a coordinator that commits all that has arrived at once with one that commits every message by
itself; the second one worker with two; the third a database in a file with one on a PostgreSQL server of this machine,
over TCP, alone and with a worker. With workers masks are not looked at for hostile ones, on either side, for what
workers hand on are sums.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from urllib.parse import quote

from rich.console import Console

from benchmarks.crowd import FLIPPED, WAIT_S, Crowd, Played
from benchmarks.machine import commit, describe
from coordinator import outbox
from coordinator.brokers.deployment import INFLIGHT
from coordinator.federation import DATABASE, Federation, Recipe, connect, prepare
from coordinator.keys import federation_key
from coordinator.place import Server
from coordinator.rounds import Schedule
from coordinator.store import Store
from coordinator.store_options import VARIABLE as STORE
from coordinator.terminal import Board
from tests.integration.conftest import started_mosquitto
from tests.postgres import ACCOUNT, PASSWORD, programs, started_postgres
from wire import signing
from wire.broker import parse_url
from wire.settings import Training

NAME = "ingest"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is measured.

    Attributes:
        batch: messages committed together at most.
        rounds: how many.
        devices: in the fleet; every round asks all.
        defend: masks are looked at for hostile ones.
        workers: how many.
        postgres: the database is a server's.
    """

    batch: int
    rounds: int
    devices: int
    defend: bool
    workers: int
    postgres: bool = False

    def federation(self) -> Federation:
        """Of har-cnn, where every device is waited for."""
        schedule = Schedule(
            rounds=self.rounds,
            per_round=self.devices,
            quorum=self.devices,
            deadline_s=WAIT_S,
            start_devices=self.devices,
        )
        return Federation(
            name=NAME,
            ticket=Recipe().make(),
            training=Training(),
            schedule=schedule,
            runtimes=("sparse",),
            evaluate=False,
            defend=self.defend,
            workers=self.workers > 0,
        )


def serve(url: str, state: Path, setting: Setting) -> None:
    """Be the coordinator, in this process."""
    place = Server(os.environ[STORE]) if setting.postgres else state / DATABASE
    outbox.BATCH = setting.batch
    wanted = setting.federation()
    board = Board(Console(file=sys.stderr), title=NAME, rounds=setting.rounds, fedavg_bytes=1)
    with closing(Store(place)) as store:
        channel = connect(parse_url(url), NAME, wanted.ticket, timeout_s=10)
        with closing(channel.transport):
            prepare(wanted, store=store, channel=channel, observer=board).serve()


@contextmanager
def started(url: str, state: Path, setting: Setting) -> Iterator[dict[str, int]]:
    """A coordinator and its workers, each in a process of its own: their ids by name."""
    commands = {"coordinator": ["benchmarks.ingest", "--serve", url, str(state), json.dumps(vars(setting))]}
    for number in range(setting.workers):
        name = f"worker-{number + 1}"
        command = ["coordinator.cli", "worker", "--broker", url, "--federation", NAME, "--name", name]
        commands[name] = [*command, "--state", str(state / name)]
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, command in commands.items():
            with (state / f"{name}.log").open("wb") as log:
                processes[name] = subprocess.Popen([sys.executable, "-m", *command], stderr=log)
        yield {name: process.pid for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mb(pid: int) -> int:
    """Largest resident memory of a process so far."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) // 1024


def children() -> set[int]:
    """Processes that this one has started, and that run."""
    return {int(child) for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def measure(setting: Setting) -> dict[str, object]:
    """One setting's figures.

    Not of the last round, after which everybody ends; with workers nor of the first, in which they begin to listen.
    """
    if setting.postgres:
        with started_postgres(fsync=True) as cluster:
            # By TCP, as from another machine, but for the way there.
            os.environ[STORE] = f"postgresql://{ACCOUNT}:{quote(PASSWORD, safe='')}@127.0.0.1:{cluster.port}/{ACCOUNT}"
            return _measure(setting)
    return _measure(setting)


def _measure(setting: Setting) -> dict[str, object]:
    names = [f"device-{number:06}" for number in range(setting.devices)]
    settings = f"allow_anonymous true\nmax_inflight_messages {INFLIGHT}\nset_tcp_nodelay true\n"
    before = children()
    with tempfile.TemporaryDirectory() as folder, started_mosquitto(Path(folder), settings) as port:
        (broker,) = children() - before
        ids = {"senders": os.getpid(), "broker": broker}
        state = Path(folder)
        with started(f"mqtt://127.0.0.1:{port}", state, setting) as processes:
            ids |= processes
            key = signing.public_key(federation_key())
            crowd = Crowd(port, NAME, setting.federation().ticket, names, key)
            with closing(crowd):
                joined_s = crowd.introduce()
                played, spent = _play(crowd, ids, setting)
            peaks = {name: peak_mb(pid) for name, pid in ids.items()}
    masks = sum(one.masks for one in played)
    return {
        **vars(setting),
        "hellos_per_s": round(setting.devices / joined_s),
        "masks": masks,
        "masks_per_s": round(masks / sum(one.round_s for one in played)),
        "receipts_per_s": round(masks / sum(one.receipts_s for one in played)),
        "round_s": round(statistics.median(one.round_s for one in played), 2),
        "cpu_us_a_mask": {name: round(seconds / masks * 1e6) for name, seconds in spent.items()},
        "peak_mb": peaks,
    }


def _play(crowd: Crowd, ids: dict[str, int], setting: Setting) -> tuple[list[Played], dict[str, float]]:
    """Rounds, and what every process spent in them."""
    played, spent = [], dict.fromkeys(ids, 0.0)
    for number in range(1, setting.rounds):
        prepared = crowd.prepare()
        before = {name: cpu_s(pid) for name, pid in ids.items()}
        one = crowd.play(prepared)
        if number == 1 and setting.workers:
            continue
        played.append(one)
        for name, pid in ids.items():
            spent[name] += cpu_s(pid) - before[name]
    return played, spent


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest", description="Masks a second.")
    parser.add_argument("--devices", type=int, default=1_000, help="in the fleet, all asked in a round (default 1000)")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--workers", type=int, nargs="*", help="compare such numbers of workers instead of batches")
    parser.add_argument("--postgres", action="store_true", help="compare databases instead of batches")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        url, state, setting = options.serve
        serve(url, Path(state), Setting(**json.loads(setting)))
        return 0
    make = partial(Setting, rounds=options.rounds, devices=options.devices)
    if options.postgres:
        settings = [
            make(batch=outbox.BATCH, defend=False, workers=workers, postgres=postgres)
            for workers in (0, 1)
            for postgres in (False, True)
        ]
    elif options.workers is None:
        settings = [make(batch=batch, defend=True, workers=0) for batch in (1, outbox.BATCH)]
    else:
        settings = [make(batch=outbox.BATCH, defend=False, workers=count) for count in options.workers]
    rows = []
    for setting in settings:
        rows.append(measure(setting))
        print(rows[-1], flush=True)
    if options.output:
        names = ("numpy", "paho-mqtt", "PyNaCl", "hidenseek", *(("psycopg",) if options.postgres else ()))
        versions = {name: metadata.version(name) for name in names}
        if options.postgres:
            told = subprocess.run([programs() / "postgres", "--version"], capture_output=True, text=True, check=True)
            versions["postgresql"] = told.stdout.split()[2]
        result = {"machine": describe(), "commit": commit(), "versions": versions, "flipped": FLIPPED, "rows": rows}
        options.output.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
