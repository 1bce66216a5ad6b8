"""Ideas that were not kept: the plain one is the default recipe, and each other differs from it in what it says."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import method_variants
from benchmarks.method_ablation import IDEAS
from coordinator.baselines.hidenseek_signs import HideNseekSigns, SignsSettings
from coordinator.baselines.method import Local, Task
from tests.unit.test_baselines import PLAN, samples

SETTINGS = SignsSettings(density=0.5, passes=2, epochs=2, batch=8, learning_rate=0.03, epsilon=1e-8)


def trained(cls: type[HideNseekSigns]) -> Local:
    """One device's first round."""
    method = cls(Task(plan=PLAN, devices=("a", "b"), seed=1), SETTINGS)
    return method.train(method.announce(method.start(), "a"), samples(), {}, 5)


def test_plain_is_the_default_recipe() -> None:
    """Adam in numpy ends with the kernels' signs, but for a rounding here and there."""
    ours, plain = trained(HideNseekSigns), trained(method_variants.Plain)
    assert np.mean(ours.model.multipliers != plain.model.multipliers) < 0.03
    assert ours.loss == pytest.approx(plain.loss, rel=0.05)


@pytest.mark.parametrize("name", IDEAS)
def test_every_idea_trains(name: str) -> None:
    """It ends with a network of its own; only those that change nothing in a first round end like `Plain`."""
    idea, plain = trained(getattr(method_variants, name)), trained(method_variants.Plain)
    first_round = {"Plain", "ClampScores", "OwnMemory", "PersonalTail", "OneBitDown", "TwoBitsDown", "ResetScores"}
    same = np.array_equal(idea.model.multipliers, plain.model.multipliers) and np.array_equal(
        idea.model.log_prior, plain.model.log_prior
    )
    assert same == (name in first_round)
