"""What training costs this device: memory and time, as the kernel and the clock see them."""

from __future__ import annotations

import resource
import sys


def peak_memory_kb() -> int:
    """Largest resident memory of this process so far, KiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak  # bytes on macOS, KiB on Linux
