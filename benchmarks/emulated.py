"""Memory of a Python program in an ARM system under qemu-user, the emulator's own left out.

qemu-user is one process with what it emulates: its translated code alone is 35 to 100 MB of the process's memory. The
emulated program's pages lie below 2^40 (qemu maps a 64-bit ARM program from 0x400000 and 0x5500000000 on), qemu's own
above, so the kernel's list of mappings tells them apart.

When a program gives the end of its heap back, Linux frees it; qemu 7.2 keeps the pages, and hands the same ones out
when the heap grows again (do_brk in its linux-user/syscall.c). So what lies behind the end of the heap is left out too.
As the kernel's largest is of all of these together, memory is read again and again while the program runs, some three
hundred times a second, which is often for a program that takes seconds to load what a board loads in one.
"""

from __future__ import annotations

import json
import os
import re
import select
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.integration.arm_root import Root

EMULATED = 1 << 40  # the first address that is never the program's
PAGE = 4096
EVERY_S = 0.002
# Says where the C library keeps the end of the heap, and runs a program as `python FILE ARGUMENTS` does.
RUNS = """
import ctypes, runpy, sys
print(ctypes.addressof(ctypes.c_void_p.in_dll(ctypes.CDLL(None), "__curbrk")), flush=True)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def told(root: Root, program: str | Path, *arguments: str | Path) -> tuple[dict[str, Any], int]:
    """The line of JSON that a program prints, and the bytes of memory that it had at most until then.

    Args:
        root: the system it runs in.
        program: file of a Python program.
        arguments: its own.

    Raises:
        SystemExit: if the program fails.
    """
    process = root.start("-c", RUNS, program, *arguments, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        most = _most(process.pid, process.stdout.fileno(), int(process.stdout.readline() or 0))
        line = process.stdout.readline()
        if process.wait(timeout=60) or not line:
            raise SystemExit(f"{program} {' '.join(map(str, arguments))}: ended with {process.returncode}")
    finally:
        process.kill()
        process.wait()
    return json.loads(line), most


def _most(pid: int, output: int, heap_end: int) -> int:
    """The most bytes that the program has until it says something.

    Args:
        pid: of the emulator.
        output: what the program's words come from.
        heap_end: address of the end of the program's heap; 0: it has not begun.
    """
    most, folder = 0, Path(f"/proc/{pid}")
    with (folder / "mem").open("rb", buffering=0) as memory, (folder / "pagemap").open("rb", buffering=0) as pages:

        def resident(first: int, last: int) -> int:
            entries = os.pread(pages.fileno(), (last - first) // PAGE * 8, first // PAGE * 8)
            found: list[int] = [entry >> 63 for (entry,) in struct.iter_unpack("<Q", entries)]
            return PAGE * sum(found)

        while heap_end and not select.select([output], [], [], EVERY_S)[0]:
            end = int.from_bytes(os.pread(memory.fileno(), 8, heap_end), "little")
            most = max(most, program_bytes((folder / "smaps").read_text(), end, resident))
    return most


def program_bytes(smaps: str, heap_end: int, resident: Callable[[int, int], int]) -> int:
    """Resident bytes of the emulated program.

    Args:
        smaps: `/proc/PID/smaps` of the emulator.
        heap_end: where the program's heap ends.
        resident: bytes that are resident between two addresses.
    """
    found, first_behind = 0, -(-heap_end // PAGE) * PAGE
    lines = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) .*\n(?:[A-Z].*\n)*?Rss:\s+(\d+) kB$", smaps, re.MULTILINE)
    for first, last, size in ((int(first, 16), int(last, 16), 1024 * int(size)) for first, last, size in lines):
        if first < EMULATED:
            found += size - (resident(first_behind, last) if first <= heap_end < last else 0)
    return found
