"""`hidenseek fleet`: the list, and what revoke, restore and forget leave in the database."""

from __future__ import annotations

from pathlib import Path

import pytest

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
