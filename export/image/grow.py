"""A root file system made larger, where an image has no room in it for what is to be written."""

from __future__ import annotations

from pathlib import Path

from export.image import tools
from export.image.layout import Partition, partitions
from export.image.write import copy_part
from wire.errors import ImageError

MIB = 1 << 20


def grow(image: Path, root: Partition, more_bytes: int) -> None:
    """Make the last partition of an image larger, and the ext4 file system in it; the image gets larger by as much.

    resize2fs cuts a file off where it thinks the file system ends, whatever offset it was told, so that the
    partition is taken out, grown, and put back.

    Raises:
        ImageError: if it is not the last one, or cannot be grown.
    """
    found = partitions(image)
    if any(one.start_bytes > root.start_bytes for one in found):
        raise ImageError(
            f"{more_bytes / 1e6:,.0f} MB are missing in the root partition, which cannot be grown: others follow it",
            where=str(image),
            hint="Take an image with more room, or the Lite one of the same system",
        )
    new_bytes = -(-(root.size_bytes + more_bytes) // MIB) * MIB
    alone = image.with_name(image.name + ".root")
    try:
        copy_part(image, root.start_bytes, alone, 0, root.size_bytes)
        with alone.open("r+b") as file:
            file.truncate(new_bytes)
        _checked(image, "e2fsck", "-f", "-p", alone, allowed=(0, 1))
        _checked(image, "resize2fs", alone)
        # What was there is let go first: where the grown one has holes nothing may be left.
        with image.open("r+b") as file:
            file.truncate(root.start_bytes)
            file.truncate(root.start_bytes + new_bytes + MIB)  # a GPT keeps a copy of itself in the last of it
        copy_part(alone, 0, image, root.start_bytes, new_bytes)
    finally:
        alone.unlink(missing_ok=True)
    if tools.run("sfdisk", "--json", image).stdout.find(b'"label": "gpt"') >= 0:
        _checked(image, "sfdisk", "--quiet", "--relocate", "gpt-bak-std", image)
    sectors = new_bytes // 512
    _checked(
        image,
        "sfdisk",
        "--quiet",
        "--no-reread",
        "--force",
        "-N",
        str(root.number),
        image,
        stdin=f",{sectors}\n".encode(),
    )


def _checked(
    image: Path, program: str, *arguments: str | Path, stdin: bytes = b"", allowed: tuple[int, ...] = (0,)
) -> None:
    done = tools.run(program, *arguments, stdin=stdin)
    if done.returncode not in allowed:
        words = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        raise ImageError(
            f"root partition cannot be grown ({program}: {words[-1] if words else done.returncode})", where=str(image)
        )
