"""A load test's connection stays alive as brokers want it: MQTT 3.1.1, 3.1.2.10."""

from __future__ import annotations

import asyncio
import time

from coordinator import mqtt_packets as packets
from coordinator.loadtest.link import Link, Place
from coordinator.loadtest.tally import Tally
from coordinator.mqtt_packets import Login, Reader

KEEPALIVE_S = 1
ACCEPTED = bytes((packets.CONNACK << 4, 2, 0, 0))
TOLD = packets.publish("hns/t/all/round", b"1", number=None, retain=False)  # QoS 0: nobody answers that


class Device:
    """Notes what a connection comes to."""

    def __init__(self) -> None:
        self.lost: list[str] = []
        self.messages = 0

    def will(self) -> None:
        """None."""

    def online(self) -> None:
        """It stands."""

    def offline(self, reason: str, *, refused: bool) -> None:
        """It is lost."""
        self.lost.append(reason)

    def heard(self, topic: str, payload: bytes) -> None:
        """A message has come."""
        self.messages += 1


def test_a_device_that_only_listens_says_that_it_is_there() -> None:
    """The broker is never without a word from it for longer than a keepalive, however much it tells the device."""
    gaps: list[float] = []

    async def broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = Reader()
        list(parser.feed(await reader.read(1000)))
        writer.write(ACCEPTED)
        heard_s = time.monotonic()
        ends_s = heard_s + 1.4 * KEEPALIVE_S
        while (now_s := time.monotonic()) < ends_s:
            writer.write(TOLD)
            try:
                async with asyncio.timeout(0.4 * KEEPALIVE_S):
                    data = await reader.read(1000)
            except TimeoutError:
                continue
            gaps.append(time.monotonic() - heard_s)
            heard_s = now_s
            if not data:
                break
        gaps.append(time.monotonic() - heard_s)
        writer.close()

    async def play() -> None:
        server = await asyncio.start_server(broker, "127.0.0.1", 0)
        place = Place(nodes=(server.sockets[0].getsockname()[:2],), keepalive_s=KEEPALIVE_S)
        device = Device()
        link = Link(place, Login(client_id="d", user=None, password=None), Tally(), device)
        await link.open(None)
        await asyncio.sleep(1.5 * KEEPALIVE_S)
        link.close()
        server.close()
        assert device.messages >= 2

    asyncio.run(play())
    assert len(gaps) >= 2, "it said nothing"
    assert max(gaps) < 1.5 * KEEPALIVE_S
