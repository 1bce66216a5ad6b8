"""Hostile masks are found and not counted; honest ones, however unlike the others, are."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator.aggregate import LEVELS, close_votes, next_votes
from coordinator.robust import SIGNS, compare, judge, pack, turned, unpack
from wire.mask import Signs, Votes, unanimous
from wire.settings import Training

KEPT = 3000
RNG = np.random.default_rng(5)
ANNOUNCED = Votes(
    signs=RNG.random(KEPT) < 0.5, dissent=RNG.integers(0, LEVELS // 2 + 1, KEPT).astype(np.uint16), voters=LEVELS
)


def changed(share: float, seed: int) -> Signs:
    """The announced signs, a share of them turned."""
    return ANNOUNCED.signs ^ (np.random.default_rng(seed).random(KEPT) < share)


def honest(count: int = 6, share: float = 0.1) -> dict[str, Signs]:
    """Masks of devices whose training changed different signs."""
    return {f"pi-{i}": changed(share, 100 + i) for i in range(count)}


def kinds(masks: dict[str, Signs], chance: float = 0.0) -> dict[str, str]:
    """Devices that are not counted, and what for."""
    judgement = judge(ANNOUNCED, {device: pack(signs) for device, signs in masks.items()}, chance)
    found = {finding.device: finding.kind for finding in judgement.findings}
    assert judgement.counted == tuple(sorted(set(masks) - set(found)))
    return found


def test_the_share_turned_is_of_the_margins() -> None:
    """Worked by hand: margins 1, 1/3 and 1/3; the first turned is 3 of 5, the others 1 of 5 each."""
    votes = Votes(signs=np.array([1, 0, 1], bool), dissent=np.array([0, 1, 1], np.uint16), voters=3)
    masks = {"a": [0, 0, 1], "b": [1, 1, 1], "c": [0, 1, 0], "d": [1, 0, 1]}
    shares = turned(votes, {device: pack(np.array(mask, bool)) for device, mask in masks.items()})
    assert shares == {"a": pytest.approx(0.6), "b": pytest.approx(0.2), "c": 1.0, "d": 0.0}


def test_the_share_turned_is_that_of_the_mean_vote() -> None:
    """Counted in bytes or computed in numbers, it is the same."""
    mask = changed(0.3, 1)
    margins = np.abs(ANNOUNCED.mean.astype(float))
    expected = margins[mask != ANNOUNCED.signs].sum() / margins.sum()
    assert turned(ANNOUNCED, {"a": pack(mask)})["a"] == pytest.approx(expected, rel=1e-6)


def test_votes_without_any_margin_are_not_turned_by_anyone() -> None:
    """Nothing is agreed, so nothing can be held against a mask."""
    tied = Votes(signs=np.ones(8, bool), dissent=np.ones(8, np.uint16), voters=2)
    assert judge(tied, {"a": pack(np.zeros(8, bool))}).counted == ("a",)


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("inverted", ~ANNOUNCED.signs),
        ("trained and turned", ~changed(0.1, 7)),
        ("random", np.random.default_rng(8).random(KEPT) < 0.5),
    ],
)
def test_a_mask_that_turns_what_was_agreed_is_not_counted(name: str, mask: Signs) -> None:
    """Whatever it is; and nobody else is taken for it."""
    assert kinds(honest() | {"pi-x": mask}) == {"pi-x": "turned"}


def test_most_masks_of_a_round_may_be_hostile() -> None:
    """Seven against three: the announced votes say who is who, not the majority."""
    hostile = {f"bad-{i}": ~changed(0.1, i) for i in range(7)}
    assert set(kinds(honest(3) | hostile)) == set(hostile)


def test_an_unusual_person_is_counted() -> None:
    """Six times as many changes as everybody else's, as one of HAPT's people has: dozens of deviations away."""
    assert kinds(honest(9, 0.04) | {"pi-x": changed(0.24, 1)}) == {}


def test_copies_count_once() -> None:
    """Three send the same hostile changes, few enough not to be called turned: the first by id stands for them."""
    same = changed(0.25, 3)
    assert kinds(honest() | {"z": same, "b": same, "a": same}) == {"b": "copy", "z": "copy"}


def test_copies_with_a_few_signs_changed_are_copies() -> None:
    """Up to a tenth of the changes of both."""
    first, share = changed(0.25, 3), 0.25
    barely = first ^ (np.random.default_rng(4).random(KEPT) < 0.5 * 2 * share * SIGNS.copied)
    clearly = first ^ (np.random.default_rng(4).random(KEPT) < 2 * 2 * share * SIGNS.copied)
    assert kinds({"a": first, "b": barely}) == {"b": "copy"}
    assert kinds({"a": first, "b": clearly}) == {}


def test_a_copy_convicts_nobody() -> None:
    """Of three in a row, each a copy of the next but the ends not of each other, only the middle one is left out."""
    turns = np.flatnonzero(changed(0.25, 3) != ANNOUNCED.signs)
    step = int(0.07 * turns.size)
    masks = {}
    for i, device in enumerate("abc"):
        masks[device] = ANNOUNCED.signs.copy()
        masks[device][turns[i * step : turns.size - (2 - i) * step]] ^= True
    assert kinds(masks) == {"b": "copy"}


def test_devices_that_have_nothing_left_to_change_are_no_copies() -> None:
    """Where losses have gone, masks are the announced signs but for a handful: that is agreement, not a plot."""
    few = ANNOUNCED.signs.copy()
    few[:20] ^= True
    assert kinds({"a": ANNOUNCED.signs, "b": ANNOUNCED.signs, "c": few, "d": few}) == {}


def test_pairs_are_measured_in_signs() -> None:
    """Worked by hand on eight weights."""
    votes = unanimous(8)
    masks = {"a": np.array([0, 0, 1, 1, 1, 1, 1, 1], bool), "b": np.array([0, 1, 0, 1, 1, 1, 1, 1], bool)}
    pairs = compare(votes, {device: pack(mask) for device, mask in masks.items()})
    assert pairs.devices == ("a", "b")
    assert pairs.changes.tolist() == [2 / 8, 2 / 8]
    assert pairs.apart.tolist() == [[0, 2 / 8], [2 / 8, 0]]


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 4.0])
def test_randomised_response_is_taken_out(epsilon: float) -> None:
    """Honest masks that turn signs for privacy are counted; hostile ones, whether they do so or not, are not."""
    chance = Training(privacy_epsilon=epsilon).flip_chance
    rng = np.random.default_rng(9)

    def sent(signs: Signs) -> Signs:
        return signs ^ (rng.random(KEPT) < chance)

    masks = {device: sent(signs) for device, signs in honest().items()}
    same = sent(changed(0.2, 3))
    masks |= {"x": ~changed(0.1, 2), "y": sent(~changed(0.1, 2)), "za": same, "zb": same}
    assert kinds(masks, chance) == {"x": "turned", "y": "turned", "zb": "copy"}


def test_honest_masks_are_not_blamed_for_what_was_drawn() -> None:
    """At epsilon 1 signs turned by chance bring 47 %, still under the limit, to over it."""
    chance = Training(privacy_epsilon=1.0).flip_chance
    rng = np.random.default_rng(2)
    kept = 300_000
    votes = unanimous(kept)
    mask = (rng.random(kept) < 0.53) ^ (rng.random(kept) < chance)
    assert turned(votes, {"a": pack(mask)})["a"] > SIGNS.turned
    assert judge(votes, {"a": pack(mask)}, chance).counted == ("a",)
    assert judge(votes, {"a": pack(mask)}).counted == ()


def test_packing_comes_back() -> None:
    """Also where the last byte is not full."""
    signs = np.random.default_rng(0).random(13) < 0.5
    assert np.array_equal(unpack(pack(signs), 13), signs)


def test_a_defended_round_counts_the_others() -> None:
    """As if the hostile device had not taken part, with a line that says who and why."""
    good = honest()
    hostile = {"bad": ~changed(0.05, 1)}
    votes, remarks = close_votes(ANNOUNCED, (good | hostile).items(), memory=0.5, defend=True)
    expected = next_votes(ANNOUNCED, good.values(), 0.5)
    assert np.array_equal(votes.mean, expected.mean)
    (remark,) = remarks
    assert remark.startswith("bad is not counted: its mask turns 9")
    assert f"over {SIGNS.turned:.0%}" in remark


def test_a_round_of_hostile_masks_alone_changes_nothing() -> None:
    """And says so."""
    hostile = {f"bad-{i}": ~changed(0.05, i) for i in range(3)}
    votes, remarks = close_votes(ANNOUNCED, hostile.items(), memory=0.5, defend=True)
    assert votes is ANNOUNCED
    assert remarks[-1] == "none of 3 masks was counted, the votes stay as they are"


def test_an_undefended_round_counts_all() -> None:
    """Off is off."""
    masks = honest() | {"bad": ~ANNOUNCED.signs}
    votes, remarks = close_votes(ANNOUNCED, masks.items(), memory=0.5)
    assert np.array_equal(votes.mean, next_votes(ANNOUNCED, masks.values(), 0.5).mean)
    assert remarks == ()


@pytest.mark.parametrize("defend", [False, True])
def test_a_round_without_masks_is_refused(defend: bool) -> None:
    """It is not to be closed."""
    with pytest.raises(ValueError, match="mask"):
        close_votes(ANNOUNCED, [], memory=0.5, defend=defend)
