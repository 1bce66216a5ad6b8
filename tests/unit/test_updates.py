"""Updates of the client: who is meant, what is fetched, what is kept, and what is taken back. No other process here."""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from coordinator import cli, client_update, offers
from coordinator.client_update import Offer
from edge_client import fetching, releases, trial, updates
from edge_client.data import DeviceData
from edge_client.kernels import library
from edge_client.releases import Record, Releases
from edge_client.runtimes.sparse import SparseRuntime
from edge_client.trainer import log_prior
from edge_client.updates import Updater
from tests.helpers import DEVICE_KEY, pooled_plan, random_ticket
from wire import __version__, signing
from wire import update as rules
from wire.bundle import Bundle
from wire.channel import Channel, Received
from wire.errors import DataError, StateError, WireError
from wire.settings import Training
from wire.topics import Topics
from wire.transport import MemoryBus
from wire.update import PART_BYTES, FilePart, Update

TOPICS = Topics("t")
KEY = bytes(range(32))
WHEEL = os.urandom(2 * PART_BYTES + 100)
DIGEST = sha256(WHEEL).digest()
UPDATE = Update(
    version="9.0", issued=1000, wheels={"cray": DIGEST}, sizes=(len(WHEEL),), share=10_000, seed=bytes(range(16))
)
PARTS = [
    FilePart(file=DIGEST, number=number, data=WHEEL[number * PART_BYTES : (number + 1) * PART_BYTES])
    for number in range(3)
]


def updater(folder: Path, bus: MemoryBus | None = None) -> Updater:
    """Of a device that is a Cray."""
    channel = Channel((bus or MemoryBus()).connect(), DEVICE_KEY, trust=lambda topic, message: signing.public_key(KEY))
    return Updater("pi-1", Releases(folder, {}), channel, TOPICS, "cray")


def put_in_use(folder: Path, slot: str, **record: object) -> None:
    """A client in a slot, with what would be written down of it."""
    known = Record(installed=__version__, versions={slot: "9.0"}, wheels={slot: DIGEST.hex()})
    (folder / releases.FOLDER / slot).mkdir(parents=True)
    (folder / releases.FOLDER / releases.CURRENT).symlink_to(slot)
    (folder / releases.FOLDER / releases.RECORD).write_text(json.dumps({**vars(known), **record}))


def in_use(folder: Path) -> str:
    """The slot, or ""."""
    link = folder / releases.FOLDER / releases.CURRENT
    return str(link.readlink()) if link.is_symlink() else ""


def test_versions_compare_as_numbers() -> None:
    """And nothing else is a version."""
    assert rules.version_of("0.10.0") > rules.version_of("0.9")
    assert rules.version_of("1.0") == rules.version_of("1")
    for text in ("", "1.", "1.0rc1", "v1", "1.0.0.0.0", "9999999", "１"):
        with pytest.raises(WireError):
            rules.version_of(text)
    assert rules.is_wanted(UPDATE, "8.9.9")
    assert not rules.is_wanted(UPDATE, "9")
    assert not rules.is_wanted(UPDATE, "10.0")
    assert rules.is_wanted(replace(UPDATE, downgrade=True), "10.0")
    assert not rules.is_wanted(replace(UPDATE, downgrade=True), "9.0.0")


def test_a_share_of_the_devices_is_meant_and_stays_meant() -> None:
    """About as many as are said; all of a smaller share are in a larger one; another version means others."""
    names = [f"pi-{number}" for number in range(2000)]
    meant = [
        {name for name in names if rules.is_meant(replace(UPDATE, share=share), name)} for share in (0, 1000, 5000)
    ]
    assert not meant[0]
    assert meant[1] < meant[2]
    assert 130 < len(meant[1]) < 270
    assert all(rules.is_meant(UPDATE, name) for name in names)
    others = {name for name in names if rules.is_meant(replace(UPDATE, share=1000, seed=bytes(16)), name)}
    assert len(others & meant[1]) < 60


