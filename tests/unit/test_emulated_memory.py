"""The memory of an emulated program is told from its emulator's."""

from __future__ import annotations

from benchmarks.emulated import program_bytes

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


HEAP = """\
00a5f000-01b00000 rw-p 00000000 00:00 0
Rss:               10000 kB
"""


def _nothing(first: int, last: int) -> int:
    raise AssertionError((first, last))


def test_what_lies_above_the_programs_addresses_is_the_emulators() -> None:
    """Its heap and its translated code; the program's file and memory are not."""
    assert program_bytes(SMAPS, 0, _nothing) == 1024 * (3776 + 2016)
    assert program_bytes("", 0, _nothing) == 0


def test_what_the_program_gave_back_of_its_heap_is_not_its_own() -> None:
    """The emulator keeps those pages; the one that the heap ends in is the program's."""
    asked = []

    def resident(first: int, last: int) -> int:
        asked.append((first, last))
        return 1024 * 3000

    assert program_bytes(HEAP + SMAPS, 0xF00010, resident) == 1024 * (10000 - 3000 + 3776 + 2016)
    assert asked == [(0xF01000, 0x1B00000)]
    assert program_bytes(HEAP, 0x1B00000, _nothing) == 1024 * 10000, "all of it"
