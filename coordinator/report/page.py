"""The report page."""

from __future__ import annotations

from pathlib import Path

from coordinator.report.summary import Summary


def write_page(summary: Summary, path: Path) -> None:
    """Write the page."""
    path.write_text("<html></html>")
