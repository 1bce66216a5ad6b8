"""A compiler for the native parts that a device builds by itself: which one, what it said when it failed.

Imported by `setup.py` before anything is installed, so it needs the standard library and `wire.errors` only.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wire.errors import RuntimeMissing


@dataclass(frozen=True, kw_only=True)
class Compiler:
    """How the compiler of one native part is found and run.

    Attributes:
        language: what it compiles, for people.
        variable: the environment variable that names one.
        programs: looked for in this order if neither an argument nor `variable` names one.
        where: the runtime that needs it, as errors name it.
        otherwise: what a user without one can do, after "Install gcc, or ".
    """

    language: str
    variable: str
    programs: tuple[str, ...]
    where: str
    otherwise: str

    def find(self, named: str | None = None) -> list[str]:
        """The command that compiles: `named` if given, else that of `variable`, else the first program that is there.

        Args:
            named: a program, with options if need be, as in a shell.

        Raises:
            RuntimeMissing: if there is none, or the one that was named does not exist.
        """
        named = named or os.environ.get(self.variable)
        command = shlex.split(named) if named else [name for name in self.programs if shutil.which(name)][:1]
        if not command:
            raise self._missing(
                f"no {self.language} compiler found", f"Install {self.programs[0]}, or {self.otherwise}"
            )
        if shutil.which(command[0]) is None:
            raise self._missing(f"no program '{command[0]}'", f"Install it, or name another in ${self.variable}")
        return command

    def run(self, command: Sequence[str]) -> str:
        """Run a command of this compiler; what it printed.

        Raises:
            RuntimeMissing: if it cannot be run or fails, with the end of what it said.
        """
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise self._missing(f"{command[0]} cannot be run ({error})") from error
        if done.returncode:
            raise self._missing(f"{command[0]} failed: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def _missing(self, what: str, hint: str = "") -> RuntimeMissing:
        return RuntimeMissing(what, where=self.where, hint=hint)


def put_library(draft: Path, target: Path) -> None:
    """Move a finished library to its place, in one atomic move."""
    draft.chmod(0o755)  # whoever installs it, everybody may load it
    draft.replace(target)


def tell(build: Callable[[], Iterable[Path]]) -> int:
    """Build for a command line: print what was written, or why nothing was; the exit code."""
    try:
        written = build()
    except RuntimeMissing as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stdout.writelines(f"{path}\n" for path in written)
    return 0
