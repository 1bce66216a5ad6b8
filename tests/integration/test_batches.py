"""How much the coordinator deals with at once changes nothing but the number of commits."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator import outbox, server
from tests.integration.stage import HONEST, Stage
from wire.federation_messages import Hello, Receipt, Round
from wire.transport import Connected


@pytest.mark.parametrize("batch", [1, 2, 500])
def test_nothing_is_lost_where_a_batch_ends(tmp_path: Path, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every mask of every round is counted and confirmed once, however messages fall into batches."""
    monkeypatch.setattr(outbox, "BATCH", batch)
    stage = Stage(tmp_path, rounds=3)
    assert stage.play().digest == stage.expected().digest
    receipts = sorted(
        (message.number, topic.rpartition("/")[2]) for topic, message in stage.told if isinstance(message, Receipt)
    )
    assert receipts == [(number, device) for number in (1, 2, 3) for device in HONEST]
    assert not stage.watcher.remarks


class Hasty(Stage):
    """A stage on which a device sends a mask for the second round with those of the first."""

    def _answer(self, announced: Round) -> None:
        super()._answer(announced)
        if announced.number == 1:
            self.votes[2] = self.votes[1]
            early = self.mask("pi-1", 2)
            del self.votes[2]
            self.say("pi-1", "mask", early)


def test_what_closes_a_round_is_carried_out_before_the_next_message(tmp_path: Path) -> None:
    """Though both have arrived: what comes next may be about the round that opens."""
    stage = Hasty(tmp_path, rounds=2)
    stage.play()
    assert stage.counted(1) == stage.counted(2) == list(HONEST)


class Mixed(Stage):
    """A stage on which one device is older than draws."""

    def hello(self, device: str, **more: object) -> Hello:
        """See `Stage.hello`."""
        return super().hello(device, draws=device != "pi-3", **more)


def test_a_large_round_names_only_who_cannot_work_it_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are asked and counted; announced again after a lost connection it is the same."""
    monkeypatch.setattr(server, "NAMED", 2)
    heard: list[Round] = []

    def reconnect(stage: Stage, opened: Round) -> None:
        heard.append(opened)
        stage.coordinator.channel.transport.inbox.put(Connected())  # type: ignore[attr-defined]

    stage = Mixed(tmp_path, acts={1: reconnect}, rounds=2)
    assert stage.play().digest == stage.expected().digest
    assert stage.counted(1) == stage.counted(2) == list(HONEST)
    announced = [message for _, message in stage.told if isinstance(message, Round) and not message.final]
    assert [message.selected for message in announced] == [("pi-3",)] * len(announced)
    assert announced.count(heard[0]) == 2
    assert stage.store.newest_round(stage.run_id)
    first = stage.store.round(stage.run_id, 1)
    assert first is not None
    assert first.selected == HONEST
