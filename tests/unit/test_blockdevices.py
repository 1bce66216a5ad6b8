"""Which disks a card may be in, read from folders laid out as sysfs and procfs are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from export.image.blockdevices import Machine
from wire.errors import ImageError

GB = 1_000_000_000
BUSES = {
    "usb": "pci0000:00/0000:00:14.0/usb1/1-2/1-2:1.0/host6/target6:0:0/6:0:0:0",
    "mmc": "platform/soc/mmc_host/mmc0/mmc0:aaaa",
    "nvme": "pci0000:00/0000:00:0d.0/nvme/nvme0",
    "sata": "pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0",
}


class Fake:
    """A machine's folders."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._mounts: list[str] = []
        self._count = 0
        for folder in ("sys/block", "sys/dev/block", "sys/class/block", "proc/self"):
            (root / folder).mkdir(parents=True)

    def disk(self, name: str, bus: str, size: int, /, *, parts: int = 0, removable: bool = False, **files: str) -> Path:
        """A disk, and its partitions."""
        device = self.root / "sys/devices" / BUSES[bus] / name
        folder = device / "block" / name
        folder.mkdir(parents=True)
        (folder / "device").symlink_to(device)
        for file, words in ({"model": "Card Reader", "serial": f"S-{name}"} | files).items():
            (device / file).write_text(f"{words}\n")
        self._number(folder, {"size": size // 512, "removable": int(removable), "ro": 0})
        (self.root / "sys/block" / name).symlink_to(folder)
        for number in range(1, parts + 1):
            part = folder / f"{name}{'p' if name[-1].isdigit() else ''}{number}"
            part.mkdir()
            self._number(part, {"size": 2048, "partition": number})
        return folder

    def mapped(self, name: str, *below: Path) -> Path:
        """A device that is made of others: LUKS, LVM, RAID."""
        folder = self.root / "sys/devices/virtual/block" / name
        (folder / "slaves").mkdir(parents=True)
        for one in below:
            (folder / "slaves" / one.name).symlink_to(one)
        self._number(folder, {"size": 2048})
        (self.root / "sys/block" / name).symlink_to(folder)
        return folder

    def mount(self, folder: Path, where: str) -> None:
        """Have it mounted."""
        number = (folder / "dev").read_text().strip()
        self._mounts.append(f"20 1 {number} / {where} rw,relatime shared:1 - ext4 /dev/x rw")
        (self.root / "proc/self/mountinfo").write_text("\n".join(self._mounts) + "\n")

    def swap(self, name: str) -> None:
        """Have it used as swap."""
        (self.root / "proc/swaps").write_text(f"Filename Type Size Used Priority\n/dev/{name} partition 1 0 -2\n")

    def number_as(self, folder: Path, device: int) -> None:
        """Give it the number of a real device."""
        number = f"{os.major(device)}:{os.minor(device)}"
        (folder / "dev").write_text(f"{number}\n")
        (self.root / "sys/dev/block" / number).symlink_to(folder)

    def _number(self, folder: Path, files: dict[str, int]) -> None:
        self._count += 1
        number = f"8:{self._count}"
        (folder / "dev").write_text(f"{number}\n")
        (self.root / "sys/dev/block" / number).symlink_to(folder)
        (self.root / "sys/class/block" / folder.name).symlink_to(folder)
        for name, value in files.items():
            (folder / name).write_text(f"{value}\n")


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    """A laptop that runs from an NVMe disk, encrypted, with an SD card and a USB stick in it."""
    made = Fake(tmp_path)
    system = made.disk("nvme0n1", "nvme", 512 * GB, parts=3, model="Fast Disk")
    made.mount(made.mapped("dm-0", system / "nvme0n1p3"), "/")
    made.mount(system / "nvme0n1p1", "/boot/efi")
    made.disk("mmcblk0", "mmc", 32 * GB, parts=2, name="SC32G", type="SD", serial="0x1a2b3c4d")
    made.disk("sda", "usb", 64 * GB, parts=1, vendor="Generic", model="Mass Storage")
    return made


def refused(fake: Fake, name: str, need: int = 4 * GB, image: Path | None = None) -> str:
    """Why it may not be written over."""
    with pytest.raises(ImageError) as error:
        Machine(fake.root).target(Path("/dev") / name, need, image)
    return str(error.value)


def test_only_what_a_card_may_be_in_is_listed(fake: Fake) -> None:
    """With model, serial number and size; not the system's disk, not a disk inside the machine."""
    fake.disk("sdb", "sata", 4000 * GB, parts=1)
    listed = {disk.name: disk.in_words() for disk in Machine(fake.root).candidates()}
    assert listed == {
        "mmcblk0": "/dev/mmcblk0  32.0 GB, Card Reader SC32G, serial 0x1a2b3c4d, mmc",
        "sda": "/dev/sda  64.0 GB, Generic Mass Storage, serial S-sda, usb",
    }


def test_a_card_may_be_written_over(fake: Fake) -> None:
    """Also one on USB that does not call itself removable."""
    assert Machine(fake.root).target(Path("/dev/sda"), 4 * GB).size_bytes == 64 * GB
    assert Machine(fake.root).target(Path("/dev/mmcblk0"), 4 * GB).bus == "mmc"


def test_the_disk_that_the_machine_runs_from_may_not(fake: Fake) -> None:
    """Also through encryption, also if it is on USB, also if only its swap is on it; those that may are named."""
    assert "this machine runs from it (/boot/efi, /)" in refused(fake, "nvme0n1")
    assert "There are /dev/mmcblk0" in refused(fake, "nvme0n1")
    stick = fake.disk("sdc", "usb", 64 * GB, parts=2, removable=True)
    fake.swap("sdc2")
    assert "this machine runs from it ([swap])" in refused(fake, "sdc")
    fake.mount(stick / "sdc1", "/home")
    assert "/home" in refused(fake, "sdc")


def test_what_is_inside_the_machine_may_not(fake: Fake) -> None:
    """A disk on SATA, and memory that is soldered in although it is of the same kind as cards."""
    fake.disk("sdb", "sata", 4000 * GB)
    assert "not removable: /dev/sdb" in refused(fake, "sdb")
    fake.disk("mmcblk1", "mmc", 32 * GB, type="MMC")
    assert "not removable: /dev/mmcblk1" in refused(fake, "mmcblk1")


def test_a_mounted_card_may_not(fake: Fake) -> None:
    """Somebody may be using it; the command that unmounts it is named."""
    fake.mount(fake.root / "sys/block/mmcblk0" / "mmcblk0p2", "/media/ada/rootfs")
    assert "mounted on /media/ada/rootfs. Run: umount /media/ada/rootfs" in refused(fake, "mmcblk0")


def test_a_partition_may_not(fake: Fake) -> None:
    """Nor what is no disk at all."""
    assert "a partition of /dev/sda; a whole disk is expected" in refused(fake, "sda1")
    assert "a partition of /dev/mmcblk0" in refused(fake, "mmcblk0p1")
    assert "no disk of this machine" in refused(fake, "sdx")
    assert "no disk of this machine" in refused(fake, "dm-0")


def test_a_card_that_is_too_small_or_locked_may_not(fake: Fake) -> None:
    """With both sizes; with what to do."""
    assert "64,000,000,000 bytes are too few, the image has 65,000,000,000" in refused(fake, "sda", 65 * GB)
    (fake.root / "sys/block/sda/ro").write_text("1\n")
    assert "read-only. Move the switch" in refused(fake, "sda")


def test_the_disk_that_the_image_lies_on_may_not(fake: Fake, tmp_path: Path) -> None:
    """It would be overwritten while it is read."""
    image = tmp_path / "x.img"
    image.write_bytes(b"x")
    part = fake.disk("sdd", "usb", 64 * GB, parts=1) / "sdd1"
    fake.number_as(part, image.stat().st_dev)
    assert f"{image} lies on it" in refused(fake, "sdd", image=image)
    assert Machine(fake.root).target(Path("/dev/sda"), 4 * GB, image).name == "sda"


def test_nothing_there_is_said_so(tmp_path: Path) -> None:
    """A machine without any."""
    assert "No removable disk is there" in refused(Fake(tmp_path), "sda")
    assert Machine(tmp_path / "nothing").disks() == []
