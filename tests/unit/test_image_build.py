"""Our own image: packed from a real tar file into partitions, and its building resumed, stopped and refused."""

from __future__ import annotations

import ipaddress
import json
import os
import pwd
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from coordinator import cli
from export.image import build, firstrun, networkd, pack, recipe, source, system, tools
from export.image.ext4 import Ext4
from export.image.fat import Fat
from export.image.settings import CardSettings, StaticAddress, Wifi
from export.image.tree import Tree
from tests import images
from wire.errors import ConfigError, ImageError, RuntimeMissing

PSK = "0" * 63 + "1"
PACKAGES = "Package: dash\nArchitecture: arm64\nVersion: 1\nSHA256: ab\nPackage: bash\nVersion: 2\nSHA256: cd\n"
# Stands for mmdebstrap, which takes minutes: writes what it is told to, or fails as it does, by the step's number.
STAND_IN = """\
#!{python}
import os, pathlib, shutil, sys, time
folder = pathlib.Path({folder!r})
target = next(one for one in sys.argv if one.endswith(".part"))
step = pathlib.Path(target).name[0]
with (folder / "calls").open("a") as file:
    file.write(step + " " + " ".join(sys.argv) + "\\n")
print("Setting up dash (1) ...", flush=True)
if (folder / f"wait-{{step}}").exists():
    time.sleep(60)
if (folder / f"fail-{{step}}").exists():
    print("E: Unable to locate package linux-image-arm64", "E: mmdebstrap failed to run", sep="\\n")
    sys.exit(25)
shutil.copy(folder / "root.tar", target)
"""


