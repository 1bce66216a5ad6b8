"""One connection to a board by the system's ssh, in which it profiles a ticket and is left as it was."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coordinator import board_archive
from coordinator.board_program import MARK
from wire.errors import BoardFailed, ConfigError

PROGRAM = Path(__file__).with_name("board_program.py")
CONNECT_S = 15
MOST_LINES, MOST_BYTES = 200, 32 << 20  # that a board says
SPARE_BYTES = 4  # times the archive's: unpacked, and some room


@dataclass(frozen=True, kw_only=True)
class Profiled:
    """What a board answered: its table, and its report as JSON; neither is checked."""

    table: str
    report: bytes


@dataclass(kw_only=True)
class Board:
    """A board that ssh reaches.

    Args:
        host: [USER@]HOST, or a name from ~/.ssh/config.
        options: more arguments for ssh.
        python: the board's interpreter.
        tell: told what goes on.
    """

    host: str
    options: Sequence[str] = ()
    python: str = "python3"
    tell: Callable[[str], None] = lambda _: None

    def profile(self, subject: Path, runtime: str, arguments: Sequence[str], wheel: Path | None) -> Profiled:
        """Copy what is needed into a temporary folder of the board, profile there, and remove it.

        Args:
            subject: a ticket, bundle or exported folder.
            runtime: "sparse" or "onnx".
            arguments: more of `hidenseek-edge profile`.
            wheel: of ours, for the board.

        Raises:
            BoardFailed: if it cannot be reached, has no Python, or the profiler fails there.
            HidenseekError: as `board_archive.pack`.
        """
        if not self.host or self.host.startswith("-"):
            raise ConfigError(f"'{self.host}' is no host", where="--ssh", hint="--ssh USER@HOST")
        code = f"exec({PROGRAM.read_text(encoding='utf-8')!r})"
        remote = shlex.join([self.python, "-c", code])
        command = ["ssh", "-o", f"ConnectTimeout={CONNECT_S}", *self.options, self.host, remote]
        self.tell(f"connecting to {self.host}")
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except FileNotFoundError as error:
            raise BoardFailed("there is no ssh on this machine", hint="Install OpenSSH's client") from error
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            facts = self._hear(process)
            python = tuple(facts["python"])
            lacking = board_archive.lacking(runtime, facts)
            if lacking:
                self.tell(f"fetching {', '.join(lacking)} for Python {python[0]}.{python[1]} on {facts['machine']}")
            archive = board_archive.pack(
                subject, machine=facts["machine"], python=(python[0], python[1]), missing=lacking, wheel=wheel
            )
            if facts["free_bytes"] < SPARE_BYTES * len(archive):
                raise BoardFailed(
                    f"{facts['free_bytes'] / 1e6:.0f} MB are free in its temporary folder, "
                    f"{SPARE_BYTES * len(archive) / 1e6:.0f} are needed",
                    where=self.host, hint="Make room there",
                )  # fmt: skip
            self.tell(f"sending {len(archive) / 1e6:.1f} MB into a temporary folder, removed at the end")
            wanted = {"bytes": len(archive), "arguments": ["subject", "--runtime", runtime, *arguments]}
            process.stdin.write(json.dumps(wanted).encode() + b"\n" + archive)
            process.stdin.flush()
            answer = self._hear(process)
        except BrokenPipeError as error:
            raise self._lost(process) from error
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise BoardFailed(f"what it says cannot be read ({error!r:.200})", where=self.host) from error
        finally:
            # The end of its standard input is what the board waits for: it stops and cleans up, whatever happened.
            with suppress(BrokenPipeError):
                process.stdin.close()
            try:
                process.wait(timeout=CONNECT_S)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                process.kill()
                process.wait()
            process.stdout.close()
        if answer.get("code") != 0:
            raise BoardFailed(
                f"the profiler ended with exit code {answer.get('code')}", where=self.host, hint="See above"
            )
        return Profiled(table=str(answer.get("table", "")), report=str(answer.get("report", "")).encode())

    def _hear(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        """The next line of ours; what a login prints is passed over."""
        assert process.stdout is not None
        for _ in range(MOST_LINES):
            line = process.stdout.readline(MOST_BYTES)
            if not line:
                break
            if line.startswith(MARK.encode()):
                found = json.loads(line[len(MARK) :])
                if isinstance(found, dict):
                    return found
        raise self._lost(process)

    def _lost(self, process: subprocess.Popen[bytes]) -> BoardFailed:
        try:
            code = process.wait(timeout=CONNECT_S)
        except subprocess.TimeoutExpired:
            return BoardFailed("it does not answer as it should", where=self.host)
        match code:
            case 127:  # a shell's
                what, hint = f"it has no '{self.python}'", "Name its Python with --python"
            case 255:  # ssh's own
                what, hint = "ssh cannot connect, or the connection was lost", f"Try: ssh {self.host}"
            case _:
                what, hint = f"it ended with exit code {code} before it answered", f"Try: ssh {self.host} {self.python}"
        return BoardFailed(what, where=self.host, hint=hint)
