"""A federation of many devices in a few processes, for any method of `coordinator.baselines`.

Selection and rounds are those of the coordinator (`coordinator.rounds`), and what goes down and up are the
very messages, as packets over an in-memory bus; so bytes are counted, not computed. With the same seed,
`hidenseek` comes to the same signs here, round by round, as over MQTT.

A run lies in a folder: `run.json` what it is, `rounds.jsonl` a row a round, and the state after the last
round, from which the same command goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, TypeAlias

import numpy as np

from coordinator import rounds
from coordinator.baselines.method import Floats, Labels, Method, State, Update
from coordinator.datasets.dataset import FederatedData
from coordinator.journal import Journal, Row
from coordinator.rounds import Rounds, Schedule
from coordinator.simulation_worker import Done, Job, count_correct, train, worker_pool
from wire import signing
from wire.channel import Channel, Garbled, Received
from wire.errors import ConfigError
from wire.federation_messages import VOTES_DIGEST_BYTES, MaskUpdate, Receipt, Round
from wire.fields import RUN_BYTES, single
from wire.messages import Message
from wire.prng import mix, training_seed
from wire.topics import Topics
from wire.transport import MemoryBus

LAST_ROUNDS = 5  # whose mean is reported
NAME = "simulation"
MEASURED = single(0.1)  # in messages stands for what was measured: as long on the wire, and the same every time
Report: TypeAlias = Callable[[Row], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a simulation proceeds.

    Attributes:
        schedule: rounds, devices a round, seed; every device is always online.
        evaluate_every: global accuracy is taken after every so many rounds, and after each of the last five.
        workers: processes; 1: in this one.
    """

    schedule: Schedule
    evaluate_every: int = 5
    workers: int = 1


def run(
    make: Callable[[], Method[Any]],
    data: FederatedData,
    plan: Plan,
    *,
    folder: Path,
    about: Mapping[str, Any],
    report: Report,
) -> list[Row]:
    """Simulate all rounds, or those that are left; return a row a round.

    Args:
        make: makes the method, with the task whose devices are `data`'s; not called for a run that is done.
        data: who holds what.
        plan: how to proceed.
        folder: where the run lies.
        about: what makes this run what it is: method, settings, data; JSON values.
        report: told every new row.

    Raises:
        ConfigError: if there are fewer devices than a round takes.
        StateError: if the folder holds another run, another process is at it, or it cannot be read.
    """
    if plan.schedule.per_round > len(data.devices):
        raise ConfigError(
            f"{plan.schedule.per_round} devices a round asked for, but there are {len(data.devices)}",
            where="--per-round",
        )
    spec = {**about, "schedule": asdict(plan.schedule), "evaluate_every": plan.evaluate_every}
    with closing(Journal(folder, json.loads(json.dumps(spec)))) as journal:
        rows = journal.rows()
        total = plan.schedule.rounds
        if len(rows) >= total:
            return rows[:total]
        method = make()
        state = journal.load_state(len(rows)) if rows else method.start()
        with worker_pool(method, plan.workers) as executor:
            loop = _Loop(method, data, plan, journal, executor)
            for row in loop.play(state, first=len(rows) + 1):
                rows.append(row)
                report(row)
        return rows


