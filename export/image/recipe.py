"""Our own image: which Debian packages it is made of, and which files make it what it is.

Nothing here runs anything: a recipe is data, and images are known in the cache by its hash.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import PurePosixPath

from export.image import firstrun, service
from export.image.tree import Tree

SUITE, ARCHITECTURE, PYTHON = "trixie", "arm64", "3.13"
MIRROR, SECURITY = "http://deb.debian.org/debian", "http://deb.debian.org/debian-security"
SECTIONS = "main non-free-firmware"  # the latter for what a board's radio and boot loader need
ROOT_LABEL, BOOT_LABEL = "rootfs", "bootfs"
PACKAGES = "/usr/share/hidenseek/packages.txt"  # on the card: what it is made of

LEFT_OUT = ("doc", "man", "locale", "info", "lintian", "bug", "groff", "linda")
LICENCES = "/usr/share/doc/*/copyright"
# Parts of the kernel that no board here has: they are most of its size, and depmod reads them all while emulated.
NO_MODULES = (
    *(f"drivers/gpu/drm/{one}" for one in ("amd", "nouveau", "radeon", "msm", "etnaviv", "rockchip", "tegra", "xe")),
    *(
        f"drivers/{one}"
        for one in ("accel", "comedi", "edac", "fpga", "infiniband", "isdn", "platform", "vdpa", "vfio")
    ),
    *(f"drivers/{one}" for one in ("crypto/hisilicon", "crypto/marvell", "scsi/[a-rt-z]*", "staging/[a-u]*")),
    *(f"drivers/media/{one}" for one in ("dvb-core", "dvb-frontends", "pci", "radio", "rc", "test-drivers", "tuners")),
    *(f"drivers/media/{one}" for one in ("i2c", "usb/[a-tv-z]*", "platform/[ac-z]*")),
    *(f"drivers/net/ethernet/{one}" for one in ("[ac-ln-z]*", "marvell", "mediatek", "mellanox", "myricom")),
    "drivers/net/wireless/[ac-z]*",
    *(f"fs/{one}" for one in ("afs", "bcachefs", "btrfs", "ceph", "coda", "dlm", "erofs", "f2fs", "gfs2", "jfs")),
    *(f"fs/{one}" for one in ("nfsd", "nilfs2", "ocfs2", "orangefs", "reiserfs", "smb", "ubifs", "xfs")),
    *(f"sound/{one}" for one in ("firewire", "pci", "soc/[ac-z]*")),
)
# What a card, a USB disk and QEMU's virtual disk are found with, besides what the kernel has in itself. MODULES=most
# takes minutes more while emulated.
EARLY_MODULES = (
    "ext4", "crc32c_generic", "sdhci_iproc", "bcm2835", "fixed", "gpio_regulator", "reset_raspberrypi", "xhci_pci",
    "dwc2", "phy_generic", "uas", "usb_storage", "sd_mod", "virtio_mmio", "virtio_blk",
)  # fmt: skip


# What takes long to be set up while emulated, in packages of the ordinary kind, which take a second or two.
SLOW = {"linux-image-6": 120, "ca-certificates": 60, "udev": 40, "locales": 40, f"python{PYTHON}": 35}


# Python's own modules for the service's first start, which takes a minute longer while emulated if it has to compile
# them: it runs without docstrings, and Debian has compiled them with.
COMPILE = (
    "python3", "-X", f"pycache_prefix={service.PYCACHE}", "-m", "compileall", "-q", "-o", "2",
    "-x", "/(ensurepip|idlelib|lib2to3|pydoc_data|test|tkinter|turtledemo)/", f"/usr/lib/python{PYTHON}",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What is installed in one go, and kept: an interrupted build loses no more than that.

    Attributes:
        title: for people.
        packages: Debian's names.
        commands: run inside, once they are installed.
        effort_about: of all that comes with them, see `effort`.
    """

    title: str
    packages: tuple[str, ...]
    commands: tuple[tuple[str, ...], ...] = ()
    effort_about: int


