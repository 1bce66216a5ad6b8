"""`hidenseek worker`: its options, and what it does with them."""

from __future__ import annotations

import argparse
import re
import socket
from contextlib import closing
from pathlib import Path

from wire import command

Subparsers = argparse._SubParsersAction
MAX_BYTES = 64 << 20  # of a shift: the ticket, votes and keys of its devices
EXAMPLES = """
examples:
  hidenseek serve --broker mqtt://192.168.1.10 --workers              # on one machine
  hidenseek worker --broker mqtt://192.168.1.10 --federation plant    # on another, with the same federation key
  hidenseek worker --broker mqtt://192.168.1.10 --federation plant --name second --state /var/lib/second
  HIDENSEEK_PASSWORD=... hidenseek worker --broker mqtts://worker@hub.example.org --ca ca.crt --federation plant

The coordinator deals devices out to the workers that are there. Start and stop them at any time, also in a round: what
a worker has confirmed to devices is in its --state, and is handed on when it is started again with the same --state.
It confirms masks to devices, and so needs the federation's key (hidenseek key; another file: $HIDENSEEK_KEY).
More in docs/large-fleets.md. Stop with Ctrl-C.
"""


def add_worker(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`hidenseek worker`."""
    parser = subparsers.add_parser(
        "worker",
        help="take masks in the coordinator's place, and hand on what they add up to",
        description="Check, keep and confirm the masks of a share of the fleet; hand their sums to the coordinator.",
        epilog=EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    command.add_broker_arguments(parser, required=True)
    parser.add_argument("--federation", required=True, metavar="NAME", help="as devices.yaml names it")
    parser.add_argument("--name", metavar="NAME", help="of this worker; no two may share one (default: the host's)")
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help="its database (default hidenseek-FEDERATION-worker-NAME)"
    )
    parser.set_defaults(run=_worker)


def _worker(arguments: argparse.Namespace) -> int:
    import logging

    from coordinator.bulk import BulkTransport
    from coordinator.keys import federation_key
    from coordinator.worker import Worker
    from coordinator.worker_store import DATABASE, WorkerStore
    from wire.channel import Channel
    from wire.mqtt import MqttTransport
    from wire.topics import Topics, check_name

    command.log_to_terminal(verbose=False)
    topics = Topics(arguments.federation)
    name = check_name(arguments.name or _host(), "worker name")
    state: Path = arguments.state or Path(f"hidenseek-{arguments.federation}-worker-{name}")
    broker, key = command.read_broker(arguments), federation_key(make=False)
    remark = logging.getLogger("hidenseek.worker").info
    with closing(WorkerStore(state / DATABASE)) as store:
        client_id = f"hns-{arguments.federation}-worker-{name}"
        websocket = broker.scheme in ("ws", "wss")
        transport = (
            MqttTransport(broker, client_id=client_id) if websocket else BulkTransport(broker, client_id=client_id)
        )
        transport.connect(arguments.connect_timeout)
        with closing(transport):
            channel = Channel(transport, key, max_bytes=MAX_BYTES)
            remark("worker %s of federation %s on %s", name, arguments.federation, broker)
            if waiting := store.unsettled():
                remark("%d masks from before wait to be handed on", waiting)
            Worker(name=name, topics=topics, channel=channel, store=store, remark=remark).serve()
    return 0


def _host() -> str:
    """The machine's name, as far as a topic can have it."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname().partition(".")[0])[:64] or "worker"
