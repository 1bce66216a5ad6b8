"""What a worker's account may do: hear devices in the coordinator's place and confirm to them, and announce nothing."""

from __future__ import annotations

from contextlib import ExitStack

from coordinator.brokers.checks.rows import Table, Target, unique
from coordinator.brokers.probe import Probe

SIDE = "workers"
GRACE_S = 0.3


def check(target: Target, table: Table) -> None:
    """Try it, if there is one; each trial ends with a message that has to come."""
    if target.worker is None or target.coordinator is None or target.pair is None:
        return
    device, root, word = target.pair[0], target.root, unique()
    mask, told, announced = f"{root}/up/{device}/mask-{word}", f"{root}/down/{device}", f"{root}/all/check-{word}"
    handed, own, forged = f"{root}/work/check-{word}", unique().encode(), unique().encode()
    with ExitStack() as stack:
        users = (target.coordinator, device, target.worker, device)
        hub, one, worker, spy = probes = [stack.enter_context(Probe(target.account(user))) for user in users]
        for user, probe in zip(users, probes, strict=True):
            if refusal := probe.connect():
                table.add(SIDE, f"{user} connects", "accepted", refusal, False)
                return
        for topic in (f"{root}/up/#", f"{root}/work/#"):
            hub.subscribe(topic)
        for topic in (f"{root}/all/#", f"{told}/#"):
            one.subscribe(topic)
        spy.subscribe(f"{root}/work/#")  # by itself: some brokers end the connection of who goes too far
        for topic in (f"{root}/all/#", f"{root}/up/#", f"{root}/work/#"):
            worker.subscribe(topic)
        one.publish(mask, own)
        hub.publish(announced, own)
        hears_masks, hears_rounds = worker.wait(mask, own), worker.wait(announced, own)
        worker.publish(told, own)
        worker.publish(handed, own)
        confirms, hands_on = one.wait(told, own), hub.wait(handed, own)
        one.publish(handed, forged)  # last, for that reason
        worker.publish(announced, forged)
        worker.publish(mask, forged)
        for probe in (worker, one, spy, hub):
            probe.spin(lambda: False, GRACE_S)
        heard = [(message.topic, message.payload) for probe in probes for message in probe.heard]
        rows = (
            ("worker hears devices' masks", True, hears_masks),
            ("worker hears what is announced", True, hears_rounds),
            ("worker confirms to a device", True, confirms),
            ("worker hands sums to the coordinator", True, hands_on),
            ("worker announces to everyone, as the coordinator does", False, (announced, forged) in heard),
            ("worker writes as a device", False, (mask, forged) in heard),
            ("worker or coordinator hears a device that acts as one", False, (handed, forged) in heard),
            ("worker's sums are read by a device", False, (handed, own) in [(m.topic, m.payload) for m in spy.heard]),
        )
    words = {True: "arrives", False: "does not arrive"}
    for what, allowed, happened in rows:
        table.add(SIDE, what, words[allowed], words[happened], allowed == happened)
