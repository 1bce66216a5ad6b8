"""`hidenseek fleet`: the list, and what revoke, restore and forget leave in the database."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.brokers import accounts, claims
from coordinator.cli import main
from coordinator.store import Store
from tests.helpers import introduce
from wire.signing import fingerprint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A coordinator's state folder that has seen two devices."""
    store = Store(tmp_path / "coordinator.db")
    for name in ("pi-01", "pi-02"):
        store.save_device(name, introduce(name))
    store.close()
    return tmp_path


def run(*arguments: object) -> int:
    """`hidenseek fleet`."""
    return main(["fleet", *map(str, arguments)])


def test_devices_are_listed_with_key_and_standing(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that was revoked before it was ever seen."""
    monkeypatch.setenv("COLUMNS", "120")
    assert run("revoke", "pi-02", "--state", folder) == 0
    assert run("revoke", "pi-99", "--state", folder) == 0
    assert run("list", "--state", folder) == 0
    said = capsys.readouterr().out
    rows = {line.split()[0]: line for line in said.splitlines() if line.startswith("pi-") and "is revoked" not in line}
    assert fingerprint(introduce("pi-01").key) in rows["pi-01"]
    assert rows["pi-01"].rstrip().endswith("yes")
    assert rows["pi-02"].rstrip().endswith("revoked")
    assert rows["pi-99"].split() == ["pi-99", "revoked"]


def test_what_was_done_can_be_undone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Revoked once, restored once; said when nothing changes."""
    for action, expected in (
        ("restore", "pi-01 was not revoked"),
        ("revoke", "pi-01 is revoked"),
        ("revoke", "pi-01 was revoked before"),
        ("restore", "pi-01 may take part again"),
    ):
        assert run(action, "pi-01", "--state", folder) == 0
        assert capsys.readouterr().out.strip() == expected
    store = Store(folder / "coordinator.db")
    assert store.revoked() == frozenset()
    store.close()


def test_a_forgotten_device_may_come_with_another_key(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its row is gone; one that was never seen is said to be so."""
    assert run("forget", "pi-01", "--state", folder) == 0
    assert run("forget", "pi-77", "--state", folder) == 0
    assert capsys.readouterr().out.splitlines() == ["pi-01 is forgotten", "pi-77 was never seen"]
    store = Store(folder / "coordinator.db")
    assert list(store.devices()) == ["pi-02"]
    assert store.knows("pi-02")
    assert not store.knows("pi-01")
    store.close()


def test_a_wrong_folder_or_name_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a database, without devices.yaml, and with an id that is none."""
    monkeypatch.chdir(tmp_path)
    assert run("list", "--state", tmp_path) == 11
    assert "no coordinator.db in this folder" in capsys.readouterr().err
    assert run("list") == 10
    assert "--state DIR" in capsys.readouterr().err
    (tmp_path / "devices.yaml").write_text("federation: {name: here}\n")
    assert run("list") == 11
    assert "hidenseek-here" in capsys.readouterr().err
    assert run("revoke", "../pi") == 10


def test_rounds_are_paused_and_resumed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Once each; said when nothing changes."""
    for action, expected, paused in (
        ("resume", "was not paused", False),
        ("pause", "paused: no round opens until it is resumed", True),
        ("pause", "was paused before", True),
        ("resume", "resumed: the next round opens when enough devices are there", False),
    ):
        assert run(action, "--state", folder) == 0
        assert capsys.readouterr().out.strip() == expected
        store = Store(folder / "coordinator.db")
        assert store.paused() == paused
        store.close()


CONFIG = """\
# who there is
federation: {name: t}
devices:
  pi-01: {profile: pi-4-4gb}   # in the hall
  "pi-02": {}
"""


def test_a_device_is_renamed_wherever_it_is_known(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """File, database with its rounds, deployment with its password; all else stays as it was, comments among it."""
    config, deploy = folder / "devices.yaml", folder / "deploy"
    config.write_text(CONFIG)
    where = ["--config", config, "--deploy", deploy, "--state", folder]
    init = ["broker", "init", "--kind", "mosquitto", "--hosts", "localhost", "-o", deploy, "--devices", config]
    assert main(list(map(str, init))) == 0
    store = Store(folder / "coordinator.db")
    store.start_run(run=bytes(8), name="t", ticket=b"", settings="", bundle_bytes=0)
    store.open_round(bytes(8), 1, ("pi-01", "pi-02"), b"")
    store.revoke("pi-02")
    store.close()
    before = accounts.load(deploy)
    with claims.changing(deploy) as known:
        known.cards["pi-02"] = claims.Card(made_s=0.0)

    assert run("rename", "pi-01", "hall", *where) == 0
    assert run("rename", "pi-02", "kitchen", *where) == 0
    said = capsys.readouterr().out
    assert f"'pi-01' is 'hall' in {config}, {folder}, {deploy}" in said
    assert '"device": "hall"' in said
    assert "hidenseek flash kitchen" in said
    assert config.read_text() == CONFIG.replace("pi-01", "hall").replace("pi-02", "kitchen")
    after = accounts.load(deploy)
    assert (after["hall"], after["kitchen"]) == (before["pi-01"], before["pi-02"])
    assert not {"pi-01", "pi-02"} & after.keys()
    assert "\nhall:" in (deploy / "nodes/broker/config/passwd").read_text()
    assert list(claims.load(deploy).cards) == ["kitchen"]
    store = Store(folder / "coordinator.db")
    assert list(store.devices()) == ["hall", "kitchen"]
    assert store.revoked() == {"kitchen"}
    (first,) = store.rounds(bytes(8))
    assert first.selected == ("hall", "kitchen")
    store.close()


def test_a_rename_that_was_interrupted_is_finished_by_the_same_command(folder: Path) -> None:
    """The database had been changed, the file not yet."""
    config = folder / "devices.yaml"
    config.write_text(CONFIG)
    where = ["--config", config, "--deploy", folder / "none", "--state", folder]
    store = Store(folder / "coordinator.db")
    store.rename_device("pi-01", "hall")
    store.close()
    assert run("rename", "pi-01", "hall", *where) == 0
    assert "  hall: {profile" in config.read_text()


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ("pi-01", "pi-02", 10, "is another device"),
        ("pi-01", "a b", 10, "is not 1 to 64"),
        ("pi-03", "hall", 12, "Did you mean"),
        ("pi-01", "enroller", 10, "is the broker's own account"),
    ],
)
def test_what_cannot_be_renamed_stays(
    folder: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, code: int, words: str
) -> None:
    """And is said before anything is changed."""
    config, deploy = folder / "devices.yaml", folder / "deploy"
    config.write_text(CONFIG)
    init = ["broker", "init", "--kind", "mosquitto", "--hosts", "localhost", "-o", deploy, "--devices", config]
    assert main(list(map(str, init))) == 0
    assert run("rename", old, new, "--config", config, "--deploy", deploy, "--state", folder) == code
    assert words in capsys.readouterr().err
    assert config.read_text() == CONFIG
    assert "pi-01" in accounts.load(deploy)
    store = Store(folder / "coordinator.db")
    assert store.knows("pi-01")
    store.close()


def test_nobody_is_renamed_who_takes_part_in_secure_aggregation_now(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was said there has names in it."""
    store = Store(folder / "coordinator.db")
    store.start_run(run=bytes(8), name="t", ticket=b"", settings="", bundle_bytes=0)
    store.open_round(bytes(8), 1, ("pi-01",), b"")
    store.add_to_exchange(bytes(8), 1, 1, "pi-01", b"", b"", 1)
    store.close()
    assert run("rename", "pi-01", "hall", "--config", folder / "none", "--state", folder) == 25
    assert "round 1, which is open" in capsys.readouterr().err
