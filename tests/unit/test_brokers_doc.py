"""docs/brokers.md has the table that benchmarks/brokers.py makes of what broker check found."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import brokers

ROOT = Path(__file__).parents[2]


def test_the_table_is_that_of_the_results() -> None:
    """Paste again what `python -m benchmarks.brokers` prints."""
    tables = json.loads((ROOT / "benchmarks" / "results" / "broker-check.json").read_text())["tables"]
    assert brokers.table(tables) in (ROOT / "docs" / "brokers.md").read_text()
    assert len(tables) == 3
    for rows in tables.values():
        assert sum(row["side"] == "workers" for row in rows) == 8
        assert sum(row["side"] == "Home Assistant" for row in rows) == 5
