"""A virtual machine with card readers: this machine's file system, read-only, under a Debian kernel with USB disks.

For what needs a disk that the kernel calls removable, which a loop device is not. Whatever runs there sees this
machine's programs and this tree; what it writes, other than to the disks, is gone afterwards.
"""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from coordinator.datasets.cache import cache_dir
from tests.integration.arm_debian import locked

MODULES = ("virtio_pci", "9p", "9pnet_virtio", "overlay", "xhci-pci", "usb-storage", "sd_mod", "ext4")
MEMORY_MB = 1500
INIT = """\
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev
for module in /modules/*; do $b insmod $module; done
$b mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro host /host
$b mount -t tmpfs -o size=600m tmpfs /rw
$b mkdir /rw/upper /rw/work
$b mount -t overlay -o lowerdir=/host,upperdir=/rw/upper,workdir=/rw/work overlay /new
for folder in proc sys dev; do $b mount --move /$folder /new/$folder; done
$b mount -t tmpfs tmpfs /new/run
$b chroot /new /bin/bash {script} >/dev/console 2>&1
$b poweroff -f
"""


def kernel() -> Path:
    """Debian's newest kernel with its modules, unpacked into the user's cache (400 MB)."""
    folder = cache_dir() / "guest-kernel"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_suffix(".lock")):
        if not (folder / "boot").is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            wanted = _run("apt-cache", "depends", "linux-image-amd64")
            name = next(line.split()[-1] for line in wanted.splitlines() if "Depends: linux-image" in line)
            _run("apt-get", "download", name, cwd=folder)
            _run("dpkg-deb", "-x", next(folder.glob("linux-image-*.deb")), folder)
            _run("depmod", "-b", folder, version(folder))
    return folder


def version(folder: Path) -> str:
    """Of the kernel there."""
    return next((folder / "lib/modules").iterdir()).name


def run(folder: Path, script: str, disks: Mapping[str, Path], timeout_s: float, modules: Sequence[str] = ()) -> str:
    """Boot, run a shell script as root, and switch off.

    Args:
        folder: for its files; the script finds it under the same name.
        script: what to run.
        disks: removable USB disks by serial number, the first of which is /dev/sda; raw files.
        timeout_s: of all of it; without hardware virtualisation a Python program takes half a minute to start.
        modules: of the kernel, besides those that disks need.

    Returns:
        what was said on the console.
    """
    unpacked = kernel()
    (folder / "script").write_text(script)
    (folder / "initrd").write_bytes(_initrd(unpacked, folder / "script", (*MODULES, *modules)))
    log = folder / "console"
    command = ["qemu-system-x86_64", "-M", "q35", "-cpu", "max", "-m", str(MEMORY_MB), "-smp", "2"]
    command += ["-accel", "tcg,thread=multi", "-nodefaults", "-display", "none", "-no-reboot", "-serial", f"file:{log}"]
    command += ["-kernel", str(next((unpacked / "boot").glob("vmlinuz-*"))), "-initrd", str(folder / "initrd")]
    command += ["-append", "console=ttyS0 quiet panic=-1"]
    command += ["-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"]
    command += ["-device", "virtio-9p-pci,fsdev=host,mount_tag=host", "-device", "qemu-xhci"]
    for serial, path in disks.items():
        command += ["-drive", f"if=none,id={serial},file={path},format=raw,cache=writethrough"]
        command += ["-device", f"usb-storage,drive={serial},removable=on,serial={serial}"]
    subprocess.run(command, check=True, timeout=timeout_s)
    return log.read_text(errors="replace").replace("\r", "")


def _initrd(unpacked: Path, script: Path, modules: Sequence[str]) -> bytes:
    files = {"init": INIT.format(script=script).encode(), "bin/busybox": Path("/bin/busybox").read_bytes()}
    names: dict[str, None] = {}  # in the order in which they have to be loaded
    for module in modules:
        shown = _run("modprobe", "-d", unpacked, "-S", version(unpacked), "--show-depends", module)
        names |= dict.fromkeys(line.split()[1] for line in shown.splitlines() if line.startswith("insmod"))
    for number, name in enumerate(names):
        files[f"modules/{number:02d}-{Path(name).name}"] = Path(name).read_bytes()
    folders = ("bin", "modules", "proc", "sys", "dev", "host", "rw", "new")
    parts = [_entry(name, 0o40755, b"") for name in folders]
    parts += [_entry(name, 0o100755, data) for name, data in files.items()]
    return gzip.compress(b"".join([*parts, _entry("TRAILER!!!", 0, b"")]), 1)


def _entry(name: str, mode: int, data: bytes) -> bytes:
    """One file of an archive as Linux unpacks it: cpio's "newc" (the kernel's buffer-format.rst of initramfs)."""
    path = name.encode() + b"\0"
    numbers = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers)
    return _padded(head + path) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True, cwd=cwd).stdout
