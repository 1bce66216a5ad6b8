"""Where an image's partitions are, and which file system is in each; told by their own bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from export.image import tools
from wire.errors import ImageError

EXT_MAGIC_AT, EXT_MAGIC = 1080, b"\x53\xef"  # of ext2, 3 and 4: superblock at 1024, s_magic at 56 in it
FAT_MARKS = ((54, b"FAT"), (82, b"FAT32"))  # BS_FilSysType of FAT12/16, and of FAT32


@dataclass(frozen=True, kw_only=True)
class Partition:
    """One partition.

    Attributes:
        number: as the table counts, from 1.
        start_bytes: where it begins in the image.
        size_bytes: how long it is.
        system: what is in it.
    """

    number: int
    start_bytes: int
    size_bytes: int
    system: Literal["fat", "ext", "other"]


def partitions(image: Path) -> list[Partition]:
    """The partitions of an image in the order of its table.

    Raises:
        ImageError: if there is no partition table, or a partition ends behind the image.
        RuntimeMissing: if sfdisk is not installed.
    """
    done = tools.run("sfdisk", "--json", image)
    try:
        table = json.loads(done.stdout)["partitiontable"]
        sector = int(table.get("sectorsize", 512))
        rows = [(int(row["start"]) * sector, int(row["size"]) * sector) for row in table["partitions"]]
        numbers = [int(row["node"][len(table["device"]) :].lstrip("p")) for row in table["partitions"]]
    except (ValueError, KeyError, TypeError) as error:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        raise ImageError(
            f"no partition table ({words[-1] if words else error})",
            where=str(image),
            hint="Give the image of a whole card or disk, not of a partition or an installer",
        ) from error
    size = image.stat().st_size
    for number, (start, length) in zip(numbers, rows, strict=True):
        if start + length > size:
            raise ImageError(
                f"partition {number} ends at {start + length:,}, the image after {size:,} bytes: it is cut short",
                where=str(image),
                hint="Download it again, and compare its SHA-256 with the publisher's",
            )
    return [
        Partition(number=number, start_bytes=start, size_bytes=length, system=_system(image, start))
        for number, (start, length) in zip(numbers, rows, strict=True)
    ]


def _system(image: Path, start: int) -> Literal["fat", "ext", "other"]:
    with image.open("rb") as file:
        file.seek(start)
        head = file.read(2048)
    if head[EXT_MAGIC_AT : EXT_MAGIC_AT + 2] == EXT_MAGIC:
        return "ext"
    if head[510:512] == b"\x55\xaa" and any(head[at : at + len(mark)] == mark for at, mark in FAT_MARKS):
        return "fat"
    return "other"
