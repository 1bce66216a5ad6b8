"""Bundles of runs to come on a device: fetched, tried once, kept or forgotten; what it trains meanwhile stays."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coordinator import bundle_update, offers, rollout
from edge_client import fetching, staging, trial
from edge_client.data import DeviceData
from edge_client.kernels import library
from edge_client.staging import Stager
from edge_client.store import Store
from edge_client.workshop import Workshop
from tests.helpers import DEVICE_KEY, pooled_plan, random_ticket
from wire import signing
from wire import update as rules
from wire.bundle import decode_bundle
from wire.channel import Channel, Received
from wire.errors import ConfigError, DataError, StateError, TicketError, WireError
from wire.settings import Training
from wire.topics import Topics
from wire.transport import MemoryBus
from wire.update import FilePart, Staged

TOPICS = Topics("t")
KEY = bytes(range(32))
TICKET = random_ticket(pooled_plan("har-cnn", 32, 3), 0.3, seed=1)
BUNDLE = bundle_update.make(TICKET, ["sparse"], Training())["sparse"]
SAID = bundle_update.announcement(TICKET, {"sparse": BUNDLE}, Training(), key=KEY, percent=100)
DIGEST = SAID.bundles["sparse"]
PART = FilePart(file=DIGEST, number=0, data=BUNDLE)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A device's."""
    with closing(Store(tmp_path)) as made:
        yield made


def _kept(store: Store, digest: bytes) -> bytes | None:
    path = store.bundle_file(digest)
    return path and path.read_bytes()


def stager(store: Store, bus: MemoryBus | None = None, runtime: str = "sparse") -> Stager:
    """Of one device."""
    channel = Channel((bus or MemoryBus()).connect(), DEVICE_KEY, trust=lambda topic, message: signing.public_key(KEY))
    return Stager("pi-1", runtime, store, channel, TOPICS)


def test_a_bundle_is_fetched_tried_and_waits_for_its_run(store: Store) -> None:
    """Over the bus as it is published; the run's bundle stays beside it, until the new run asks for the new one."""
    bus = MemoryBus()
    current = b"the bundle of the run"
    store.save_bundle(bytes(32), current)
    offers.publish(Channel(bus.connect(), KEY), TOPICS, store.folder / "hub", {"sparse": BUNDLE}, SAID, print)
    one = stager(store, bus)
    one.subscribe()
    for _ in range(4):
        one.tick()
        while (heard := one._channel.receive(0)) is not None:
            if isinstance(heard, Received):
                one.hear(heard.message)  # type: ignore[arg-type]
    assert one.waits
    assert one.note == ""
    assert one.begin(bytes(32)) == (DIGEST, Training())
    assert store.staged_file(DIGEST).read_bytes() == BUNDLE
    one.passed()
    assert one.note == rules.bundle_note(DIGEST, works=True)
    again = stager(store)
    again.hear(SAID)
    assert (again.note, again.waits) == (one.note, False), "after a restart too, and it is not tried again"
    assert _kept(store, bytes(32)) == current
    assert not list(store.folder.glob("*.fetched"))
    assert _kept(store, DIGEST) == BUNDLE, "its run has come"
    assert store.bundle_file(bytes(32)) is None
    assert not store.is_staged(DIGEST)
    again.hear(replace(SAID, issued=SAID.issued + 1))
    assert not again.waits


