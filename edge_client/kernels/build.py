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

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from wire.compiler import SANITIZE, Compiler, command_line

FOLDER = Path(__file__).resolve().parent
COMPILER = Compiler(
    language="C", variable="CC", programs=("gcc", "cc", "clang"), where="kernels", otherwise="use the onnx runtime"
)
# -fno-math-errno lets sqrtf be one instruction; -ffp-contract=fast lets a * b + c be one rounding. No -ffast-math:
# its reassociation is not needed (the accumulators are written out) and its no-NaN promise is not ours to make.
FLAGS = ("-O3", "-fno-math-errno", "-ffp-contract=fast", "-fvisibility=default")
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


def sources() -> list[Path]:
    """The C files, in a fixed order."""
    return sorted(FOLDER.glob("*.c"))


def levels(machine: str) -> Mapping[str, tuple[str, ...]]:
    """Name and compiler flags of every build for a machine, as `Compiler.machine` calls it."""
    match machine:
        case "x86_64":
            return X86_LEVELS
        case "armv7l":
            return {"v1": NEON_32}
        case _:
            return {"v1": ()}


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
    machine = COMPILER.machine(command)
    builds = {name: (*FLAGS, *flags) for name, flags in levels(machine).items()}
    if sanitize:  # run where it was built, so it may use all that this processor has
        builds = {"sanitize": (*SANITIZE, *(("-march=native",) if machine == "x86_64" else levels(machine)["v1"]))}
    return COMPILER.libraries(
        command, sources(), {folder / f"sparse-{name}.so": flags for name, flags in builds.items()}, ["-lm"]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; prints what was written."""
    return command_line("edge_client.kernels.build", "kernels", FOLDER, build, arguments)


if __name__ == "__main__":
    sys.exit(main())
