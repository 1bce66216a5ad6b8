"""A worker that was killed with masks unacknowledged: started again, it takes them as the broker hands them over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from coordinator.bulk import BulkTransport
from coordinator.keys import federation_key
from coordinator.worker import Worker
from coordinator.worker_store import WorkerStore
from tests.helpers import pooled_plan, random_ticket
from tests.integration.conftest import started_mosquitto
from wire import mask, signing
from wire.broker import parse_url
from wire.channel import Channel, Received
from wire.federation_messages import INSTANCE_BYTES, MaskUpdate, Receipt
from wire.topics import Topics
from wire.transport import monotonic_s
from wire.worker_messages import Shift

pytestmark = pytest.mark.broker
TOPICS, RUN, DEVICES = Topics("t"), b"r" * 8, ("pi-1", "pi-2", "pi-3")
KEY = b"d" * 32  # every device's
TICKET = random_ticket(pooled_plan("p", 16, 3), 0.5, seed=1)


@contextmanager
def connected(port: int, client_id: str, key: bytes) -> Iterator[Channel]:
    """A channel of its own session."""
    transport = BulkTransport(parse_url(f"mqtt://127.0.0.1:{port}"), client_id=client_id)
    transport.connect(10)
    with closing(transport):
        yield Channel(transport, key)


@contextmanager
def worker(port: int, folder: Path, remarks: list[str]) -> Iterator[Worker]:
    """A worker process's parts; when left, its connection is cut as if it was killed."""
    with closing(WorkerStore(folder / "worker.db")) as store, connected(port, "worker", federation_key()) as channel:
        yield Worker(name="one", topics=TOPICS, channel=channel, store=store, remark=remarks.append)
        assert isinstance(channel.transport, BulkTransport)
        assert channel.transport._socket is not None
        channel.transport._socket.close()
        channel.transport._socket, channel.transport._answered = None, False


def work(one: Worker, until: Callable[[], bool]) -> bool:
    """Let a worker work, at most for some seconds."""
    until_s = monotonic_s() + 5
    while not until() and monotonic_s() < until_s:
        one.step(0.05)
    return until()


def update(number: int) -> MaskUpdate:
    """A mask for round 1."""
    votes = mask.unanimous(TICKET.kept)
    signs = votes.signs ^ (np.random.default_rng(number).random(TICKET.kept) < 0.2)
    return MaskUpdate(
        run=RUN, number=1, signs=mask.encode_signs(signs, votes, TICKET.ends), train_samples=10, loss=1.0, correct=1,
        test_samples=2, train_s=1.0, step_ms=1.0, peak_memory_kb=1,
    )  # fmt: skip


def test_a_killed_workers_unacknowledged_masks_are_taken_at_once(tmp_path: Path) -> None:
    """Without a word from the coordinator, and without devices that send them again; the same from a third process."""
    shift = Shift(
        run=RUN, number=1, shift=1, sums=True, votes=mask.encode_votes(mask.unanimous(TICKET.kept), TICKET.ends),
        ticket=TICKET.encoded, devices=DEVICES, keys=signing.public_key(KEY) * 3, instances=bytes(3 * INSTANCE_BYTES),
    )  # fmt: skip
    remarks: list[str] = []
    receipts: set[str] = set()
    with (
        started_mosquitto(tmp_path, "allow_anonymous true\n") as port,
        connected(port, "coordinator", federation_key()) as hub,
        connected(port, "devices", KEY) as devices,
    ):
        devices.trust = lambda topic, message: signing.public_key(federation_key())
        for device in DEVICES:
            devices.subscribe(TOPICS.down(device))

        def confirmed() -> bool:
            while happened := devices.receive(0):
                if isinstance(happened, Received) and isinstance(happened.message, Receipt):
                    receipts.add(happened.topic.rpartition("/")[2])
            return len(receipts) == len(DEVICES) - 1

        with worker(port, tmp_path, remarks) as first:
            assert work(first, lambda: first._reported_s > 0)
            hub.send(TOPICS.work("one", "down"), shift)
            while hub.receive(0.1):
                pass  # it leaves meanwhile
            assert work(first, lambda: "round 1: 3 devices" in remarks), remarks
            first.step(0.3)  # its subscriptions leave
        for number, device in enumerate(DEVICES[:2]):
            devices.send(TOPICS.up(device, "mask"), update(number))
        assert not confirmed()
        with worker(port, tmp_path, remarks) as second:
            assert work(second, confirmed), receipts
            assert receipts == set(DEVICES[:2])
            assert second.store.devices(RUN, 1) == set(DEVICES[:2])
        with worker(port, tmp_path, remarks) as third:
            third.step(0.2)
            assert third.store.unsettled() == 2


def test_a_shift_of_another_version_is_not_taken_up(tmp_path: Path) -> None:
    """The worker says so, and waits for the next."""
    remarks: list[str] = []
    with closing(WorkerStore(tmp_path / "worker.db")) as store, store._writing() as db:
        db.execute("INSERT INTO shift VALUES (x'00')")
    with started_mosquitto(tmp_path, "allow_anonymous true\n") as port, worker(port, tmp_path, remarks) as one:
        one.step(0.1)
    assert any("cannot be taken up" in remark for remark in remarks), remarks
