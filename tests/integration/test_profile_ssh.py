"""A board profiled over a real sshd on loopback: it answers, and nothing stays on it, however it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path

import pytest

from coordinator import cli
from coordinator.brokers.process import free_port
from coordinator.models import build_plan
from coordinator.prune import prune
from coordinator.report.profiles import parse

ROOT = Path(__file__).parents[2]
SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        SSHD is None or shutil.which("ssh") is None, reason="OpenSSH's server or client is not installed"
    ),
]


@dataclass(frozen=True)
class Server:
    """An sshd of our own; `home` is the board's temporary folder."""

    options: tuple[str, ...]
    home: Path

    def left(self) -> list[str]:
        """What lies in the board's temporary folder, but for what libraries leave there."""
        return [path.name for path in self.home.iterdir() if path.name.startswith("hidenseek")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Own port, own keys, own temporary folder; noise at login as many boards make it."""
    folder = tmp_path_factory.mktemp("ssh")
    home = folder / "board-tmp"
    home.mkdir()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    port = free_port("127.0.0.1")
    config = folder / "config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nSetEnv TMPDIR={home}\n"
    )
    with suppress(PermissionError):  # only root needs it
        Path("/run/sshd").mkdir(exist_ok=True)
    assert SSHD is not None
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", config], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "listening on" in line:
            break
    options = (f"-p{port}", f"-i{folder}/user", "-oStrictHostKeyChecking=no", f"-oUserKnownHostsFile={folder}/known")
    yield Server(options=(*options, "-oBatchMode=yes", "-oLogLevel=ERROR"), home=home)
    process.terminate()
    process.communicate(timeout=10)


@pytest.fixture(scope="module")
def ticket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ticket's file."""
    path = tmp_path_factory.mktemp("ticket") / "mlp.hns"
    path.write_bytes(prune(build_plan("mlp"), density=0.05, seed=0, method="uniform").encoded)
    return path


def words(server: Server, ticket: Path, *more: str, python: str = sys.executable, user: str = getuser()) -> list[str]:
    """Arguments of `hidenseek`."""
    options = [f"--ssh-option={option}" for option in server.options]
    return ["profile", str(ticket), "--ssh", f"{user}@127.0.0.1", "--python", python, *options, *more]


def test_a_board_is_profiled_and_left_as_it_was(
    server: Server, ticket: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The table is shown, the report is whole, and the temporary folder is gone."""
    file = tmp_path / "profiles" / "pi.json"
    assert cli.main(words(server, ticket, "--seconds", "0.2", "--profile", "pi-5-8gb", "--json", str(file))) == 0
    report = parse(file.read_bytes(), where="file")
    assert (report.profile, report.subject.network, report.subject.runtime) == ("pi-5-8gb", "mlp", "sparse")
    assert report.layers
    shown = capfd.readouterr()
    assert "Training step" in shown.out
    assert "training steps" in shown.err, "the board says what it does"
    assert server.left() == []


def test_what_the_board_lacks_is_sent_along(server: Server, ticket: Path, tmp_path: Path) -> None:
    """A Python without numpy has it for as long as it takes; pip fetches them here."""
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    python = str(bare / "bin" / "python")
    missing = subprocess.run([python, "-c", "import numpy"], capture_output=True, check=False)
    assert missing.returncode, "the test needs a Python without numpy"
    file = tmp_path / "pi.json"
    assert cli.main(words(server, ticket, "--seconds", "0.2", "--json", str(file), python=python)) == 0
    assert parse(file.read_bytes(), where="file").latency.steps
    assert server.left() == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_nothing_stays_when_it_is_stopped(server: Server, ticket: Path, how: signal.Signals) -> None:
    """Ctrl-C, and a workstation that vanishes: the board stops its profiler and removes the folder."""
    command = [sys.executable, "-m", "coordinator.cli", *words(server, ticket, "--seconds", "600")]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "training steps" in line:
            break
    assert server.left()
    os.killpg(process.pid, how)  # a terminal's Ctrl-C reaches ssh too
    process.communicate(timeout=30)
    assert process.returncode == (130 if how == signal.SIGINT else -9)
    end = time.monotonic() + 20
    while server.left() and time.monotonic() < end:
        time.sleep(0.1)
    assert server.left() == []


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"python": "python9"}, 30, "has no 'python9'"),
        ({"python": "/bin/false"}, 30, "exit code 1 before it answered"),
        ({"more": ("--threads", "0")}, 30, "the profiler ended with exit code 10"),
        ({"user": "nobody-of-that-name"}, 30, "ssh cannot connect"),
    ],
)
def test_failures_say_what_to_do(
    server: Server, ticket: Path, capfd: pytest.CaptureFixture[str], change: dict, code: int, says: str
) -> None:
    """With the exit code of docs/errors.md."""
    more = change.pop("more", ())
    options = words(server, ticket, *more, **change)
    assert cli.main(options) == code
    assert says in capfd.readouterr().err
    assert server.left() == []


def test_the_report_travels_as_json(server: Server, ticket: Path, tmp_path: Path) -> None:
    """An exported folder's runtime, and threads, are as asked for."""
    export = tmp_path / "export"
    export.mkdir()
    shutil.copy(ticket, export / "ticket.hns")
    file = tmp_path / "pi.json"
    assert cli.main(words(server, export, "--seconds", "0.2", "--threads", "2", "--json", str(file))) == 0
    assert json.loads(file.read_text())["subject"]["threads"] == 2
