"""Who may join, and which of two processes with one id may stay."""

from __future__ import annotations

import pytest

from coordinator.fleet import Fleet
from tests.helpers import DEVICE_KEY
from tests.helpers import introduce as hello
from wire.errors import WireError
from wire.federation_messages import State, Welcome
from wire.signing import public_key


def fleet(*allowed: str) -> Fleet:
    """A fleet with bundles for onnx."""
    return Fleet(allowed=frozenset(allowed), runtimes=frozenset({"onnx"}))


def test_anyone_may_join_an_open_fleet() -> None:
    """With no list, every id is welcome and online."""
    one = fleet()
    assert one.hello("pi", hello("a")) == Welcome(instance=hello("a").instance)
    assert one.online == {"pi"}


def test_unlisted_device_is_refused() -> None:
    """With a list, others are told that they are not on it."""
    (refusal,) = fleet("pi-01").hello("pi-02", hello("a"))  # type: ignore[misc]
    assert refusal.code == "unknown-device"
    assert "pi-02" in refusal.reason


def test_runtime_without_bundle_is_refused() -> None:
    """A device is told which runtimes there are."""
    (refusal,) = fleet().hello("pi", hello("a", runtime="executorch"))  # type: ignore[misc]
    assert refusal.code == "runtime"
    assert "onnx" in refusal.reason


def test_restarted_device_replaces_its_old_process() -> None:
    """A new instance is welcome, and the old one's last will no longer counts."""
    one = fleet()
    one.hello("pi", hello("old"))
    assert isinstance(one.hello("pi", hello("new")), Welcome)
    assert one.state("pi", State(instance=hello("old").instance, online=False)) is None
    assert one.online == {"pi"}


def test_of_two_living_processes_the_newer_is_refused() -> None:
    """The older one proves it lives by saying hello again; then the newer must go, however often it returns."""
    one = fleet()
    one.hello("pi", hello("old"))
    one.hello("pi", hello("new"))
    (refusal,) = one.hello("pi", hello("old", greetings=2))  # type: ignore[misc]
    assert (refusal.code, refusal.instance) == ("duplicate", hello("new").instance)
    (refusal,) = one.hello("pi", hello("new", greetings=2))  # type: ignore[misc]
    assert (refusal.code, refusal.instance) == ("duplicate", hello("new").instance)
    assert isinstance(one.hello("pi", hello("old", greetings=3)), Welcome)
    assert one.members["pi"].hello.instance == hello("old").instance


def test_state_reports_changes_only() -> None:
    """Offline once, online once; repetitions and strangers are None."""
    one = fleet()
    one.hello("pi", hello("a"))
    here, gone = (State(instance=hello("a").instance, online=online) for online in (True, False))
    assert one.state("pi", here) is None
    assert one.state("pi", gone) is False
    assert one.state("pi", gone) is None
    assert one.online == set()
    assert one.state("pi", here) is True
    assert one.state("stranger", here) is None


def test_an_old_state_changes_nothing() -> None:
    """Of a device that counts its connections: a late last will, and what a broker says again."""
    one = fleet()
    instance = hello("a").instance

    def said(connection: int, *, online: bool) -> bool | None:
        return one.state("pi", State(instance=instance, online=online, connection=connection))

    one.hello("pi", hello("a", connection=1))
    assert said(1, online=True) is None, "known from its hello"
    assert said(1, online=False) is False
    assert said(1, online=True) is None, "it was said before the connection ended"
    one.hello("pi", hello("a", greetings=2, connection=3))
    for connection in (0, 1, 2):  # the will of a connection that broke before the broker had noticed
        assert said(connection, online=False) is None
    assert one.online == {"pi"}
    assert said(3, online=False) is False
    assert said(4, online=True) is True, "before its hello, which takes another topic"
    assert said(3, online=False) is None
    assert one.online == {"pi"}


def test_a_restarted_coordinator_believes_what_is_retained() -> None:
    """It knows a device's newest connection, and not whether that still stands."""
    for online in (True, False):
        one = fleet()
        one.remember("pi", hello("a", connection=2))
        assert one.state("pi", State(instance=hello("a").instance, online=False, connection=1)) is None
        changed = one.state("pi", State(instance=hello("a").instance, online=online, connection=2))
        assert changed is (True if online else None)
        assert bool(one.online) is online


