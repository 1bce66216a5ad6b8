"""Whoever pretends to be the coordinator: a device goes by the key it has, and trains on with what is true."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coordinator.aggregate import next_votes
from coordinator.federation import Federation as Settings
from coordinator.federation import prepare
from coordinator.keys import federation_key
from coordinator.rounds import Schedule
from coordinator.store import Store
from edge_client.store import Store as DeviceStore
from tests.helpers import federation_channel
from tests.integration.test_memory_federation import DEVICES, Watcher, make_ticket, start_device, summary_run
from wire import mask, messages, signing
from wire.channel import seal
from wire.federation_messages import CatchUp, Federation, Hello, MaskUpdate, Receipt, Refusal, Round
from wire.messages import Message
from wire.settings import Training
from wire.transport import MemoryBus

ROUNDS = 3
THIEF = b"a key that nobody trusts".ljust(32)
OLD_RUN = b"old run."
LONGEST_S = 40.0


class Impostor:
    """Hears everything, and answers every true message with false ones before anybody else can speak."""

    def __init__(self, bus: MemoryBus) -> None:
        self.said = 0
        self._deliver, self._lock = bus.deliver, threading.RLock()
        self._instances: dict[str, bytes] = {}
        bus.deliver = self._spy  # type: ignore[method-assign]

    def _spy(self, topic: str, payload: bytes, retain: bool) -> None:
        with self._lock:
            self._deliver(topic, payload, retain)
            if payload[:2] != messages.MAGIC:
                return  # a part
            message = messages.decode(payload[: -signing.SIGNATURE_BYTES])
            if isinstance(message, Hello):
                self._instances[topic.split("/")[3]] = message.instance
            for where, packet in self._lies(topic, message, payload):
                self.said += 1
                self._deliver(where, packet, False)

    def _lies(self, topic: str, message: Message, payload: bytes) -> list[tuple[str, bytes]]:
        """False messages, each with the topic it goes to."""

        def forged(where: str, one: Message) -> tuple[str, bytes]:
            return where, seal(THIEF, where, one)

        def old(where: str, one: Message) -> tuple[str, bytes]:
            return where, seal(federation_key(), where, one)

        altered = (topic, payload[:-70] + bytes([payload[-70] ^ 1]) + payload[-69:])
        match message:
            case Federation():
                theirs = replace(message, key=signing.public_key(THIEF), issued=message.issued + 1, run=bytes(8))
                newer = replace(message, issued=message.issued + 1, run=bytes(8))
                older = replace(message, issued=message.issued - 1, run=OLD_RUN)
                return [forged(topic, theirs), forged(topic, newer), old(topic, older), altered]
            case Round():
                later = replace(message, number=message.number + 50, final=True, selected=())
                turned = ~np.ones(1, dtype=np.bool_)
                votes = mask.encode_votes(mask.certain(np.repeat(turned, KEPT)), ENDS)
                false = replace(message, votes=votes, base=0)
                past = replace(message, run=OLD_RUN, number=message.number + 1)
                return [forged(topic, later), forged(topic, false), old(topic, past), altered] + [
                    lie for device in DEVICES for lie in self._to(device, message, forged, old)
                ]
            case MaskUpdate():
                down = f"hns/t/down/{topic.split('/')[3]}"
                return [forged(down, Receipt(run=message.run, number=message.number))]
        return []

    def _to(self, device: str, opened: Round, forged: object, old: object) -> list[tuple[str, bytes]]:
        down, instance = f"hns/t/down/{device}", self._instances[device]
        codes = ("mask", "revoked", "duplicate", "key")
        lies: list[tuple[str, Message]] = [(down, Refusal(instance=instance, code=code, reason="no")) for code in codes]
        false = CatchUp(run=opened.run, number=opened.number, votes=opened.votes, base=0, digest=bytes(8))
        lies.append((down, false))
        packets = [forged(*lie) for lie in lies]  # type: ignore[operator]
        # Signed by the federation, but for another process, another run, and another device.
        packets.append(old(down, Refusal(instance=b"another.", code="revoked", reason="no")))  # type: ignore[operator]
        packets.append(old(down, Receipt(run=OLD_RUN, number=opened.number)))  # type: ignore[operator]
        elsewhere = seal(federation_key(), "hns/t/down/pi-9", Refusal(instance=instance, code="revoked", reason="no"))
        return [*packets, (down, elsewhere)]


TICKET = make_ticket()
KEPT, ENDS = TICKET.kept, TICKET.ends


def test_devices_go_by_the_key_they_have(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing forged, altered or of an older run is believed: all train, every mask counts, the votes are theirs."""
    federation = Settings(
        name="t",
        ticket=TICKET,
        training=Training(epochs=1),
        schedule=Schedule(rounds=ROUNDS, per_round=3, quorum=3, deadline_s=60, start_devices=3),
        runtimes=("onnx",),
        defend=False,
    )
    bus, store = MemoryBus(), Store(tmp_path / "db")
    coordinator = prepare(federation, store=store, channel=federation_channel(bus), observer=Watcher())
    impostor, began_s = Impostor(bus), time.monotonic()

    def watch() -> None:
        assert time.monotonic() - began_s < LONGEST_S, "a device has left, or waits for ever"

    coordinator.watch = watch
    with caplog.at_level(logging.WARNING, "hidenseek.edge"):
        threads = [start_device(bus, name, tmp_path, "onnx") for name in DEVICES]
        outcome = coordinator.serve()
        for thread in threads:
            thread.join(timeout=20)
            assert not thread.is_alive(), "it leaves by itself when the run is over"
    assert impostor.said > ROUNDS * 3 * 8
    run, votes = summary_run(store), mask.unanimous(KEPT)
    for number in range(1, ROUNDS + 1):
        coded = store.masks(run, number)
        assert sorted(coded) == sorted(DEVICES)
        votes = next_votes(votes, (mask.decode_signs(one, votes, ENDS) for one in coded.values()), federation.memory)
    assert votes.digest == outcome.digest
    for name in DEVICES:
        kept = DeviceStore(tmp_path / "state" / name)
        known = kept.federation()
        kept.close()
        assert known is not None
        assert known.key == signing.public_key(federation_key())
        assert known.issued == coordinator.issued
    for text in ("this device trusts", "it is of a run that is over", "or altered since"):
        assert text in caplog.text
