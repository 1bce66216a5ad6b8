"""Compile the native coder: `python -m wire.native.build [--sanitize]`. Needs gcc or clang and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from wire.compiler import SANITIZE, Compiler, command_line
from wire.native import FOLDER, LIBRARY

COMPILER = Compiler(
    language="C",
    variable="CC",
    programs=("gcc", "cc", "clang"),
    where="native coder",
    otherwise="go without: masks are then coded in Python, which is slower",
)
# Not -O3: it turns the coder's branches, which are predicted well, into arithmetic that has to be waited for.
FLAGS = ("-O2", "-ftree-vectorize")


def build(folder: Path = FOLDER, *, compiler: str | None = None, sanitize: bool = False) -> list[Path]:
    """Compile the library and put it into `folder`, in one atomic move.

    Args:
        folder: where the library goes.
        compiler: see `Compiler.find`; a cross compiler builds for its own machine.
        sanitize: with address and undefined-behaviour checks, as `sanitize.so`, beside the usual one.

    Returns:
        The libraries written.

    Raises:
        RuntimeMissing: if there is no compiler, or it fails.
    """
    target = {folder / "sanitize.so": SANITIZE} if sanitize else {folder / LIBRARY: FLAGS}
    return COMPILER.libraries(COMPILER.find(compiler), sorted(FOLDER.glob("*.c")), target)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; prints what was written."""
    return command_line("wire.native.build", "native coder", FOLDER, build, arguments)


if __name__ == "__main__":
    sys.exit(main())
