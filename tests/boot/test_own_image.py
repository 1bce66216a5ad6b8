"""`hidenseek flash --build`, the ARM image itself: its kernel, boot files and services, in an emulated board.

From a blank card to signs of the demo's network: firstrun.sh and the root partition grown, enrolment over TLS, rounds
by the sparse kernels, a power cut in the middle of one, the same run to its end; and a file system that is repaired.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from coordinator import cli
from coordinator.datasets.cache import cache_dir
from export.image import build, recipe, system, tools
from export.image.ext4 import Ext4
from tests.boot import board as boards
from tests.boot.board import Board
from tests.boot.first import note, timed
from tests.boot.resident import resident
from tests.boot.test_boot import offline
from tests.integration.deployed import Deployed, deployed
from tests.integration.fleet import Processes, wait_until, write_person
from tests.integration.updating import closed
from tests.wheels import build_wheel, copy_tree
from wire.errors import ImageError

NEEDED = {
    "qemu-system-aarch64": "qemu-system-arm",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    "mosquitto": "mosquitto",
    "mcopy": "mtools",
    "ssh": "openssh-client",
}
PATH = f"{os.environ['PATH']}:/usr/sbin"
LACKING = [package for program, package in NEEDED.items() if shutil.which(program, path=PATH) is None]
IMAGE = build.path(cache_dir() / "build")
pytestmark = [
    pytest.mark.image,
    pytest.mark.skipif(bool(LACKING), reason=f"apt-get install {' '.join(LACKING)}"),
    pytest.mark.skipif(not IMAGE.exists(), reason="no image of this recipe is built: hidenseek flash --build"),
]
ROUNDS, CARDS, SAMPLES = 5, 20, 96
CARD_BYTES = 1 << 32  # QEMU's SD slot takes powers of two only
CONFIG = f"""\
federation: {{name: t, model: har-cnn, rounds: {ROUNDS}, per_round: 1, quorum: 1, start_devices: 1, deadline_s: 120}}
flash: {{user: ada, ssh_key: ssh.pub, timezone: Europe/Berlin, locale: de_DE.UTF-8, data: data/pi-1}}
devices: {{{", ".join(f"pi-{number}: {{}}" for number in range(1, CARDS + 1))}}}
"""
JOINED_S = 150
SETTLED_S = 5.0
PATIENCE_S = 900  # of one boot: the machine may be busy
CHECKED = "/run/initramfs/fsck.log"
NAME = f"own-{recipe.SUITE}-{recipe.ARCHITECTURE}"


@pytest.fixture(scope="session")
def arm_wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our wheel for the board, of the tree as it is; as `make wheels` makes it."""
    folder = tmp_path_factory.mktemp("arm")
    build_wheel(copy_tree(folder / "tree"), folder, CC="aarch64-linux-gnu-gcc")
    return folder


