"""`hidenseek flash` from a stock image to files, with wheels made here; and all that it refuses before it begins."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from coordinator import cli
from coordinator.brokers import accounts
from export.image import system
from export.image.ext4 import Ext4
from export.image.fat import Fat
from export.image.service import STATE
from tests import images
from wire import __version__, claim

DEVICES = """\
federation: {name: har}
flash:
  user: ada
  timezone: Europe/Berlin
  broker: mqtt://192.168.1.10
  wifi: {ssid: Lab, country: DE}
devices:
  pi-01: {profile: pi}
  pi-02: {flash: {hostname: second, address: 192.168.1.22/24, gateway: 192.168.1.1, data: recordings}}
profiles: {pi: {title: Pi, cores: 4, ram_mb: 512}}
"""

pytestmark = images.needed


def wheel(folder: Path, name: str, files: dict[str, str]) -> None:
    """A wheel with nothing but these."""
    info = f"hidenseek-{__version__}.dist-info"
    with zipfile.ZipFile(folder / name, "w") as archive:
        for path, text in (
            files
            | {f"{info}/METADATA": f"Metadata-Version: 2.1\nName: hidenseek\nVersion: {__version__}\n"}
            | {f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-any\n", f"{info}/RECORD": ""}
        ).items():
            archive.writestr(path, text)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with devices, recordings, a packed image, and a wheel in dist."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HIDENSEEK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HIDENSEEK_WIFI_PASSWORD", "correct horse")
    for folder in ("dist", "recordings"):
        (tmp_path / folder).mkdir()
    (tmp_path / "devices.yaml").write_text(DEVICES)
    (tmp_path / "recordings/a.npz").write_bytes(b"a")
    files = {"edge_client/cli.py": "x = 1\n", "wire/__init__.py": "", "coordinator/cli.py": "not for devices\n"}
    wheel(tmp_path / "dist", f"hidenseek-{__version__}-py3-none-manylinux_2_34_aarch64.whl", files)
    (tmp_path / "stock.img.xz").write_bytes(images.packed("raspios-trixie", "xz"))
    return tmp_path


def flash(*options: str) -> int:
    """Run it."""
    return cli.main(["flash", *options])


@pytest.mark.slow
def test_a_fleet_of_files(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One for each device, its owner's alone, with what it was told; the image is as it was, and not unpacked again."""
    before = (home / "stock.img.xz").read_bytes()
    assert cli.main(["broker", "init", "--kind", "mosquitto", "--hosts", "hub.example.org"]) == 0
    capsys.readouterr()
    assert flash("--all", "--image", "stock.img.xz", "--to", "cards/", "--deploy", "deploy") == 0
    said = capsys.readouterr()
    assert said.out == "pi-01: cards/pi-01.img\npi-02: cards/pi-02.img\n"
    assert "no broker of deploy runs here" in said.err
    assert cli.main(["fleet", "list"]) == 0
    assert capsys.readouterr().out.count("flashed, waiting") == 2
    passwords = accounts.load(home / "deploy")
    assert (home / "stock.img.xz").read_bytes() == before
    assert {path.name for path in (home / "cards").iterdir()} == {"pi-01.img", "pi-02.img"}
    assert not list((home / "cache/images").glob("*.part*"))
    assert (home / "cards/pi-01.img").stat().st_mode & 0o777 == 0o600
    made = {path.name: path.stat().st_ino for path in (home / "cache/images").iterdir()}
    assert len(made) == 2
    assert flash("pi-01", "--image", "stock.img.xz", "--to", "again.img") == 0
    assert {
        path.name: path.stat().st_ino for path in (home / "cache/images").iterdir()
    } == made  # nothing unpacked again
    hostnames = {}
    for name in ("pi-01", "pi-02"):
        image = home / f"cards/{name}.img"
        found = system.inspect(image)
        assert found.boot is not None
        user = json.loads((Fat(image, found.boot.start_bytes).read("user-data") or b"").partition(b"\n")[2])
        hostnames[name] = user["hostname"]
        root = Ext4(image, found.root.start_bytes)
        card = json.loads(root.read("/etc/hidenseek/card.json") or b"")
        assert (card["device"], card["profile"]) == (name, "pi" if name == "pi-01" else "")
        assert root.names("/opt/hidenseek/current/lib") == {"edge_client", "wire", f"hidenseek-{__version__}.dist-info"}
        assert root.names("/srv/hidenseek/data") == ({"a.npz"} if name == "pi-02" else set())
        token = f"{STATE}/{claim.TOKEN_FILE}"
        assert (root.read(token) or b"").decode().strip() == passwords[claim.USER + name]
        assert root.mode(token) == 0o600
        assert not [
            secret
            for secret in passwords.values()
            if secret != passwords[claim.USER + name] and secret.encode() in image.read_bytes()
        ]
        assert (root.read("/etc/hidenseek/ca.crt") or b"") == (home / "deploy/ca.crt").read_bytes()
    assert hostnames == {"pi-01": "pi-01", "pi-02": "second"}


