"""What training costs this device: memory and time, as the kernel and the clock see them."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def peak_memory_kb() -> int:
    """Largest resident memory of this process so far, KiB.

    On Linux from /proc: ru_maxrss there starts with the size of the process that started this one.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0])
    except (OSError, IndexError):
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak  # bytes on macOS, KiB on Linux
