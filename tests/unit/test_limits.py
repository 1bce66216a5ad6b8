"""How much of what comes in a device's name is looked at."""

from __future__ import annotations

from coordinator.limits import Limits


def test_a_device_is_heard_at_its_rate_and_the_first_packet_over_it_is_told() -> None:
    """A burst, then `per_s`."""
    limits = Limits()
    heard = []
    for _ in range(Limits.burst + 5):
        heard.append(limits.admit("pi", 0.0))
        limits.proven("pi", 0.0)
    assert heard == [(True, False)] * Limits.burst + [(False, True)] + [(False, False)] * 4
    assert limits.admit("pi", 1.0 / Limits.per_s) == (True, False)
    assert limits.admit("other", 0.0) == (True, False)


def test_forgers_share_one_bucket_and_do_not_empty_that_of_the_device() -> None:
    """Ten thousand forged packets a second on each of ten devices' topics: a bounded number is checked."""
    limits, checked = Limits(), 0
    for step in range(10_000):
        for device in range(10):
            if limits.admit(f"pi-{device}", step / 10_000)[0]:
                checked += 1
                limits.forged(f"pi-{device}", step / 10_000)
    assert checked <= Limits.checks_burst + Limits.checks_per_s + 10
    assert all(speaker.bucket.tokens > Limits.burst - 3 for speaker in limits._speakers.values())


def test_a_doubted_device_is_heard_again_as_soon_as_a_check_is_left_and_pays_for_it_itself() -> None:
    """What it proves to be its own is given back to the checks, and taken from its bucket."""
    limits = Limits()
    while limits.admit("pi", 0.0)[0]:
        limits.forged("pi", 0.0)
    later = 2 / Limits.checks_per_s
    heard = 0
    while limits.admit("pi", later)[0] and limits.proven("pi", later):
        heard += 1
    assert heard == Limits.burst - 1, "its burst, but for the packet that came before it was doubted"


def test_parts_that_come_to_nothing_make_a_device_doubted() -> None:
    """They cannot be told from its own, so they may not use up what it may send."""
    limits = Limits()
    for _ in range(10 * Limits.burst):
        limits.admit("pi", 0.0)
    assert limits._speakers["pi"].bucket.tokens >= Limits.burst - Limits.parts - 1


def test_doubt_passes() -> None:
    """After a minute without anything forged, and told again if it comes back."""
    limits = Limits()
    assert sum(limits.forged("pi", 0.0) for _ in range(50)) == Limits.remarks
    assert limits.forged("pi", Limits.doubt_s + 1)
