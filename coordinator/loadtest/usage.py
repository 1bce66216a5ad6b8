"""What a process uses, as the kernel says: processor time and resident memory, now and at most."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar


@dataclass
class Watched:
    """A process that is looked at now and then; zeros where the system has no /proc.

    Args:
        name: for people.
        pid: of the process.
        root: where /proc is.
    """

    name: str
    pid: int
    root: Path = Path("/proc")
    cpu_s: float = 0.0
    rss_kib: int = 0
    peak_kib: int = 0
    TICKS: ClassVar[int] = os.sysconf("SC_CLK_TCK")

    def look(self) -> None:
        """Read it again; of one that has ended the last figures stay."""
        try:
            words = (self.root / str(self.pid) / "stat").read_text().rpartition(")")[2].split()
            status = (self.root / str(self.pid) / "status").read_text()
        except OSError:
            return
        fields = {key: value for key, _, value in (line.partition(":") for line in status.splitlines())}
        if "VmRSS" not in fields:  # it has ended, and nobody has asked how
            return
        self.cpu_s = (int(words[11]) + int(words[12])) / self.TICKS  # utime and stime, proc(5)
        self.rss_kib, self.peak_kib = (int(fields[name].split()[0]) for name in ("VmRSS", "VmHWM"))

    def to_json(self) -> dict[str, object]:
        """For the results."""
        return {"cpu_s": round(self.cpu_s, 2), "rss_kib": self.rss_kib, "peak_kib": self.peak_kib}
