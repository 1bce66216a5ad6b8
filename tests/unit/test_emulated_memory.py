"""The memory of an emulated program is told from its emulator's."""

from __future__ import annotations

from benchmarks.emulated import emulator_bytes

SMAPS = """\
00400000-00916000 r--p 00000000 fe:00 16041532                           /root/system/usr/bin/python3.11
Size:               5208 kB
KernelPageSize:        4 kB
Rss:                3776 kB
VmFlags: rd mr mw me
5500800000-5500a00000 rw-p 00000000 00:00 0
Size:               2048 kB
Rss:                2016 kB
555588f62000-5555896a9000 rw-p 00000000 00:00 0                          [heap]
Size:               7452 kB
Rss:                7376 kB
Pss:                7376 kB
7fc1fc000000-7fc203fff000 rwxp 00000000 00:00 0
Rss:               34816 kB
VmFlags: rd wr ex mr mw me
"""


def test_what_lies_above_the_programs_addresses_is_the_emulators() -> None:
    """Its heap and its translated code; the program's file and heap are not."""
    assert emulator_bytes(SMAPS) == 1024 * (7376 + 34816)
    assert emulator_bytes("") == 0
