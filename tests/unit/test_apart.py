"""Work in a process of its own: its outcome, its errors, its death, and what it leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

import pytest

from coordinator import apart
from coordinator.federation import Recipe, made_apart
from wire.errors import StateError, UnknownName


def test_the_outcome_comes_back_and_errors_too() -> None:
    """Both as if it had been done here, though another process did it."""
    assert apart.run(os.getpid) != os.getpid()
    with pytest.raises(UnknownName, match="no model is called 'har-cn'") as raised:
        made_apart(Recipe(model="har-cn"))
    assert "har-cnn" in raised.value.hint


def test_a_process_that_dies_is_told() -> None:
    """Nobody waits for it for ever."""
    with pytest.raises(StateError, match="exit code 7"):
        apart.run(partial(os._exit, 7))


@pytest.mark.slow
def test_a_coordinator_prunes_without_keeping_torch() -> None:
    """The ticket is the same, and torch was never imported here."""
    code = """
import sys
from coordinator.federation import Recipe, made_apart
if __name__ == "__main__":
    recipe = Recipe(model="har-cnn", density=0.02, method="magnitude")
    made = made_apart(recipe)
    assert "torch" not in sys.modules
    assert made.id == recipe.make().id
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
