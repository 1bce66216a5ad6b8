"""Randomised response: chances and accounts are right, votes come back, what was trained is not touched."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.privacy import ROOT, promises, table
from coordinator.aggregate import LEVELS, next_votes
from coordinator.config import DevicesFile, load
from coordinator.privacy import account, advanced, basic, exact, notice, vote_deviation
from edge_client.privacy import CHUNK, randomise
from wire import mask, prng
from wire.errors import ConfigError
from wire.settings import CHANCES, Training


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 2.0, 4.0, 20.0])
def test_the_chance_is_never_smaller_than_promised(epsilon: float) -> None:
    """A whole number of 2^-32 at or above 1 / (1 + e^epsilon): the real epsilon is at most the one that is set."""
    chance = Training(privacy_epsilon=epsilon).flip_chance
    wanted = 1 / (1 + math.exp(epsilon))
    assert wanted <= chance <= wanted + 1 / CHANCES
    assert (chance * CHANCES).is_integer()
    assert math.log((1 - chance) / chance) <= epsilon


@pytest.mark.parametrize("epsilon", [-1.0, 0.05, 20.1, math.nan, math.inf])
def test_other_epsilons_are_refused(epsilon: float) -> None:
    """Too small to leave anything to count, too large to mean anything, or no number."""
    with pytest.raises(ConfigError, match=r"privacy_epsilon is .*, 0 or a number in 0\.1\.\.20 expected"):
        Training(privacy_epsilon=epsilon)


def test_devices_yaml_sets_it(tmp_path: Path) -> None:
    """Under federation.training; a wrong one is refused with its line."""
    path = tmp_path / "devices.yaml"
    path.write_text("federation:\n  training:\n    epochs: 2\n    privacy_epsilon: 4\n")
    assert load(path).federation.training.privacy_epsilon == 4
    path.write_text("federation:\n  training:\n    epochs: 2\n    privacy_epsilon: 0.01\n")
    with pytest.raises(ConfigError, match=r"privacy_epsilon is 0\.01") as raised:
        load(path)
    assert raised.value.where == f"{path}:4"


def test_it_is_off_unless_asked_for() -> None:
    """Nothing is drawn, nothing is turned."""
    signs = np.ones(10, bool)
    assert Training().flip_chance == 0
    assert DevicesFile().federation.training.privacy_epsilon == 0
    assert randomise(signs, Training(), random_bytes=lambda count: pytest.fail("drew")) is signs


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_signs_are_turned_as_often_as_said(epsilon: float) -> None:
    """Of a million signs, within five deviations, of either sign alike; what was trained is not changed."""
    training = Training(privacy_epsilon=epsilon)
    signs = np.arange(1_000_000) % 2 == 0
    before = signs.copy()
    sent = randomise(signs, training)
    assert np.array_equal(signs, before)
    f = training.flip_chance
    for value in (True, False):
        turned = float((sent[signs == value] != value).mean())
        assert turned == pytest.approx(f, abs=5 * math.sqrt(f * (1 - f) / 500_000))


def test_every_sign_has_bytes_of_its_own() -> None:
    """A word below the chance turns its sign and no other, across chunks too."""
    training = Training(privacy_epsilon=1.0)
    below = round(training.flip_chance * CHANCES)
    words = np.full(2 * CHUNK + 3, below, dtype="<u4")
    turned = [0, 5, CHUNK - 1, CHUNK, 2 * CHUNK + 2]
    words[turned] = below - 1
    stream = iter([words.tobytes()[4 * at : 4 * (at + CHUNK)] for at in range(0, words.size, CHUNK)])
    sent = randomise(np.zeros(words.size, bool), training, random_bytes=lambda count: next(stream))
    assert np.flatnonzero(sent).tolist() == turned


def test_two_answers_differ_and_seeded_ones_do_not() -> None:
    """The operating system draws on a device; a simulation repeats itself."""
    training, signs = Training(privacy_epsilon=1.0), np.zeros(1000, bool)
    assert not np.array_equal(randomise(signs, training), randomise(signs, training))
    one, other = (randomise(signs, training, prng.generator((7, "privacy")).bytes) for _ in range(2))
    assert np.array_equal(one, other)


def test_votes_are_what_they_would_have_been() -> None:
    """Of many devices' turned signs the debiased mean is that of the signs they trained."""
    training = Training(privacy_epsilon=1.0)
    kept, voters = 40, 4000
    rng = np.random.default_rng(0)
    trained = [rng.random(kept) < np.linspace(0, 1, kept) for _ in range(voters)]
    sent = [randomise(one, training, rng.bytes) for one in trained]
    before = mask.unanimous(kept)
    plain = next_votes(before, trained, 0.0).mean
    biased = next_votes(before, sent, 0.0).mean
    undone = next_votes(before, sent, 0.0, training.flip_chance)
    deviation = vote_deviation(training.flip_chance, voters)
    assert np.abs(undone.mean - plain).max() < 4 * deviation + 1 / LEVELS
    assert np.abs(biased - plain).max() > 0.4
    assert undone.voters == LEVELS


