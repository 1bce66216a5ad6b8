"""`hidenseek flash --to /dev/sda`, all of it: a removable USB disk of a virtual machine, found, written and checked."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from export.image import system
from export.image.ext4 import Ext4
from export.image.fat import Fat
from tests import images
from tests.boot import guest
from tests.unit.test_flash_command import DEVICES, wheel
from tests.wheels import ROOT
from wire import __version__

NEEDED = {"qemu-system-x86_64": "qemu-system-x86", "busybox": "busybox-static", "modprobe": "kmod"}
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
LACKING = [package for program, package in NEEDED.items() if shutil.which(program, path=PATH) is None]
pytestmark = [
    pytest.mark.image,
    images.needed,
    pytest.mark.skipif(bool(LACKING), reason=f"apt-get install {' '.join(LACKING)}"),
]
SCRIPT = """\
export PATH={bin}:/usr/sbin:/usr/bin:/sbin:/bin HIDENSEEK_CACHE=/var/tmp/cache HOME=/root PYTHONDONTWRITEBYTECODE=1
export HIDENSEEK_WIFI_PASSWORD="correct horse" PYTHONPATH={root} TERM=dumb
cd {home}
for second in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/sdb ] && break; sleep 1; done
try() {{ name=$1; shift; echo "[$name]"; "$@" </dev/null; echo "exit code $?"; }}
flash="python -m coordinator.cli flash"
try list $flash --list
try unnamed $flash pi-01 --image stock.img.xz --to /dev/sda
try small $flash pi-01 --image stock.img.xz --to /dev/sdb --yes
try write $flash pi-01 --image stock.img.xz --to /dev/sda --yes
mkdir -p /mnt/card; mount /dev/sda2 /mnt/card; cat /mnt/card/etc/hidenseek/card.json
try mounted $flash pi-01 --image stock.img.xz --to /dev/sda --yes
umount /mnt/card
echo "[end]"
"""


def test_a_removable_usb_disk_becomes_a_card(tmp_path: Path) -> None:
    """Listed with its serial number; refused unasked, too small, or mounted; written, and mounted by the kernel."""
    home = tmp_path / "home"
    for folder in (home, home / "dist"):
        folder.mkdir()
    (home / "devices.yaml").write_text(DEVICES)
    wheel(home / "dist", f"hidenseek-{__version__}-py3-none-manylinux_2_34_aarch64.whl", {"wire/__init__.py": ""})
    (home / "stock.img.xz").write_bytes(images.packed("raspios-trixie", "xz"))
    disks = {"CARD1": tmp_path / "card.raw", "SMALL1": tmp_path / "small.raw"}
    for path, mib in zip(disks.values(), (256, 16), strict=True):
        path.write_bytes(os.urandom(1 << 20))  # not empty
        os.truncate(path, mib << 20)
    script = SCRIPT.format(bin=Path(sys.executable).parent, root=ROOT, home=home)
    said = guest.run(tmp_path, script, disks, timeout_s=900)
    parts = dict(re.findall(r"^\[(\w+)\]\n(.*?)(?=^\[)", said, re.MULTILINE | re.DOTALL))
    assert re.search(r"^/dev/sda .*serial CARD1, usb$", parts["list"], re.MULTILINE), said
    assert "nobody is here to be asked" in parts["unnamed"]
    assert "16,777,216 bytes are too few" in parts["small"]
    for name in ("unnamed", "small", "mounted"):
        assert "exit code 0" not in parts[name]
    assert re.search(r"read back: SHA-256 [0-9a-f]{64}", parts["write"])
    assert "exit code 0" in parts["write"]
    assert '"device": "pi-01"' in parts["write"]
    assert "mounted" in parts["mounted"]

    found = system.inspect(disks["CARD1"])
    assert found.boot is not None
    user = json.loads((Fat(disks["CARD1"], found.boot.start_bytes).read("user-data") or b"").partition(b"\n")[2])
    assert (user["hostname"], found.mechanism) == ("pi-01", "cloudinit-rpi")
    Ext4(disks["CARD1"], found.root.start_bytes).fsck()
