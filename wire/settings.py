"""How devices train in a round: the settings a federation announces and every runtime obeys."""

from __future__ import annotations

import math
from dataclasses import dataclass

from wire.errors import ConfigError

OPTIMISERS = ("adam", "sgd")
SMALLEST, LARGEST = 1e-12, 1e6  # of a positive setting: products of two are still float32 numbers
LEAST_PRIVACY_EPSILON, MOST_PRIVACY_EPSILON = 0.1, 20.0  # below: nothing but noise; above: no flips but for 2**-32
CHANCES = 1 << 32  # a chance is a whole number of these, so that devices draw it in whole numbers


@dataclass(frozen=True, kw_only=True)
class Training:
    """Local training of one round.

    The gradient of a score is the gradient of its effective sign times the initial weight
    (straight-through estimator, identity surrogate; HideNseek, arXiv 2206.04385).

    Attributes:
        optimiser: "adam" (Kingma & Ba, arXiv 1412.6980, algorithm 1) or "sgd" (with momentum, as torch.optim.SGD).
        learning_rate: step size on the scores.
        beta1: Adam's first decay rate; SGD's momentum.
        beta2: Adam's second decay rate; unused by SGD.
        epsilon: Adam's denominator guard; unused by SGD. Large on purpose: where the loss has gone, so that gradients
            are no more than noise, scores shall rest instead of moving a learning rate a step (docs/method.md).
        clip: scores are clamped to [-clip, clip] after every step.
        start: scores start a round at start x mean vote.
        epochs: passes over the device's data.
        batch: samples per optimiser step.
        privacy_epsilon: randomised response: a device turns every sign that it sends with chance 1 / (1 + e^x);
            0: none (docs/privacy.md). Nothing to do with Adam's.
        dither: the largest score of which a device sends a dithered bit (`wire.dither`), and scores start a round at
            dither x mean score; 0: it sends signs.

    Raises:
        ConfigError: if a value is out of range.
    """

    optimiser: str = "adam"
    learning_rate: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 3e-5
    clip: float = 1.0
    start: float = 0.1
    epochs: int = 6
    batch: int = 16
    privacy_epsilon: float = 0.0
    dither: float = 0.0

    def __post_init__(self) -> None:
        def check(name: str, ok: bool, expected: str) -> None:
            if not ok:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, {expected} expected", where="training")

        check("optimiser", self.optimiser in OPTIMISERS, f"one of {', '.join(OPTIMISERS)}")
        for name in ("learning_rate", "epsilon", "clip", "start"):
            value = getattr(self, name)
            check(name, SMALLEST <= value <= LARGEST, f"a number in {SMALLEST:g}..{LARGEST:g}")
        for name in ("beta1", "beta2"):
            check(name, 0 <= getattr(self, name) < 1, "a number in [0, 1)")
        check("epochs", 1 <= self.epochs <= 1000, "1..1000")
        check("batch", 1 <= self.batch <= 4096, "1..4096")
        private = LEAST_PRIVACY_EPSILON <= self.privacy_epsilon <= MOST_PRIVACY_EPSILON
        expected = f"0 or a number in {LEAST_PRIVACY_EPSILON:g}..{MOST_PRIVACY_EPSILON:g}"
        check("privacy_epsilon", self.privacy_epsilon == 0 or private, expected)
        check("dither", self.dither == 0 or SMALLEST <= self.dither <= self.clip, "0, or a number up to clip")
        check("dither", not (self.dither and self.privacy_epsilon), "0 where privacy_epsilon turns signs")

    @property
    def flip_chance(self) -> float:
        """Chance that a device sends the other sign: 1 / (1 + e^privacy_epsilon), rounded up to 1 / CHANCES; 0: off."""
        if not self.privacy_epsilon:
            return 0.0
        return math.ceil(CHANCES / (1 + math.exp(self.privacy_epsilon))) / CHANCES
