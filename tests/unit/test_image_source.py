"""Images as they come: packed or not, whole or not, and what is in them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from export.image import ext4, layout, source, system
from tests import images
from wire.errors import ImageError

pytestmark = images.needed


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image like Raspberry Pi OS trixie's."""
    return images.make(tmp_path_factory.mktemp("stock") / "stock.img", "raspios-trixie")


@pytest.mark.parametrize("how", ["", "xz", "gz", "zst"])
def test_it_is_unpacked_by_what_it_is_whatever_its_name(stock: Path, tmp_path: Path, how: str) -> None:
    """Every byte, with holes where there are zeros, and the last that is told of is all of the file."""
    packed = tmp_path / "image.bin"
    packed.write_bytes(images.packed("raspios-trixie", how) if how else stock.read_bytes())
    told: list[tuple[int, int]] = []
    size = source.unpack(packed, tmp_path / "out.img", lambda done, total: told.append((done, total)))
    assert size == stock.stat().st_size
    assert (tmp_path / "out.img").read_bytes() == stock.read_bytes()
    assert (tmp_path / "out.img").stat().st_blocks * 512 < size / 2
    assert told[-1] == (packed.stat().st_size, packed.stat().st_size)


@pytest.mark.parametrize("how", ["xz", "gz", "zst"])
def test_one_that_is_cut_short_or_damaged_is_refused(tmp_path: Path, how: str) -> None:
    """At any place; the message names the file, and what to do."""
    whole = images.packed("raspios-trixie", how)
    rng = random.Random(how)
    packed = tmp_path / "image.bin"
    for share in (0.5, 0.999):
        packed.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ImageError, match=r"image\.bin: damaged or cut short.*Download it again"):
            source.unpack(packed, tmp_path / "out.img")
    at = rng.randrange(len(whole) // 2, len(whole) - 64)
    packed.write_bytes(whole[:at] + bytes(one ^ 0x5A for one in whole[at : at + 32]) + whole[at + 32 :])
    with pytest.raises(ImageError, match="damaged or cut short"):
        source.unpack(packed, tmp_path / "out.img")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04" + bytes(100), "zip archive"),
        (b"<html>not found</html>", "no disk image"),
        (bytes(1 << 20) + b"x", "no disk image"),
    ],
)
def test_what_is_no_image_is_said_to_be_none(tmp_path: Path, data: bytes, words: str) -> None:
    """An error page that was saved, an archive, an odd number of bytes."""
    (tmp_path / "image").write_bytes(data)
    with pytest.raises(ImageError, match=words):
        source.unpack(tmp_path / "image", tmp_path / "out.img")


@pytest.mark.parametrize("kind", images.RELEASES)
def test_systems_are_told_apart_by_what_is_in_them(tmp_path: Path, kind: str) -> None:
    """Each takes its settings in its own way, and its wheels are of its own Python."""
    found = system.inspect(images.make(tmp_path / "anything.img", kind))
    assert found.mechanism == images.MECHANISMS[kind]
    assert ".".join(map(str, found.python)) == images.RELEASES[kind]["python"]
    assert (found.machine, found.glibc) == ("aarch64", 41)
    assert found.firmware is images.RELEASES[kind]["firmware"]


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("raspios-bookworm", {"machine": "armv7l"}, "for armv7l: only 64-bit systems .*Take the 64-bit image"),
        ("raspios-bookworm", {"python": "3.9"}, r"has Python 3\.9, 3\.11 or newer is needed"),
        ("raspios-bookworm", {"python": ""}, "has no Python"),
        ("debian-cloud", {"cloud": False}, "no way to take settings .*no cloud-init, no cmdline.txt.*Known are"),
    ],
)
def test_systems_that_are_not_known_are_refused(
    tmp_path: Path, kind: str, changes: dict[str, object], words: str
) -> None:
    """Which, why, and what to take instead."""
    image = images.make(tmp_path / "x.img", kind, **changes)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match=words):
        system.inspect(image)


def test_an_image_that_ends_within_a_partition_is_cut_short(stock: Path, tmp_path: Path) -> None:
    """A plain image cannot be told from its packing."""
    image = tmp_path / "x.img"
    image.write_bytes(stock.read_bytes()[: 16 << 20])
    with pytest.raises(ImageError, match=r"partition 2 ends at .*cut short"):
        layout.partitions(image)
    image.write_bytes(bytes(4 << 20))
    with pytest.raises(ImageError, match=r"no partition table .*whole card"):
        layout.partitions(image)


def test_a_root_that_was_not_unmounted_is_not_written_to(stock: Path, tmp_path: Path) -> None:
    """Its journal would undo what is written."""
    image = tmp_path / "x.img"
    data = bytearray(stock.read_bytes())
    root = system.inspect(stock).root.start_bytes
    data[root + 1024 + 96] |= 0x04  # s_feature_incompat: needs_recovery
    image.write_bytes(data)
    with pytest.raises(ImageError, match="not unmounted"):
        ext4.Ext4(image, root).check_unmounted()
