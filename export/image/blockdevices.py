"""The disks of this machine, and why one may not be written over: read from sysfs and the table of mounts.

Sources: Documentation/ABI/stable/sysfs-block of Linux, proc_pid_mountinfo(5), proc_swaps(5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from wire.errors import ImageError

SECTOR_BYTES = 512  # sysfs counts in these, whatever the disk's own
HIDDEN = re.compile(r"(loop|ram|zram|dm-|md|sr|fd|nbd)\d*")
SYSTEM_MOUNTS = ("/", "/boot", "/boot/firmware", "/boot/efi", "/usr", "/var", "/home", "/nix", "/etc")
CAPACITY_WARNING_BYTES = 256 << 30


@dataclass(frozen=True, kw_only=True)
class Disk:
    """One whole disk.

    Attributes:
        name: such as sda.
        size_bytes: how much it holds.
        title: maker and model, as far as it says.
        serial: its number, as far as it says.
        bus: "usb", "mmc", "nvme", ...; "" if that cannot be told.
        removable: a card, or a disk on USB.
        read_only: it cannot be written, such as a card whose switch is on lock.
        mounts: where it or any part of it is mounted, "[swap]" among them.
    """

    name: str
    size_bytes: int
    title: str
    serial: str
    bus: str
    removable: bool
    read_only: bool
    mounts: tuple[str, ...]

    @property
    def is_system(self) -> bool:
        """Whether this machine runs from it."""
        return any(mount in SYSTEM_MOUNTS or mount == "[swap]" for mount in self.mounts)

    def in_words(self) -> str:
        """For a person who has to choose."""
        facts = [
            f"{self.size_bytes / 1e9:,.1f} GB",
            self.title,
            f"serial {self.serial}" if self.serial else "",
            self.bus,
        ]
        return f"/dev/{self.name}  " + ", ".join(fact for fact in facts if fact)


class Machine:
    """The disks below a root folder, so that any machine's can be read.

    Args:
        root: where `sys`, `proc` and `dev` are.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def disks(self) -> list[Disk]:
        """All disks that are no virtual ones, sorted by name."""
        folder = self._root / "sys/block"
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        mounts = self._mounts()
        return [self._disk(one, mounts) for one in found if not HIDDEN.fullmatch(one.name) and _number(one / "size")]

    def candidates(self) -> list[Disk]:
        """Those that a card may be in."""
        return [disk for disk in self.disks() if disk.removable and not disk.is_system]

    def target(self, path: Path, need_bytes: int, image: Path | None = None) -> Disk:
        """The disk at a path, if it may be written over.

        Args:
            path: such as /dev/sda.
            need_bytes: size of what is to be written.
            image: where that comes from.

        Raises:
            ImageError: if it may not; says why, and which may.
        """
        name = path.resolve().name if path.is_symlink() else path.name
        known = {disk.name: disk for disk in self.disks()}
        if name not in known:
            whole = next((disk for disk in known if re.fullmatch(re.escape(disk) + r"p?\d+", name)), None)
            what = f"a partition of /dev/{whole}; a whole disk is expected" if whole else "no disk of this machine"
            raise ImageError(what, where=str(path), hint=self._choice())
        disk = known[name]
        if disk.is_system:
            raise ImageError(
                f"this machine runs from it ({', '.join(disk.mounts)})", where=str(path), hint=self._choice()
            )
        if not disk.removable:
            raise ImageError(f"not removable: {disk.in_words()}", where=str(path), hint=self._choice())
        if disk.mounts:
            raise ImageError(
                f"mounted on {', '.join(disk.mounts)}", where=str(path), hint=f"Run: umount {' '.join(disk.mounts)}"
            )
        if image is not None and self._holder(image) == name:
            raise ImageError(f"{image} lies on it", where=str(path), hint="Copy the image to another disk first")
        if disk.read_only:
            raise ImageError("it is read-only", where=str(path), hint="Move the switch at the side of the card")
        if disk.size_bytes < need_bytes:
            raise ImageError(
                f"{disk.size_bytes:,} bytes are too few, the image has {need_bytes:,}",
                where=str(path),
                hint="Take a larger card",
            )
        return disk

    def _choice(self) -> str:
        found = self.candidates()
        if not found:
            return "No removable disk is there: put the card into its reader"
        return "There " + ("is " if len(found) == 1 else "are ") + "; ".join(disk.in_words() for disk in found)

    def _disk(self, folder: Path, mounts: dict[str, list[str]]) -> Disk:
        real = str(folder.resolve())
        bus = next(
            (bus for mark, bus in (("/usb", "usb"), ("/mmc_host/", "mmc"), ("/nvme/", "nvme")) if mark in real), ""
        )
        if not bus:
            bus = next((bus for mark, bus in (("/ata", "sata"), ("/virtio", "virtio")) if mark in real), "")
        device = folder / "device"
        words = [_text(device / "vendor"), _text(device / "model"), _text(device / "name")]
        # An eMMC is soldered in: it shows boot partitions as disks of their own.
        soldered = bus == "mmc" and _text(device / "type") == "MMC"
        numbers = [_text(part / "dev") for part in (folder, *folder.glob(f"{folder.name}*")) if (part / "dev").exists()]
        where = [mount for number in numbers for mount in mounts.get(number, [])]
        return Disk(
            name=folder.name,
            size_bytes=_number(folder / "size") * SECTOR_BYTES,
            title=" ".join(word for word in words if word and not word.startswith("0x")),
            serial=_text(device / "serial") or self._usb_serial(folder),
            bus=bus,
            removable=(bus == "usb" or bus == "mmc" or _number(folder / "removable") == 1) and not soldered,
            read_only=_number(folder / "ro") == 1,
            mounts=tuple(dict.fromkeys(where)),
        )

    def _usb_serial(self, folder: Path) -> str:
        """Of the USB device that a disk is in: the nearest folder above with a number."""
        for above in folder.resolve().parents:
            if (above / "idVendor").exists():
                return _text(above / "serial")
        return ""

    def _mounts(self) -> dict[str, list[str]]:
        """Mount points by the numbers of what is mounted, those below it (of LVM, LUKS, RAID) included."""
        found: dict[str, list[str]] = {}
        for line in _text(self._root / "proc/self/mountinfo").splitlines():
            words = line.split()
            if len(words) > 4:
                where = words[4].encode().decode("unicode_escape", errors="replace")
                for number in self._below(words[2]):
                    found.setdefault(number, []).append(where)
        for line in _text(self._root / "proc/swaps").splitlines()[1:]:
            device = Path(line.split()[0]) if line.split() else Path()
            number = _text(self._root / "sys/class/block" / device.name / "dev")
            for one in self._below(number):
                found.setdefault(one, []).append("[swap]")
        return found

    def _below(self, number: str) -> list[str]:
        """A device's number and those of all that it is made of."""
        folder = self._root / "sys/dev/block" / number
        slaves = sorted((folder / "slaves").iterdir()) if number and (folder / "slaves").is_dir() else []
        return [number, *(one for slave in slaves for one in self._below(_text(slave / "dev")))]

    def _holder(self, file: Path) -> str | None:
        """Name of the disk that a file is on."""
        import os

        try:
            device = file.stat().st_dev
        except OSError:
            return None
        for number in self._below(f"{os.major(device)}:{os.minor(device)}"):
            folder = (self._root / "sys/dev/block" / number).resolve()
            if (folder / "partition").exists():
                return folder.parent.name
            if folder.parent.name == "block":
                return folder.name
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int:
    text = _text(path)
    return int(text) if text.isdigit() else 0
