"""How fast masks are taken in: signed, over a real mosquitto, by a coordinator that commits what has arrived at once.

One connection speaks for all devices, so what is measured is the broker and the coordinator, not training. In the same
run a coordinator that commits every message by itself is what to compare with.

    python -m benchmarks.ingest -o benchmarks/results/ingest.json
    python -m benchmarks.ingest --workers 2        # with two workers, and in the same run without

With workers masks are not looked at for hostile ones, on either side, for what workers hand on are sums.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path

from rich.console import Console

from benchmarks.machine import commit, describe
from coordinator import outbox
from coordinator.federation import DATABASE, Federation, Recipe, connect, prepare
from coordinator.rounds import Schedule
from coordinator.store import Store
from coordinator.terminal import Board
from tests.helpers import introduce
from tests.integration.conftest import started_mosquitto
from wire import mask, messages, prng, signing
from wire.channel import seal
from wire.mask import Votes
from wire.messages import MaskUpdate, Message, Round
from wire.mqtt import MqttTransport, parse_url
from wire.settings import Training
from wire.ticket import Ticket
from wire.topics import Topics
from wire.transport import Packet

NAME = "ingest"
FLIPPED = 0.05
INFLIGHT = 100  # as `hidenseek broker init` sets it
WAIT_S = 300.0


def federation(rounds: int, per_round: int, devices: int, defend: bool = True, workers: int = 0) -> Federation:
    """Of har-cnn, where every selected device is waited for."""
    schedule = Schedule(rounds=rounds, per_round=per_round, quorum=per_round, deadline_s=WAIT_S, start_devices=devices)
    return Federation(
        name=NAME,
        ticket=Recipe().make(),
        training=Training(),
        schedule=schedule,
        runtimes=("sparse",),
        evaluate=False,
        defend=defend,
        workers=workers > 0,
    )


def serve(
    url: str, state: Path, batch: int, rounds: int, per_round: int, devices: int, defend: int, workers: int
) -> None:
    """Be the coordinator, in this process."""
    outbox.BATCH = batch
    wanted = federation(rounds, per_round, devices, bool(defend), workers)
    board = Board(Console(file=sys.stderr), title=NAME, rounds=rounds, fedavg_bytes=1)
    with closing(Store(state / DATABASE)) as store:
        channel = connect(parse_url(url), NAME, wanted.ticket, timeout_s=10)
        with closing(channel.transport):
            prepare(wanted, store=store, channel=channel, observer=board).serve()


@dataclass
class Crowd:
    """Devices that say what they must, all on one connection."""

    transport: MqttTransport
    ticket: Ticket
    names: Sequence[str]
    votes: dict[int, Votes] = field(default_factory=dict)
    receipts: int = 0
    last_receipt_s: float = 0.0
    announced_s: float = 0.0
    _topics: Topics = field(default_factory=lambda: Topics(NAME))
    _round: Round | None = None
    _listened: bool = False  # by a coordinator

    def __post_init__(self) -> None:
        self.keys = {name: prng.mix(NAME, name).to_bytes(8, "little") * 4 for name in self.names}

    def introduce(self) -> float:
        """Everybody says hello; seconds until the first round is announced."""
        for topic in (self._topics.announcement, self._topics.round, f"hns/{NAME}/down/+"):
            self.transport.subscribe(topic)
        self._wait(lambda: self._listened)
        began_s = time.monotonic()
        for name in self.names:
            self._say(name, "hello", introduce(name[-8:], "sparse", self.keys[name]))
        self._wait(lambda: self._round is not None)
        return self.announced_s - began_s

    def play(self) -> tuple[int, float, float]:
        """Send the masks of a round, made before; how many, and seconds until the last receipt and the next round."""
        announced = self._round
        assert announced is not None
        number = announced.number
        self.votes[number] = mask.decode_votes(
            announced.votes, self.ticket.ends, self.votes[announced.base] if announced.base else None
        )
        packets = [self._mask(name, announced) for name in announced.selected]
        self.receipts, began_s = 0, time.monotonic()
        for topic, payload in packets:
            self.transport.publish(topic, payload)
        self._wait(lambda: self._round is not None and self._round.number > number)
        self._wait(lambda: self.receipts >= len(packets))
        return len(packets), self.last_receipt_s - began_s, self.announced_s - began_s

    def _mask(self, name: str, announced: Round) -> tuple[str, bytes]:
        votes = self.votes[announced.number]
        flips = prng.generator((announced.number, name)).random(votes.signs.size) < FLIPPED
        update = MaskUpdate(
            run=announced.run, number=announced.number,
            signs=mask.encode_signs(votes.signs ^ flips, votes, self.ticket.ends),
            train_samples=100, loss=1.0, correct=6, test_samples=10, train_s=1.0, step_ms=1.0, peak_memory_kb=50_000,
        )  # fmt: skip
        topic = self._topics.up(name, "mask")
        return topic, seal(self.keys[name], topic, update)

    def _say(self, name: str, kind: str, message: Message) -> None:
        topic = self._topics.up(name, kind)
        self.transport.publish(topic, seal(self.keys[name], topic, message))

    def _wait(self, until: Callable[[], bool]) -> None:
        give_up_s = time.monotonic() + WAIT_S
        while not until():
            event = self.transport.receive(1.0)
            if isinstance(event, Packet):
                event.acknowledge()
                self._hear(event)
            elif time.monotonic() > give_up_s:
                raise TimeoutError("the coordinator is silent")

    def _hear(self, packet: Packet) -> None:
        if packet.topic == self._topics.announcement:
            self._listened = True
        elif packet.topic == self._topics.round:
            message = messages.decode(packet.payload[: -signing.SIGNATURE_BYTES])
            assert isinstance(message, Round)
            self._round, self.announced_s = message, time.monotonic()
        elif packet.payload[3] == 10:  # a receipt's kind
            self.receipts += 1
            self.last_receipt_s = time.monotonic()


@contextmanager
def coordinator(
    url: str, batch: int, rounds: int, per_round: int, devices: int, defend: bool, workers: int
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A coordinator in a process of its own, and its workers after it, in theirs."""
    with tempfile.TemporaryDirectory() as state:
        sizes = (batch, rounds, per_round, devices, int(defend), workers)
        commands = [["benchmarks.ingest", "--serve", url, state, *map(str, sizes)]]
        for number in range(workers):
            name = f"worker-{number + 1}"
            command = ["coordinator.cli", "worker", "--broker", url, "--federation", NAME, "--name", name]
            commands.append([*command, "--state", str(Path(state) / name)])
        processes: list[subprocess.Popen[bytes]] = []
        try:
            processes.extend(
                subprocess.Popen([sys.executable, "-m", *command], stderr=subprocess.DEVNULL) for command in commands
            )
            yield processes
        finally:
            for process in processes:
                process.kill()
                process.wait()