def root_tree() -> Tree:
    """What a small system has: files by which it is told, and what no two boards may share."""
    tree = Tree()
    tree.add("/etc/os-release", 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n')
    tree.add("/usr/bin/dpkg", images.elf("aarch64"), 0o755)
    tree.add("/usr/bin/python3.13", images.elf("aarch64"), 0o755)
    tree.links["/usr/bin/python3"] = "python3.13"
    tree.add("/usr/lib/systemd/systemd", b"", 0o755)
    tree.add("/usr/sbin/wpa_supplicant", b"", 0o755)
    tree.links["/etc/systemd/system/multi-user.target.wants/systemd-networkd.service"] = "/usr/lib/x.service"
    tree.add("/etc/ssh/ssh_host_ed25519_key", b"everybody's", 0o600)
    tree.add("/etc/ssh/sshd_config", b"")
    tree.add("/etc/hostname", "another\n")
    tree.add("/etc/machine-id", "uninitialized\n")
    tree.add("/var/lib/apt/lists/debian_Packages", bytes(10000))
    tree.add(recipe.PACKAGES, PACKAGES)
    for name in ("cmdline.txt", "config.txt", "vmlinuz-6.12", "overlays/disable-bt.dtbo"):
        tree.add(f"/boot/firmware/{name}", images.CMDLINE if name == "cmdline.txt" else f"{name}\n")
    return tree


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for a stand-in of mmdebstrap and what it does."""
    pack.tar(root_tree(), tmp_path / "root.tar")
    for name, text in (
        ("mmdebstrap", STAND_IN.format(python=sys.executable, folder=str(tmp_path))),
        *((name, "#!/bin/sh\n") for name in ("arch-test", "newuidmap")),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def built(folder: Path) -> tuple[Path, list[tuple[str, int, int, str]]]:
    """Build; the image, and what was told."""
    told: list[tuple[str, int, int, str]] = []

    def tell(step: str, done: int, total: int, doing: str = "") -> None:
        told.append((step, done, total, doing))

    return build.image(folder / "cache", tell), told


def calls(folder: Path) -> str:
    """Which steps the stand-in was called for."""
    return "".join(line[0] for line in (folder / "calls").read_text().splitlines())


@images.packed_by
def test_a_packed_image_is_one_that_can_be_customised(stand_in: Path) -> None:
    """Partitions, rights and boot files; told as a system of our own; nothing in it that boards must not share."""
    packed, told = built(stand_in)
    assert ("1 of 2, system", 0, recipe.LAYERS[0].effort_about, "setting up dash") in told
    image = stand_in / "x.img"
    source.unpack(packed, image)
    found = system.inspect(image)
    assert (found.mechanism, found.network, found.machine, found.firmware) == ("systemd", "networkd", "aarch64", True)
    assert found.firstrun_unit
    assert found.root.size_bytes > pack.ROOM_MIB << 20
    root = Ext4(image, found.root.start_bytes)
    root.fsck()
    assert root.read("/etc/hostname") == b"hidenseek\n"
    assert root.kind("/dev") == "directory"
    assert root.read("/etc/machine-id") == b""
    assert root.names("/etc/ssh") == {"sshd_config"}
    assert not root.names("/boot/firmware")
    assert not root.names("/var/lib/apt/lists")
    assert root.mode("/usr/local/lib/hidenseek/grow-root") == 0o755
    shown = tools.run(
        "debugfs", "-R", "stat /usr/local/lib/hidenseek/grow-root", f"{image}?offset={found.root.start_bytes}"
    )
    assert b"User:     0   Group:     0" in shown.stdout
    assert found.boot is not None
    assert (Fat(image, found.boot.start_bytes).read("cmdline.txt") or b"").decode() == images.CMDLINE
    assert Fat(image, found.boot.start_bytes).read("overlays/disable-bt.dtbo") is not None
    with image.open("rb") as file:
        file.seek(found.boot.start_bytes + 71)  # BS_VolLab of FAT32
        assert file.read(11) == recipe.BOOT_LABEL.ljust(11).encode()


@images.packed_by
def test_it_is_built_once_and_says_of_what(stand_in: Path) -> None:
    """Again only when asked; beside it lies what it is made of; its steps are gone."""
    packed, _ = built(stand_in)
    made = json.loads(build.manifest_path(packed).read_text())
    assert [one["package"] for one in made["packages"]] == ["bash", "dash"]
    assert made["packages"][1]["sha256"] == "ab"
    assert made["bytes"] == packed.stat().st_size
    assert built(stand_in) == (packed, [])
    assert calls(stand_in) == "12"
    build.image(stand_in / "cache", lambda *one: None, again=True)
    assert calls(stand_in) == "1212"
    assert {path.suffix for path in (stand_in / "cache").iterdir()} == {".zst", ".json", ".log"}


@images.packed_by
def test_a_failed_step_is_told_and_the_next_call_goes_on_with_it(stand_in: Path) -> None:
    """The line that says why, and where the rest is; what was done before is not done again."""
    (stand_in / "fail-2").touch()
    with pytest.raises(ImageError, match=r"2 of 2.*Unable to locate package linux-image-arm64") as caught:
        built(stand_in)
    assert "Unable to locate" in Path(caught.value.where or "").read_text()
    (stand_in / "fail-2").unlink()
    assert built(stand_in)[0].exists()
    assert calls(stand_in) == "122"


@images.packed_by
def test_ctrl_c_ends_what_runs_and_keeps_what_is_done(stand_in: Path) -> None:
    """The program is told to stop and is gone before the prompt is back."""
    (stand_in / "wait-2").touch()

    def interrupt() -> None:
        while not (stand_in / "calls").exists() or calls(stand_in) != "12":
            time.sleep(0.05)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    began_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        built(stand_in)
    assert time.monotonic() - began_s < 30
    assert [path.name[0] for path in (stand_in / "cache").glob("*.tar")] == ["1"]
    assert not list((stand_in / "cache").glob("*.part"))
    assert subprocess.run(["pgrep", "-f", str(stand_in / "mmdebstrap")], check=False).returncode == 1
    (stand_in / "wait-2").unlink()
    built(stand_in)
    assert calls(stand_in) == "122"


def test_what_is_missing_is_named_by_its_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All at once, not one after the other; and before anything is done."""
    monkeypatch.setattr(tools, "FOLDERS", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeMissing, match="mmdebstrap, arch-test, tar") as caught:
        build.check()
    for package in ("mmdebstrap", "mtools", "dosfstools", "e2fsprogs", "fdisk", "zstd"):
        assert package in (caught.value.hint or "")


@images.packed_by
def test_without_qemu_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, stand_in: Path) -> None:
    """Where programs of the board's processor do not run."""
    (stand_in / "arch-test").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(RuntimeMissing, match="do not run on this") as caught:
        build.check()
    assert "qemu-user-static" in (caught.value.hint or "")


