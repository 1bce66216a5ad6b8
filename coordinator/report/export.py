"""A run's figures as CSV and JSON, for spreadsheets and scripts."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from coordinator.report.summary import Summary
from wire.errors import ConfigError

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run text that begins so


def as_json(summary: Summary) -> dict[str, Any]:
    """Every figure of the report; null where nobody measured."""
    return {
        **summary.to_json(),
        "run": summary.run,
        "name": summary.name,
        "finished": summary.finished,
        "started_s": summary.started_s,
        "by_round": [asdict(one) for one in summary.rounds],
        "by_device": [asdict(one) for one in summary.devices],
        "spent_by_device": [asdict(one) for one in summary.spent],
        "predicted": [one.as_row() for one in summary.predicted],
        "cards": [asdict(one) for one in summary.cards],
    }


def write_json(summary: Summary, path: Path) -> None:
    """Write all figures into one file.

    Raises:
        ConfigError: if it cannot be written.
    """
    try:
        path.write_text(json.dumps(as_json(summary), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot be written ({error.strerror})", where=str(path)) from error


def write_csv(summary: Summary, folder: Path) -> None:
    """Write rounds.csv, devices.csv, spent.csv and predicted.csv; an empty cell is what nobody measured.

    Raises:
        ConfigError: if one cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in (("rounds", summary.rounds), ("devices", summary.devices), ("spent", summary.spent)):
            _table(folder / f"{name}.csv", [asdict(row) for row in rows])
        _table(folder / "predicted.csv", [one.as_row() for one in summary.predicted])
    except OSError as error:
        raise ConfigError(f"cannot be written ({error.strerror})", where=str(folder)) from error


def _table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        if rows:
            writer.writerow(rows[0])
        for row in rows:
            writer.writerow([_cell(value) for value in row.values()])


def _cell(value: object) -> object:
    if isinstance(value, dict):
        return " ".join(f"{name}:{count}" for name, count in sorted(value.items()))
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
