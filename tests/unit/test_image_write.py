"""Writing cards: on a loop device where the machine has one, which is a block device as a card is."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from export.image import write
from wire.errors import ImageError

MIB = 1 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """18 MiB of noise and holes, and a bit."""
    path = tmp_path / "card.img"
    noise = random.Random(5)
    with path.open("wb") as file:
        for start in (0, 6, 7, 17):
            file.seek(start * MIB)
            file.write(noise.randbytes(MIB))
        file.truncate(18 * MIB + 512)
    return path


@pytest.fixture
def card(tmp_path: Path) -> Iterator[Path]:
    """A card of 24 MiB with something else on it."""
    backing = tmp_path / "backing"
    backing.write_bytes(b"\xaa" * 24 * MIB)
    done = subprocess.run(["losetup", "--find", "--show", backing], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no loop devices here: {done.stderr.strip()}")
    yield Path(done.stdout.strip())
    subprocess.run(["losetup", "--detach", done.stdout.strip()], check=False)


def first_bytes(card: Path) -> bytes:
    """What firmware would look at."""
    with card.open("rb") as file:
        return file.read(MIB)


def test_a_card_gets_every_byte_and_gives_it_back(image: Path, card: Path) -> None:
    """Holes are written as zeros, for something else was on it; progress ends with all, of writing and of checking."""
    told: dict[str, tuple[int, int]] = {}
    digest = write.to_device(image, card, lambda step, done, total: told.__setitem__(step, (done, total)))
    assert digest == hashlib.sha256(image.read_bytes()).hexdigest()
    with card.open("rb") as file:
        assert file.read(image.stat().st_size) == image.read_bytes()
        assert set(file.read()) == {0xAA}
    assert told == {"writing": (18 * MIB + 512,) * 2, "checking": (18 * MIB + 512,) * 2}


@pytest.mark.parametrize("at", [0, 8 * MIB, 16 * MIB])
def test_an_interrupt_leaves_a_card_that_does_not_boot(image: Path, card: Path, at: int) -> None:
    """Wherever it comes, the first bytes are zero: no partition table of the image, none of what was there before."""

    def stop(step: str, done: int, total: int) -> None:
        if step == "writing" and done >= at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write.to_device(image, card, stop)
    assert first_bytes(card) == bytes(MIB)


def test_a_card_that_gives_back_something_else_is_found_out(image: Path, card: Path) -> None:
    """One bit, in the middle; and it is made unbootable."""

    def flip(step: str, done: int, total: int) -> None:
        if step == "writing" and done == total:
            with card.open("r+b") as file:
                file.seek(7 * MIB + 1234)
                byte = file.read(1)[0]
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte ^ 1]))
                file.flush()
                os.fsync(file.fileno())

    with pytest.raises(ImageError, match="does not give back what was written"):
        write.to_device(image, card, flip)
    assert first_bytes(card) == bytes(MIB)


def test_a_card_in_use_is_refused_by_the_kernel(image: Path, card: Path, tmp_path: Path) -> None:
    """Whatever was looked at before: it is mounted in between."""
    subprocess.run(["mke2fs", "-q", "-F", card], check=True, env={"PATH": "/usr/sbin:/sbin:/usr/bin"})
    (tmp_path / "mnt").mkdir()
    if subprocess.run(["mount", card, tmp_path / "mnt"], capture_output=True, check=False).returncode:
        pytest.skip("this machine may not mount")
    try:
        before = first_bytes(card)
        with pytest.raises(ImageError, match="in use"):
            write.to_device(image, card)
        assert first_bytes(card) == before
    finally:
        subprocess.run(["umount", tmp_path / "mnt"], check=True)


def test_nobody_can_mount_a_card_while_it_is_checked(image: Path, card: Path) -> None:
    """A desktop would, as soon as it was let go, and what it writes then would look like a bad card."""
    refused: list[int | None] = []

    def progress(step: str, done: int, total: int) -> None:
        if step == "checking" and not refused:
            with pytest.raises(OSError, match="busy") as error:
                os.open(card, os.O_RDWR | os.O_EXCL)
            refused.append(error.value.errno)

    write.to_device(image, card, progress)
    assert refused == [errno.EBUSY]


def test_only_block_devices_are_written_as_such(image: Path, tmp_path: Path) -> None:
    """A mistyped name under /dev must not become a file, nor a file be spoilt."""
    target = tmp_path / "file"
    target.write_bytes(b"precious")
    with pytest.raises(ImageError, match="no block device"):
        write.to_device(image, target)
    assert target.read_bytes() == b"precious"
    with pytest.raises(ImageError):
        write.to_device(image, tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_copies_keep_holes(image: Path, tmp_path: Path) -> None:
    """And every byte."""
    write.copy_sparse(image, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == image.read_bytes()
    assert (tmp_path / "copy").stat().st_blocks <= image.stat().st_blocks + 8


def test_no_room_leaves_no_copy(image: Path, tmp_path: Path) -> None:
    """A file that may not get that large, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MIB, hard))
    try:
        with pytest.raises(ImageError, match="cannot be written"):
            write.copy_sparse(image, tmp_path / "copy")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "copy").exists()