def test_parts_are_fetched_in_order_and_again_after_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the next part is taken; another process goes on with it; a wheel that is complete is installed."""
    installed: list[bytes] = []
    monkeypatch.setattr(Releases, "install", lambda self, path, digest, version: installed.append(path.read_bytes()))
    monkeypatch.setattr(fetching, "PAUSE_S", 0.0)
    first = updater(tmp_path)
    first.hear(PARTS[0])  # nothing was announced
    first.hear(UPDATE)
    for part in (PARTS[1], replace(PARTS[0], file=bytes(32)), replace(PARTS[0], data=b"short"), PARTS[0]):
        first.hear(part)
    (kept,) = (tmp_path / releases.FOLDER).glob("*.wheel")
    assert kept.read_bytes() == PARTS[0].data
    with kept.open("ab") as file:
        file.write(b"half of a part")

    bus = MemoryBus()
    second = updater(tmp_path, bus)
    second.hear(UPDATE)
    second.tick()
    assert bus.clients[0].patterns == [f"{TOPICS.file_part(DIGEST, 1)}/#"]
    second.hear(PARTS[1])
    second.tick()
    second.hear(PARTS[2])
    assert installed == [WHEEL]
    assert second.restart
    assert not list((tmp_path / releases.FOLDER).glob("*.wheel"))


def test_what_is_not_for_this_device_is_not_fetched(tmp_path: Path) -> None:
    """Another machine, nobody's share, the version that runs; an older announcement is an error."""
    one = updater(tmp_path)
    for said in (
        replace(UPDATE, wheels={"pdp-11": DIGEST}),
        replace(UPDATE, share=0),
        replace(UPDATE, version=__version__),
        replace(UPDATE, version="0.0.1"),
    ):
        one.hear(said)
        one.hear(PARTS[0])
        assert not list(tmp_path.rglob("*.wheel"))
    with pytest.raises(WireError, match="older than the last"):
        one.hear(replace(UPDATE, issued=999))
    with pytest.raises(WireError, match="is no version"):
        one.hear(replace(UPDATE, version="new"))
    with pytest.raises(WireError, match="a file of"):
        one.hear(replace(UPDATE, sizes=(rules.MAX_FILE_BYTES + 1,)))
    with pytest.raises(WireError, match="a file of None bytes"):
        one.hear(replace(UPDATE, sizes=()))
    with pytest.raises(WireError):
        updater(tmp_path).hear(replace(UPDATE, issued=999))


def test_an_update_that_is_stopped_stops(tmp_path: Path) -> None:
    """Parts that come later are not kept."""
    one = updater(tmp_path)
    one.hear(UPDATE)
    one.hear(PARTS[0])
    one.hear(replace(UPDATE, issued=1001, share=0))
    one.hear(PARTS[1])
    (kept,) = tmp_path.rglob("*.wheel")
    assert kept.stat().st_size == PART_BYTES


