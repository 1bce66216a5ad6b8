"""A compiler for the native parts: which one, what it said when it failed, and how libraries are made with it.

Imported by `setup.py` before anything is installed, so it needs the standard library and `wire.errors` only.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from wire.errors import RuntimeMissing

OLDEST_GLIBC = (2, 17)  # the oldest that wheels are tagged for
C = ("-std=gnu11", "-fPIC", "-pthread")
SHARED = ("-shared", "-pthread")
SANITIZE = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@dataclass(frozen=True, kw_only=True)
class Compiler:
    """How the compiler of one native part is found and run.

    Attributes:
        language: what it compiles, for people.
        variable: the environment variable that names one.
        programs: looked for in this order if neither an argument nor `variable` names one.
        where: the part that needs it, as errors name it.
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
            said = (done.stdout + done.stderr).strip()  # TypeScript tells on its output what is wrong
            raise self._missing(f"{command[0]} failed: {said[-2000:]}")
        return done.stdout

    def machine(self, command: Sequence[str]) -> str:
        """What a command compiles for, in the words of `platform.machine`: x86_64, aarch64, armv7l, armv6l, ...

        The compiler is asked, not the system: it may be a cross compiler, and a 64-bit Raspberry Pi kernel
        may carry a 32-bit system.

        Raises:
            RuntimeMissing: if the compiler does not say.
        """
        name = self.run([*command, "-dumpmachine"]).strip().partition("-")[0].lower()
        if name.startswith("arm") and name != "arm64":
            return "armv6l" if platform.machine() == "armv6l" else "armv7l"  # the first Pi and the Zero lack NEON
        return {"amd64": "x86_64"}.get(name, name)

    def libraries(
        self,
        command: Sequence[str],
        sources: Sequence[Path],
        builds: Mapping[Path, Sequence[str]],
        link: Sequence[str] = (),
    ) -> list[Path]:
        """Compile C sources to libraries, each put in its place in one atomic move.

        Args:
            command: as `find` returns it.
            sources: C files.
            builds: the libraries to make, all in one folder, and the flags that each is compiled and linked with.
            link: more flags for linking.

        Returns:
            The libraries written.

        Raises:
            RuntimeMissing: if the compiler fails.
        """
        folder = next(iter(builds)).parent
        with (
            tempfile.TemporaryDirectory(dir=folder, prefix=".build-", suffix=".tmp") as name,
            ThreadPoolExecutor(os.cpu_count()) as pool,
        ):
            objects = {
                target: [Path(name) / f"{target.stem}-{source.stem}.o" for source in sources] for target in builds
            }
            compilations = [
                [*command, *C, *flags, "-c", str(source), "-o", str(made)]
                for target, flags in builds.items()
                for source, made in zip(sources, objects[target], strict=True)
            ]
            list(pool.map(self.run, compilations))
            for target, flags in builds.items():
                draft = Path(name) / target.name
                # Never what may change the process's floating-point mode: of the flags, linking needs the checks only.
                checks = [flag for flag in flags if flag in SANITIZE]
                self.run([*command, *SHARED, *checks, *map(str, objects[target]), "-o", str(draft), *link])
                put_library(draft, target)
        return list(builds)

    def _missing(self, what: str, hint: str = "") -> RuntimeMissing:
        return RuntimeMissing(what, where=self.where, hint=hint)


def put_library(draft: Path, target: Path) -> None:
    """Move a finished library to its place, in one atomic move."""
    draft.chmod(0o755)  # whoever installs it, everybody may load it
    draft.replace(target)


def platform_tag(libraries: Iterable[Path], machine: str) -> str | None:
    """The wheel tag that is true of libraries for Linux: of the newest glibc symbol version that any of them needs.

    Args:
        libraries: ELF files.
        machine: as `Compiler.machine` calls it.

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


def command_line(
    name: str, what: str, folder: Path, build: Callable[..., Iterable[Path]], arguments: Sequence[str] | None
) -> int:
    """The command line of a part's `build`, which takes a folder, a compiler and whether to sanitize; the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=f"Compile the {what}.")
    parser.add_argument("--sanitize", action="store_true", help="one build with run-time checks, for tests")
    parser.add_argument("--compiler", help="default: $CC, gcc, cc or clang; a cross compiler builds for its machine")
    parser.add_argument("--folder", type=Path, default=folder, help="where the libraries go")
    options = parser.parse_args(arguments)
    return tell(lambda: build(options.folder, compiler=options.compiler, sanitize=options.sanitize))


def tell(build: Callable[[], Iterable[Path]]) -> int:
    """Build for a command line: print what was written, or why nothing was; the exit code."""
    try:
        written = build()
    except RuntimeMissing as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stdout.writelines(f"{path}\n" for path in written)
    return 0
