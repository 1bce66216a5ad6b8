"""Compile the shim: `python -m edge_client.executorch.build`. Needs g++ or clang++ and the executorch wheel.

The wheel brings headers and shared libraries for C++; the shim (shim.cpp) is one small library on top of them,
written next to this file. It belongs to the version of the wheel it was built with: `library.load` says so when
that has changed. Neither torch nor any other package that the wheel names as its dependency is needed:

    pip install --no-deps executorch==1.5.1
    python -m edge_client.executorch.build
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edge_client.executorch import library
from edge_client.runtimes.registry import INSTALL
from wire.compiler import Compiler, put_library, tell
from wire.errors import RuntimeMissing

COMPILER = Compiler(
    language="C++",
    variable="CXX",
    programs=("g++", "c++", "clang++"),
    where="executorch",
    otherwise="use another runtime",
)
FLAGS = ("-std=c++20", "-O2", "-fPIC", "-shared", "-DC10_USING_CUSTOM_GENERATED_MACROS")  # the last as the wheel's own
SOURCE = library.FOLDER / "shim.cpp"


def build(folder: Path = library.FOLDER, *, compiler: str | None = None) -> Path:
    """Compile the shim for this machine and put it into `folder`, in one atomic move.

    Args:
        folder: where the library goes.
        compiler: see `Compiler.find`.

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
        command = [*COMPILER.find(compiler), *FLAGS, f'-DHS_EXECUTORCH_VERSION="{library.package_version()}"']
        command += [option for path in include for option in ("-isystem", str(path))]
        command += [str(SOURCE), "-o", str(draft), f"-L{package / 'lib'}", "-Wl,--no-as-needed"]
        command += [f"-l{part}" for part in library.PARTS]
        COMPILER.run(command)
        put_library(draft, target)
    return target


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; prints what was written."""
    parser = argparse.ArgumentParser(prog="python -m edge_client.executorch.build", description="Compile the shim.")
    parser.add_argument("--compiler", help="default: $CXX, g++, c++ or clang++")
    parser.add_argument("--folder", type=Path, default=library.FOLDER, help="where the library goes")
    options = parser.parse_args(arguments)
    return tell(lambda: [build(options.folder, compiler=options.compiler)])


if __name__ == "__main__":
    sys.exit(main())
