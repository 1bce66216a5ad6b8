"""How devices train in a round: the settings a federation announces and every runtime obeys."""

from __future__ import annotations

from dataclasses import dataclass

from wire.errors import ConfigError

OPTIMISERS = ("adam", "sgd")
SMALLEST, LARGEST = 1e-12, 1e6  # of a positive setting: products of two are still float32 numbers


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
