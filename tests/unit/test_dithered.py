"""Rounds of dithered scores: what is counted, what is not, and where they are refused."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from coordinator import config, dithered
from coordinator.announced import Announced
from coordinator.dithered import Scores
from coordinator.fleet import Fleet
from coordinator.steps import Asynchrony
from coordinator.store import Store
from tests.golden.make import seeded_ticket
from tests.helpers import introduce
from wire import dither
from wire.errors import ConfigError, Mismatch
from wire.federation_messages import Welcome
from wire.mask import Context, Signs
from wire.prng import mix
from wire.settings import Training

KEPT = 2_000
TRAINING = Training(dither=0.25)


def start() -> Scores:
    """As the first round has them."""
    votes = dither.first_votes(KEPT, TRAINING)
    return Scores(votes=votes, remainder=dithered.decode_remainder(None, KEPT))


def sent_by(device: str, moved: float, before: Scores | None = None, number: int = 1) -> tuple[str, Signs, Context]:
    """The mask of a device whose training moves every second score, and what was known of it."""
    votes = (before or start()).votes
    seed, scores = mix(7, number, device), dither.start_scores(votes, TRAINING)
    scores[::2] += np.float32(moved)
    return device, dither.signs_of(scores, TRAINING, seed), dither.context(votes, TRAINING, seed)


def close(
    masks: list[tuple[str, Signs, Context]], before: Scores | None = None, *, number: int = 1, defend: bool = True
) -> tuple[Scores, tuple[str, ...]]:
    """A round."""
    return dithered.close(before or start(), masks, number=number, defend=defend)


def exact(scores: Scores) -> NDArray[np.float64]:
    """Mean scores with what is not announced of them, in units of the largest."""
    return (scores.votes.levels + scores.remainder / dithered.UNITS) * 2 / dither.TOP - 1


def same(one: Scores, other: Scores) -> bool:
    """Whether two coordinators would go on alike."""
    return one.votes.digest == other.votes.digest and np.array_equal(one.remainder, other.remainder)


@pytest.mark.parametrize(("number", "gain"), [(1, 1.0), (1_000, 0.25)])
def test_scores_that_all_push_a_little_move_that_much(number: int, gain: float) -> None:
    """By less than what turns a sign, in every second weight and in no other; as much as the round counts for."""
    after, remarks = close([sent_by(f"pi-{n}", -0.05) for n in range(10)], number=number)
    assert remarks == ()
    change = (exact(after) - exact(start())) * TRAINING.dither
    assert change[::2].mean() == pytest.approx(-0.05 * gain, abs=0.005)
    assert not change[1::2].any()


def test_what_is_announced_stays_until_it_is_far_off() -> None:
    """And jumps to where it belongs then; nothing on the way is lost."""
    before, seen = start(), set()
    for number in range(6):
        after, _ = close([sent_by(f"pi-{n}", -0.05, before, number) for n in range(10)], before)
        jumps = np.abs(after.votes.levels.astype(int) - before.votes.levels)
        seen |= set(jumps.tolist())
        assert np.abs(after.remainder).max() < dithered.RULE.hold * dithered.UNITS
        assert np.abs(after.remainder[jumps > 0]).max(initial=0) <= dithered.UNITS // 2
        before = after
    assert 0 in seen
    assert min(seen - {0}) == dithered.RULE.hold
    moved = (exact(before) - exact(start()))[::2].mean() * TRAINING.dither
    assert moved == pytest.approx(6 * -0.05, abs=0.02)


def test_scores_stay_within_the_largest() -> None:
    """What goes beyond it is lost: a device's scores count as the largest then too."""
    scores = Scores(votes=dither.announce(np.full(4, 15, dtype=np.uint8)), remainder=np.zeros(4, dtype=np.int16))
    after = dithered.move(scores, np.array([1, 0, -1, -20]), 2, 1)
    assert after.votes.levels.tolist() == [15, 15, 8, 0]
    assert after.remainder.tolist() == [0, 0, -dithered.UNITS // 2, 0]


def test_later_rounds_count_for_less_but_never_for_nothing() -> None:
    """So that noise is averaged out, and what devices learn may change."""
    rule = dithered.RULE
    gains = [rule.gain(number) for number in range(1, 1_000)]
    assert gains[: rule.settling] == [1.0] * rule.settling
    assert gains == sorted(gains, reverse=True)
    assert gains[2 * rule.settling - 1] == 0.5
    assert gains[-1] == rule.least


@given(st.lists(st.integers(-3 * dithered.UNITS + 1, 3 * dithered.UNITS - 1), max_size=40))
def test_a_remainder_is_kept_as_it_is(values: list[int]) -> None:
    """A restarted coordinator goes on with the very same."""
    remainder = np.array(values, dtype=np.int16)
    data = dithered.encode_remainder(remainder)
    assert np.array_equal(dithered.decode_remainder(data, len(values)), remainder)
    with pytest.raises(Mismatch, match="remainder"):
        dithered.decode_remainder(data + b"x", len(values))


def test_a_restarted_coordinator_knows_what_is_not_announced(tmp_path: Path) -> None:
    """Of the round that is open, in the file with it; killed between two rounds, it closes the first as before."""
    ticket = seeded_ticket()
    scores = Scores(
        votes=dither.first_votes(ticket.kept, TRAINING),
        remainder=np.arange(ticket.kept, dtype=np.int16) - np.int16(40),
    )
    with closing(Store(tmp_path / "c.db")) as store:
        store.start_run(run=bytes(8), name="t", ticket=ticket.encoded, settings="", bundle_bytes=0)
        announced = Announced(bytes(8), ticket, store, TRAINING)
        assert not announced.scores(1).remainder.any()
        announced.open(1, ("pi-1",), evaluate=False, final=False)
        announced.put(2, scores.votes, scores.remainder)
        announced.open(2, ("pi-1",), evaluate=False, final=False)
        announced.put(3, scores.votes, scores.remainder // 2)
    with closing(Store(tmp_path / "c.db")) as store:
        again = Announced(bytes(8), ticket, store, TRAINING)
        assert same(again.scores(2), scores)
        again.open(2, ("pi-1", "pi-2"), evaluate=False, final=False)
        assert same(again.scores(2), scores)


def test_the_order_of_masks_does_not_matter() -> None:
    """A restarted coordinator reads them as they are stored."""
    masks = [sent_by(f"pi-{n}", -0.1) for n in range(4)]
    assert same(close(masks)[0], close(masks[::-1])[0])


def test_a_mask_against_all_that_is_agreed_is_not_counted() -> None:
    """It turns what was expected of it; alone it changes nothing."""
    device, sent, known = sent_by("mallory", 0.0)
    hostile = (device, ~sent, known)
    honest = [sent_by(f"pi-{n}", -0.05) for n in range(3)]
    after, remarks = close([*honest, hostile])
    assert same(after, close(honest)[0])
    assert "mallory" in remarks[0]
    assert not same(close([*honest, hostile], defend=False)[0], after)
    alone, remarks = close([hostile])
    assert same(alone, start())
    assert "none of 1 masks was counted" in remarks[-1]


def test_nobody_changes_much_more_than_the_others() -> None:
    """What many turn at random adds up, round by round; an honest mask turns a fifth at most."""
    rng = np.random.default_rng(5)

    def turned(share: float) -> tuple[str, Signs, Context]:
        device, sent, known = sent_by("mallory", 0.0)
        return device, sent ^ (rng.random(KEPT) < share), known

    honest = [sent_by(f"pi-{n}", -0.05) for n in range(3)]
    assert close([*honest, turned(0.2)])[1] == ()
    after, remarks = close([*honest, turned(0.4)])
    assert "mallory is not counted" in remarks[0]
    assert same(after, close(honest)[0])


def test_two_that_push_the_same_are_one() -> None:
    """Under thresholds of their own, honest devices that come to the same scores send different bits."""
    together = np.random.default_rng(6).random(KEPT) < 0.2
    plot = []
    for name in ("mallory", "trudy"):
        device, sent, known = sent_by(name, 0.0)
        plot.append((device, np.where(together, False, sent), known))
    _, remarks = close(plot)
    assert len(remarks) == 1
    assert "trudy is not counted: its mask is a copy of mallory's" in remarks[0]
    assert close([sent_by(f"pi-{n}", -0.1) for n in range(6)])[1] == ()


def test_a_round_without_masks_is_none() -> None:
    """As with signs."""
    with pytest.raises(ValueError, match="no masks"):
        close([])


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
