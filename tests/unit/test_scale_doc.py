"""docs/scale.md says what benchmarks/scale.py makes of the measurements, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import scale

DOC = (Path(__file__).parents[2] / "docs" / "scale.md").read_text()


@pytest.mark.parametrize("made", [scale.measured, scale.table], ids=["measured", "table"])
def test_tables_are_those_that_the_script_makes(made: object) -> None:
    """Paste again what `python -m benchmarks.scale` prints."""
    assert callable(made)
    assert made() in DOC


def test_a_fleet_that_is_too_large_says_why() -> None:
    """The worst comes first, and a small fleet has no trouble."""
    found = scale.costs("mosquitto")
    assert scale.row(found, 1_000)[-1] == "nothing"
    assert "open files" in scale.row(found, 10_000_000)[-1]
