"""What becomes of messages: order, retained ones, queues of who is away, last words, sizes, and a killed broker."""

from __future__ import annotations

import time
from collections.abc import Callable

from coordinator.brokers.checks.rows import Table, Target, unique
from coordinator.brokers.probe import Probe

SIDE, LIMITS, KILLED = "delivery", "limits", "kill -9"
ORDERED = 500
FAR_TOO_MUCH = 8 << 20
BACK_S = 60.0


def check(target: Target, table: Table) -> None:
    """Try it all, but the killing."""
    device = target.devices[0] if target.devices else target.coordinator
    _order(target, table, device)
    _retained(target, table, device)
    _queue(target, table, device)
    _will(target, table, device)
    _sizes(target, table, device)


def _order(target: Target, table: Table, device: str | None) -> None:
    topic = f"{target.root}/up/{device or 'check'}/check-{unique()}"
    with Probe(target.account(target.coordinator)) as hub, Probe(target.listener(device)) as sender:
        hub.connect()
        sender.connect()
        hub.subscribe(f"{target.root}/up/#")
        began_s = time.monotonic()
        numbers = [sender.publish(topic, b"%06d" % number) for number in range(ORDERED)]

        def got() -> list[int]:
            return [int(message.payload) for message in hub.heard if message.topic == topic]

        deadline = time.monotonic() + 30
        while len(got()) < ORDERED and time.monotonic() < deadline:
            sender.spin(lambda: False, 0.02)
            hub.spin(lambda: False, 0.02)
        confirmed, found = sender.confirmed(numbers, 2.0), got()
    first = list(dict.fromkeys(found))  # at least once: a repetition is allowed
    right = first == sorted(first) and len(first) == ORDERED
    words = f"{len(first)} in order" if first == sorted(first) else f"{len(first)}, out of order"
    table.add(SIDE, f"order of {ORDERED} messages, QoS 1", f"{ORDERED} in order", words, right)
    table.add(SIDE, "confirmed to the sender", f"{ORDERED}", f"{confirmed}", confirmed == ORDERED)
    rate = len(found) / max(time.monotonic() - began_s, 0.001)
    table.add(SIDE, "of one device, for information", "", f"{rate:,.0f} messages a second", "note")


def _retained(target: Target, table: Table, device: str | None) -> None:
    # Asked for as devices ask: with /# behind it, which covers the topic itself.
    topic = f"{target.root}/all/check-{unique()}"
    with Probe(target.account(target.coordinator)) as hub:
        hub.connect()
        hub.confirmed([hub.publish(topic, b"retained", retain=True)])
        for pattern, words in ((topic, "under its own name"), (f"{topic}/#", "by a filter with #, as devices ask")):
            with Probe(target.listener(device)) as late:
                late.connect()
                late.subscribe(pattern)
                late.wait(topic, b"retained", 3.0)
                flags = [message.retained for message in late.heard if message.topic == topic]
            found = "kept" if flags == [True] else "came without its mark" if flags else "not there"
            table.add(SIDE, f"retained message, {words}", "kept", found, found == "kept")
        hub.confirmed([hub.publish(topic, b"", retain=True)])
        with Probe(target.listener(device)) as late:
            late.connect()
            late.subscribe(topic)
            late.spin(lambda: bool(late.heard), 0.5)
            table.add(
                SIDE, "retained message, deleted", "gone", "still there" if late.heard else "gone", not late.heard
            )


def _queue(target: Target, table: Table, device: str | None) -> None:
    session = f"hns-check-{unique()}"
    topic = f"{target.root}/down/{device or 'check'}"
    with Probe(target.listener(device), client_id=session, clean=False) as away:
        away.connect()
        away.subscribe(f"{topic}/#")
    expected = [f"{session} {number:06}".encode() for number in range(target.queue)]
    with Probe(target.account(target.coordinator)) as hub:
        hub.connect()
        hub.confirmed([hub.publish(topic, payload) for payload in expected], 60.0)
    with Probe(target.listener(device), client_id=session, clean=False) as back:
        back.connect()
        back.spin(lambda: len(back.heard) >= target.queue, 30.0)
        back.spin(lambda: False, 0.2)
        got = list(dict.fromkeys(m.payload for m in back.heard if m.payload.startswith(session.encode())))
    _forget(target, device, session)
    found = f"{len(got)}{' in order' if got == sorted(got) else ', out of order'}"
    what = f"{target.queue:,} messages for a device that is away"
    table.add(SIDE, what, f"{target.queue} in order", found, got == expected)