def test_an_id_belongs_to_the_key_that_had_it_first() -> None:
    """Or to the one that devices.yaml names; another is told which is known and what to do."""
    one = fleet()
    one.hello("pi", hello("a"))
    (refusal,) = one.hello("pi", hello("b", key=bytes([1] * 32)))  # type: ignore[misc]
    assert refusal.code == "key"
    assert "hidenseek fleet forget pi" in refusal.reason
    assert one.members["pi"].hello.instance == hello("a").instance
    listed = Fleet(allowed=frozenset(), runtimes=frozenset({"onnx"}), keys={"pi": public_key(bytes([1] * 32))})
    (refusal,) = listed.hello("pi", hello("a"))  # type: ignore[misc]
    assert refusal.code == "key"
    assert isinstance(listed.hello("pi", hello("b", key=bytes([1] * 32))), Welcome)


def test_who_has_enrolled_is_known_by_that_key_alone() -> None:
    """It needs no hello for that; who was known by another key is out; what devices.yaml says counts first."""
    other, told = bytes([1] * 32), bytes([2] * 32)
    own = public_key(DEVICE_KEY)
    one = Fleet(allowed=frozenset(), runtimes=frozenset({"onnx"}), keys={"pi-3": public_key(told)})
    one.hello("pi-1", hello("a", key=other))
    one.hello("pi-2", hello("b"))
    enrolled = {"pi-1": own, "pi-2": own, "pi-3": own}
    assert one.enrol(enrolled) == ["pi-1"]
    assert one.online == {"pi-2"}
    (refusal,) = one.hello("pi-1", hello("a", key=other))  # type: ignore[misc]
    assert refusal.code == "key"
    assert "hidenseek flash pi-1" in refusal.reason
    assert isinstance(one.hello("pi-1", hello("c")), Welcome)
    (refusal,) = one.hello("pi-3", hello("d"))  # type: ignore[misc]
    assert "devices.yaml" in refusal.reason
    assert one.enrol(enrolled) == []


def test_a_repeated_hello_is_nobody_s() -> None:
    """The same one again, an older one of the same process, and one of an earlier start are refused without effect."""
    one = fleet()
    one.hello("pi", hello("old", started=1))
    one.hello("pi", hello("new", started=2, greetings=5))
    for again in (hello("new", started=2, greetings=5), hello("new", started=2, greetings=4)):
        with pytest.raises(WireError, match="before"):
            one.hello("pi", again)
    with pytest.raises(WireError, match="before"):
        one.hello("pi", hello("old", started=1))  # as it was said then
    after_restart = fleet()
    after_restart.hello("pi", hello("new", started=2))
    (refusal,) = after_restart.hello("pi", hello("older", started=1))  # type: ignore[misc]
    assert (refusal.code, refusal.instance) == ("restored", hello("older").instance), "it may be a card from a backup"
    assert "hidenseek fleet forget pi" in refusal.reason
    assert after_restart.members["pi"].hello.instance == hello("new").instance


def test_a_revoked_device_is_refused_and_not_believed() -> None:
    """Nor is it among those that can be selected; restored, it is."""
    one = fleet()
    one.hello("pi", hello("a"))
    assert one.revoke({"pi"}) == ["pi"]
    assert one.revoke({"pi"}) == []
    assert one.online == set()
    (refusal,) = one.hello("pi", hello("b", started=2))  # type: ignore[misc]
    assert refusal.code == "revoked"
    with pytest.raises(WireError, match="no more"):
        one.key("pi", State(instance=bytes(8), online=True))
    one.revoke(())
    assert isinstance(one.hello("pi", hello("b", started=2)), Welcome)
    assert one.online == {"pi"}


def test_what_a_stranger_says_is_not_believed() -> None:
    """Only its hello, which brings the key it is signed with."""
    one, said = fleet(), hello("a")
    assert one.key("pi", said) == said.key
    with pytest.raises(WireError, match="has not said hello"):
        one.key("pi", State(instance=bytes(8), online=True))
    one.hello("pi", said)
    assert one.key("pi", State(instance=bytes(8), online=True)) == said.key