def test_another_user_than_root_needs_ids_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stand_in: Path
) -> None:
    """Said before anything is fetched; rows of others, and of too few, do not count."""
    file = tmp_path / "subuid"
    monkeypatch.setattr(build, "SUBORDINATE", (file, file))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    user = pwd.getpwuid(os.getuid()).pw_name
    for text in (None, "", f"somebody-else:100000:65536\n{user}:100000:1000\n{user}:x\n"):
        if text is not None:
            file.write_text(text)
        with pytest.raises(RuntimeMissing, match=f"'{user}' has no 65,536 subordinate ids") as caught:
            build.check()
        assert "usermod --add-subuids" in (caught.value.hint or "")


def test_the_second_step_has_devices() -> None:
    """A /dev that is not there is not filled, and every layer comes without; packages' scripts need /dev/null."""
    assert "/dev" in recipe.before().all_folders()
    assert "/dev" in recipe.after().all_folders()


def test_a_change_of_the_recipe_is_another_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its files alone: the packages are kept. Of what is installed first: nothing is."""
    before = recipe.key(1), recipe.key(2), recipe.image_key()
    monkeypatch.setattr(recipe, "JOURNAL", "other")
    assert (recipe.key(1), recipe.key(2)) == before[:2]
    assert recipe.image_key() != before[2]
    monkeypatch.setattr(recipe, "EARLY_MODULES", ("ext4",))
    assert recipe.key(1) == before[0]
    assert recipe.key(2) != before[1]
    monkeypatch.setattr(recipe, "SUITE", "forky")
    assert recipe.key(1) != before[0]


def test_wifi_and_addresses_for_networkd() -> None:
    """The network's name as bytes, the key where only root reads it; the address for the radio, if there is one."""
    wifi = Wifi(ssid="Läb\n".strip(), psk=PSK, country="DE", hidden=True)
    static = StaticAddress(
        address=ipaddress.ip_interface("192.168.1.21/24"),
        gateway=ipaddress.ip_address("192.168.1.1"),
        dns=(ipaddress.ip_address("9.9.9.9"),),
    )
    tree = firstrun.files(CardSettings(hostname="pi-01", wifi=wifi, static=static), network="networkd")
    text, mode = tree.files["/etc/wpa_supplicant/wpa_supplicant-wlan0.conf"]
    assert mode == 0o600
    assert {"  ssid=4cc3a462", f"  psk={PSK}", "  scan_ssid=1", "country=DE"} <= set(bytes(text).decode().split("\n"))
    assert f"/etc/systemd/system/multi-user.target.wants/{networkd.SERVICE}" in tree.links
    network = bytes(tree.files["/etc/systemd/network/70-hidenseek-card.network"][0]).decode().split("\n")
    assert {"Name=wlan0", "Address=192.168.1.21/24", "Gateway=192.168.1.1", "DNS=9.9.9.9", "DHCP=ipv6"} <= set(network)
    cable = networkd.files(CardSettings(hostname="pi-01", static=static))
    assert b"Type=ether" in bytes(cable.files["/etc/systemd/network/70-hidenseek-card.network"][0])
    assert not networkd.files(CardSettings(hostname="pi-01")).files


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["pi-01", "--build", "--image", "x.img", "--to", "y.img"], "two images"),
        (["pi-01", "--image", "x.img", "--to", "y.img", "--again"], "only with --build"),
        (["pi-01", "--build"], "missing"),
    ],
)
def test_options_that_do_not_go_together(
    options: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before anything is built."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["flash", *options]) == ConfigError.exit_code
    assert says in capsys.readouterr().err
