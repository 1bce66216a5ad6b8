"""Fixtures that unit tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.report import fill
from coordinator.report.summary import Summary, summarise
from coordinator.store import Store


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with a run of six devices and three rounds; nobody writes into it."""
    folder = tmp_path_factory.mktemp("state")
    store = Store(folder / "coordinator.db")
    fill(store, devices=6, rounds=3)
    store.close()
    return folder


@pytest.fixture
def run_summary(run_folder: Path) -> Summary:
    """That run."""
    store = Store(run_folder / "coordinator.db")
    try:
        return summarise(store)
    finally:
        store.close()