def test_a_wheel_with_another_hash_is_given_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And nothing of it stays."""
    one = updater(tmp_path)
    one.hear(replace(UPDATE, wheels={"cray": bytes(32)}))
    for part in PARTS:
        one.hear(replace(part, file=bytes(32)))
    assert "its SHA-256 is not the announced one" in caplog.text
    assert not one.restart
    assert not list(tmp_path.rglob("*.wheel"))


@pytest.mark.parametrize("names", [["edge_client/../../evil"], ["other/x"]])
def test_a_wheel_that_does_not_start_is_not_used_and_not_tried_again(tmp_path: Path, names: list[str]) -> None:
    """What is in use stays; the wheel counts as failed for a day, or if the clock was wrong."""
    wheel = tmp_path / "x.wheel"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    one = Releases(tmp_path, {})
    with pytest.raises(StateError, match="outside of it" if ".." in names[0] else "does not start here"):
        one.install(wheel, DIGEST, "9.0")
    assert in_use(tmp_path) == ""
    assert Releases(tmp_path, {}).has_failed(DIGEST)
    assert Releases(tmp_path, {}).note == "9.0 failed"
    assert not list(tmp_path.rglob("evil"))
    one.record.failed = {DIGEST.hex(): 1e12}
    assert not one.has_failed(DIGEST)


def handed(folder: Path, slot: str) -> Releases:
    """As the client in a slot sees it."""
    there = {"slot": str(folder / releases.FOLDER / slot), "argv": [], "path": [], "installed": __version__}
    return Releases(folder, {releases.VARIABLE: json.dumps(there)})


def test_a_client_on_trial_stays_when_it_works(tmp_path: Path) -> None:
    """And is no longer on trial after that."""
    put_in_use(tmp_path, "a", trial="a", starts=1)
    one = updater(tmp_path)
    one._releases = handed(tmp_path, "a")
    one.tick()
    assert one.on_trial
    assert one.note == "on trial"
    one.keep()
    assert one.note == ""
    assert not handed(tmp_path, "a").on_trial
    assert in_use(tmp_path) == "a"


@pytest.mark.skipif(library.library_path() is None, reason="kernels not built")
def test_a_client_works_if_it_trains_a_step_in_the_memory_that_it_may_take() -> None:
    """On its own samples, with the settings of the federation; a loss that is none, or too much memory, fails it."""
    ticket = random_ticket(pooled_plan("har-cnn", 32, 3), 0.2, seed=1)
    training = Training(batch=4)
    x = np.random.default_rng(1).normal(size=(9, *ticket.plan.input_shape)).astype(np.float32)
    y = np.arange(9) % 3
    data = DeviceData(x_train=x, y_train=y, x_test=x, y_test=y, source="")
    runtime = SparseRuntime(Bundle(runtime="sparse", ticket=ticket), training)
    before = runtime.scores()
    trial.step(runtime, data, log_prior(y, 3), training)
    assert (runtime.scores() != before).any()
    with pytest.raises(StateError, match="loss of its first training step is nan"):
        trial.step(runtime, data, np.full(3, np.nan, dtype=np.float32), training)
    trial.check_memory(None)
    trial.check_memory(100_000)
    with pytest.raises(StateError, match=r"it took \d+\.\d MB to train, and the device's budget is 1.5 MB"):
        trial.check_memory(1.5)


@pytest.mark.parametrize("previous", ["", "b"])
def test_a_client_that_does_not_join_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, previous: str
) -> None:
    """It does that itself, after ten minutes; what was before it is in use again."""
    put_in_use(tmp_path, "a", trial="a", previous=previous)
    (tmp_path / releases.FOLDER / "b").mkdir()
    monkeypatch.setattr(updates, "WORK_WITHIN_S", 0.0)
    one = updater(tmp_path)
    one._releases = handed(tmp_path, "a")
    one._began_s -= 1
    one.tick()
    assert one.restart
    assert in_use(tmp_path) == previous
    assert Releases(tmp_path, {}).has_failed(DIGEST)


def test_the_installed_client_hands_over_three_times_to_one_that_does_not_join(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fourth time it runs itself."""
    ran: list[str] = []

    def execve(path: str, argv: list[str], environment: dict[str, str]) -> None:
        ran.append(json.loads(environment[releases.VARIABLE])["slot"])

    monkeypatch.setattr(os, "execve", execve)
    put_in_use(tmp_path, "a", trial="a")
    for _ in range(4):
        Releases(tmp_path, {}).hand_over()
    assert ran == [str(tmp_path / releases.FOLDER / "a")] * 3
    assert in_use(tmp_path) == ""


def test_a_newer_installed_client_counts_before_what_was_updated_beside_an_older_one(tmp_path: Path) -> None:
    """Somebody has flashed the card again, or used pip."""
    put_in_use(tmp_path, "a", installed="0.0.1")
    Releases(tmp_path, {}).hand_over()
    assert in_use(tmp_path) == ""


@pytest.mark.parametrize("text", ["{", "[]", '{"trial": 1}', "null"])
def test_a_damaged_record_means_the_installed_client(tmp_path: Path, text: str) -> None:
    """It can be updated again; fields of newer clients are no damage."""
    put_in_use(tmp_path, "a")
    record = tmp_path / releases.FOLDER / releases.RECORD
    record.write_text(json.dumps({**json.loads(record.read_text()), "new": 1}))
    assert Releases(tmp_path, {}).record.versions == {"a": "9.0"}
    record.write_text(text)
    assert Releases(tmp_path, {}).record == Record()
    assert in_use(tmp_path) == ""


