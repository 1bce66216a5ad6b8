"""What the kernel and the firmware say about this process and this board. Whatever they do not say is None.

Paths are read below a root folder, so that the files of any board can be read. Sources of the formats: proc(5),
Documentation/ABI/testing/sysfs-class-thermal and sysfs-devices-system-cpu of Linux, Raspberry Pi's documentation of
`vcgencmd get_throttled`.
"""

from __future__ import annotations

import ctypes
import mmap
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

ROOT = Path("/")
PROCESSOR_ZONES = ("cpu", "soc", "pkg")  # in the type of a thermal zone
THROTTLED = ("sys/devices/platform/soc/soc:firmware/get_throttled", "sys/devices/platform/soc/firmware/get_throttled")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What this process, all threads of it, has used since it started."""

    minor_faults: int
    major_faults: int
    voluntary_switches: int
    involuntary_switches: int
    cpu_s: float


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Memory of this process, KiB: resident, of it its own share of pages, and the largest resident so far."""

    rss_kib: int | None
    pss_kib: int | None
    peak_kib: int


@dataclass(frozen=True, kw_only=True)
class Board:
    """The processor now: fastest core in MHz, degrees Celsius, and the firmware's throttling bits."""

    frequency_mhz: int | None
    temperature_c: float | None
    throttled: int | None


def usage() -> Usage:
    """See `Usage`."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return Usage(
        minor_faults=spent.ru_minflt,
        major_faults=spent.ru_majflt,
        voluntary_switches=spent.ru_nvcsw,
        involuntary_switches=spent.ru_nivcsw,
        cpu_s=spent.ru_utime + spent.ru_stime,
    )


def written_bytes(root: Path = ROOT) -> int | None:
    """Bytes that this process has made the system write to storage; None if it does not say."""
    return labelled(root / "proc/self/io").get("write_bytes")


def memory(root: Path = ROOT) -> Memory:
    """See `Memory`."""
    rollup, status = labelled(root / "proc/self/smaps_rollup"), labelled(root / "proc/self/status")
    resident = rollup.get("Rss", status.get("VmRSS"))
    return Memory(rss_kib=resident, pss_kib=rollup.get("Pss"), peak_kib=_peak_kib(status))


def board(root: Path = ROOT) -> Board:
    """See `Board`."""
    return Board(frequency_mhz=_frequency(root), temperature_c=_temperature(root), throttled=_throttled(root))


def peak_memory_kb(root: Path = ROOT) -> int:
    """Largest resident memory of this process so far, KiB.

    On Linux from /proc: ru_maxrss there starts with the size of the process that started this one.
    """
    return _peak_kib(labelled(root / "proc/self/status"))


def _peak_kib(status: Mapping[str, int]) -> int:
    if "VmHWM" in status:
        return status["VmHWM"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak  # bytes on macOS, KiB on Linux


def touched_bytes(address: int, nbytes: int) -> int | None:
    """Of a stretch of this process's memory, the bytes in pages that are there; None if the system does not say."""
    if not sys.platform.startswith("linux") or nbytes <= 0:
        return None
    start = address // mmap.PAGESIZE * mmap.PAGESIZE
    pages = -(-(address + nbytes - start) // mmap.PAGESIZE)
    found = (ctypes.c_ubyte * pages)()
    if _libc().mincore(ctypes.c_void_p(start), ctypes.c_size_t(pages * mmap.PAGESIZE), found):
        return None
    return min(sum(page & 1 for page in found) * mmap.PAGESIZE, nbytes)


def heap_bytes() -> int | None:
    """Bytes that malloc has given out and not got back, of all threads (mallinfo2(3) of glibc); None without it."""
    if not sys.platform.startswith("linux") or not hasattr(_libc(), "mallinfo2"):
        return None  # musl, or a glibc before 2.33
    found = _libc().mallinfo2()
    return int(found.uordblks + found.hblkhd)


class _Mallinfo2(ctypes.Structure):
    # Others of its fields: arena, ordblks, smblks, hblks, usmblks, fsmblks, fordblks, keepcost.
    _fields_: ClassVar = [
        (name, ctypes.c_size_t) for name in ("a", "b", "c", "d", "hblkhd", "f", "g", "uordblks", "i", "j")
    ]


@cache
def _libc() -> ctypes.CDLL:
    """Made once: every one is a class of its own, and a cycle."""
    library = ctypes.CDLL(None, use_errno=True)
    if hasattr(library, "mallinfo2"):
        library.mallinfo2.restype = _Mallinfo2
    return library


def arena_bytes(arenas: Sequence[tuple[int, int]]) -> tuple[int, int | None]:
    """Of stretches of memory (address, bytes) the bytes of all, and of them those in pages that are there."""
    touched = [touched_bytes(*arena) for arena in arenas]
    used = None if None in touched else sum(part or 0 for part in touched)
    return sum(nbytes for _, nbytes in arenas), used


def read_text(path: Path) -> str | None:
    """A small file of the kernel, or None if it is not there, or not ours to read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None


def read_number(path: Path, base: int = 10) -> int | None:
    """The whole number that a file of the kernel holds, or None."""
    try:
        return int(read_text(path) or "", base)
    except ValueError:
        return None


@cache
def _has_vcgencmd() -> bool:
    """Looked up once: trying to start a program that is not there takes a fork every time."""
    import shutil

    return shutil.which("vcgencmd") is not None


def vcgencmd(*arguments: str) -> str | None:
    """What the Raspberry Pi's firmware answers; None where there is none."""
    if not _has_vcgencmd():
        return None
    import subprocess  # most boards have none

    try:
        done = subprocess.run(["vcgencmd", *arguments], capture_output=True, text=True, timeout=2, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def labelled(path: Path) -> dict[str, int]:
    """Whole numbers of a file of the kernel by the labels before them, `label: number`; none if it cannot be read."""
    rows = (line.partition(":") for line in (read_text(path) or "").splitlines())
    numbers = ((label, (rest.split() or [""])[0]) for label, _, rest in rows)
    return {label: int(number) for label, number in numbers if number.isdigit()}


def model(root: Path = ROOT) -> str:
    """What the firmware calls this board, else what the processor calls itself, else nothing."""
    named = read_text(root / "proc/device-tree/model")
    if named:
        return named.strip("\0 \n")
    lines = (read_text(root / "proc/cpuinfo") or "").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Hardware", "Model")))
    return next(names, "")


def _frequency(root: Path) -> int | None:
    files = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
    kilohertz = [found for file in files if (found := read_number(file)) is not None]
    if kilohertz:
        return max(kilohertz) // 1000
    lines = (read_text(root / "proc/cpuinfo") or "").splitlines()
    try:
        return round(max(float(line.split(":")[1]) for line in lines if line.startswith("cpu MHz")))
    except (ValueError, IndexError):
        return None


def _temperature(root: Path) -> float | None:
    """Of the processor's zone; of the first zone if none says that it is that."""
    zones = sorted((root / "sys/class/thermal").glob("thermal_zone*"))
    found = [
        (not any(word in (read_text(zone / "type") or "") for word in PROCESSOR_ZONES), number)
        for zone in zones
        if (number := read_number(zone / "temp")) is not None
    ]
    return round(min(found, key=lambda one: one[0])[1] / 250) / 4 if found else None  # a sensor knows no more


def _throttled(root: Path) -> int | None:
    for path in THROTTLED:
        found = read_number(root / path, 16)
        if found is not None:
            return found
    answer = vcgencmd("get_throttled") if root == ROOT else None
    try:
        return int((answer or "").strip().removeprefix("throttled="), 16)
    except ValueError:
        return None