def test_debiased_votes_stay_in_range() -> None:
    """Ten voters who all say +1 would count as more than that; against -1 announced before they make a tie."""
    chance = Training(privacy_epsilon=1.0).flip_chance
    before = mask.Votes(signs=np.zeros(4, bool), dissent=np.zeros(4, np.uint16), voters=1)
    after = next_votes(before, [np.ones(4, bool)] * 10, 0.5, chance)
    assert after.signs.tolist() == [False] * 4
    assert np.abs(after.mean).max() <= 1 / LEVELS + 1e-6


def test_without_turned_signs_nothing_changes() -> None:
    """A chance of 0 is the plain count, to the bit."""
    masks = [np.random.default_rng(i).random(50) < 0.5 for i in range(5)]
    plain = next_votes(mask.unanimous(50), masks, 0.5)
    assert np.array_equal(plain.dissent, next_votes(mask.unanimous(50), masks, 0.5, 0.0).dissent)


def test_sums_and_advanced_composition() -> None:
    """The textbook's formulas, on a case worked out by hand."""
    assert basic(0.1, 1000) == pytest.approx(100)
    by_hand = math.sqrt(2 * 1000 * math.log(1e5)) * 0.1 + 1000 * 0.1 * (math.exp(0.1) - 1)
    assert advanced(0.1, 1000, 1e-5) == pytest.approx(by_hand)
    assert advanced(2.0, 8) > basic(2.0, 8)  # as its docstring warns


@pytest.mark.parametrize(("epsilon", "times"), [(0.5, 1), (1.0, 2), (0.3, 8), (2.0, 5)])
def test_exact_composition_is_that_of_every_outcome(epsilon: float, times: int) -> None:
    """Against the definition: over all 2^k answers, the excess of one distribution over e^epsilon' times the other."""
    f = 1 / (1 + math.exp(epsilon))
    for delta in (1e-5, 0.01, 0.2):
        bound = exact(epsilon, times, delta)
        excess = 0.0
        for answers in itertools.product((0, 1), repeat=times):
            ones = sum(answers)
            given_ones = (1 - f) ** ones * f ** (times - ones)
            given_zeros = f**ones * (1 - f) ** (times - ones)
            excess += max(0.0, given_ones - math.exp(bound) * given_zeros)
        assert excess == pytest.approx(delta, rel=1e-6) or (bound < 1e-9 and excess <= delta)


def test_exact_is_below_both_bounds() -> None:
    """And near the sum where epsilon is large: there is no free lunch for a whole mask."""
    for epsilon, answers in ((0.1, 1000), (1.0, 20), (2.0, 30_322), (1.0, 242_576)):
        one = account(epsilon, answers)
        assert 0 < one.exact <= min(one.total, one.advanced) + 1e-9
    assert account(4.0, 30_322).exact > 0.9 * account(4.0, 30_322).total


def test_the_deviation_of_votes() -> None:
    """Drawn, it is what the formula says."""
    f, voters = 0.25, 10
    turned = np.random.default_rng(0).random((voters, 200_000)) < f
    mean = np.where(turned, -1.0, 1.0).mean(axis=0) / (1 - 2 * f)
    assert mean.std() == pytest.approx(vote_deviation(f, voters), rel=0.02)
    assert mean.mean() == pytest.approx(1.0, abs=0.01)


def test_a_person_is_told_what_it_promises() -> None:
    """Per sign and for whole masks; nothing where it is off."""
    assert notice(Training(), kept=100, rounds=5, voters=10) is None
    text = notice(Training(privacy_epsilon=2.0), kept=1000, rounds=5, voters=10)
    assert text is not None
    for part in ("11.9% of all signs", "epsilon 2 for one sign in a round and 10 in 5", "2,000 and 10,000", "0.27"):
        assert part in text


def test_the_page_shows_what_is_promised_and_what_was_measured() -> None:
    """docs/privacy.md holds the tables that the benchmark prints."""
    page = (ROOT / "docs" / "privacy.md").read_text()
    assert "\n".join(promises()) in page
    kept = json.loads((ROOT / "benchmarks" / "results" / "privacy.json").read_text())["rows"]
    assert "\n".join(table(kept)) in page
