"""Memory of a Python program in an ARM system under qemu-user, the emulator's own left out.

qemu-user is one process with what it emulates: its translated code alone is 35 to 100 MB of the process's memory. The
emulated program's pages lie below 2^40 (qemu maps a 64-bit ARM program from 0x400000 and 0x5500000000 on), qemu's own
above, so the kernel's list of mappings tells them apart.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.integration.arm_root import Root

EMULATED = 1 << 40  # the first address that is never the program's
# Runs a program as `python FILE ARGUMENTS` does, and stays until its standard input ends: its memory is read meanwhile.
WAITS = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as ended:
    if ended.code:
        raise
sys.stdout.flush()
sys.stdin.read()
"""


def told(root: Root, program: str | Path, *arguments: str | Path) -> tuple[dict[str, Any], int]:
    """The line of JSON that a program prints, and the bytes of memory that it had at most.

    What qemu has when the program ends, which only grows, is taken off the process's largest.

    Args:
        root: the system it runs in.
        program: file of a Python program.
        arguments: its own.

    Raises:
        SystemExit: if the program fails.
    """
    process = root.start("-c", WAITS, program, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        line = process.stdout.readline()
        own = emulator_bytes(Path(f"/proc/{process.pid}/smaps").read_text()) if line else 0
        largest = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
        process.stdin.close()
        if process.wait(timeout=60) or not line or not largest:
            raise SystemExit(f"{program} {' '.join(map(str, arguments))}: ended with {process.returncode}")
    finally:
        process.kill()
        process.wait()
    return json.loads(line), 1024 * int(largest[1]) - own


def emulator_bytes(smaps: str) -> int:
    """Resident bytes of the emulator itself, from `/proc/PID/smaps` of its process."""
    found = re.findall(r"^([0-9a-f]+)-[0-9a-f]+ .*\n(?:[A-Z].*\n)*?Rss:\s+(\d+) kB$", smaps, re.MULTILINE)
    return 1024 * sum(int(size) for first, size in found if int(first, 16) >= EMULATED)
