"""What Home Assistant's account may do: read what it is shown, and nothing about devices' work."""

from __future__ import annotations

from contextlib import ExitStack

from coordinator.brokers.access import HOME_ASSISTANT
from coordinator.brokers.checks.rows import Table, Target, unique
from coordinator.brokers.probe import Probe
from coordinator.monitoring import discovery

SIDE = "Home Assistant"
GRACE_S = 0.3


def check(target: Target, table: Table) -> None:
    """Try it, if it has an account; each trial ends with a message that has to come."""
    if target.home_assistant is None or target.coordinator is None or target.pair is None:
        return
    device = target.pair[0]
    shown = f"{discovery.root(target.home_assistant, target.federation)}/check-{unique()}"  # no name it looks for
    masks, told = f"{target.root}/up/{device}/mask-{unique()}", f"{target.root}/down/{device}"
    with ExitStack() as stack:
        users = (target.coordinator, device, HOME_ASSISTANT, HOME_ASSISTANT)
        hub, one, home, spy = probes = [stack.enter_context(Probe(target.account(user))) for user in users]
        for user, probe in zip(users, probes, strict=True):
            if refusal := probe.connect():
                table.add(SIDE, f"{user} connects", "accepted", refusal, False)
                return
        one.subscribe(f"{told}/#")
        for pattern in (f"{target.home_assistant}/#", f"{target.root}/home/#"):
            home.subscribe(pattern)
        spy.subscribe(f"{target.root}/up/#")  # by itself: some brokers end the connection of who goes too far
        forged, own, end = unique().encode(), unique().encode(), unique().encode()
        for topic in (shown, f"{target.root}/home/check", told):
            hub.publish(topic, own)
        is_shown, sees_devices = home.wait(shown, own), home.wait(f"{target.root}/home/check", own)
        one.wait(told, own)
        one.publish(masks, forged)
        one.publish(shown, forged)  # last, for that reason
        home.publish(told, forged)
        for probe in (one, home, spy):
            probe.spin(lambda: False, GRACE_S)
        for probe, topic in ((home, shown), (one, told)):
            hub.publish(topic, end)
            if probe.connected:
                probe.wait(topic, end, 3.0)
        rows = (
            ("reads what the coordinator shows it", True, is_shown),
            ("reads how devices are", True, sees_devices),
            ("reads devices' masks", False, any(message.topic == masks for message in spy.heard)),
            ("is shown what a device has made up", False, any(message.payload == forged for message in home.heard)),
            ("writes to a device", False, any(message.payload == forged for message in one.heard)),
        )
    words = {True: "arrives", False: "does not arrive"}
    for what, allowed, happened in rows:
        table.add(SIDE, what, words[allowed], words[happened], allowed == happened)
