"""What `hidenseek profile --ssh` has the board's own Python run, from its command line; the standard library only.

It says what the board has, takes an archive from standard input into a new folder under the temporary one, runs the
profiler there, answers with its table and its report, and removes the folder: at its end, when it is told to stop,
and when the connection is gone. Lines of ours start with MARK, for a login may print whatever it likes before. Any
Python from 3.7 on can read it, to say that it is too old.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading

MARK = "hidenseek-board:"
WANTED = ("numpy", "onnxruntime")


def say(facts: dict[str, object]) -> None:
    """One line of ours."""
    sys.stdout.buffer.write((MARK + json.dumps(facts) + "\n").encode())
    sys.stdout.buffer.flush()


def end(*_: object) -> None:
    """Turn a signal into an end that cleans up."""
    raise SystemExit(143)


def main() -> int:
    """See above; the exit code is the profiler's."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, end)
    say(
        {
            "python": list(sys.version_info[:2]),
            "machine": platform.machine(),
            "libc": platform.libc_ver()[0],
            "has": [name for name in WANTED if importlib.util.find_spec(name)],
            "free_bytes": shutil.disk_usage(tempfile.gettempdir()).free,
        }
    )
    line = sys.stdin.buffer.readline()
    if not line:
        return 0
    wanted = json.loads(line.decode())
    folder = tempfile.mkdtemp(prefix="hidenseek-profile-")
    try:
        archive = os.path.join(folder, "archive.tar.gz")  # noqa: PTH118
        with open(archive, "wb") as file:  # noqa: PTH123
            left = wanted["bytes"]
            while left:
                part = sys.stdin.buffer.read(min(left, 1 << 16))
                if not part:
                    return 1
                file.write(part)
                left -= len(part)
        with tarfile.open(archive) as packed:
            packed.extractall(folder)  # noqa: S202  # the workstation made it a moment ago
        os.remove(archive)  # noqa: PTH107
        report = os.path.join(folder, "report.json")  # noqa: PTH118
        command = [sys.executable, "-m", "edge_client.cli", "profile", *wanted["arguments"], "--json", report]
        environment = dict(os.environ, PYTHONPATH=folder, PYTHONDONTWRITEBYTECODE="1")
        child = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )  # standard error is the workstation's: it shows what goes on
        try:
            watch = threading.Thread(target=stop_with_the_connection, args=(child,))
            watch.daemon = True
            watch.start()
            table = child.communicate()[0]
        finally:
            child.kill()
            child.wait()
        found = b""
        if child.returncode == 0:
            with open(report, "rb") as file:  # noqa: PTH123
                found = file.read()
        say({"code": child.returncode, "table": table.decode("utf-8", "replace"), "report": found.decode()})
        return child.returncode
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def stop_with_the_connection(child: subprocess.Popen[bytes]) -> None:
    """Nobody sends anything more: the end of standard input is the end of the connection."""
    while sys.stdin.buffer.read(1):
        pass
    child.terminate()


if __name__ == "__main__":
    sys.exit(main())
