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
        users = (target.coordinator, device, HOME_ASSISTANT)
        hub, one, home = probes = [stack.enter_context(Probe(target.account(user))) for user in users]
        for user, probe in zip(users, probes, strict=True):
            if refusal := probe.connect():
                table.add(SIDE, f"{user} connects", "accepted", refusal, False)
                return
        one.subscribe(f"{told}/#")
        for pattern in (f"{target.home_assistant}/#", f"{target.root}/home/#", f"{target.root}/up/#"):
            home.subscribe(pattern)
        forged, own = unique().encode(), unique().encode()
        one.publish(shown, forged)
        one.publish(masks, forged)
        home.publish(told, forged)
        one.spin(lambda: False, GRACE_S)
        home.spin(lambda: False, GRACE_S)
        hub.publish(shown, own)
        hub.publish(f"{target.root}/home/check", own)
        hub.publish(told, own)
        hub.spin(lambda: False, GRACE_S)
        rows = (
            ("reads what the coordinator shows it", True, home.wait(shown, own)),
            ("reads how devices are", True, home.wait(f"{target.root}/home/check", own)),
            ("reads devices' masks", False, any(message.topic == masks for message in home.heard)),
            ("is shown what a device has made up", False, any(message.payload == forged for message in home.heard)),
            ("writes to a device", False, _hears(one, told, own, forged)),
        )
    words = {True: "arrives", False: "does not arrive"}
    for what, allowed, happened in rows:
        table.add(SIDE, what, words[allowed], words[happened], allowed == happened)


def _hears(device: Probe, topic: str, end: bytes, payload: bytes) -> bool:
    """Whether a device has heard something before the message that ends the trial, which some brokers cut short."""
    if device.connected:
        device.wait(topic, end, 3.0)
    return any(message.payload == payload for message in device.heard)