@dataclass
class _Loop:
    """The coordinator's side of a simulation."""

    method: Method[Any]
    data: FederatedData
    plan: Plan
    journal: Journal
    executor: Executor
    topics: Topics = field(default_factory=lambda: Topics(NAME))

    def __post_init__(self) -> None:
        bus = MemoryBus()
        # One key for all: what counts here are the bytes of signatures.
        key = mix(NAME, "key", self.plan.schedule.seed).to_bytes(signing.KEY_BYTES, "little")
        self._server, self._edge = Channel(bus.connect(), key), Channel(bus.connect(), key)
        self._server.trust = self._edge.trust = lambda topic, message: signing.public_key(key)
        self._server.subscribe(self.topics.all_up)
        for device in self.data.devices:
            self._edge.subscribe(self.topics.down(device))
        self._run = mix(NAME, self.plan.schedule.seed).to_bytes(RUN_BYTES, "little")

    def play(self, state: State, first: int) -> Iterator[Row]:
        """Play the rounds from number `first` on."""
        standing, actions = _all_online(self.plan.schedule, list(self.data.devices), first)
        while not standing.over:
            (opened,) = [action for action in actions if isinstance(action, rounds.Announce)]
            began = time.monotonic()
            state, row = self._round(state, opened.number, opened.selected)
            row["wall_s"] = round(time.monotonic() - began, 3)
            self.journal.commit(state, row, opened.selected)
            yield row
            for device in opened.selected:
                actions = rounds.handle(standing, rounds.MaskStored(device=device), now_s=0.0)

    def _round(self, state: State, number: int, selected: tuple[str, ...]) -> tuple[State, Row]:
        futures: dict[str, Future[Done]] = {}
        seeds = {device: training_seed(self.plan.schedule.seed, number, device) for device in selected}
        down_bytes = up_bytes = 0
        for device in selected:
            message = Round(
                run=self._run,
                number=number,
                selected=selected,
                evaluate=False,
                final=False,
                votes=self.method.announce(state, device),
                base=max(number - 1, 0),
                digest=bytes(VOTES_DIGEST_BYTES),
            )
            payload, size = self._carry(self._server, self._edge, self.topics.down(device), message)
            down_bytes += size
            job = Job(
                device=device,
                down=self.method.hear(state, device, payload.votes),
                data=self.data.devices[device],
                memory=self.journal.newest_memory(device, before=number),
                keep=self.journal.memory(device, number),
                seed=seeds[device],
            )
            futures[device] = self.executor.submit(train, job)
        results = {device: future.result() for device, future in futures.items()}
        updates = []
        for device, done in results.items():
            data = self.data.devices[device]
            update = MaskUpdate(
                run=self._run,
                number=number,
                signs=done.up,
                train_samples=data.y_train.size,
                loss=single(done.loss),
                correct=done.correct,
                test_samples=data.y_test.size,
                train_s=MEASURED,
                step_ms=MEASURED,
                peak_memory_kb=100_000,
            )
            received, size = self._carry(self._edge, self._server, self.topics.up(device, "mask"), update)
            up_bytes += size
            updates.append(
                Update(device=device, samples=received.train_samples, payload=received.signs, seed=seeds[device])
            )
            receipt = Receipt(run=self._run, number=number)
            down_bytes += self._carry(self._server, self._edge, self.topics.down(device), receipt)[1]
        saved = sum(len(update.payload) - self.method.ideal_bytes(state, update) for update in updates)
        remarks = self.method.remarks(state, updates)
        if self.method.has_global:
            state = self.method.aggregate(state, updates)
        else:
            up_bytes = down_bytes = 0  # nothing is exchanged, not even empty messages
        tests = sum(self.data.devices[device].y_test.size for device in selected)
        row: Row = {
            "round": number,
            "selected": len(selected),
            "up_bytes": up_bytes,
            "down_bytes": down_bytes,
            "payload_bytes": sum(len(update.payload) for update in updates),
            "ideal_up_bytes": round(up_bytes - saved),
            "loss": fmean(done.loss for done in results.values()),
            "personalised": sum(done.correct for done in results.values()) / tests if tests else None,
            "cpu_s": round(sum(done.cpu_s for done in results.values()), 3),
            "peak_kb": max(done.peak_kb for done in results.values()),
        }
        if remarks:
            row["remarks"] = list(remarks)
        return state, row | self._evaluate(state, number)

    def _carry(self, sender: Channel, receiver: Channel, topic: str, message: Message) -> tuple[Any, int]:
        """Send a message over the bus; return what arrived and the bytes it took."""
        size = sender.send(topic, message)
        while True:
            event = receiver.receive(0.0)
            if isinstance(event, Garbled):
                raise event.error
            if isinstance(event, Received):
                event.acknowledge()
                return event.message, size

    def _evaluate(self, state: State, number: int) -> Row:
        """Accuracy of the global network, seen: on the devices' test samples, unseen: on people who never train."""
        left = self.plan.schedule.rounds - number
        if not self.method.has_global or (left >= LAST_ROUNDS and number % self.plan.evaluate_every):
            return {"seen": None, "unseen": None}
        down = self.method.announce(state, None)
        devices = self.data.devices.values()
        x, y = np.concatenate([d.x_test for d in devices]), np.concatenate([d.y_test for d in devices])
        row: Row = {"seen": self._accuracy(down, x, y) if y.size else None, "unseen": None}
        if self.data.unseen is not None:
            row["unseen"] = self._accuracy(down, *self.data.unseen)
        return row

    def _accuracy(self, down: bytes, x: Floats, y: Labels) -> float:
        parts = zip(np.array_split(x, self.plan.workers), np.array_split(y, self.plan.workers), strict=True)
        futures = [self.executor.submit(count_correct, down, *part) for part in parts]
        return sum(future.result() for future in futures) / y.size


def _all_online(schedule: Schedule, devices: list[str], first: int) -> tuple[Rounds, list[rounds.Action]]:
    """Open round `first` with every device online."""
    standing = Rounds(schedule=schedule, number=first, online=frozenset(devices))
    return standing, rounds.handle(standing, rounds.Tick(), 0.0)
