"""A broker that has moved is found again by real mDNS, and one that only says to be it is not believed."""

from __future__ import annotations

import socket
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.brokers.announce import announced
from tests.integration.deployed import Deployed, deployed
from wire.broker import Broker
from wire.errors import BrokerUnreachable
from wire.mqtt import MqttTransport

pytest.importorskip("zeroconf")
pytest.importorskip("dnslib")
pytestmark = pytest.mark.broker


def moved(made: Deployed) -> Broker:
    """The broker as a card knows it, at an address where nobody listens now."""
    with closing(socket.socket()) as closed:
        closed.bind(("127.0.0.1", 0))
        return replace(made.broker("pi-1"), port=closed.getsockname()[1], discover=True)


def test_a_broker_that_has_moved_is_found_and_an_impostor_is_not_taken_for_it(tmp_path: Path) -> None:
    """Both are announced under the broker's name; the authority on the card tells them apart."""
    for folder in ("right", "wrong"):
        (tmp_path / folder).mkdir()
    with (
        deployed(tmp_path / "right", "mosquitto") as right,
        deployed(tmp_path / "wrong", "mosquitto") as wrong,
        announced("t", wrong.settings.broker_nodes(), ["127.0.0.1"]),
    ):
        lost = MqttTransport(moved(right), client_id="lost")
        with pytest.raises(BrokerUnreachable, match="certificate"):
            lost.connect(4)
        # Another name in the network than the impostor's, as of another machine.
        with announced("u", right.settings.broker_nodes(), ["127.0.0.1"]):
            there = MqttTransport(moved(right), client_id="there")
            there.connect(15)
            assert there._routes.here == ("127.0.0.1", right.settings.broker_nodes()[0].port)
            assert there._routes.is_hearsay
            there.close()
