"""Cards made of images: what is on each, for every way of taking settings, and nothing that should not be."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from export.image import client, cloudinit, customise, firmware, firstrun, service, swap, system, write
from export.image.customise import Card
from export.image.ext4 import Ext4
from export.image.fat import Fat
from export.image.service import Service
from export.image.settings import CardSettings, StaticAddress, Wifi, wifi_psk
from export.image.tree import Tree
from tests import images
from wire.errors import ConfigError, ImageError

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHl0aGlzIGlzIG5vdCBhIHJlYWwga2V5IQ== me@there"
PSK = wifi_psk("Läb", "correct horse")

pytestmark = images.needed


def settings(**changes: Any) -> CardSettings:
    """All that there is."""
    wanted: dict[str, Any] = {
        "hostname": "pi-01",
        "user": "ada",
        "ssh_keys": (KEY,),
        "locale": "de_DE.UTF-8",
        "timezone": "Europe/Berlin",
        "wifi": Wifi(ssid="Läb", psk=PSK, country="DE"),
        "static": StaticAddress(
            address=ipaddress.ip_interface("192.168.1.21/24"),
            gateway=ipaddress.ip_address("192.168.1.1"),
            dns=(ipaddress.ip_address("192.168.1.1"),),
        ),
        "gpu_mem_mb": 16,
        "swap": "off",
    }
    return CardSettings(**wanted | changes)


def small_client() -> client.Client:
    """Two files in the place of wheels."""
    tree = Tree()
    tree.add("/opt/hidenseek/releases/0123/lib/numpy/__init__.py", "a = 1\n")
    tree.add("/opt/hidenseek/releases/0123/bin/hidenseek-edge", "#!/usr/bin/python3\n", 0o755)
    tree.links["/opt/hidenseek/current"] = "releases/0123"
    return client.Client(files=tree, release="0123", size_bytes=tree.size_bytes)


def make(
    tmp_path: Path, kind: str, *, boot_mib: int = images.BOOT_MIB, **changes: Any
) -> tuple[Ext4, Fat, system.System]:
    """A card of an image, all of it made as the command makes it."""
    image, card = images.make(tmp_path / "stock.img", kind, boot_mib=boot_mib), tmp_path / "card.img"
    (tmp_path / "a.npz").write_bytes(b"recordings")
    customise.install(image, system.inspect(image), small_client())
    found = system.inspect(image)
    write.copy_sparse(image, card)
    customise.personalise(
        card,
        found,
        Card(
            settings=settings(**changes),
            service=Service(device="pi-01", federation="har", broker="mqtts://hub.example.org", ca=b"CA"),
            secrets={"claim": b"once"},
            data={"a.npz": tmp_path / "a.npz"},
        ),
    )
    return Ext4(card, found.root.start_bytes), Fat(card, found.boot.start_bytes if found.boot else 0), found


def checked(tmp_path: Path, kind: str, wanted: CardSettings, **changes: Any) -> tuple[Ext4, Fat]:
    """A card of an image with nothing but a client's settings, if the image can do that."""
    image = images.make(tmp_path / "card.img", kind, **changes)
    found = system.inspect(image)
    customise.check(image, found, wanted)
    customise.grow(image, found.root, 40 << 20)
    found = system.inspect(image)
    hub = Service(device="pi-01", federation="har", broker="mqtt://hub")
    customise.personalise(image, found, Card(settings=wanted, service=hub))
    return Ext4(image, found.root.start_bytes), Fat(image, found.boot.start_bytes if found.boot else 0)


def text(data: bytes | None) -> str:
    """Of a file that has to be there."""
    assert data is not None
    return data.decode()