@pytest.fixture
def home(arm_wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with devices, recordings, a key to log in with, and wheels where `make wheels` puts them."""
    monkeypatch.chdir(tmp_path)
    write_person(tmp_path / "data/pi-1", seed=3, samples=SAMPLES)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "ssh"], check=True)
    (tmp_path / "devices.yaml").write_text(CONFIG)
    (tmp_path / "dist").symlink_to(arm_wheels)
    return tmp_path


def test_a_fleet_of_cards_is_made_in_seconds(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first with everything to be unpacked, one more, and a fleet of them, of the image that is in the cache."""
    times: dict[str, float] = {"image, packed, MB": round(IMAGE.stat().st_size / 1e6, 1)}
    hosts = ["--hosts", f"localhost,{boards.HOST}", "--devices", "devices.yaml"]
    assert cli.main(["broker", "init", "--kind", "mosquitto", *hosts]) == 0
    with capsys.disabled():
        with timed(times, "first card: unpack, wheels, client, settings"):
            assert cli.main(["flash", "--build", "pi-2", "--to", "pi-2.img"]) == 0
        with timed(times, "one more card"):
            assert cli.main(["flash", "--build", "pi-2", "--to", "pi-2.img"]) == 0
        with timed(times, f"{CARDS} cards"):
            assert cli.main(["flash", "--build", "--all", "--to", "cards/"]) == 0
    card = home / "cards/pi-1.img"
    found = system.inspect(card)
    assert (found.mechanism, found.network, found.machine) == ("systemd", "networkd", "aarch64")
    times["card, MB"] = round(card.stat().st_size / 1e6, 1)
    times["of which written, MB"] = round(card.stat().st_blocks * 512 / 1e6, 1)
    offline(home / "cards/pi-2.img")
    note(f"{NAME}: cards", times)


def test_a_blank_card_to_trained_signs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A card boots, trains, loses its power in the middle of a round, and trains to the end of the run."""
    times: dict[str, float] = {}
    processes, card = Processes(home), home / "pi-1.img"
    board = Board(card, home, "ada", home / "ssh")
    with deployed(home, "mosquitto", hosts=f"localhost,{boards.HOST}") as made:
        flash(made, card)
        try:
            with capsys.disabled():
                first_boot(board, made, times)
                times["idle resident memory, MB"] = idle_mb(board)
                serve(processes, made)
                with timed(times, "three rounds, from the coordinator's start on"):
                    wait_until(lambda: closed(processes) >= 3, PATIENCE_S, "three rounds")
                note_memory(board, times)
                with_kernels(board)
                power_cut(board, processes, times)
                as_told(board)
                with timed(times, "switching off"):
                    board.switch_off(PATIENCE_S)
                with timed(times, "power on to a repaired file system"):
                    repaired(board)
                board.switch_off(PATIENCE_S)
            assert re.search(rf"round +{ROUNDS}/{ROUNDS} ", processes.log("coordinator"))
        finally:
            processes.stop()
            board.cut_power()
            note(f"{NAME}: boot", times)
    Ext4(card, system.inspect(card).root.start_bytes).fsck()
    busy = os.getloadavg()[0] > (os.cpu_count() or 1)
    assert busy or times["power on to enrolled, first boot"] <= JOINED_S


def test_a_raspberry_pi_3_trains(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The card in the SD slot of a Pi, with the Pi's device tree, kernel drivers and a network at its USB."""
    times: dict[str, float] = {}
    processes, card = Processes(home), home / "pi-1.img"
    board = Board(card, home, "ada", home / "ssh", pi=True)
    with deployed(home, "mosquitto", hosts=f"localhost,{boards.HOST}") as made:
        flash(made, card)
        try:
            with capsys.disabled():
                first_boot(board, made, times)
                serve(processes, made)
                with timed(times, "three rounds, from the coordinator's start on"):
                    wait_until(lambda: closed(processes) >= 3, PATIENCE_S, "three rounds")
                note_memory(board, times)
                with_kernels(board)
                as_told(board)
                board.switch_off(PATIENCE_S)
        finally:
            processes.stop()
            board.cut_power()
            note(f"{NAME}: in a Raspberry Pi 3", times)
    Ext4(card, system.inspect(card).root.start_bytes).fsck()


def flash(made: Deployed, card: Path) -> None:
    """Make a card for the broker, as large as cards are."""
    there = made.url("coordinator").replace("coordinator@localhost", boards.HOST)
    assert cli.main(["flash", "--build", "pi-1", "--to", str(card), "--broker", there, "--deploy", "deploy"]) == 0
    os.truncate(card, CARD_BYTES)


def serve(processes: Processes, made: Deployed) -> None:
    """Start the coordinator."""
    url = ["--broker", made.url("coordinator"), "--ca", str(made.folder / "ca.crt")]
    processes.serve(CONFIG, *url, password=made.password("coordinator"))


def first_boot(board: Board, made: Deployed, times: dict[str, float]) -> None:
    """With firstrun.sh in it, until the device has enrolled, and its service runs."""
    with timed(times, "power on to enrolled, first boot"):
        board.boot()
        wait_until(lambda: "'pi-1' has enrolled" in made.log, PATIENCE_S, "the device to enrol")
    wait_until(lambda: board.inside("systemctl", "is-active", "hidenseek").strip() == "active", PATIENCE_S, "SSH")
    done = "ActiveState=inactive"
    wait_until(lambda: done in board.inside("systemctl", "show", "hidenseek-grow-root"), PATIENCE_S, "the larger root")


def idle_mb(board: Board) -> float:
    """Memory of a service that has nothing to do; started again, for the first start also compiles the client."""
    board.inside("systemctl", "restart", "hidenseek")
    time.sleep(SETTLED_S)
    wait_until(lambda: resident(board.inside).client > 0, PATIENCE_S, "the service")
    return resident(board.inside).client


def note_memory(board: Board, times: dict[str, float]) -> None:
    """What the service has taken at most, while the process that trains is there."""
    found = resident(board.inside)
    assert found.trainer, "rounds are trained, one after the other"
    times["resident memory at most, process that trains, MB"] = found.trainer
    times["resident memory at most, with its client, MB"] = found.both


def as_told(board: Board) -> None:
    """Name, zone, locale, identity; the partition as large as the card."""
    assert board.inside("cat", "/etc/hostname").strip() == "pi-1"
    assert board.inside("readlink", "/etc/localtime").strip().endswith("zoneinfo/Europe/Berlin")
    assert board.inside("cat", "/etc/default/locale").splitlines()[-1] == "LANG=de_DE.UTF-8"
    assert "de_DE.utf8" in board.inside("locale", "-a").split()
    assert re.fullmatch(r"[0-9a-f]{32}", board.inside("cat", "/etc/machine-id").strip())
    size_kb = int(board.inside("df", "--output=size", "/").split()[-1])
    assert size_kb * 1024 > CARD_BYTES * 0.85
    assert board.inside("systemctl", "--failed", "--plain", "--no-legend").strip() == ""
    assert board.inside("ls", "/opt/hidenseek/setup").strip() == ""


def with_kernels(board: Board) -> None:
    """What trains is a process of its own, of the service's control group, which lives while the run does."""
    own = "/sys/fs/cgroup/system.slice/hidenseek.service/cgroup.procs"
    maps = board.inside("sh", "-c", f"for one in $(cat {own}); do cat /proc/$one/maps; done")
    assert re.search(r"edge_client/kernels/sparse-\S+\.so", maps), maps[-2000:]


def power_cut(board: Board, processes: Processes, times: dict[str, float]) -> None:
    """While a round is open; then the same run to its end."""
    before = closed(processes)
    with timed(times, "power cut in the middle of a round, to the end of the run"):
        board.cut_power()
        began_s = time.monotonic()
        board.boot()
        wait_until(lambda: closed(processes) > before, PATIENCE_S, "a round after the power cut")
        times["power on to the next round's mask"] = round(time.monotonic() - began_s, 1)
        assert processes.wait("coordinator", PATIENCE_S) == 0
    assert "recovering journal" in board.inside("cat", CHECKED)
    times["resident memory at most, second boot, MB"] = resident(board.inside).both


def repaired(board: Board) -> None:
    """A number in its root file system is wrong, and it is marked as the kernel marks one where it met an error."""
    root = system.inspect(board.card).root
    for one in ("set_super_value state 2", "set_inode_field /etc/fstab links_count 7"):
        tools.run("debugfs", "-w", "-R", one, f"{board.card}?offset={root.start_bytes}")
    with pytest.raises(ImageError):
        Ext4(board.card, root.start_bytes).fsck()
    board.boot()
    wait_until(lambda: "check forced" in board.inside("cat", CHECKED), PATIENCE_S, "the check of the root file system")
