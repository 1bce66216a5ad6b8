"""When a device asks for its next certificate: what its file says, its clock, and never in a loop."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_client import card, data, files, renewal
from edge_client.agent import Device
from edge_client.client import Client
from edge_client.store import Store, certificate_name
from edge_client.workshop import Workshop
from tests.helpers import introduce
from tests.integration.fleet import write_person
from wire import pkcs10, signing
from wire.channel import Channel
from wire.topics import Topics
from wire.transport import MemoryBus

RENEW_S, DAY_S = 1_800_000_000, renewal.DAY_S


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """One that was got a year before it is to be renewed."""
    path = tmp_path / certificate_name("pi-01")
    path.write_bytes(pkcs10.pem(signing.new_key(), b"certificate", RENEW_S))
    os.utime(path, (RENEW_S - 365 * DAY_S,) * 2)
    return path


def test_it_is_time_when_the_file_says_so(certificate: Path) -> None:
    """Not for a clock that was never set; not again on the day of the last one, if a clock is ahead."""
    assert not renewal.is_due(certificate, 0)
    assert not renewal.is_due(certificate, RENEW_S - 1)
    assert renewal.is_due(certificate, RENEW_S)
    os.utime(certificate, (RENEW_S + 5 * DAY_S,) * 2)
    assert not renewal.is_due(certificate, RENEW_S + 5.5 * DAY_S)
    assert renewal.is_due(certificate, RENEW_S + 6 * DAY_S)
    assert renewal.is_due(certificate, RENEW_S + 1 * DAY_S), "got by a clock that was ahead"


@pytest.mark.parametrize("data", [b"", b"-----BEGIN CERTIFICATE-----\n", b"\xff" * 200, b"# renew after never\n"])
def test_of_others_nothing_is_known(tmp_path: Path, data: bytes) -> None:
    """A certificate that a person named with --cert, or a damaged one."""
    (tmp_path / "c.pem").write_bytes(data)
    assert not renewal.is_due(tmp_path / "c.pem", 1e12)
    assert not renewal.is_due(tmp_path / "none.pem", 1e12)


def test_a_device_at_work_leaves_once_it_is_time(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day after its start at the earliest, and it stays so until it is gone; without a certificate never."""
    now_s = {"monotonic": 0.0, "time": RENEW_S - 10.0}
    monkeypatch.setattr(renewal, "monotonic_s", lambda: now_s["monotonic"])
    monkeypatch.setattr("time.time", lambda: now_s["time"])
    leave, never = renewal.watch(certificate), renewal.watch(None)
    for passed_s, out in ((0, False), (DAY_S / 2, False), (DAY_S / 2, True), (1, True)):
        now_s = {"monotonic": now_s["monotonic"] + passed_s, "time": now_s["time"] + passed_s}
        assert (leave(), never()) == (out, False)


def test_a_client_that_leaves_ends_without_an_error(tmp_path: Path) -> None:
    """Its service starts it again, and then asks; until it is time it stays."""
    bus, answers = MemoryBus(), iter([False, False, True])
    store, samples = Store(tmp_path / "state"), data.load(write_person(tmp_path / "data", seed=1))
    Client(
        device=Device(name="pi-01", hello=introduce("pi-01", "onnx", store.key(), started=1), stay=True),
        channel=Channel(bus.connect(), store.key()),
        topics=Topics("t"),
        store=store,
        work=Workshop(device="pi-01", load=lambda: samples),
        leave=lambda: next(answers),
    ).run()
    assert list(answers) == []
    assert bus.clients == []
    store.close()


def test_key_and_certificate_are_replaced_together_or_not_at_all(tmp_path: Path) -> None:
    """One that OpenSSL does not take leaves what there was; that of an earlier name goes."""
    store = Store(tmp_path)

    def refuse(path: Path) -> None:
        assert path.read_bytes() == b"bad"
        raise OSError("KEY_VALUES_MISMATCH")

    store.keep_certificate("pi-01", b"one", lambda path: None)
    with pytest.raises(Exception, match="cannot be written"):
        store.keep_certificate("pi-01", b"bad", refuse)
    path = tmp_path / certificate_name("pi-01")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"one", 0o600)
    assert not list(tmp_path.glob("*.part"))
    store.keep_certificate("hall", b"two", lambda path: None)
    assert [one.name for one in tmp_path.glob("*.pem")] == [certificate_name("hall")]
    store.close()


def test_who_has_a_certificate_shows_it_and_no_password(tmp_path: Path) -> None:
    """At the address for that; whoever was given a password uses that as ever."""
    settings: dict[str, str | float] = {
        "device": "pi-01", "federation": "har", "broker": "mqtts://a:1", "certificates": "mqtts://a:2", "data": "/d",
        "ca": "/ca", "trust": "", "profile": "", "threads": 1, "peak_mb": 0,
    }  # fmt: skip
    files.replace(tmp_path / "broker.password", b"secret\n")
    before = card.join_options(settings, tmp_path)
    assert before[before.index("--broker") + 1] == "mqtts://pi-01@a:1"
    assert "--cert" not in before
    path = tmp_path / certificate_name("pi-01")
    files.replace(path, b"")
    after = card.join_options(settings, tmp_path)
    assert after[after.index("--broker") + 1] == "mqtts://a:2"
    assert after[after.index("--cert") + 1] == str(path)
    assert "--password-file" not in after
    assert "--discover" in after
    assert card.join_options(settings | {"certificates": ""}, tmp_path) == before
    assert card.password_of(tmp_path) == "secret"
