"""`hidenseek fleet update` as a user runs it, and what devices then say."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator import cli
from tests.integration.deployed import Deployed
from tests.integration.fleet import Processes, rows


def update(made: Deployed, home: Path, monkeypatch: pytest.MonkeyPatch, folder: Path, *more: str) -> int:
    """`hidenseek fleet update` to the wheels of a folder; its exit code."""
    return offer(made, home, monkeypatch, "--client", "--wheels", str(folder), *more)


def offer(made: Deployed, home: Path, monkeypatch: pytest.MonkeyPatch, *what: str) -> int:
    """`hidenseek fleet update`; its exit code."""
    monkeypatch.setenv("HIDENSEEK_PASSWORD", made.password("coordinator"))
    where = ["--config", str(home / "devices.yaml"), "--state", str(home / "serve")]
    broker = ["--broker", made.url("coordinator"), "--ca", str(made.folder / "ca.crt")]
    return cli.main(["fleet", "update", *broker, *where, *what])


def software(processes: Processes) -> str:
    """What the only device last said it runs."""
    found = rows(processes.database, "SELECT software FROM device")
    return str(found[0][0]).removeprefix("hidenseek-edge ") if found else ""


def closed(processes: Processes) -> int:
    """Rounds that were closed."""
    found = rows(processes.database, "SELECT COUNT(*) FROM round WHERE closed_s IS NOT NULL")
    return int(str(found[0][0])) if found else 0
