"""How much memory this process may still take, asked before it takes much: a clear refusal instead of a killed device.

A limit on memory is one of the process (ulimit -v, ulimit -d), of its control group (systemd's MemoryMax, a container's
limit; version 1 and 2), or what the machine has left. Above the first memory cannot be had; above the others the kernel
kills the process without a word. Sources: proc(5), cgroups(7), getrlimit(2), Documentation/admin-guide/cgroup-v2.rst
and cgroup-v1/memory.rst of Linux.

Nothing here imports numpy: `prepare` runs before it.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_client.readings import ROOT, labelled, read_number, read_text
from wire.errors import NotEnoughMemory

KIB = 1024
# numpy's linear algebra reserves some address space for every thread it may start; nothing here needs more than one.
THREADS_VARIABLE = "OPENBLAS_NUM_THREADS"
# Address space that `hidenseek-edge` takes for all that it imports: on x86-64 it starts with 128 MiB in all, of which
# Python has 26 MB by then, and not with 112.
START_BYTES = 98_000_000
MARGIN = 1.05  # of what is asked for: heaps have gaps
UNLIMITED = 1 << 60


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One limit.

    Attributes:
        name: in words.
        nbytes: the limit.
        left: of it, bytes that nothing uses yet.
        virtual: it counts address space, used or not; else memory that is touched.
        mend: what somebody may do about it.
    """

    name: str
    nbytes: int
    left: int
    virtual: bool
    mend: str


def prepare() -> None:
    """To be called before numpy is imported.

    Raises:
        NotEnoughMemory: if the address space that is left is too little to start in.
    """
    os.environ.setdefault(THREADS_VARIABLE, "1")
    require(0, "hidenseek-edge", virtual=START_BYTES)


def require(nbytes: int, what: str, *, virtual: int | None = None, hint: str = "", root: Path = ROOT) -> None:
    """Refuse to go on if so much more memory cannot be had.

    Args:
        nbytes: of memory that will be touched.
        what: needs them.
        virtual: bytes of address space; None: as many.
        hint: what else may help.
        root: of /proc and /sys.

    Raises:
        NotEnoughMemory: naming the limit, what is left of it, what is needed, and what to do.
    """
    for limit in limits(root):
        needed = int(MARGIN * (nbytes if virtual is None or not limit.virtual else virtual))
        if needed > limit.left:
            advice = f"{hint}, or {limit.mend}" if hint else limit.mend
            raise NotEnoughMemory(
                f"{what} needs {_mb(needed)} MB of memory, and {_mb(limit.left)} MB are left of {limit.name} "
                f"({_mb(limit.nbytes)} MB)",
                hint=advice[0].upper() + advice[1:],
            )


def limits(root: Path = ROOT) -> Iterator[Limit]:
    """Every limit on this process's memory that is known."""
    status, machine = labelled(root / "proc/self/status"), labelled(root / "proc/meminfo")
    for name, which, option, label in (
        ("the address space of this process", resource.RLIMIT_AS, "-v", "VmSize"),
        ("the data segment of this process", resource.RLIMIT_DATA, "-d", "VmData"),
    ):
        soft, used = resource.getrlimit(which)[0], status.get(label)
        if soft != resource.RLIM_INFINITY and used is not None:
            mend = f"raise ulimit {option}"
            yield Limit(name=name, nbytes=soft, left=max(soft - used * KIB, 0), virtual=True, mend=mend)
    yield from _groups(root)
    if {"MemTotal", "MemAvailable"} <= machine.keys():
        left = machine["MemAvailable"] + machine.get("SwapFree", 0)
        yield Limit(
            name="this machine's memory", nbytes=machine["MemTotal"] * KIB, left=left * KIB, virtual=False,
            mend="stop other programs",
        )  # fmt: skip


def _groups(root: Path) -> Iterator[Limit]:
    """The limits of the process's control group and of those around it."""
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            mounts = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"]
            files = ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            mounts = [root / "sys/fs/cgroup/memory"]
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        mount = next((one for one in mounts if (one / path.lstrip("/") / files[0]).exists()), mounts[-1])
        group = mount / path.lstrip("/")
        if not group.is_dir():  # a container sees its own group as the root
            group = mount
        for folder in (group, *group.parents):
            limit, used = read_number(folder / files[0]), read_number(folder / files[1])
            if limit is not None and used is not None and limit < UNLIMITED:
                idle = _stat(folder / "memory.stat", files[2])  # of files: the kernel takes it back when it must
                yield Limit(
                    name=f"the control group {folder.relative_to(mount.parent)}", nbytes=limit,
                    left=max(limit - used + idle, 0), virtual=False,
                    mend="raise the limit (MemoryMax of a service, the memory of a container)",
                )  # fmt: skip
            if folder == mount:
                break


def _stat(path: Path, name: str) -> int:
    for line in (read_text(path) or "").splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == name and words[1].isdigit():
            return int(words[1])
    return 0


def _mb(nbytes: int) -> str:
    return f"{nbytes / 1e6:,.1f}"
