"""A real Chromium that tests drive: Debian's, by the playwright-core that `make web` installs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edge_client.web import FOLDER

PACKAGES = FOLDER / "node_modules"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None
    or shutil.which("node") is None
    or not all((PACKAGES / name).exists() for name in ("playwright-core", "axe-core")),
    reason="needs chromium, node, and what make web installs (playwright-core, axe-core)",
)


@dataclass
class Browser:
    """One Chromium."""

    process: subprocess.Popen[str]

    def run(self, script: str, *, view: dict[str, Any] | None = None, **values: Any) -> Any:
        """Run the body of an async JavaScript function, which also sees these values; what it returns.

        Args:
            script: sees `page`, Playwright's; `axe()`, the rules that it breaks; `errors`, what pages complained of.
            view: options of a new window, in which it is to run.
            values: constants of the script.
        """
        given = "".join(f"const {name} = {json.dumps(value)};" for name, value in values.items())
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"view": view, "script": given + script}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer["result"]


@contextmanager
def opened() -> Iterator[Browser]:
    """A Chromium, until this is left."""
    command = ["node", str(Path(__file__).with_suffix(".mjs")), str(FOLDER)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "CHROMIUM": CHROMIUM or ""},
    )
    with process:
        yield Browser(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0