LAYERS = (
    Layer(
        title="system",
        packages=(
            "systemd", "systemd-sysv", "systemd-timesyncd", "systemd-resolved", "udev", "dbus", "kmod", "python3",
            "ca-certificates", "iproute2", "procps", "sudo", "openssh-server", "wpasupplicant", "iw", "rfkill",
            "wireless-regdb", "tzdata", "locales", "e2fsprogs", "dosfstools", "fdisk", "netbase",
            "initramfs-tools", "zstd",
        ),
        effort_about=375,
    ),
    Layer(
        title="kernel and firmware",
        packages=("linux-image-arm64", "raspi-firmware", "firmware-brcm80211"),
        commands=(
            ("systemctl", "enable", "systemd-networkd", "systemd-resolved", "systemd-timesyncd", "ssh"),
            ("install", "--directory", "--mode=700", "/var/cache/private"),  # or systemd refuses to use it
            COMPILE,
        ),
        effort_about=125,
    ),
)  # fmt: skip

GROW = """\
#!/bin/sh
# Make the root partition, which is the last one, as large as the card; then the file system in it.
set -e
root=$(findmnt --noheadings --output SOURCE /)
name=${root##*/}
number=$(cat "/sys/class/block/$name/partition")
disk=/dev/$(basename "$(dirname "$(readlink -f "/sys/class/block/$name")")")
echo ', +' | sfdisk --quiet --no-reread --force -N "$number" "$disk" || true
partx --update --nr "$number" "$disk"
resize2fs "$root"
touch /var/lib/hidenseek-grown
"""
GROW_UNIT = """\
[Unit]
Description=Make the root partition as large as the card
ConditionPathExists=!/var/lib/hidenseek-grown

[Service]
Type=oneshot
CPUWeight=idle
ExecStart=/usr/local/lib/hidenseek/grow-root
"""
# Nothing else is to be done here: what starts beside it can wait.
FIRST = "[Service]\nStartupCPUWeight=1000\n"
NETWORK = """\
[Match]
Type=ether wlan

[Network]
DHCP=yes
MulticastDNS=yes

[DHCPv4]
UseDomains=yes
"""
# A board with two networks has one of them only, as a rule.
ONLINE = """\
[Service]
ExecStart=
ExecStart=/usr/lib/systemd/systemd-networkd-wait-online --any
"""
JOURNAL = "[Journal]\nSystemMaxUse=32M\nSyncIntervalSec=10min\n"  # few writes: cards wear out
# The latter when somebody looks at it: a boot needs nothing of it, and a power cut does it no harm then.
FSTAB = f"""\
LABEL={ROOT_LABEL} / ext4 defaults,noatime,errors=remount-ro 0 1
LABEL={BOOT_LABEL} /boot/firmware vfat defaults,noauto,x-systemd.automount,x-systemd.device-timeout=180 0 2
"""
# The kernel checks each module's signature, a second of an emulated processor, and nothing here uses these: they speed
# up encrypted disks, and sockets between virtual machines. Programs have their own.
NO_AUTOLOAD = (
    "aes_ce_blk", "aes_ce_cipher", "aes_neon_blk", "crct10dif_ce", "ghash_ce", "gf128mul", "polyval_ce", "sha1_ce",
    "sha2_ce", "sha256_arm64", "sha3_ce", "sha512_ce", "sm3_ce", "sm4_ce_cipher", "vsock", "vsock_loopback",
)  # fmt: skip
# They fetch lists of packages, look after what a card does not have, or mount what nothing here reads, while the board
# should train.
MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
    "systemd-pstore.service", "systemd-binfmt.service", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
    "sys-kernel-config.mount", "sys-fs-fuse-connections.mount", "dev-hugepages.mount", "dev-mqueue.mount",
    "modprobe@drm.service", "wpa_supplicant.service",  # a radio has wpa_supplicant@wlan0
)  # fmt: skip


def effort(package: str) -> int:
    """How long it takes to set a package up, for what is told of a build's progress."""
    return next((much for name, much in SLOW.items() if package.startswith(name)), 1)


