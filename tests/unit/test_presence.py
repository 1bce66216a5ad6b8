"""A coordinator's presence, with a real database and nobody to answer to."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from coordinator.fleet import Fleet
from coordinator.observer import Observer
from coordinator.outbox import Outbox
from coordinator.presence import Presence
from coordinator.rounds import Appeared
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
