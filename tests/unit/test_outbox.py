"""Nothing is said before what it follows from is on disk, and a batch is written whole or not at all."""

from __future__ import annotations

from contextlib import closing

import pytest

from coordinator.outbox import Outbox
from coordinator.store import Store
from tests.helpers import federation_channel, introduce
from wire.errors import StateError
from wire.federation_messages import Welcome
from wire.transport import MemoryBus, MemoryTransport, Packet

TOPIC = "hns/t/down/pi"
HELLO = introduce("a")
WELCOME = Welcome(instance=HELLO.instance)


@pytest.fixture
def bus() -> MemoryBus:
    """A broker."""
    return MemoryBus()


@pytest.fixture
def outbox(store: Store, bus: MemoryBus) -> Outbox:
    """A coordinator's."""
    return Outbox(federation_channel(bus), store)


@pytest.fixture
def listener(bus: MemoryBus) -> MemoryTransport:
    """A device that hears what is said to it."""
    transport = bus.connect()
    transport.subscribe(TOPIC)
    transport.receive(0)
    return transport


def _others(outbox: Outbox) -> set[str]:
    """The devices that another process finds in the database."""
    with closing(Store(outbox.store.place)) as other:
        return set(other.devices())


def test_a_batch_is_committed_once_and_then_said(outbox: Outbox, listener: MemoryTransport) -> None:
    """Until it ends nobody else sees or hears any of it; its own process does."""
    said = []
    with outbox.batch():
        for name in ("pi-1", "pi-2"):
            outbox.store.save_device(name, HELLO)
        sent = outbox.send(TOPIC, WELCOME)
        outbox.then(lambda: said.append(_others(outbox)))
        assert set(outbox.store.devices()) == {"pi-1", "pi-2"}
        assert _others(outbox) == set()
        assert listener.receive(0) is None
        assert not said
    packet = listener.receive(0)
    assert isinstance(packet, Packet)
    assert len(packet.payload) == sent
    assert said == [{"pi-1", "pi-2"}]
    with outbox.batch():
        pass
    assert listener.receive(0) is None, "what was said is not said again"


def _say_much(outbox: Outbox, devices: int, error: Exception | None = None) -> None:
    with outbox.batch():
        for number in range(devices):
            outbox.store.save_device(f"pi-{number}", HELLO)
        outbox.send(TOPIC, WELCOME)
        if error is not None:
            raise error


def test_a_batch_that_fails_leaves_nothing(outbox: Outbox, listener: MemoryTransport) -> None:
    """Neither written nor said, not even with the next one."""
    outbox.store.save_device("before", HELLO)
    with pytest.raises(ZeroDivisionError):
        _say_much(outbox, 2, ZeroDivisionError())
    with outbox.batch():
        outbox.store.save_device("after", HELLO)
    assert set(outbox.store.devices()) == _others(outbox) == {"before", "after"}
    assert listener.receive(0) is None


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
def test_a_batch_that_cannot_be_committed_is_not_said(outbox: Outbox, listener: MemoryTransport) -> None:
    """As on a full disk."""
    outbox.store.query("PRAGMA max_page_count = 1")
    with pytest.raises(StateError, match="Make room"):
        _say_much(outbox, 2_000)
    assert listener.receive(0) is None
    assert _others(outbox) == set()


def test_writing_outside_of_a_batch_commits_at_once(outbox: Outbox) -> None:
    """Also after one."""
    with outbox.batch():
        pass
    outbox.store.save_device("pi-1", HELLO)
    assert _others(outbox) == {"pi-1"}
