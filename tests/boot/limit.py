"""A service's memory limit where the container cannot set it: on machines whose memory controller is cgroup version 1.

There systemd in a container finds that controller's files read-only, and a unit's MemoryMax is only words. This puts
the service's process, and all that it starts, into a group with that limit from outside. What it had before stays
charged where it was; the new client, which takes its place by execve, is charged as a whole but for pages of files that
others have read already. Source: Documentation/admin-guide/cgroup-v1/memory.rst of Linux.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup/memory")


@dataclass(frozen=True)
class Limit:
    """A control group."""

    folder: Path | None

    @property
    def largest_mb(self) -> float | None:
        """The most memory that was charged to it, 1e6 bytes; None if it is the container's."""
        return None if self.folder is None else self._read("memory.max_usage_in_bytes") / 1e6

    @property
    def was_short(self) -> bool:
        """Whether something in it was killed for memory."""
        if self.folder is None:
            return False
        words = (self.folder / "memory.oom_control").read_text().split()
        return int(words[words.index("oom_kill") + 1]) > 0

    def _read(self, name: str) -> int:
        assert self.folder is not None
        return int((self.folder / name).read_text())


@contextmanager
def held(pid: int, nbytes: int) -> Iterator[Limit]:
    """Hold a process to so much memory, swap there is none of; nothing to do where its systemd can."""
    if not (ROOT / "memory.limit_in_bytes").exists():
        yield Limit(None)
        return
    own = next(line.split(":")[2] for line in Path("/proc/self/cgroup").read_text().splitlines() if ":memory:" in line)
    folder = ROOT / own.lstrip("/") / f"card-{pid}"
    folder.mkdir()
    try:
        (folder / "memory.limit_in_bytes").write_text(str(nbytes))
        (folder / "cgroup.procs").write_text(str(pid))
        yield Limit(folder)
    finally:
        for left in (folder / "cgroup.procs").read_text().split():
            (folder.parent / "cgroup.procs").write_text(left)
        time.sleep(0.1)
        folder.rmdir()