def spent(pid: int) -> tuple[float, int]:
    """CPU seconds of a process so far, and its largest resident memory in MB."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), int(status["VmHWM"].split()[0]) // 1024


def measure(
    batch: int, rounds: int, per_round: int, devices: int, defend: bool = True, workers: int = 0
) -> dict[str, object]:
    """One coordinator's figures; with workers not those of the first round, in which they begin to listen."""
    names = [f"device-{number:06}" for number in range(devices)]
    with (
        tempfile.TemporaryDirectory() as folder,
        started_mosquitto(Path(folder), f"allow_anonymous true\nmax_inflight_messages {INFLIGHT}\n") as port,
        coordinator(f"mqtt://127.0.0.1:{port}", batch, rounds, per_round, devices, defend, workers) as processes,
    ):
        transport = MqttTransport(parse_url(f"mqtt://127.0.0.1:{port}"), client_id="crowd")
        transport.connect(10)
        with closing(transport):
            crowd = Crowd(transport, federation(1, 1, 1).ticket, names)
            joined_s = crowd.introduce()
            if workers:
                crowd.play()
                rounds -= 1
            played, before = [], [spent(process.pid)[0] for process in processes]
            for _ in range(rounds):
                played.append(crowd.play())
                if len(played) == rounds - 1:
                    after = [spent(process.pid) for process in processes]  # after the last it ends
    counted = sum(one[0] for one in played[:-1])
    cpu_us = [round((now[0] - was) / counted * 1e6) for now, was in zip(after, before, strict=True)]
    masks = sum(one[0] for one in played)
    return {
        "batch": batch,
        "defend": defend,
        "workers": workers,
        "devices": devices,
        "masks_a_round": per_round,
        "hellos_per_s": round(devices / joined_s),
        "masks_per_s": round(masks / sum(one[1] for one in played)),
        "round_s": round(statistics.median(one[2] for one in played), 2),
        "cpu_us_a_mask": cpu_us[0],
        "workers_cpu_us_a_mask": sum(cpu_us[1:]),
        "peak_mb": after[0][1],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest", description="Masks a second.")
    parser.add_argument("--devices", type=int, default=1_000, help="in the fleet (default 1000)")
    parser.add_argument("--per-round", type=int, default=1_000, help="masks a round (default 1000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--workers", type=int, default=0, help="compare with so many instead of batches")
    parser.add_argument("--serve", nargs=8, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        url, state, *sizes = options.serve
        serve(url, Path(state), *map(int, sizes))
        return 0
    rows = []
    sizes = (options.rounds, options.per_round, options.devices)
    if options.workers:
        runs = [partial(measure, outbox.BATCH, *sizes, False, workers) for workers in (0, options.workers)]
    else:
        runs = [partial(measure, batch, *sizes) for batch in (1, outbox.BATCH)]
    for run in runs:
        rows.append(run())
        print(rows[-1], flush=True)
    if options.output:
        versions = {name: metadata.version(name) for name in ("numpy", "paho-mqtt", "PyNaCl", "hidenseek")}
        result = {"machine": describe(), "commit": commit(), "versions": versions, "flipped": FLIPPED, "rows": rows}
        options.output.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
