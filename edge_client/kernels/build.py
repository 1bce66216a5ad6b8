"""Compile the kernels: `python -m edge_client.kernels.build [--sanitize]`. Needs gcc or clang and nothing else.

One source, several builds, so that a wheel never dies of an illegal instruction: on x86-64 a baseline,
one for AVX2 and FMA, one for AVX-512 (`library.load` picks by asking the processor); elsewhere one.
The libraries are written next to this file.

The tests under AddressSanitizer and UndefinedBehaviorSanitizer (Python itself is not instrumented,
so the runtime is preloaded and its leaks are not ours):

    python -m edge_client.kernels.build --sanitize
    LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)" \
        ASAN_OPTIONS=detect_leaks=0 HIDENSEEK_KERNELS=sanitize \
        python -m pytest tests/unit/test_sparse_runtime.py tests/property/test_sparse_parity.py
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from wire.errors import RuntimeMissing

FOLDER = Path(__file__).resolve().parent
# -fno-math-errno lets sqrtf be one instruction; -ffp-contract=fast lets a * b + c be one rounding. No -ffast-math:
# its reassociation is not needed (the accumulators are written out) and its no-NaN promise is not ours to make.
FLAGS = ("-O3", "-fno-math-errno", "-ffp-contract=fast", "-fvisibility=default")
SANITIZE = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
SHARED = ("-std=gnu11", "-fPIC", "-shared", "-pthread")
X86_LEVELS: Mapping[str, tuple[str, ...]] = {
    "v1": ("-march=x86-64", "-mtune=generic"),
    "v3": ("-march=haswell", "-mtune=generic"),
    "v4": ("-march=skylake-avx512", "-mtune=skylake-avx512"),
}


def sources() -> list[Path]:
    """The C files, in a fixed order."""
    return sorted(FOLDER.glob("*.c"))


def levels(machine: str) -> Mapping[str, tuple[str, ...]]:
    """Name and compiler flags of every build for a machine as `platform.machine` calls it."""
    return X86_LEVELS if machine in ("x86_64", "AMD64") else {"v1": ()}


def build(
    folder: Path = FOLDER, *, compiler: str | None = None, machine: str | None = None, sanitize: bool = False
) -> list[Path]:
    """Compile every build for a machine and put the libraries into `folder`, each in one atomic move.

    Args:
        folder: where the libraries go.
        compiler: path or name; default `$CC`, else gcc, cc or clang, whichever is there.
        machine: what the compiler compiles for, if not for this machine.
        sanitize: one build with address and undefined-behaviour checks instead.

    Returns:
        The libraries written.

    Raises:
        RuntimeMissing: if there is no compiler, or it fails.
    """
    command = compiler or os.environ.get("CC") or next(filter(shutil.which, ("gcc", "cc", "clang")), None)
    if command is None:
        raise RuntimeMissing("no C compiler found", where="kernels", hint="Install gcc, or use the onnx runtime")
    builds = levels(machine or platform.machine())
    if sanitize:
        builds = {"sanitize": list(builds.values())[-1]}
    written = []
    for level, flags in builds.items():
        target = folder / f"sparse-{level}.so"
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".tmp") as draft:
            options = (*SHARED, *(SANITIZE if sanitize else FLAGS), *flags)
            _compile([*command.split(), *options, *map(str, sources()), "-o", draft.name, "-lm"])
            finished = draft.name + ".so"
            Path(draft.name).rename(finished)
            Path(draft.name).touch()  # for the context manager to remove
            Path(finished).replace(target)
        written.append(target)
    return written


def _compile(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeMissing(f"{command[0]} failed: {done.stderr.strip()[-2000:]}", where="kernels")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; prints what was written."""
    parser = argparse.ArgumentParser(prog="python -m edge_client.kernels.build", description="Compile the kernels.")
    parser.add_argument("--sanitize", action="store_true", help="one build with run-time checks, for tests")
    parser.add_argument("--compiler", help="default: $CC, gcc, cc or clang")
    parser.add_argument("--machine", help="compile for this machine (x86_64, aarch64, armv7l)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the libraries go")
    options = parser.parse_args(arguments)
    for path in build(options.folder, compiler=options.compiler, machine=options.machine, sanitize=options.sanitize):
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