def test_what_is_published_is_what_devices_take(tmp_path: Path) -> None:
    """Retained parts first; those of the version before go; the same version has the same seed."""
    bus, state = MemoryBus(), tmp_path / "state"
    channel = Channel(bus.connect(), KEY)
    shown: list[tuple[int, int]] = []
    for version, wheel in (("8.0", WHEEL[:10]), ("9.0", WHEEL)):
        offer = Offer(version=version, wheels={"cray": wheel})
        said = client_update.announcement(offer, key=KEY, percent=12.5, downgrade=False)
        offers.publish(channel, TOPICS, state, offer.wheels, said, lambda done, total: shown.append((done, total)))
    assert shown[-1] == (len(WHEEL), len(WHEEL))
    assert said.share == 1250
    assert said.seed == client_update.announcement(offer, key=KEY, percent=100, downgrade=False).seed
    assert bus.retained[TOPICS.file_part(sha256(WHEEL[:10]).digest(), 0)] == b""
    device = Channel(bus.connect(), DEVICE_KEY, trust=lambda topic, message: signing.public_key(KEY))
    device.subscribe(TOPICS.update)
    for number in range(3):
        device.subscribe(TOPICS.file_part(DIGEST, number))
    heard = [one.message for one in (device.receive(0) for _ in range(5)) if isinstance(one, Received)]
    assert heard == [said, *PARTS]


def wheel_file(folder: Path, name: str, *members: str) -> Path:
    """A wheel with such files in it."""
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / name, "w") as archive:
        for member in members or ("edge_client/selfcheck.py",):
            archive.writestr(member, "")
    return folder / name


def test_the_newest_wheels_of_all_machines_are_offered(tmp_path: Path) -> None:
    """Or those of a version that is named; others are said to be missing."""
    for version in ("0.9.0", "0.10.0"):
        for machine in ("aarch64", "x86_64"):
            wheel_file(tmp_path, f"hidenseek-{version}-py3-none-manylinux_2_17_{machine}.whl")
    assert client_update.find([tmp_path], None).version == "0.10.0"
    assert list(client_update.find([tmp_path], "0.9.0").wheels) == ["aarch64", "x86_64"]
    with pytest.raises(DataError, match=r"no wheel of hidenseek 0\.8, only of 0\.10\.0, 0\.9\.0"):
        client_update.find([tmp_path], "0.8")
    with pytest.raises(DataError, match="no wheel of hidenseek for Linux"):
        client_update.find([tmp_path / "none"], None)
    wheel_file(tmp_path, "hidenseek-0.10.0-py3-none-manylinux_2_34_x86_64.whl")
    with pytest.raises(DataError, match="a second wheel"):
        client_update.find([tmp_path], None)
    wheel_file(tmp_path, "hidenseek-0.11.0-py3-none-linux_aarch64.whl", "wire/__init__.py")
    with pytest.raises(DataError, match="too old"):
        client_update.find([tmp_path], None)
    (tmp_path / "hidenseek-0.12.0-py3-none-linux_aarch64.whl").write_bytes(b"PK")
    with pytest.raises(DataError, match="damaged"):
        client_update.find([tmp_path], None)


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--percent", "101"], 10, "0 to 100 expected"),
        (["--percent", "nan"], 10, "0 to 100 expected"),
        (["--config", "none.yaml"], 10, "no such file"),
        (["--wheels", "none"], 11, "make wheels"),
        ([], 15, "no broker at"),
    ],
)
def test_what_is_wrong_is_said_before_the_broker_is_asked(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    code: int,
    words: str,
) -> None:
    """One line, and its exit code."""
    monkeypatch.chdir(tmp_path)
    Path("devices.yaml").write_text("federation: {name: t}\n")
    wheel_file(Path("dist"), "hidenseek-0.10.0-py3-none-manylinux_2_17_aarch64.whl")
    command = ["fleet", "update", "--broker", "mqtt://127.0.0.1:1", "--connect-timeout", "0.2", *more]
    assert cli.main(command) == code
    assert words in capsys.readouterr().err
