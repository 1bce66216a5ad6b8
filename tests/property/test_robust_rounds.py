"""The defence is a pure function: of the masks, not of their order; and it can only leave masks out."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from coordinator.aggregate import LEVELS, close_votes, next_votes
from coordinator.robust import judge, pack, unpack
from tests.property.wire_strategies import QUICK
from wire.mask import Signs, Votes


@st.composite
def rounds(draw: st.DrawFn) -> tuple[Votes, dict[str, Signs]]:
    """Announced votes and up to eight masks: near them, far from them, copies of one another."""
    kept, count = draw(st.integers(0, 300)), draw(st.integers(1, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    votes = Votes(
        signs=rng.random(kept) < 0.5, dissent=rng.integers(0, LEVELS // 2 + 1, kept).astype(np.uint16), voters=LEVELS
    )
    masks: dict[str, Signs] = {}
    for i in range(count):
        share = draw(st.sampled_from([0.0, 0.1, 0.3, 0.4, 0.5, 1.0]))
        fresh = votes.signs ^ (rng.random(kept) < share)
        masks[f"pi-{i}"] = masks[f"pi-{i - 1}"] if i and draw(st.booleans()) else fresh
    return votes, masks


def _close(votes: Votes, masks: dict[str, Signs], chance: float) -> tuple[bytes, bytes, tuple[str, ...]]:
    after, remarks = close_votes(votes, masks.items(), memory=0.5, flip_chance=chance, defend=True)
    return after.signs.tobytes(), after.dissent.tobytes(), remarks


@QUICK
@given(rounds(), st.randoms(use_true_random=False), st.sampled_from([0.0, 0.1, 0.3]))
def test_the_order_of_arrival_does_not_matter(round_: tuple[Votes, dict[str, Signs]], random, chance: float) -> None:  # type: ignore[no-untyped-def]
    """A restarted coordinator reads the same masks in another order and comes to the same bytes."""
    votes, masks = round_
    shuffled = list(masks.items())
    random.shuffle(shuffled)
    assert _close(votes, masks, chance) == _close(votes, dict(shuffled), chance)


@QUICK
@given(rounds())
def test_every_mask_is_counted_or_found(round_: tuple[Votes, dict[str, Signs]]) -> None:
    """No device is forgotten, and the outcome is that of the counted ones alone."""
    votes, masks = round_
    judgement = judge(votes, {device: pack(signs) for device, signs in masks.items()})
    found = [finding.device for finding in judgement.findings]
    assert sorted([*judgement.counted, *found]) == sorted(masks)
    assert all(finding.text.startswith(finding.device) for finding in judgement.findings)
    after, _ = close_votes(votes, masks.items(), memory=0.5, defend=True)
    expected = next_votes(votes, [masks[d] for d in judgement.counted], 0.5) if judgement.counted else votes
    assert np.array_equal(after.mean, expected.mean)


@QUICK
@given(rounds())
def test_leaving_out_what_was_found_finds_nothing_more(round_: tuple[Votes, dict[str, Signs]]) -> None:
    """Judging is done once: whoever is counted would be counted again."""
    votes, masks = round_
    packed = {device: pack(signs) for device, signs in masks.items()}
    counted = judge(votes, packed).counted
    assert judge(votes, {device: packed[device] for device in counted}).findings == ()


@QUICK
@given(st.integers(0, 100), st.integers(0, 2**32))
def test_packed_signs_come_back(kept: int, seed: int) -> None:
    """Of any length."""
    signs = np.random.default_rng(seed).random(kept) < 0.5
    assert np.array_equal(unpack(pack(signs), kept), signs)
