"""The table of the benchmark of methods: what it says of two made-up runs, and rows that were on record."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from benchmarks import method
from benchmarks.method_report import write_markdown


def row(name: str, accuracies: list[float], sent: float, cpu_s: float) -> dict[str, Any]:
    """A run of seed 0 whose rounds take so many bytes and CPU seconds each."""
    curve = [[accuracy, None, sent, cpu_s] for accuracy in accuracies]
    return {
        "task": "har", "method": name, "seed": 0, "seen": None, "unseen": None, "personalised": accuracies[-1],
        "up_bytes_per_device_round": sent / 2, "down_bytes_per_device_round": sent / 2,
        "ideal_up_bytes_per_device_round": sent / 2, "cpu_seconds": cpu_s * len(curve), "peak_kb": 1024,
        "to_target": None, "curve": curve,
    }  # fmt: skip


def table(folder: Path, *rows: dict[str, Any]) -> str:
    """The line about the rival."""
    write_markdown(folder / "found.md", {"rows": list(rows), "tasks": {"har": {"target": 0.9}}})
    (line,) = [line for line in (folder / "found.md").read_text().splitlines() if line.startswith("| rival | 1 | +")]
    return line


def test_what_it_takes_to_be_where_a_rival_ends(tmp_path: Path) -> None:
    """Ours is there after 3 rounds, it takes 5: a fifth of its bytes a round, half of its seconds."""
    ours = row("hidenseek", [0.8, 0.8, 0.8, 0.9, 0.9, 0.9], sent=20, cpu_s=1)
    rival = row("rival", [0.1, 0.1, 0.8, 0.8, 0.8, 0.8], sent=100, cpu_s=2)
    assert table(tmp_path, ours, rival).endswith("| -80.0% | 5.0x less | 3 against 5 | -88.0% | -70% |")


def test_what_is_never_reached_is_said(tmp_path: Path) -> None:
    """No figure stands for a run that does not come so far."""
    ours = row("hidenseek", [0.9, 0.9, 0.9, 0.9, 0.9, 0.96], sent=20, cpu_s=1)
    rival = row("rival", [0.95] * 6, sent=100, cpu_s=2)
    assert table(tmp_path, ours, rival).endswith("| never in 1 of 1 | - | - |")


def test_runs_on_record_fill_what_was_not_run(tmp_path: Path) -> None:
    """The first file's before the second's, none that was run now, each with its commit."""
    files = [tmp_path / "new.json", tmp_path / "old.json"]
    for commit, path in zip(("new", "old"), files, strict=True):
        rows = [row(name, [0.5] * 3, 1, 1) for name in ("hidenseek", "rival", f"only-{commit}")]
        path.write_text(json.dumps({"commit": commit, "rows": rows}))
    mine = [row("hidenseek", [0.6] * 3, 1, 1)]
    found = method._earlier(mine, Namespace(also=files, tasks=["har"]))
    assert [(one["method"], one["commit"]) for one in found] == [
        ("rival", "new"),
        ("only-new", "new"),
        ("only-old", "old"),
    ]
    assert method._earlier(mine, Namespace(also=files, tasks=["fmnist-2"])) == []
