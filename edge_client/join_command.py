"""`hidenseek-edge join`: take part in a federation."""

from __future__ import annotations

import argparse
import os
import secrets
import socket
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from wire import command

if TYPE_CHECKING:
    from edge_client.workshop import Workshop

EXAMPLES = """
examples:
  # train on the recordings in ~/recordings (x and y in .npz files), for ever
  hidenseek-edge join --broker mqtt://192.168.1.10 --device pi-01 --data ~/recordings

  # with TLS and a password, for one run only
  HIDENSEEK_PASSWORD=... hidenseek-edge join --broker mqtts://pi-01@hub.example.org --ca ca.crt \\
      --federation har --device pi-01 --data person.npz --once

exit codes: 0 done, 2 usage, 130 stopped, others in docs/errors.md
"""


def add_join(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`hidenseek-edge join`."""
    parser = commands.add_parser(
        "join",
        help="join a federation and train when selected",
        description="Join a federation and train whenever selected. Only sign masks and counts leave this device.",
        epilog=EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    command.add_broker_arguments(parser, required=True)
    parser.add_argument(
        "--discover",
        action="store_true",
        help="if no address answers, ask this network (mDNS) where the broker is; --ca decides who it is",
    )
    parser.add_argument("--device", metavar="ID", default=socket.gethostname(), help="this device's id in the fleet")
    parser.add_argument("--federation", metavar="NAME", default="default", help="which federation to join")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="PATH",
        help="a .npz file with arrays x (samples, *shape) and y (samples,), or a folder of them; "
        "files named test*.npz are for evaluation only",
    )
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help="what survives a power cut (default ~/.local/state/hidenseek/ID)"
    )
    parser.add_argument(
        "--trust",
        metavar="KEY",
        help="the federation's public key, as hidenseek key shows it (default: of the first met)",
    )
    parser.add_argument("--runtime", metavar="NAME", help="onnx or sparse (default: the best one installed)")
    parser.add_argument("--profile", metavar="NAME", default="", help="kind of hardware, a name from devices.yaml")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="cores to train with")
    parser.add_argument(
        "--once", action="store_true", help="leave when the run is over instead of waiting for the next"
    )
    parser.add_argument(
        "--hide-among",
        type=int,
        default=0,
        metavar="N",
        help="give masks to sums of N devices at least, and never as they are (needs secure aggregation)",
    )
    parser.add_argument(
        "--peers",
        type=Path,
        metavar="FILE",
        help="of devices, count for --hide-among only those with a public key in FILE, one a line after any name",
    )
    parser.add_argument(
        "--no-telemetry", action="store_true", help="do not tell the coordinator what training costs this device"
    )
    parser.add_argument(
        "--peak-mb",
        type=float,
        metavar="MB",
        help="take an updated client back that needs more memory than this to train",
    )
    parser.add_argument(
        "--no-updates", action="store_true", help="run this version, whatever hidenseek fleet update says"
    )
    parser.add_argument("--verbose", action="store_true", help="say more")
    parser.set_defaults(run=_join)


def _join(arguments: argparse.Namespace) -> int:
    # Imported here so that --help and usage errors answer at once on a slow board.
    from edge_client import agent, counts, renewal
    from edge_client.apart import Apart
    from edge_client.client import Client
    from edge_client.releases import Releases
    from edge_client.runtimes import registry
    from edge_client.staging import Stager
    from edge_client.store import Store
    from edge_client.supervisor import Supervisor
    from edge_client.updates import Updater
    from wire import mqtt, signing
    from wire.broker import discovering
    from wire.channel import Channel, seal
    from wire.errors import HidenseekError
    from wire.federation_messages import INSTANCE_BYTES, Hello, State
    from wire.topics import Topics, check_name

    command.log_to_terminal(verbose=arguments.verbose)
    device = check_name(arguments.device, "device id")
    topics = Topics(arguments.federation)
    folder: Path = arguments.state or state_folder(device)
    releases = Releases(folder)
    if not arguments.no_updates:
        releases.hand_over()
    broker = command.read_broker(arguments)
    if arguments.discover:
        broker = discovering(broker)
    runtime = registry.pick(arguments.runtime)
    peers = read_peers(arguments) if arguments.peers else None
    trusted = signing.from_text(arguments.trust, where="--trust") if arguments.trust else None
    instance = secrets.token_bytes(INSTANCE_BYTES)
    supervisor = Supervisor()
    work = Apart(partial(_workshop, arguments, device), alive=supervisor.alive)
    with closing(Store(folder)) as store, closing(work):
        train_samples, test_samples = counts.of(arguments.data, folder, work.counts)
        key, started = store.key(), store.count_start()
        if trusted is not None:
            store.trust(trusted)
        hello = Hello(
            instance=instance,
            software="",  # the client says what it is
            runtime=runtime,
            profile=arguments.profile,
            train_samples=train_samples,
            test_samples=test_samples,
            key=signing.public_key(key),
            started=started,
            greetings=0,
            secure_aggregation=True,
            draws=True,
            dithers=True,
        )
        state = topics.up(device, "state")
        transport = mqtt.MqttTransport(
            broker,
            client_id=f"hns-{topics.federation}-{device}",
            will=lambda number: (
                state,
                seal(key, state, State(instance=instance, online=False, connection=number)),
            ),
        )
        transport.connect(
            arguments.connect_timeout,
            waiting=lambda reason: print(f"waiting for {broker}: {reason}", file=sys.stderr),
        )
        channel = Channel(transport, key)
        updates = None if arguments.no_updates else Updater(device, releases, channel, topics)
        client = Client(
            device=agent.Device(name=device, hello=hello, stay=not arguments.once),
            channel=channel,
            topics=topics,
            store=store,
            work=work,
            hide_among=arguments.hide_among,
            peers=peers,
            updates=updates,
            staging=None if updates is None else Stager(device, runtime, store, channel, topics),
            leave=renewal.watch(broker.certificate),
            supervisor=supervisor,
        )
        try:
            client.run()
        except HidenseekError as error:
            if updates is None or not updates.on_trial:
                raise
            # Whoever turned the new client away may take the earlier one, and this may be an error that nobody
            # would be started again after.
            updates.take_back(str(error))
    if updates is not None and updates.restart:
        releases.start_again()
    return 0


def _workshop(arguments: argparse.Namespace, device: str) -> Workshop:
    """What trains, in a process of its own."""
    from edge_client import data
    from edge_client.workshop import Workshop

    return Workshop(
        device=device,
        load=partial(data.load, arguments.data),
        threads=arguments.threads,
        telemetry=not arguments.no_telemetry,
        peak_mb=arguments.peak_mb,
    )


def read_peers(arguments: argparse.Namespace) -> frozenset[bytes]:
    """Public keys in a file: the last word of every line that is not empty or a comment.

    Raises:
        ConfigError: if one is no key, the file cannot be read, or nothing hides among them.
    """
    from wire import signing
    from wire.errors import ConfigError

    path: Path = arguments.peers
    if not arguments.hide_among:
        raise ConfigError(
            "--peers says among whom, and nothing says among how many", where=str(path), hint="Add --hide-among N"
        )
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read ({error})", where=str(path)) from error
    found = {}
    for number, line in enumerate(lines, 1):
        if words := line.partition("#")[0].split():
            found[signing.from_text(words[-1], where=f"{path}:{number}")] = number
    return frozenset(found)


def state_folder(device: str) -> Path:
    """Where a device's state is kept unless --state says otherwise."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "hidenseek" / device