@pytest.mark.parametrize("kind", images.RELEASES)
def test_every_card_has_the_client_and_its_service(tmp_path: Path, kind: str) -> None:
    """Unpacked, switched on, told whom to join; the token is for root only; the identity is left to be made."""
    root, _, _ = make(tmp_path, kind, **({"wifi": None, "static": None} if kind == "debian-cloud" else {}))
    assert text(root.read("/opt/hidenseek/current/lib/numpy/__init__.py")) == "a = 1\n"
    assert root.mode("/opt/hidenseek/releases/0123/bin/hidenseek-edge") == 0o755
    assert root.link("/etc/systemd/system/multi-user.target.wants/hidenseek.service") == "../hidenseek.service"
    card = json.loads(text(root.read("/etc/hidenseek/card.json")))
    assert (card["device"], card["federation"], card["broker"]) == ("pi-01", "har", "mqtts://hub.example.org")
    assert text(root.read(card["ca"])) == "CA"
    assert (root.mode(f"{service.STATE}/claim"), root.mode(service.STATE)) == (0o600, 0o700)
    assert root.mode("/var/lib/private") == 0o700
    assert text(root.read("/srv/hidenseek/data/a.npz")) == "recordings"
    assert text(root.read("/etc/machine-id")) == ""
    assert root.link("/etc/systemd/system/dphys-swapfile.service") == "/dev/null"


def test_raspberry_pi_os_with_cloud_init_has_its_files_on_a_fat32_boot_partition(tmp_path: Path) -> None:
    """And an instance id on the kernel's command line that is another for every card; config.txt keeps what it said."""
    _, boot, _ = make(tmp_path, "raspios-trixie", boot_mib=40)
    user = json.loads(text(boot.read("user-data")).removeprefix("#cloud-config\n"))
    assert (user["hostname"], user["timezone"], user["ssh_pwauth"]) == ("pi-01", "Europe/Berlin", False)
    assert user["users"][0]["ssh_authorized_keys"] == [KEY]
    net = json.loads(text(boot.read("network-config")))["network"]["wifis"]["wlan0"]
    assert net["access-points"] == {"Läb": {"password": PSK}}
    assert (net["regulatory-domain"], net["dhcp4"], net["addresses"]) == ("DE", False, ["192.168.1.21/24"])
    instance = json.loads(text(boot.read("meta-data")))["instance-id"]
    words = text(boot.read("cmdline.txt")).split()
    assert words[: len(images.CMDLINE.split())] == images.CMDLINE.split()
    assert {f"ds=nocloud;i={instance}", "cgroup_enable=memory", "cfg80211.ieee80211_regdom=DE"} <= set(words)
    config = text(boot.read("config.txt"))
    assert config.startswith("[all]\ndtparam=audio=on\n")
    assert config.endswith("[all]\ngpu_mem=16\n")
    assert instance != json.loads(cloudinit.files(settings(), "x")["meta-data"])["instance-id"]


def test_debian_cloud_images_are_told_on_the_root_partition(tmp_path: Path) -> None:
    """In cloud-init's own folder, which only root may read."""
    root, boot, _ = make(tmp_path, "debian-cloud", gpu_mem_mb=None)
    assert root.names(system.SEED) == {"user-data", "meta-data", "network-config"}
    assert root.mode(system.SEED) == 0o700
    assert boot.names() == {"start4.elf"}


def test_raspberry_pi_os_without_cloud_init_runs_a_script_once(tmp_path: Path) -> None:
    """A script that a shell takes, root's alone; the network in NetworkManager's own form; no password anywhere."""
    root, boot, _ = make(tmp_path, "raspios-bookworm")
    assert root.mode(firstrun.SCRIPT) == 0o700
    script = text(root.read(firstrun.SCRIPT))
    (tmp_path / "script").write_text(script)
    assert subprocess.run(["sh", "-n", tmp_path / "script"], check=False).returncode == 0
    assert KEY in script
    assert set(firstrun.ARGUMENTS) <= set(text(boot.read("cmdline.txt")).split())
    assert text(root.read("/etc/hostname")) == "pi-01\n"
    assert root.link("/etc/localtime") == "/usr/share/zoneinfo/Europe/Berlin"
    connection = "/etc/NetworkManager/system-connections/hidenseek.nmconnection"
    assert root.mode(connection) == 0o600
    lines = text(root.read(connection)).splitlines()
    assert f"psk={PSK}" in lines
    assert "ssid=76;195;164;98;" in lines
    assert "address1=192.168.1.21/24,192.168.1.1" in lines


