"""The unit that makes swap in compressed memory: its commands, under a kernel of Debian's that has zram as a module.

A container shares this machine's kernel, swap included, so a virtual machine it is; and the unit itself is read by
systemd's own checker.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from export.image import swap
from tests.boot import guest
from tests.boot.test_usb_card import LACKING, PATH

pytestmark = [
    pytest.mark.image,
    pytest.mark.skipif(bool(LACKING), reason=f"apt-get install {' '.join(LACKING)}"),
    pytest.mark.skipif(shutil.which("systemd-analyze", path=PATH) is None, reason="apt-get install systemd"),
]
SCRIPT = """\
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mkdir -p /run/hidenseek-zram
{start}
echo "[started $?]"; cat /proc/swaps; grep MemTotal /proc/meminfo
{stop}
echo "[stopped $?]"; cat /proc/swaps; ls /sys/block
echo "[end]"
"""


def command(name: str) -> str:
    """What one line of the unit runs, as systemd reads it: lines that are continued, `$$` for a dollar sign."""
    lines = swap.UNIT_TEXT.replace("\\\n", " ").splitlines()
    (found,) = (line.partition("=")[2] for line in lines if line.startswith(f"{name}="))
    return found.replace("$$", "$")


def test_the_unit_makes_swap_of_half_the_memory_and_gives_it_back(tmp_path: Path) -> None:
    """Started and stopped as systemd does, but for the module, which the machine's start has loaded."""
    unit = tmp_path / swap.UNIT
    unit.write_text(swap.UNIT_TEXT)
    checked = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    script = SCRIPT.format(start=command("ExecStart"), stop=command("ExecStop"))
    said = guest.run(tmp_path, script, {}, 300, modules=("zram", "lz4", "lzo-rle"))
    started, _, rest = said.partition("[started 0]")[2].partition("[stopped 0]")
    name, kind, kib, used, priority = started.split("Priority")[1].split("\n")[1].split()
    assert (name, kind, used, priority) == ("/dev/zram0", "partition", "0", "100")
    total_kib = int(started.split("MemTotal:")[1].split()[0])
    assert abs(int(kib) - total_kib // 2) < 64
    left = rest.split("[end]")[0].split("Priority")[1].split()
    assert not [one for one in left if "zram" in one], "no swap, and the memory is given back"
