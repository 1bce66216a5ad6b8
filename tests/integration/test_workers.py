"""Workers on a bus in memory: the same votes as without them, whatever is lost or dies, and every mask once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from coordinator import outbox, workforce
from coordinator.keys import federation_key
from coordinator.place import Place
from coordinator.worker import Worker
from coordinator.worker_batch import Opener, Opening, Source
from coordinator.worker_store import WorkerStore
from tests.integration.stage import HONEST, Stage
from wire import batch, messages, signing
from wire.channel import Channel, seal
from wire.errors import ConfigError
from wire.federation_messages import Receipt, Round
from wire.messages import Message
from wire.topics import Topics
from wire.transport import MemoryTransport, Packet
from wire.worker_messages import Report, Settled, Tally

Lost = Callable[[str, Message], bool]


@dataclass
class Crewed(Stage):
    """A stage with workers, whose turn it is whenever the coordinator has nothing to do, and before devices answer.

    Args:
        lost: tells of a message from or to a worker whether it is lost on its way.
    """

    workers: bool = True
    names: tuple[str, ...] = ("one", "two")
    lost: Lost = lambda topic, message: False
    crew: dict[str, Worker] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.before = lambda stage: self.turn()
        for name in self.names:
            self.start(name)
        self.coordinator.watch = self.turn

    def start(self, name: str) -> Worker:
        """Start a worker, or again, with what is on its disk."""
        self.crew[name] = Worker(
            name=name,
            topics=Topics("t"),
            channel=Channel(self.bus.connect(), federation_key()),
            store=WorkerStore(self.folder / name / "worker.db"),
            remark=self.remarks.append,
        )
        return self.crew[name]

    def kill(self, name: str) -> None:
        """It says nothing more, and what it had in memory is gone."""
        worker = self.crew.pop(name)
        assert isinstance(worker.channel.transport, MemoryTransport)
        worker.channel.transport.kill()
        worker.store.close()

    def turn(self) -> None:
        """Let every worker deal with what has come."""
        for worker in list(self.crew.values()):
            worker.step(0)

    def partials(self, number: int) -> int:
        """Tallies of a round that the coordinator has."""
        return len(self.store.query("SELECT 1 FROM partial WHERE number = ?", number))

    def _spy(self, topic: str, payload: bytes, retain: bool) -> None:
        if "/work/" in topic:
            message = messages.decode(payload[: -signing.SIGNATURE_BYTES])
            if not self.lost(topic, message):
                self._deliver(topic, payload, retain)
            return
        if "/all/round" in topic:
            self.turn()  # shifts are said before the round is
        super()._spy(topic, payload, retain)

    def receipts(self, number: int) -> list[str]:
        """Devices that were told that their mask is safe."""
        found = [(topic, message) for topic, message in self.told if isinstance(message, Receipt)]
        return sorted({topic.rpartition("/")[2] for topic, message in found if message.number == number})


def check(stage: Crewed, rounds: int) -> None:
    """Every device's mask of every round is counted once and confirmed, and makes the votes that it would have made."""
    for number in range(1, rounds + 1):
        assert stage.counted(number) == stage.receipts(number) == list(HONEST), number


def test_sums_make_the_votes_that_masks_make(tmp_path: Path, place: Place) -> None:
    """Once workers listen, the coordinator sees no mask, and what it announces is what it would have."""
    stage = Crewed(tmp_path, rounds=4, place=place)
    assert stage.play().digest == stage.expected().digest
    check(stage, 4)
    for number in (3, 4):
        assert stage.partials(number) >= 1
        assert all(row["signs"] == b"" for row in stage.store.query("SELECT * FROM mask WHERE number = ?", number))
    spent = stage.store.query("SELECT * FROM mask WHERE number = 4 AND device = ?", HONEST[0])[0]
    assert (spent["train_samples"], spent["correct"], spent["test_samples"]) == (72, 6, 24)
    assert spent["payload_bytes"] == len(stage.sent[f"{HONEST[0]} mask 4"])
    stage.store.close()


