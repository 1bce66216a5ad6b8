"""Which machine a figure was measured on, and the fastest it can multiply and add."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from coordinator import device_worker
from edge_client.kernels import library


def describe() -> dict[str, object]:
    """CPU, cores, memory and system, for the results file."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0] if names else cpu
    memory = Path("/proc/meminfo")
    ram_mb = int(memory.read_text().split()[1]) // 1024 if memory.exists() else None
    kernels = library.library_path()
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "ram_mb": ram_mb,
        "system": platform.platform(),
        "kernels": kernels.name if kernels else None,
        "load": round(os.getloadavg()[0], 1),
    }


def commit() -> str:
    """Of this tree, with -dirty if it holds more than that; "" outside a repository."""
    git = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(git, capture_output=True, text=True, cwd=Path(__file__).parent, check=False).stdout.strip()


def fma_peak() -> float:
    """Multiply-add peak of one core in GFLOP/s."""
    found = device_worker.multiply_adds()
    if found is None:
        raise SystemExit("no kernels are built: python -m edge_client.kernels.build")
    return found * 1e-9
