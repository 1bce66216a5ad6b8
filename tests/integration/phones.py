"""Phones in a real Chromium, each with the page open; and the page served as a user serves it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_client.web import FOLDER, PAGE
from tests.integration import web
from tests.integration.deployed import Deployed
from tests.integration.kotlin import Program
from wire import invite
from wire.invite import Invite


@dataclass
class Phone:
    """One phone: a browser that shares nothing with the others'."""

    name: str
    program: Program

    def do(self, do: str, **more: Any) -> Any:
        """See edge_client/web/check/phones.ts."""
        answer = web.ask(self.program, phone=self.name, do=do, **more)
        assert "error" not in answer, f"{self.name}: {answer['error']}"
        return answer["found"]

    def wait(self, text: str, timeout_s: float = 60) -> None:
        """Until the page shows this."""
        self.do("wait", text=text, timeout=timeout_s * 1000)

    def join(self, link: str, data: Path | None) -> None:
        """Open an invitation and take part, with a file or as a demo person."""
        self.do("open", url=link)
        self.wait("What to train on")
        self.do("check", what=f"input[value={'file' if data else 'demo'}]")
        if data:
            self.do("choose", what="#chosen-file", file=str(data))
        self.wait("samples to train on")
        self.do("click", what="#join-button")


@contextmanager
def browser() -> Iterator[Program]:
    """A Chromium that phones run in; and the page is not older than what it is made of."""
    newest = max(path.stat().st_mtime for path in (FOLDER / "src").rglob("*") if path.is_file())
    assert (PAGE / "sw.js").stat().st_mtime >= newest, "the page is older than its sources: make web"
    with web.started("phones") as program:
        yield program


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """`hidenseek-edge web` on a free port; the page's address."""
    command = [sys.executable, "-m", "edge_client.cli", "web", "--port", "0"]
    with (folder / "web.log").open("w+") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        with process:
            assert process.stdout is not None
            found = re.search(r"http://\S+/", process.stdout.readline())
            assert found, (folder / "web.log").read_text()
            yield found[0]
            process.terminate()


def invitation(
    page: str, made: Deployed, device: str, secret: str | None = None, *, claim: bool = False, key: bytes | None = None
) -> str:
    """A link for a device of a deployment; with its account's password, if no other secret is given."""
    one = Invite(
        federation=made.settings.federation,
        broker=made.settings.broker_nodes()[0].ws_url,
        device=device,
        secret=secret or made.password(device),
        claim=claim,
        key=key,
    )
    return invite.link(page, one)
