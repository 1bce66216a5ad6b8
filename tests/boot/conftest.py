"""Wheels that cards are made with, and brought up to date to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.wheels import two_versions

NEXT = "0.2.0"


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Our wheel for this machine, of the tree as it is, and one of the next version."""
    return two_versions(tmp_path_factory.mktemp("wheels"), NEXT)
