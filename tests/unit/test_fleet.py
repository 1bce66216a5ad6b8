"""Who may join, and which of two processes with one id may stay."""

from __future__ import annotations

from coordinator.fleet import Fleet
from wire.messages import Hello, State, Welcome


def hello(instance: str, runtime: str = "onnx") -> Hello:
    """An introduction by a process of this name."""
    return Hello(
        instance=instance.encode().ljust(8), software="t", runtime=runtime, profile="", train_samples=1, test_samples=1
    )


def fleet(*allowed: str) -> Fleet:
    """A fleet with bundles for onnx."""
    return Fleet(allowed=frozenset(allowed), runtimes=frozenset({"onnx"}))


def test_anyone_may_join_an_open_fleet() -> None:
    """With no list, every id is welcome and online."""
    one = fleet()
    assert one.hello("pi", hello("a")) == Welcome(instance=hello("a").instance)
    assert one.online == ["pi"]


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
    assert one.online == ["pi"]


def test_of_two_living_processes_the_newer_is_refused() -> None:
    """The older one proves it lives by saying hello again; then the newer must go, however often it returns."""
    one = fleet()
    one.hello("pi", hello("old"))
    one.hello("pi", hello("new"))
    (refusal,) = one.hello("pi", hello("old"))  # type: ignore[misc]
    assert (refusal.code, refusal.instance) == ("duplicate", hello("new").instance)
    (refusal,) = one.hello("pi", hello("new"))  # type: ignore[misc]
    assert (refusal.code, refusal.instance) == ("duplicate", hello("new").instance)
    assert isinstance(one.hello("pi", hello("old")), Welcome)
    assert one.members["pi"].hello.instance == hello("old").instance


def test_state_reports_changes_only() -> None:
    """Offline once, online once; repetitions and strangers are None."""
    one = fleet()
    one.hello("pi", hello("a"))
    here, gone = (State(instance=hello("a").instance, online=online) for online in (True, False))
    assert one.state("pi", here) is None
    assert one.state("pi", gone) is False
    assert one.state("pi", gone) is None
    assert one.online == []
    assert one.state("pi", here) is True
    assert one.state("stranger", here) is None