@pytest.mark.parametrize("batch", [1, 2])
def test_nothing_is_lost_where_a_worker_s_batch_ends(
    tmp_path: Path, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes after the last message of a batch waits for the next one."""
    monkeypatch.setattr(outbox, "BATCH", batch)
    stage = Crewed(tmp_path, rounds=4)
    assert stage.play().digest == stage.expected().digest
    check(stage, 4)


@pytest.mark.parametrize("batch", [1, 3, 500])
def test_a_mask_that_comes_twice_counts_once(tmp_path: Path, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the second comes while the first is being opened."""
    monkeypatch.setattr(outbox, "BATCH", batch)

    def again(stage: Stage, opened: Round) -> None:
        for device in (*HONEST, *reversed(HONEST)):
            stage.say(device, "mask", stage.mask(device, opened.number))

    stage = Crewed(tmp_path, rounds=4, acts={3: again, 4: again})
    assert stage.play().digest == stage.expected().digest
    check(stage, 4)


@pytest.mark.parametrize(("tally", "tally_bytes"), [(1, 1 << 20), (2, 1 << 20), (3, 200)])
def test_whole_tallies_are_told_from_memory(
    tmp_path: Path, tally: int, tally_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What makes a tally by itself comes to the same as what is put together in the database."""
    monkeypatch.setattr("coordinator.worker_tallies.TALLY", tally)
    monkeypatch.setattr("coordinator.worker_tallies.TALLY_BYTES", tally_bytes)
    stage = Crewed(tmp_path, rounds=4)
    assert stage.play().digest == stage.expected().digest
    check(stage, 4)
    assert stage.partials(4) >= len(HONEST) // tally


def test_masks_for_another_worker_do_not_part_those_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that was alone once hears all devices: it opens the masks of its share together all the same."""
    opened: list[tuple[int, int]] = []
    start = Opener.start

    def note(self: Opener, packets: Sequence[tuple[Source, Packet]], pool: ThreadPoolExecutor) -> Opening:
        opened.append((self.number, len(packets)))
        return start(self, packets, pool)

    def join(stage: Stage, announced: Round) -> None:
        assert isinstance(stage, Crewed)
        stage.start("other")  # pi-2's, so that it stands between those of pi-1 and pi-3

    if not batch.able():
        pytest.skip("without the native library masks are opened one by one")
    monkeypatch.setattr(Opener, "start", note)
    stage = Crewed(tmp_path, rounds=5, names=("one",), acts={2: join})
    assert stage.play().digest == stage.expected().digest
    check(stage, 5)
    assert sorted(count for number, count in opened if number == 5) == [1, 2]


def test_where_masks_are_looked_at_workers_hand_them_on(tmp_path: Path) -> None:
    """A federation that looks for hostile masks has each one, coded as its device coded it."""
    stage = Crewed(tmp_path, rounds=3, defend=True)
    stage.play()
    check(stage, 3)
    assert stage.partials(3) >= 1
    for name, signs in stage.store.masks(stage.run_id, 3).items():
        assert signs == stage.mask(name, 3).signs


def test_what_a_worker_and_the_coordinator_have_counts_once(tmp_path: Path) -> None:
    """While the coordinator still hears everybody, both take a mask; the worker is told, and its sum is not taken."""
    stage = Crewed(tmp_path, rounds=3, lost=lambda topic, message: isinstance(message, Report) and message.shift > 0)
    assert stage.play().digest == stage.expected().digest
    check(stage, 3)
    assert any("counted already" in remark for remark in stage.remarks)
    assert not stage.partials(1)


@pytest.mark.parametrize("kind", [Tally, Settled])
def test_lost_messages_are_said_again(tmp_path: Path, kind: type[Message], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every first tally, or answer to one, is lost; nothing is counted twice, and nothing never."""
    monkeypatch.setattr("coordinator.worker_tallies.TELL_AGAIN_S", 0.05)
    seen: set[bytes] = set()

    def lost(topic: str, message: Message) -> bool:
        if not isinstance(message, kind):
            return False
        new = message.batch not in seen
        seen.add(message.batch)
        return new

    stage = Crewed(tmp_path, rounds=3, lost=lost)
    assert stage.play().digest == stage.expected().digest
    check(stage, 3)
    assert seen


def test_a_dead_workers_masks_are_counted_when_it_comes_back(tmp_path: Path) -> None:
    """It has confirmed masks and dies before it has told of them; started again, it does."""
    victims: list[str] = []
    back: list[str] = []

    def lost(topic: str, message: Message) -> bool:
        worker = topic.split("/")[3]
        if isinstance(message, Tally) and message.number == 3 and not victims:
            victims.append(worker)
        return isinstance(message, Tally) and worker in victims and worker not in back

    def turn() -> None:
        stage.turn()
        for name in victims:
            if name not in back:
                stage.kill(name)
                assert stage.counted(3) != list(HONEST) == stage.receipts(3)
                back.append(name)
                stage.start(name)

    stage = Crewed(tmp_path, rounds=4, lost=lost)
    stage.coordinator.watch = turn
    assert stage.play().digest == stage.expected().digest
    check(stage, 4)
    assert back


def test_a_share_whose_worker_is_gone_is_dealt_to_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is silent for a lease is gone; its devices' masks, sent again, are taken by those that are left."""
    monkeypatch.setattr(workforce, "LEASE_S", 0.4)
    monkeypatch.setattr("coordinator.worker.REPORT_S", 0.1)

    def die(stage: Stage, opened: Round) -> None:
        assert isinstance(stage, Crewed)
        stage.kill("one")

    def turn() -> None:
        stage.turn()
        for device in HONEST:  # as a device does that has no receipt
            if 3 in stage.votes and device not in stage.receipts(3):
                stage.say(device, "mask", stage.mask(device, 3))

    stage = Crewed(tmp_path, rounds=3, acts={3: die})
    stage.coordinator.watch = turn
    assert stage.play().digest == stage.expected().digest
    check(stage, 3)
    assert any("worker one is gone" in remark for remark in stage.watcher.remarks)


def test_masks_handed_on_after_the_round_are_reported_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum for a round that is closed changes nothing, and both sides say so."""
    monkeypatch.setattr("coordinator.worker_tallies.TELL_AGAIN_S", 0.05)

    def lost(topic: str, message: Message) -> bool:
        return isinstance(message, Tally) and message.number == 2 and topic.split("/")[3] == "two" and 3 not in seen

    def see(stage: Stage, opened: Round) -> None:
        seen.append(opened.number)

    seen: list[int] = []
    stage = Crewed(tmp_path, rounds=3, deadline_s=1.0, lost=lost, acts={3: see})
    stage.play()
    stage.turn()
    late = sorted(set(HONEST) - set(stage.counted(2)))
    assert late, "the share of one worker is not empty"
    assert stage.counted(3) == list(HONEST)
    text = f"came late or are counted already: {', '.join(late)}"
    assert any(text in remark for remark in stage.watcher.remarks)
    assert any(text in remark for remark in stage.remarks)


def test_only_who_has_the_federations_key_is_a_worker(tmp_path: Path) -> None:
    """A stranger's report deals it nothing, and its tally counts nothing."""

    def forge(stage: Stage, opened: Round) -> None:
        for message in (
            Report(instance=bytes(8), shift=0),
            Tally(
                run=stage.run_id, number=2, batch=bytes(8), votes=b"", devices=("pi-1",),
                updates=(messages.encode(stage.mask("pi-1", 2, correct=1)),), sizes=(1,), receipt_bytes=1,
            ),
        ):  # fmt: skip
            topic = "hns/t/work/mallory/up"
            stage.put(topic, seal(b"m" * 32, topic, message))

    stage = Crewed(tmp_path, rounds=3, acts={2: forge})
    assert stage.play().digest == stage.expected().digest
    check(stage, 3)
    assert not any("mallory is here" in remark for remark in stage.watcher.remarks)
    assert any("hns/t/work/mallory/up" in remark for remark in stage.watcher.remarks)


def test_settings_that_do_not_go_with_workers_are_refused() -> None:
    """Hidden masks cannot be added up by a worker, and dithered ones not without their thresholds."""
    with pytest.raises(ConfigError, match="secure_aggregation"):
        workforce.check(None, secure_aggregation=True, dither=False)
    with pytest.raises(ConfigError, match="not with dither"):
        workforce.check(None, secure_aggregation=False, dither=True)
