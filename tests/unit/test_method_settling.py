"""A largest score that grows: the recipe at first, and later what an untrained device is expected to send still."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.method_settling import Settling, SettlingSettings
from coordinator.baselines.hidenseek import HideNseek, HideNseekSettings
from coordinator.baselines.hidenseek_signs import votes_of
from coordinator.baselines.method import Local, Task
from tests.unit.test_baselines import PLAN, samples
from wire import dither, mask
from wire.errors import ConfigError

CHOSEN = {"density": 0.5, "passes": 2, "epochs": 2, "batch": 8}
TASK = Task(plan=PLAN, devices=("a", "b"), seed=1)


def trained(number: int, rate: float = 0.02) -> tuple[Local, int]:
    """One device's training in a round, and how many bits of its mask were not expected."""
    method = Settling(TASK, SettlingSettings(**CHOSEN, learning_rate=rate))
    state = method.start() | {"number": np.array(number)}
    local = method.train(method.hear(state, "a", method.announce(state, "a")), samples(), {}, 5)
    known = dither.context(votes_of(state), method.training, 5)
    return local, int(np.count_nonzero(mask.decode_signs(local.up, known, method.ticket.ends) ^ known.signs))


def test_the_first_rounds_are_the_recipe() -> None:
    """Until the largest score grows."""
    plain = HideNseek(TASK, HideNseekSettings(**CHOSEN))
    state = plain.start()
    expected = plain.train(plain.hear(state, "a", plain.announce(state, "a")), samples(), {}, 5)
    for number in (1, 15):
        assert trained(number)[0].up == expected.up


def test_later_less_is_turned() -> None:
    """The same steps turn fewer bits, and steps of nothing none, however large scores are by now."""
    unexpected = [trained(number)[1] for number in (15, 60, 1000)]
    assert unexpected[0] > unexpected[1] > unexpected[2]
    assert trained(1000, rate=1e-9)[1] == 0


def test_settings_are_checked() -> None:
    """By name."""
    for wrong in ({"after": 0}, {"most": 0.5}, {"dither": 0.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            SettlingSettings(**wrong)
