"""How much the coordinator deals with at once changes nothing but the number of commits."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator import server
from tests.integration.stage import HONEST, Stage
from wire.messages import Receipt, Round


@pytest.mark.parametrize("batch", [1, 2, 500])
def test_nothing_is_lost_where_a_batch_ends(tmp_path: Path, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every mask of every round is counted and confirmed once, however messages fall into batches."""
    monkeypatch.setattr(server, "BATCH", batch)
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
