"""docs/profiling.md says of memory limits what benchmarks/memory_limits.py measured."""

from __future__ import annotations

from pathlib import Path

from benchmarks import memory_limits

DOC = (Path(__file__).parents[2] / "docs" / "profiling.md").read_text()


def test_the_table_is_the_one_that_the_script_makes() -> None:
    """Paste again what `python -m benchmarks.memory_limits` prints."""
    assert memory_limits.table() in DOC
    assert f"program takes {memory_limits.addresses()} to start and train" in DOC
