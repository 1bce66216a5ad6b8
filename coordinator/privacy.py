"""What randomised response on signs promises, and what it costs: accounting for `edge_client.privacy`.

A device turns every sign it sends with chance f = 1 / (1 + e^epsilon), for itself and anew in every round (Warner
1965): whatever a sign was, any answer is at most e^epsilon times as likely as from the other sign. That is
epsilon-local differential privacy **of one sign in one round**. A mask has d signs and training may move all of them
for one sample, so for a whole mask, and for the data behind it, epsilons add up over its d signs and over the rounds.
No amplification is claimed: none by sampling (the coordinator knows whom it selected), none by shuffling (masks carry
names).

Only signs are covered: a mask's message also says loss, accuracy and number of samples, as they are (docs/privacy.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from wire.settings import Training

DELTA = 1e-5
STEPS = 60  # of a bisection: 2**-60 of its range


def basic(epsilon: float, times: int) -> float:
    """Epsilon of `times` answers of epsilon each: their sum.

    Dwork and Roth 2014, The Algorithmic Foundations of Differential Privacy, corollary 3.15; delta is 0.
    """
    return epsilon * times


def advanced(epsilon: float, times: int, delta: float = DELTA) -> float:
    """Epsilon of `times` answers of epsilon each, given up with probability `delta`.

    sqrt(2 k ln(1 / delta)) epsilon + k epsilon (e^epsilon - 1): Dwork, Rothblum and Vadhan 2010; Dwork and Roth 2014,
    theorem 3.20. Where epsilon is about 1 or more this is *above* the sum, which then is the better bound.
    """
    return math.sqrt(2 * times * math.log(1 / delta)) * epsilon + times * epsilon * math.expm1(epsilon)


def exact(epsilon: float, times: int, delta: float = DELTA) -> float:
    """The least epsilon' for which `times` randomised responses of epsilon each are (epsilon', delta)-private.

    The loss of k answers is (2 i - k) epsilon with i of Binomial(k, e^epsilon / (1 + e^epsilon)), and delta is the
    expectation of max(0, 1 - e^(epsilon' - loss)): Kairouz, Oh and Viswanath 2015 (arXiv 1311.0776), theorem 3.3,
    which no composition of k epsilon-private answers exceeds.
    """
    i = np.arange(times + 1, dtype=np.float64)
    choose = np.concatenate([[0.0], np.cumsum(np.log((times - i[1:] + 1) / i[1:]))])
    chance = np.exp(choose + i * epsilon - times * np.logaddexp(epsilon, 0.0))
    loss = (2 * i - times) * epsilon
    low, high = 0.0, times * epsilon
    for _ in range(STEPS):
        middle = (low + high) / 2
        over = loss > middle
        if float(np.sum(chance[over] * -np.expm1(middle - loss[over]))) <= delta:
            high = middle
        else:
            low = middle
    return high


@dataclass(frozen=True, kw_only=True)
class Account:
    """Epsilons of some answers: `total` adds them up (delta 0), the others hold but for a probability `delta`.

    Attributes:
        answers: signs that were sent.
        total: `basic`.
        advanced: `advanced`.
        exact: `exact`: what can be promised at best.
        delta: the probability.
    """

    answers: int
    total: float
    advanced: float
    exact: float
    delta: float


def account(epsilon: float, answers: int, delta: float = DELTA) -> Account:
    """All three for one epsilon: a sign's rounds, a mask's signs, or signs x rounds."""
    return Account(
        answers=answers,
        total=basic(epsilon, answers),
        advanced=advanced(epsilon, answers, delta),
        exact=exact(epsilon, answers, delta),
        delta=delta,
    )


def vote_deviation(flip_chance: float, voters: int) -> float:
    """Standard deviation that turned signs add to a weight's debiased mean vote, which is in -1..1.

    A turned vote has variance 4 f (1 - f); the mean of n has 1 / n of it, and is divided by 1 - 2 f.
    """
    return math.sqrt(4 * flip_chance * (1 - flip_chance) / voters) / (1 - 2 * flip_chance)


def notice(training: Training, *, kept: int, rounds: int, voters: int) -> str | None:
    """A line for whoever starts a run with randomised response on; None if it is off.

    Args:
        training: as announced.
        kept: signs of a mask.
        rounds: that a device may be asked in.
        voters: masks a round.
    """
    epsilon = training.privacy_epsilon
    if not epsilon:
        return None
    chance = training.flip_chance
    return (
        f"randomised response: {chance:.1%} of all signs are sent turned, epsilon {epsilon:g} for one sign in a round "
        f"and {basic(epsilon, rounds):g} in {rounds}; for whole masks {basic(epsilon, kept):,.0f} and "
        f"{basic(epsilon, kept * rounds):,.0f}, which promises nothing about them. It leaves the mean vote of {voters} "
        f"masks a deviation of {vote_deviation(chance, voters):.2f}"
    )
