"""How pages are made from templates: all is escaped, and figures are in the words of `coordinator.report.words`."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from coordinator.report import words


def environment(folder: Path) -> Environment:
    """Templates of a folder."""
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,  # everything is escaped, whatever the template's name
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=words.percent,
        signed_percent=words.signed_percent,
        number=words.number,
        size=words.human_bytes,
        duration=words.duration,
        megabytes=words.megabytes,
        moment=words.moment,
        times=words.times,
    )
    return environment