def test_the_script_takes_itself_off_the_command_line(tmp_path: Path) -> None:
    """What it does there, done to a file: the words that run it are gone, the others are as they were."""
    boot = tmp_path / "cmdline.txt"
    boot.write_bytes(firstrun.command_line(images.CMDLINE.encode()))
    for argument in firstrun.ARGUMENTS:
        subprocess.run(["sed", "-i", f"s| *{argument}||", boot], check=True)
    assert boot.read_text() == f"{images.CMDLINE}\n"
    with pytest.raises(ImageError, match="another script"):
        firstrun.command_line(b"root=x systemd.run=/boot/firstrun.sh")


def test_without_a_way_to_tell_of_wifi_it_is_refused() -> None:
    """A card that silently never came online would be worse."""
    with pytest.raises(ImageError, match="need NetworkManager, systemd-networkd or cloud-init"):
        firstrun.files(settings(), network="")
    assert firstrun.files(settings(wifi=None, static=None), network="").files


def test_what_does_not_fit_makes_the_root_partition_grow(tmp_path: Path) -> None:
    """By as much as is missing; all that was in it stays, and nothing is wrong with it."""
    image = images.make(tmp_path / "x.img", "raspios-bookworm")
    before = system.inspect(image)
    customise.install(image, before, small_client())
    after = system.inspect(image)
    root = Ext4(image, after.root.start_bytes)
    assert after.root.size_bytes > before.root.size_bytes + (64 << 20)
    assert root.missing_bytes(60 << 20) <= 0
    assert text(root.read("/usr/lib/os-release")).startswith("PRETTY_NAME=")
    root.fsck()


def test_a_damaged_file_system_is_noticed(tmp_path: Path) -> None:
    """The last thing that is done with a card is to check all of it."""
    image = images.make(tmp_path / "x.img", "raspios-bookworm")
    start = system.inspect(image).root.start_bytes
    with image.open("r+b") as file:
        file.seek(start + 8192)
        file.write(bytes(range(256)) * 64)
    with pytest.raises(ImageError, match="root file system is damaged"):
        Ext4(image, start).fsck()


def test_the_key_of_a_network_is_what_the_standard_says() -> None:
    """IEEE 802.11-2020, J.4.2, the first test vector; a key in hex is left as it is."""
    expected = "f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e"
    assert wifi_psk("IEEE", "password") == expected
    assert wifi_psk("IEEE", expected.upper()) == expected
    with pytest.raises(ConfigError, match="8 to 63"):
        wifi_psk("IEEE", "short")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hostname": "pi_01"}, "no host name"),
        ({"user": "root"}, "few rights"),
        ({"user": "a; reboot"}, "few rights"),
        ({"ssh_keys": ("ssh-ed25519 AAAA\nssh-rsa AAAA",)}, "no public SSH key"),
        ({"timezone": "Europe/Berlinn"}, "Did you mean 'Europe/Berlin'"),
        ({"locale": "de DE"}, "no locale"),
    ],
)
def test_settings_that_no_system_takes_are_refused(changes: dict[str, Any], words: str) -> None:
    """Before anything is written, for all forms alike."""
    with pytest.raises(ConfigError, match=words):
        settings(**changes)


@pytest.mark.parametrize("country", ["UK", "de", "DEU", ""])
def test_countries_that_are_none_are_refused(country: str) -> None:
    """The radio would stay off."""
    with pytest.raises(ConfigError, match=r"no country of ISO 3166.*GB \(not UK\)"):
        Wifi(ssid="x", psk=PSK, country=country)


def test_a_router_in_another_network_is_refused() -> None:
    """It could never be reached."""
    with pytest.raises(ConfigError, match=r"10\.0\.0\.1 is not another address of 192\.168\.1\.0/24"):
        StaticAddress(
            address=ipaddress.ip_interface("192.168.1.21/24"), gateway=ipaddress.ip_address("10.0.0.1"), dns=()
        )


