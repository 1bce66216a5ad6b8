"""The fuzzer of the native coder: coder.c under the address and undefined-behaviour sanitizers.

Where clang has libFuzzer, that looks for new ground first; most inputs come from driver.c, for which gcc suffices.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.hunt import corpus
from wire.compiler import SANITIZE
from wire.errors import RuntimeMissing
from wire.native import FOLDER
from wire.native.build import COMPILER

HERE = Path(__file__).parent
NAME = "native"
CLANGS = ("clang", *(f"clang-{version}" for version in range(21, 13, -1)))
FLAGS = ("-std=gnu11", *SANITIZE, "-O2")
EXPLORE_S = 30
LONGEST = 256  # bytes of an input
ENVIRONMENT = {"ASAN_OPTIONS": "quarantine_size_mb=4:malloc_context_size=5", "UBSAN_OPTIONS": "print_stacktrace=1"}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of it.

    Attributes:
        inputs: how many were tried.
        explored: how many of them by libFuzzer.
        crash: an input that must not be; None if there was none.
        said: by the program that crashed.
    """

    inputs: int
    explored: int
    crash: bytes | None = None
    said: str = ""


def run(out: Path, inputs: int, seconds: float, seed: int) -> Outcome:
    """Try so many inputs in at most so many seconds; what is new ground is kept in `out`.

    Raises:
        RuntimeMissing: if there is no C compiler.
    """
    found = out / NAME
    found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        crash, kept = Path(name) / "crash", Path(name) / "kept"
        kept.mkdir()
        for number, data in enumerate(corpus(NAME)):
            (kept / str(number)).write_bytes(data)
        driver, explorer = _driver(Path(name)), _explorer(Path(name))
        explored = 0
        if explorer is not None:
            options = [f"-seed={seed % 2**31 + 1}", f"-max_total_time={EXPLORE_S}", f"-max_len={LONGEST}", "-timeout=5"]
            options += ["-rss_limit_mb=600", "-print_final_stats=1", f"-exact_artifact_path={crash}"]
            done = _call([explorer, *options, found, kept])
            counted = re.search(r"number_of_executed_units: (\d+)", done.stderr)
            explored = int(counted[1]) if counted else 0
            if done.returncode:
                return _crashed(explored, explored, crash, done)
        files = [path for folder in (kept, found) for path in sorted(folder.iterdir())]
        done = _call([driver, inputs - explored, int(seconds), seed, crash, *files])
        counted = re.search(r"(\d+) inputs", done.stdout)
        tried = explored + (int(counted[1]) if counted else 0)
        return _crashed(tried, explored, crash, done) if done.returncode else Outcome(inputs=tried, explored=explored)


def replay(data: bytes) -> Outcome:
    """Try one input."""
    with tempfile.TemporaryDirectory() as name:
        crash, file = Path(name) / "crash", Path(name) / "input"
        file.write_bytes(data)
        done = _call([_driver(Path(name)), 0, 0, 0, crash, file])
        return _crashed(1, 0, crash, done) if done.returncode else Outcome(inputs=1, explored=0)


def _sources() -> list[Path]:
    return [HERE / "coder.c", *sorted(FOLDER.glob("*.c"))]


def _driver(folder: Path) -> Path:
    made = folder / "driver"
    COMPILER.run([*COMPILER.find(), *FLAGS, *map(str, _sources()), str(HERE / "driver.c"), "-o", str(made)])
    return made


def _explorer(folder: Path) -> Path | None:
    made = folder / "explorer"
    # Without traced comparisons: there is nothing in a coder's numbers to be found by them, and it is thrice as fast.
    flags = ["-fsanitize=fuzzer", "-fno-sanitize-coverage=trace-cmp,trace-div,trace-gep"]
    for clang in filter(shutil.which, CLANGS):
        try:
            COMPILER.run([clang, *FLAGS, *flags, *map(str, _sources()), "-o", str(made)])
        except RuntimeMissing:  # this one came without its runtime libraries
            continue
        return made
    return None


def _call(command: list[object]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)),
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def _crashed(inputs: int, explored: int, crash: Path, done: subprocess.CompletedProcess[str]) -> Outcome:
    data = crash.read_bytes() if crash.exists() else b""
    return Outcome(inputs=inputs, explored=explored, crash=data, said=done.stderr[-3000:])
