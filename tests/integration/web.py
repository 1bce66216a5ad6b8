"""The web client's check programs at the other end of a pipe; and what is asked of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import pytest

from edge_client.web.build import CHECKS, FOLDER, TARGET
from tests.integration.kotlin import Program
from wire.settings import Training

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
needs_web = pytest.mark.skipif(
    shutil.which("node") is None or not TARGET.exists() or not CHECKS.exists(),
    reason="needs the page (make web; Debian's packages nodejs, npm, clang, lld, wasi-libc)",
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian's package of that name)")


@contextmanager
def started(program: str, *arguments: str) -> Iterator[Program]:
    """A check program that answers a line for every line."""
    newest = max(path.stat().st_mtime for part in ("src", "check") for path in (FOLDER / part).rglob("*.ts"))
    path = CHECKS / f"{program}.js"
    assert path.stat().st_mtime >= newest, "the check programs are older than their sources: make web"
    process = subprocess.Popen(
        ["node", str(path), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "CHROMIUM": CHROMIUM or ""},
    )  # fmt: skip
    with process:
        yield Program(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0


def ask(program: Program, **request: Any) -> Any:
    """One question, one answer, both JSON."""
    return json.loads(program.ask(json.dumps(request)))


def as_javascript(training: Training) -> dict[str, Any]:
    """Training settings as the page names them."""
    return {_camel(name): value for name, value in asdict(training).items()}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))
