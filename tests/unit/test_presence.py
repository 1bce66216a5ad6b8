"""A coordinator's presence, with a real database and nobody to answer to."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from coordinator.fleet import Fleet
from coordinator.observer import Observer
from coordinator.outbox import Outbox
from coordinator.presence import Presence
from coordinator.rounds import Appeared, Vanished
from coordinator.store import Store
from tests.helpers import introduce
from wire.topics import Topics


def test_a_device_restored_a_moment_ago_is_let_in(tmp_path: Path) -> None:
    """The database is asked for revocations once a second; a refusal would end the device's program for good."""
    said: list[Any] = []
    channel = SimpleNamespace(pack=lambda topic, message: said.append(message) or [])
    store = Store(tmp_path / "coordinator.db")
    store.revoke("pi-07")
    fleet = Fleet(frozenset(), frozenset({"onnx"}))
    presence = Presence(fleet, Outbox(cast(Any, channel), store), Topics("site"), Observer())
    assert presence.hello("pi-07", introduce("one")) is None
    assert said.pop().code == "revoked"
    store.restore("pi-07")
    assert presence.hello("pi-07", introduce("two")) == Appeared(device="pi-07")
    store.close()


def test_who_enrols_with_another_key_shuts_out_who_had_the_id(tmp_path: Path) -> None:
    """Also between two looks, and however it is noticed; the rounds are told that the first one has gone."""
    channel = SimpleNamespace(pack=lambda topic, message: [])
    store = Store(tmp_path / "coordinator.db")
    keys: dict[str, bytes] = {}
    fleet = Fleet(frozenset(), frozenset({"onnx"}))
    presence = Presence(fleet, Outbox(cast(Any, channel), store), Topics("site"), Observer(), lambda: dict(keys))
    stranger = introduce("thief", key=bytes([1] * 32))
    for device in ("pi-01", "pi-02"):
        assert presence.hello(device, stranger) == Appeared(device=device)
    keys |= {"pi-01": introduce("own").key, "pi-02": introduce("own").key}
    assert presence.hello("pi-01", introduce("own")) == Appeared(device="pi-01")
    assert presence.hello("pi-02", stranger) is None
    assert list(presence.heed_changes(100.0)) == [Vanished(device="pi-02")]
    assert fleet.online == {"pi-01"}
    store.close()
