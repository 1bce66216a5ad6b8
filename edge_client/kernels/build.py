"""Compile the kernels: `python -m edge_client.kernels.build [--sanitize]`. Needs gcc or clang and nothing else.

One source, several builds, so that a wheel never dies of an illegal instruction: on x86-64 a baseline,
one for AVX2 and FMA, one for AVX-512 (`library.load` picks by asking the processor); elsewhere one.
The libraries are written next to this file; `setup.py` has them written into the wheel.

The tests under AddressSanitizer and UndefinedBehaviorSanitizer (`tests/unit/test_packaging.py` does this;
Python itself is not instrumented, so the runtime is preloaded and its leaks are not ours):

    python -m edge_client.kernels.build --sanitize
    LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)" \
        ASAN_OPTIONS=detect_leaks=0 HIDENSEEK_KERNELS=sanitize \
        python -m pytest tests/unit/test_sparse_runtime.py tests/property/test_sparse_parity.py
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edge_client.compiler import Compiler, put_library, tell

FOLDER = Path(__file__).resolve().parent
COMPILER = Compiler(
    language="C", variable="CC", programs=("gcc", "cc", "clang"), where="kernels", otherwise="use the onnx runtime"
)
# -fno-math-errno lets sqrtf be one instruction; -ffp-contract=fast lets a * b + c be one rounding. No -ffast-math:
# its reassociation is not needed (the accumulators are written out) and its no-NaN promise is not ours to make.
FLAGS = ("-O3", "-fno-math-errno", "-ffp-contract=fast", "-fvisibility=default")
SANITIZE = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
COMPILE = ("-std=gnu11", "-fPIC", "-pthread")
LINK = ("-shared", "-pthread")
X86_LEVELS: Mapping[str, tuple[str, ...]] = {
    "v1": ("-march=x86-64", "-mtune=generic"),
    "v3": ("-march=haswell", "-mtune=generic"),
    "v4": ("-march=skylake-avx512", "-mtune=skylake-avx512"),
}
# The vectors of 32-bit NEON flush denormals, so gcc takes them only together with -funsafe-math-optimizations;
# what else that brings is switched off again. Never when linking: there it would change the whole process's mode.
NEON_32 = (
    "-march=armv7-a",
    "-mfpu=neon",
    "-funsafe-math-optimizations",
    "-fno-associative-math",
    "-fno-reciprocal-math",
    "-fsigned-zeros",
    "-ftrapping-math",
)
OLDEST_GLIBC = (2, 17)  # the oldest that wheels are tagged for


def sources() -> list[Path]:
    """The C files, in a fixed order."""
    return sorted(FOLDER.glob("*.c"))


def levels(machine: str) -> Mapping[str, tuple[str, ...]]:
    """Name and compiler flags of every build for a machine, as `machine_of` calls it."""
    match machine:
        case "x86_64":
            return X86_LEVELS
        case "armv7l":
            return {"v1": NEON_32}
        case _:
            return {"v1": ()}


def machine_of(command: Sequence[str]) -> str:
    """What a compiler compiles for, in the words of `platform.machine`: x86_64, aarch64, armv7l, armv6l, ...

    The compiler is asked, not the system: it may be a cross compiler, and a 64-bit Raspberry Pi kernel
    may carry a 32-bit system.

    Raises:
        RuntimeMissing: if the compiler does not say.
    """
    name = COMPILER.run([*command, "-dumpmachine"]).strip().partition("-")[0].lower()
    if name.startswith("arm") and name != "arm64":
        return "armv6l" if platform.machine() == "armv6l" else "armv7l"  # the first Pi and the Zero lack NEON
    return {"amd64": "x86_64"}.get(name, name)


def build(folder: Path = FOLDER, *, compiler: str | None = None, sanitize: bool = False) -> list[Path]:
    """Compile every build for a machine and put the libraries into `folder`, each in one atomic move.

    Args:
        folder: where the libraries go.
        compiler: see `Compiler.find`; a cross compiler builds for its own machine.
        sanitize: one build with address and undefined-behaviour checks instead.

    Returns:
        The libraries written.

    Raises:
        RuntimeMissing: if there is no compiler, or it fails.
    """
    command = COMPILER.find(compiler)
    machine = machine_of(command)
    builds, flags = levels(machine), FLAGS
    if sanitize:  # run where it was built, so it may use all that this processor has
        builds = {"sanitize": ("-march=native",) if machine == "x86_64" else builds["v1"]}
        flags = SANITIZE
    written = []
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=".build-", suffix=".tmp") as name,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        scratch = Path(name)
        objects = {level: [scratch / f"{level}-{source.stem}.o" for source in sources()] for level in builds}
        compilations = [
            [*command, *COMPILE, *flags, *builds[level], "-c", str(source), "-o", str(target)]
            for level in builds
            for source, target in zip(sources(), objects[level], strict=True)
        ]
        list(pool.map(COMPILER.run, compilations))
        for level in builds:
            draft, target = scratch / f"{level}.so", folder / f"sparse-{level}.so"
            checks = SANITIZE if sanitize else ()
            COMPILER.run([*command, *LINK, *checks, *map(str, objects[level]), "-o", str(draft), "-lm"])
            put_library(draft, target)
            written.append(target)
    return written


def platform_tag(libraries: Iterable[Path], machine: str) -> str | None:
    """The wheel tag that is true of libraries for Linux: of the newest glibc symbol version that any of them needs.

    Args:
        libraries: ELF files.
        machine: as `machine_of` calls it.

    Returns:
        `manylinux_2_34_aarch64` and the like (PEP 600); `linux_aarch64` if they need another C library
        than glibc; None if one is no ELF file (macOS).
    """
    contents = [path.read_bytes() for path in libraries]
    if not all(content.startswith(b"\x7fELF") for content in contents):
        return None
    # Version names are plain text in an ELF file's string table.
    found = {
        (int(major), int(minor)) for content in contents for major, minor in re.findall(rb"GLIBC_(\d+)\.(\d+)", content)
    }
    if not found:
        return f"linux_{machine}"
    major, minor = max(*found, OLDEST_GLIBC)
    return f"manylinux_{major}_{minor}_{machine}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; prints what was written."""
    parser = argparse.ArgumentParser(prog="python -m edge_client.kernels.build", description="Compile the kernels.")
    parser.add_argument("--sanitize", action="store_true", help="one build with run-time checks, for tests")
    parser.add_argument("--compiler", help="default: $CC, gcc, cc or clang; a cross compiler builds for its machine")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the libraries go")
    options = parser.parse_args(arguments)
    return tell(lambda: build(options.folder, compiler=options.compiler, sanitize=options.sanitize))


if __name__ == "__main__":
    sys.exit(main())