@pytest.mark.parametrize(
    ("options", "change", "code", "words"),
    [
        (["--image", "stock.img.xz", "--to", "a.img"], {}, 10, "name devices, or say --all"),
        (["pi-01", "--to", "a.img"], {}, 10, "--image: missing"),
        (["pi-01", "--image", "stock.img.xz"], {}, 10, "--to: missing"),
        (["pi-1", "--image", "stock.img.xz", "--to", "a.img"], {}, 12, "Did you mean 'pi-01'"),
        (["--all", "--image", "stock.img.xz", "--to", "a.img"], {}, 10, "one file for 2 devices"),
        (["pi-01", "--image", "stock.img.xz", "--to", "pi"], {}, 10, "'pi' is neither /dev/NAME"),
        (["pi-01", "--image", "no.img", "--to", "a.img"], {}, 28, "no.img: cannot be read"),
        (["pi-01", "--image", "stock.img.xz", "--to", "/dev/nothing"], {}, 28, "no disk of this machine"),
        (
            ["pi-01", "--image", "stock.img.xz", "--to", "a.img"],
            {"DE": "UK"},
            10,
            "yaml:6: flash of pi-01: wifi.country: 'UK'",
        ),
        (["pi-01", "--image", "stock.img.xz", "--to", "a.img"], {"Berlin": "Berln"}, 10, "devices.yaml:4: flash"),
        (
            ["pi-02", "--image", "stock.img.xz", "--to", "a.img"],
            {"/24": ""},
            10,
            "address: '192.168.1.22' has no prefix",
        ),
        (
            ["pi-02", "--image", "stock.img.xz", "--to", "a.img"],
            {"data: rec": "data: xec"},
            10,
            "data: no .npz file at",
        ),
        (["pi-01", "--image", "stock.img.xz", "--to", "a.img"], {"user: ada": "usr: ada"}, 10, "Did you mean 'user'"),
        (
            ["pi-01", "--image", "stock.img.xz", "--to", "a.img"],
            {"ssid: Lab": "hiden: true, ssid: Lab"},
            10,
            "Did you mean 'hidden'",
        ),
        (["pi-01", "--image", "stock.img.xz", "--to", "a.img"], {"mqtt://": "http://"}, 10, "broker"),
        (
            ["pi-01", "--image", "stock.img.xz", "--to", "a.img"],
            {"user: ada": "swap: zrm"},
            10,
            "devices.yaml:3: flash.swap: 'zrm' found, should be 'keep', 'off' or 'zram'. Did you mean 'zram'?",
        ),
        (
            ["pi-01", "--image", "stock.img.xz", "--to", "a.img"],
            {"user: ada": "arm_freq_mhz: 1800", "ram_mb: 512": "ram_mb: 512, clock_ghz: 1.5"},
            10,
            "devices.yaml:3: flash of pi-01: arm_freq_mhz: 1800 found, at most 1500 expected, which 'pi' is sold with",
        ),
        (["pi-01", "--image", "stock.img.xz", "--to", "a.img"], {"user: ada": "temp_limit_c: 90"}, 10, "to 85"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_done(
    home: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    change: dict[str, str],
    code: int,
    words: str,
) -> None:
    """One line, its exit code, and no file."""
    text = DEVICES
    for before, after in change.items():
        assert before in text
        text = text.replace(before, after)
    (home / "devices.yaml").write_text(text)
    assert flash(*options) == code
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert words in said[0]
    assert not list(home.glob("a.img*"))


def test_a_wheel_for_another_machine_is_not_enough(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is there is named, and how the right one is made; the password of the network is nowhere."""
    (ours,) = (home / "dist").iterdir()
    ours.rename(ours.with_name(ours.name.replace("aarch64", "x86_64")))
    assert flash("pi-01", "--image", "stock.img.xz", "--to", "a.img") == 28
    said = capsys.readouterr().err
    assert "no wheel of hidenseek" in said
    assert "x86_64.whl" in said
    assert "make wheels" in said
    assert not (home / "a.img").exists()


def test_an_image_that_is_of_no_use_is_not_kept(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is named as the user named it."""
    images.make(home / "old.img", "raspios-bookworm", machine="armv7l")
    assert flash("pi-01", "--image", "old.img", "--to", "a.img") == 28
    assert "error: old.img: Debian GNU/Linux 12 (bookworm) for armv7l" in capsys.readouterr().err
    assert list((home / "cache/images").iterdir()) == []


def test_without_a_password_it_is_asked_for_by_name(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody has to write it into a file."""
    monkeypatch.delenv("HIDENSEEK_WIFI_PASSWORD")
    assert flash("pi-01", "--image", "stock.img.xz", "--to", "a.img") == 10
    assert "no password for 'Lab'. Put it into $HIDENSEEK_WIFI_PASSWORD" in capsys.readouterr().err
