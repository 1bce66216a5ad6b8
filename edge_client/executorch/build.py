"""Compile the shim: `python -m edge_client.executorch.build`. Needs g++ or clang++ and the executorch wheel.

The wheel brings headers and shared libraries for C++; the shim (shim.cpp) is one small library on top of them,
written next to this file. It belongs to the version of the wheel it was built with: `library.load` says so when
that has changed. Neither torch nor any other package that the wheel names as its dependency is needed:

    pip install --no-deps executorch==1.5.1
    python -m edge_client.executorch.build
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edge_client.executorch import library
from edge_client.runtimes.registry import INSTALL
from wire.errors import RuntimeMissing

COMPILERS = ("g++", "c++", "clang++")
FLAGS = ("-std=c++20", "-O2", "-fPIC", "-shared", "-DC10_USING_CUSTOM_GENERATED_MACROS")  # the last as the wheel's own
SOURCE = library.FOLDER / "shim.cpp"


def find_compiler(compiler: str | None = None) -> list[str]:
    """The command that compiles C++: `compiler` if given, else `$CXX`, else g++, c++ or clang++, whichever is there.

    Raises:
        RuntimeMissing: if there is none, or the one that was named does not exist.
    """
    named = compiler or os.environ.get("CXX")
    command = shlex.split(named) if named else [name for name in COMPILERS if shutil.which(name)][:1]
    if not command:
        raise RuntimeMissing("no C++ compiler found", where="executorch", hint="Install g++, or use another runtime")
    if shutil.which(command[0]) is None:
        raise RuntimeMissing(f"no program '{command[0]}'", where="executorch", hint="Install it, or name one in $CXX")
    return command


def build(folder: Path = library.FOLDER, *, compiler: str | None = None) -> Path:
    """Compile the shim for this machine and put it into `folder`, in one atomic move.

    Args:
        folder: where the library goes.
        compiler: see `find_compiler`.

    Returns:
        The library written.

    Raises:
        RuntimeMissing: if the wheel or a compiler is not there, or the compiler fails.
    """
    package = library.package_folder()
    if package is None:
        raise RuntimeMissing(
            "the package executorch is not installed", where="executorch", hint=f"Install it: {INSTALL['executorch']}"
        )
    headers = package / "include"
    # System headers, so that their warnings are not ours.
    include = [headers, headers / "executorch/runtime/core/portable_type/c10"]
    target = folder / library.SHIM
    with tempfile.TemporaryDirectory(dir=folder, prefix=".build-", suffix=".tmp") as name:
        draft = Path(name) / library.SHIM
        command = [*find_compiler(compiler), *FLAGS, f'-DHS_EXECUTORCH_VERSION="{library.package_version()}"']
        command += [option for path in include for option in ("-isystem", str(path))]
        command += [str(SOURCE), "-o", str(draft), f"-L{package / 'lib'}", "-Wl,--no-as-needed"]
        command += [f"-l{part}" for part in library.PARTS]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise RuntimeMissing(f"{command[0]} cannot be run ({error})", where="executorch") from error
        if done.returncode:
            raise RuntimeMissing(f"{command[0]} failed: {done.stderr.strip()[-2000:]}", where="executorch")
        draft.chmod(0o755)  # whoever installs it, everybody may load it
        draft.replace(target)
    return target


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; prints what was written."""
    parser = argparse.ArgumentParser(prog="python -m edge_client.executorch.build", description="Compile the shim.")
    parser.add_argument("--compiler", help="default: $CXX, g++, c++ or clang++")
    parser.add_argument("--folder", type=Path, default=library.FOLDER, help="where the library goes")
    options = parser.parse_args(arguments)
    try:
        written = build(options.folder, compiler=options.compiler)
    except RuntimeMissing as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stdout.write(f"{written}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