def _will(target: Target, table: Table, device: str | None) -> None:
    topic = f"{target.root}/up/{device or 'check'}/check-{unique()}"
    with Probe(target.account(target.coordinator)) as hub:
        hub.connect()
        hub.subscribe(f"{target.root}/up/#")
        lost = Probe(target.listener(device), will=(topic, b"gone"))
        lost.connect()
        lost.vanish()
        came = hub.wait(topic, b"gone", 5.0)
    table.add(SIDE, "last will of a device that vanishes", "published", "published" if came else "not within 5 s", came)


def _sizes(target: Target, table: Table, device: str | None) -> None:
    topic = f"{target.root}/up/{device or 'check'}/check-{unique()}"

    def fits(size: int) -> bool:
        with Probe(target.account(target.coordinator)) as hub, Probe(target.listener(device)) as sender:
            hub.connect()
            sender.connect()
            hub.subscribe(f"{target.root}/up/#")
            payload = unique().encode() + bytes(size - 8)
            number = sender.publish(topic, payload)
            sender.spin(lambda: number in sender.answered or not sender.connected, 5.0)
            return sender.connected and hub.wait(topic, payload, 2.0)

    size = target.packet_bytes
    ok = fits(size)
    table.add(LIMITS, f"payload of {size // 1024} kB (packet_kb)", "passes", "passes" if ok else "refused", ok)
    refused = not fits(FAR_TOO_MUCH)
    far = f"payload of {FAR_TOO_MUCH >> 20} MB"
    table.add(LIMITS, far, "refused", "refused" if refused else "passes", refused or "note")


def killed(target: Target, table: Table, kill: Callable[[], None]) -> None:
    """Kill the broker, wait until it is back, and look whether it has kept what it had confirmed.

    Args:
        target: the broker.
        table: where to tell.
        kill: kills it, without a word; somebody starts it again.
    """
    device = target.devices[0] if target.devices else target.coordinator
    session, word = f"hns-check-{unique()}", unique()
    topic, retained = f"{target.root}/down/{device}", f"{target.root}/all/check-{word}"
    with Probe(target.listener(device), client_id=session, clean=False) as away:
        away.connect()
        away.subscribe(f"{topic}/#")
    expected = [f"{word} {number:06}".encode() for number in range(200)]
    with Probe(target.account(target.coordinator)) as hub:
        hub.connect()
        numbers = [hub.publish(topic, payload) for payload in expected]
        confirmed = hub.confirmed([*numbers, hub.publish(retained, word.encode(), retain=True)], 30.0) - 1
        time.sleep(1.5)  # what a broker may take to write it down
        kill()
    began_s = time.monotonic()
    back = False
    while not back and time.monotonic() - began_s < BACK_S:
        time.sleep(0.2)
        back = _reachable(target)
    took_s = time.monotonic() - began_s
    if not table.add(KILLED, "is back", f"within {BACK_S:g} s", f"after {took_s:.1f} s" if back else "no", back):
        return
    with Probe(target.listener(device), client_id=session, clean=False) as again:
        again.connect()
        again.spin(lambda: len(again.heard) >= confirmed, 15.0)
        got = {m.payload for m in again.heard}
        again.subscribe(f"{retained}/#")
        kept = again.wait(retained, word.encode(), 3.0)
    there = len(got.intersection(expected))
    table.add(KILLED, "queue of a device that is away", f"{confirmed}, as confirmed", f"{there}", there == confirmed)
    table.add(KILLED, "retained message", "kept", "kept" if kept else "lost", kept)
    with Probe(target.account(target.coordinator)) as hub:
        hub.connect()
        hub.confirmed([hub.publish(retained, b"", retain=True)])
    _forget(target, device, session)


def _reachable(target: Target) -> bool:
    try:
        with Probe(target.account(target.coordinator)) as probe:
            return not probe.connect(3.0)
    except (OSError, ValueError):
        return False


def _forget(target: Target, device: str | None, session: str) -> None:
    """Have the broker forget a session."""
    with Probe(target.listener(device), client_id=session) as last:
        last.connect()
