"""Randomised response, on any signs and epsilon."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from coordinator.privacy import account, exact
from edge_client.privacy import randomise
from tests.property.wire_strategies import QUICK, bit_arrays
from wire.settings import LEAST_PRIVACY_EPSILON, MOST_PRIVACY_EPSILON, Training

EPSILONS = st.floats(LEAST_PRIVACY_EPSILON, MOST_PRIVACY_EPSILON)


@QUICK
@given(bit_arrays(), EPSILONS, st.integers(0, 2**32))
def test_what_is_turned_does_not_depend_on_the_signs(signs: np.ndarray, epsilon: float, seed: int) -> None:
    """The same random bytes turn the same places, whatever was trained: that is all the promise rests on."""
    training = Training(privacy_epsilon=epsilon)
    sent = randomise(signs, training, np.random.default_rng(seed).bytes)
    of_others = randomise(~signs, training, np.random.default_rng(seed).bytes)
    assert sent.shape == signs.shape
    assert np.array_equal(sent, ~of_others)


@QUICK
@given(EPSILONS, EPSILONS)
def test_more_epsilon_turns_fewer(one: float, other: float) -> None:
    """And never half of the signs, which could not be debiased."""
    low, high = sorted((one, other))
    assert Training(privacy_epsilon=high).flip_chance <= Training(privacy_epsilon=low).flip_chance < 0.5


@QUICK
@given(st.floats(0.01, 10), st.integers(1, 500), st.floats(1e-9, 0.5))
def test_accounts_are_in_order(epsilon: float, answers: int, delta: float) -> None:
    """What can be promised at best is within both bounds, and more answers or less delta never make it smaller."""
    one = account(epsilon, answers, delta)
    slack = 1e-6 * one.total
    assert -slack <= one.exact <= min(one.total, one.advanced) + slack
    assert exact(epsilon, answers + 1, delta) >= one.exact - slack
    assert exact(epsilon, answers, delta / 2) >= one.exact - slack