OVERCLOCKED = "[all]\ndtparam=audio=on\narm_freq=2300\nover_voltage=6\n[pi4]\n force_turbo = 1\narm_boost=1\n"


def test_a_raspberry_pi_is_not_driven_faster_than_it_is_sold(tmp_path: Path) -> None:
    """What did that in config.txt is there as a comment, limits and power saving come after it, all else stays."""
    wanted = CardSettings(
        hostname="pi-01",
        overclock="off",
        arm_freq_mhz=1200,
        temp_limit_c=75,
        power_saving=True,
        gpu_mem_mb=16,
        swap="zram",
    )
    root, boot = checked(tmp_path, "raspios-bookworm", wanted, config=OVERCLOCKED)
    said = text(boot.read("config.txt"))
    before, _, after = said.partition("# hidenseek flash\n")
    assert before == (
        "[all]\ndtparam=audio=on\n#arm_freq=2300\n#over_voltage=6\n[pi4]\n# force_turbo = 1\narm_boost=1\n"
    )
    assert after.splitlines()[:4] == ["[all]", "gpu_mem=16", "arm_freq=1200", "temp_limit=75"]
    assert "dtoverlay=disable-bt" in after.splitlines()
    assert text(root.read("/etc/NetworkManager/conf.d/90-hidenseek.conf")) == "[connection]\nwifi.powersave=3\n"
    assert "swapon -p 100" in text(root.read(f"/etc/systemd/system/swap.target.wants/../{swap.UNIT}"))
    assert firmware.config(said, wanted) == said
    assert firmware.config(said, CardSettings(hostname="pi-01")) == before


def test_who_overclocks_on_purpose_keeps_it() -> None:
    """As the file was."""
    assert firmware.config(OVERCLOCKED, CardSettings(hostname="pi-01", overclock="keep")) == OVERCLOCKED


@pytest.mark.parametrize(
    ("has", "path", "words"),
    [
        ({"rpi_swap": True}, "/etc/rpi/swap.conf.d/90-hidenseek.conf", b"Mechanism=zram"),
        ({"generator": True}, "/etc/systemd/zram-generator.conf", b"zram-size = ram / 2"),
        ({}, f"/etc/systemd/system/{swap.UNIT}", b"ExecStart=sh -ec"),
    ],
)
def test_swap_in_compressed_memory_by_what_the_system_has(
    tmp_path: Path, has: dict[str, Any], path: str, words: bytes
) -> None:
    """One of three ways, never two of them, and the one that wears the card out is off."""
    image = images.make(tmp_path / "x.img", "raspios-bookworm", **has)
    root = Ext4(image, system.inspect(image).root.start_bytes)
    tree = swap.files(root, CardSettings(hostname="pi-01", swap="zram"))
    ((name, (content, _)),) = tree.files.items()
    assert name == path
    assert words in bytes(content)
    assert tree.links.pop("/etc/systemd/system/dphys-swapfile.service") == "/dev/null"
    assert list(tree.links.values()) == ([] if has else [f"../{swap.UNIT}"])


@pytest.mark.parametrize(
    ("kind", "changes", "has", "words"),
    [
        ("ubuntu-pi", {"swap": "zram"}, {"modules": "kernel/fs/ext4.ko:\n"}, "kernel 6.12.1 in the image has it"),
        ("debian-cloud", {"gpu_mem_mb": 16}, {}, "gpu_mem_mb is for config.txt of a Raspberry Pi.* `gpu_mem_mb: null`"),
        ("debian-cloud", {"power_saving": True}, {}, "power_saving is for config.txt.*: false`"),
        ("raspios-bookworm", {"locale": "de_DE.UFT-8"}, {}, "'de_DE.UFT-8' found.*Did you mean 'de_DE.UTF-8'"),
    ],
)
def test_what_an_image_cannot_do_is_refused(
    tmp_path: Path, kind: str, changes: dict[str, Any], has: dict[str, Any], words: str
) -> None:
    """And not left out in silence."""
    with pytest.raises(ImageError, match=words):
        checked(tmp_path, kind, CardSettings(hostname="pi-01", **changes), **has)
