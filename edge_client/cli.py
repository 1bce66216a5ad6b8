"""`hidenseek-edge`: what runs on a device."""

from __future__ import annotations

import argparse
import os
import secrets
import socket
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from wire import command, lazy

lazy.load_dataclasses_alone()

from edge_client import card_command, memory_limits, web_command  # noqa: E402
from edge_client.profile_command import add_profile  # noqa: E402

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

PREDICT_EXAMPLES = """
examples:
  hidenseek-edge predict --data new.npz                                # this machine's device, in words
  hidenseek-edge predict --device pi-01 --data ~/recordings            # every file: how many are right
  hidenseek-edge predict --state out/demo/devices/person-01/state --data new.npz --output classes.csv

The .csv has the columns source (a file's name), index, class, probability; the .npz arrays of these names, and
probabilities of every class. It may run while hidenseek-edge join does. Accuracy on what was trained on flatters.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `hidenseek-edge`; return the exit code."""
    return command.run("hidenseek-edge", build_parser(), argv, before=memory_limits.prepare)


def build_parser() -> argparse.ArgumentParser:
    """All of `hidenseek-edge`'s commands and options."""
    parser = argparse.ArgumentParser(
        prog="hidenseek-edge",
        description="Take part in a federation: train the signs of a pruned random network on this device's own data; "
        "use what was learned; measure what it costs.",
        epilog=EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_join(commands)
    _add_predict(commands)
    add_profile(commands)
    _add_key(commands)
    card_command.add_card(commands)
    web_command.add(commands)
    return parser


def _add_join(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
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
    state_folder: Path = arguments.state or _state_folder(device)
    releases = Releases(state_folder)
    if not arguments.no_updates:
        releases.hand_over()
    broker = command.read_broker(arguments)
    if arguments.discover:
        broker = discovering(broker)
    runtime = registry.pick(arguments.runtime)
    peers = _read_peers(arguments) if arguments.peers else None
    trusted = signing.from_text(arguments.trust, where="--trust") if arguments.trust else None
    instance = secrets.token_bytes(INSTANCE_BYTES)
    supervisor = Supervisor()
    work = Apart(partial(_workshop, arguments, device), alive=supervisor.alive)
    with closing(Store(state_folder)) as store, closing(work):
        train_samples, test_samples = counts.of(arguments.data, state_folder, work.counts)
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


def _read_peers(arguments: argparse.Namespace) -> frozenset[bytes]:
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


def _add_predict(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "predict",
        help="classify samples with what this device has learned",
        description="Classify samples with this device's own signs, those its last local training ended with.",
        epilog=PREDICT_EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="PATH",
        help="a .npz file with array x (samples, *shape), and y (samples,) if labels are known; or a folder of them",
    )
    parser.add_argument("--device", metavar="ID", default=socket.gethostname(), help="whose network, without --state")
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help="as of join, or a copy (default ~/.local/state/hidenseek/ID)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write every prediction to FILE.csv or FILE.npz")
    parser.set_defaults(run=_predict)


def _predict(arguments: argparse.Namespace) -> int:
    from edge_client import predict
    from wire.state_folder import read_learned
    from wire.topics import check_name

    if arguments.output is not None:
        predict.check_format(arguments.output)
    learned = read_learned(arguments.state or _state_folder(check_name(arguments.device, "device id")))
    found = predict.predict(learned, arguments.data)
    print(*predict.summary(learned, found), sep="\n")
    if arguments.output is not None:
        command.write_whole(arguments.output, predict.table(found, arguments.output.suffix))
        print(f"wrote {arguments.output}")
    return 0


def _add_key(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "key",
        help="show this device's public key, and whom it trusts",
        description="Show this device's public key, to be written into the coordinator's devices.yaml, and which "
        "federation the device trusts. Makes a key if there is none.",
        epilog="examples:\n  hidenseek-edge key --device pi-01",
        formatter_class=command.HelpFormatter,
    )
    parser.add_argument("--device", metavar="ID", default=socket.gethostname(), help="whose key, without --state")
    parser.add_argument("--state", type=Path, metavar="DIR", help="as of join (default ~/.local/state/hidenseek/ID)")
    parser.set_defaults(run=_key)


def _key(arguments: argparse.Namespace) -> int:
    from edge_client.store import Store
    from wire import signing
    from wire.topics import check_name

    with closing(Store(arguments.state or _state_folder(check_name(arguments.device, "device id")))) as store:
        public = signing.public_key(store.key())
        known = store.federation()
    print(f"public key   {signing.as_text(public)}")
    print(f"fingerprint  {signing.fingerprint(public)}")
    print(f"trusts       {signing.fingerprint(known.key) if known else 'the first federation it meets'}")
    return 0


def _state_folder(device: str) -> Path:
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "hidenseek" / device


if __name__ == "__main__":
    sys.exit(main())