def sources() -> str:
    """Debian's archives, in sources.list(5)."""
    return "".join(
        f"deb {where} {suite} {SECTIONS}\n"
        for where, suite in ((MIRROR, SUITE), (MIRROR, f"{SUITE}-updates"), (SECURITY, f"{SUITE}-security"))
    )


def before() -> Tree:
    """Files that have to be there before kernel and firmware are installed."""
    tree = Tree()
    tree.folders["/dev"] = 0o755  # mmdebstrap leaves it out with what is in it, and fills none that is not there
    tree.add("/etc/apt/sources.list", sources())
    tree.add("/etc/default/raspi-firmware", f'ROOTPART=LABEL={ROOT_LABEL}\nCONSOLES="auto"\n')
    # The type, or initramfs-tools looks for the disk of this label on the machine that builds, and takes no fsck along.
    tree.add("/etc/initramfs-tools/conf.d/hidenseek", "MODULES=list\nCOMPRESS=zstd\nFSTYPE=ext4\n")
    tree.add("/etc/initramfs-tools/modules", "".join(f"{one}\n" for one in EARLY_MODULES))
    tree.add(
        "/etc/dpkg/dpkg.cfg.d/50-hidenseek",
        "".join(
            f"path-exclude={folder}/modules/*/kernel/{one}/*\n" for one in NO_MODULES for folder in ("/lib", "/usr/lib")
        )
        + "path-exclude=/usr/lib/linux-image-*/[ac-z]*/*\n",  # device trees of other makers' boards
    )
    return tree


def after() -> Tree:
    """Files that make a system of packages ours."""
    tree = Tree()
    tree.folders["/dev"] = 0o755
    tree.add("/etc/hostname", "hidenseek\n")
    tree.add("/etc/fstab", FSTAB)
    tree.add("/etc/machine-id", "")
    tree.add("/etc/systemd/network/80-hidenseek.network", NETWORK)
    tree.add("/etc/systemd/system/systemd-networkd-wait-online.service.d/hidenseek.conf", ONLINE)
    tree.add("/etc/systemd/journald.conf.d/hidenseek.conf", JOURNAL)
    tree.add("/etc/systemd/system/hidenseek.service.d/first.conf", FIRST)
    tree.add("/etc/modprobe.d/hidenseek.conf", "".join(f"blacklist {one}\n" for one in NO_AUTOLOAD))
    tree.links["/etc/systemd/system-generators/systemd-ssh-generator"] = "/dev/null"  # for those sockets
    tree.add("/usr/local/lib/hidenseek/grow-root", GROW, 0o755)
    tree.add("/etc/systemd/system/hidenseek-grow-root.service", GROW_UNIT)
    tree.add(firstrun.UNIT, firstrun.UNIT_TEXT)
    for name in ("hidenseek-grow-root.service", PurePosixPath(firstrun.UNIT).name):
        tree.links[f"/etc/systemd/system/multi-user.target.wants/{name}"] = f"../{name}"
    for folder in ("/etc", "/var"):  # or systemd makes caches anew at the first boot: a minute, emulated
        tree.add(f"{folder}/.updated", "")
    tree.links["/etc/resolv.conf"] = "../run/systemd/resolve/stub-resolv.conf"
    for one in MASKED:
        tree.links[f"/etc/systemd/system/{one}"] = "/dev/null"
    return tree


def key(layers: int) -> str:
    """What the first so many layers are known by in the cache."""
    words = [SUITE, ARCHITECTURE, sources(), *LEFT_OUT]
    if layers > 1:
        words.append(_described(before()))
    words.append(json.dumps([[one.packages, one.commands] for one in LAYERS[:layers]]))
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:12]


def image_key() -> str:
    """What a finished image is known by: its layers, and the files that are put on them."""
    return hashlib.sha256(f"{key(len(LAYERS))}{_described(after())}".encode()).hexdigest()[:12]


def _described(tree: Tree) -> str:
    return repr(sorted(tree.files.items())) + repr(sorted(tree.links.items()))
