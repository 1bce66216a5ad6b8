"""Rounds of dithered scores: what is counted, what is not, and where they are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coordinator import config, dithered
from coordinator.fleet import Fleet
from coordinator.steps import Asynchrony
from tests.helpers import introduce
from wire import dither
from wire.errors import ConfigError
from wire.mask import Context, Signs, Votes
from wire.messages import Welcome
from wire.prng import mix
from wire.settings import Training

KEPT = 2_000
TRAINING = Training(dither=0.25)


def start() -> Votes:
    """Scores as the first round has them."""
    return dither.first_votes(KEPT, TRAINING)


def sent_by(device: str, moved: float) -> tuple[str, Signs, Context]:
    """The mask of a device whose training moves every second score, and what was known of it."""
    seed, scores = mix(7, 1, device), dither.start_scores(start(), TRAINING)
    scores[::2] += np.float32(moved)
    return device, dither.signs_of(scores, TRAINING, seed), dither.context(start(), TRAINING, seed)


def test_scores_that_all_push_a_little_move_that_much() -> None:
    """By less than what turns a sign, in every second weight and in no other."""
    after, remarks = dithered.close(start(), [sent_by(f"pi-{n}", -0.05) for n in range(10)], defend=True)
    assert remarks == ()
    change = (after.mean - start().mean) * TRAINING.dither
    assert change[::2].mean() == pytest.approx(-0.05, abs=0.005)
    assert not change[1::2].any()


def test_the_order_of_masks_does_not_matter() -> None:
    """A restarted coordinator reads them as they are stored."""
    masks = [sent_by(f"pi-{n}", -0.1) for n in range(4)]
    assert dithered.close(start(), masks, defend=True)[0].digest == (
        dithered.close(start(), masks[::-1], defend=True)[0].digest
    )


def test_a_mask_against_all_that_is_agreed_is_not_counted() -> None:
    """It turns what was expected of it; alone it changes nothing."""
    device, sent, known = sent_by("mallory", 0.0)
    hostile = (device, ~sent, known)
    honest = [sent_by(f"pi-{n}", -0.05) for n in range(3)]
    after, remarks = dithered.close(start(), [*honest, hostile], defend=True)
    assert after.digest == dithered.close(start(), honest, defend=True)[0].digest
    assert "mallory" in remarks[0]
    assert dithered.close(start(), [*honest, hostile], defend=False)[0].digest != after.digest
    alone, remarks = dithered.close(start(), [hostile], defend=True)
    assert alone.digest == start().digest
    assert "none of 1 masks was counted" in remarks[-1]


def test_a_round_without_masks_is_none() -> None:
    """As with signs."""
    with pytest.raises(ValueError, match="no masks"):
        dithered.close(start(), [], defend=True)


@pytest.mark.parametrize(
    ("rest", "found"),
    [
        ("mode: async", "mode is async"),
        ("secure_aggregation: true, defend: false, quorum: 8", "secure_aggregation is true"),
        ("mode: rounds", None),
    ],
)
def test_what_does_not_go_with_it_is_said_where_it_stands(rest: str, found: str | None, tmp_path: Path) -> None:
    """In devices.yaml, before anything starts."""
    path = tmp_path / "devices.yaml"
    path.write_text(f"federation: {{training: {{dither: 0.25}}, {rest}}}\n")
    if found is None:
        assert config.load(path).federation.training.dither == 0.25
        return
    with pytest.raises(ConfigError, match=found):
        config.load(path)


def test_the_rule_itself() -> None:
    """For whoever starts a federation without a file."""
    dithered.check(None, secure_aggregation=False)
    with pytest.raises(ConfigError, match="mode is async"):
        dithered.check(Asynchrony(buffer=3), secure_aggregation=False)


def test_a_device_that_cannot_is_told() -> None:
    """An older client, or a page in a browser."""
    fleet = Fleet(allowed=frozenset(), runtimes=frozenset({"onnx"}), dither=True)
    answer = fleet.hello("pi-1", introduce("one"))
    assert isinstance(answer, list)
    assert answer[0].code == "undithered"
    assert "pi-1" in answer[0].reason
    assert isinstance(fleet.hello("pi-2", introduce("two", dithers=True)), Welcome)