def test_a_bundle_that_does_not_work_goes_and_is_told_of(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not fetched again within a day."""
    one = stager(store)
    one.hear(SAID)
    one.hear(PART)
    assert one.begin(None) is not None
    one.failed("too large")
    assert one.note == rules.bundle_note(DIGEST, works=False)
    assert not store.is_staged(DIGEST)
    one.hear(SAID)
    assert one._fetcher.current is None
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + staging.AGAIN_AFTER_S + 1)
    one.hear(SAID)
    assert one._fetcher.current is not None
    assert one.note == ""


def test_a_trial_that_ends_the_program_is_not_tried_for_ever(store: Store) -> None:
    """Three times: the power may have gone."""
    for _ in range(staging.TRIES):
        one = stager(store)
        one.hear(SAID)
        one.hear(PART)
        assert one.waits
        assert one.begin(None) is not None
    last = stager(store)
    last.hear(SAID)
    assert last.begin(None) is None
    assert last.note == rules.bundle_note(DIGEST, works=False)


@pytest.mark.parametrize("data", [BUNDLE[:-1] + b"x", b"HNSB\x01" + b"\xff" * (len(BUNDLE) - 5)])
def test_another_hash_is_given_up(store: Store, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing of it stays."""
    one = stager(store)
    one.hear(SAID)
    one.hear(replace(PART, data=data))
    assert "bundle given up: " in caplog.text
    assert not one.waits
    assert not list(store.folder.glob("*.fetched"))
    assert not list(store.folder.glob("*.next"))


def test_what_is_signed_and_no_bundle_is_refused(store: Store) -> None:
    """Whoever has the key may err, too."""
    data = b"HNSB\x01" + b"\xff" * 50
    said = replace(SAID, bundles={"sparse": rules.sha256(data).digest()}, sizes=(len(data),))
    one = stager(store)
    one.hear(said)
    one.hear(FilePart(file=said.bundles["sparse"], number=0, data=data))
    found = one.begin(None)
    assert found is not None
    x, y = np.zeros((2, 3), dtype=np.float32), np.zeros(2, dtype=np.int64)
    workshop = Workshop(device="pi-1", load=lambda: DeviceData(x_train=x, y_train=y, x_test=x, y_test=y, source="here"))
    with pytest.raises(WireError) as raised:
        workshop.try_bundle(store.staged_file(found[0]), *found)
    one.failed(raised.value.what)
    assert one.note == rules.bundle_note(said.bundles["sparse"], works=False)


def test_what_is_not_for_this_device_is_not_fetched(store: Store) -> None:
    """Another runtime, another share, an older word; a size that cannot be."""
    other = stager(store, runtime="onnx")
    other.hear(SAID)
    assert other._fetcher.current is None
    one = stager(store)
    one.hear(replace(SAID, share=0))
    assert one._fetcher.current is None
    with pytest.raises(WireError, match="older"):
        one.hear(replace(SAID, issued=SAID.issued - 1))
    with pytest.raises(WireError, match="a file of None bytes"):
        one.hear(replace(SAID, sizes=()))


def test_a_run_that_comes_before_the_trial_needs_none(store: Store) -> None:
    """The device trains with it already."""
    one = stager(store)
    one.hear(SAID)
    one.hear(PART)
    assert one.begin(DIGEST) is None
    assert one.note == rules.bundle_note(DIGEST, works=True)


@pytest.mark.parametrize("text", ["", "[]", '{"bundle": "zz"}', '{"tries": "1"}', '{"failed": 1}'])
def test_a_damaged_record_is_forgotten(store: Store, text: str) -> None:
    """It is fetched and tried again."""
    (store.folder / staging.RECORD).write_text(text)
    assert stager(store).record == staging.Record()
    (store.folder / staging.RECORD).write_text(json.dumps({"issued": 7, "of": "a newer client"}))
    assert stager(store).record.issued == 7


@pytest.mark.skipif(library.library_path() is None, reason="no kernels")
def test_a_trial_is_a_real_step_on_the_devices_data() -> None:
    """In its memory; and what the device's data do not fit does not work."""
    rng = np.random.default_rng(1)
    shape, classes = TICKET.plan.input_shape, TICKET.plan.classes
    x = rng.normal(size=(24, *shape)).astype(np.float32)
    y = rng.integers(0, classes, 24)
    data = DeviceData(x_train=x, y_train=y, x_test=x, y_test=y, source="")
    bundle = decode_bundle(BUNDLE, expected_id=DIGEST)
    trial.bundle(bundle, data, Training(), threads=1, peak_mb=None)
    narrow = DeviceData(x_train=x[:, :1], y_train=y, x_test=x[:, :1], y_test=y, source="")
    with pytest.raises(DataError):
        trial.bundle(bundle, narrow, Training(), threads=1, peak_mb=None)
    trial.check_memory(1, before_kb=1 << 40)
    with pytest.raises(StateError, match="MB to train"):
        trial.check_memory(1)


def test_devices_are_told_apart_by_what_came_of_their_bundle() -> None:
    """Ready, failed, or not known; beside what they say of their client."""
    ready, failed = (rules.bundle_note(DIGEST, works=works) for works in (True, False))
    said = {
        "a": rules.software("hidenseek-edge", "1.0", [ready]),
        "b": rules.software("hidenseek-edge", "1.0", ["2.0 failed", failed]),
        "c": rules.software("hidenseek-edge", "1.0", []),
        "d": "hidenseek-edge 1.0 (bundle 000000000000 ready)",
    }
    found = rollout.standing(SAID, said)
    assert (found.done, found.failed, found.waiting) == ({"a"}, {"b"}, {"c", "d"})
    assert rollout.name_of(SAID) == f"ticket {TICKET.id.hex()[:12]}"


def test_what_cannot_be_offered_is_said(tmp_path: Path) -> None:
    """No ticket, no share."""
    (tmp_path / "x.hns").write_bytes(b"no ticket")
    for path, words in ((tmp_path / "x.hns", "x.hns"), (tmp_path, "ticket.hns: cannot be read")):
        with pytest.raises(TicketError, match=words):
            bundle_update.read(path)
    (tmp_path / "ticket.hns").write_bytes(TICKET.encoded)
    assert bundle_update.read(tmp_path).id == TICKET.id
    with pytest.raises(ConfigError, match="--percent"):
        bundle_update.announcement(TICKET, {"sparse": BUNDLE}, Training(), key=KEY, percent=101)


def test_parts_come_one_after_the_other(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a client's do, and as slowly."""
    monkeypatch.setattr(fetching, "monotonic_s", lambda: 1000.0)
    bus = MemoryBus()
    asked: list[str] = []
    one = stager(store, bus)
    monkeypatch.setattr(one._channel, "subscribe", lambda topic, qos: asked.append(topic))
    data = bytes(2 * rules.PART_BYTES)
    digest = rules.sha256(data).digest()
    one.hear(Staged(**{**vars(SAID), "bundles": {"sparse": digest}, "sizes": (len(data),)}))
    one.tick()
    one.hear(FilePart(file=digest, number=0, data=data[: rules.PART_BYTES]))
    one.tick()
    assert asked == [TOPICS.file_part(digest, 0)], "the next one is not due yet"
    monkeypatch.setattr(fetching, "monotonic_s", lambda: 1000.0 + fetching.PAUSE_S)
    one.tick()
    assert asked[1:] == [TOPICS.file_part(digest, 1)]
