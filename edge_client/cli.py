"""`hidenseek-edge`: what runs on a device."""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from wire import command, lazy

lazy.load_dataclasses_alone()

from edge_client import card_command, memory_limits, web_command  # noqa: E402
from edge_client.join_command import EXAMPLES, add_join, state_folder  # noqa: E402
from edge_client.profile_command import add_profile  # noqa: E402

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
    add_join(commands)
    _add_predict(commands)
    add_profile(commands)
    _add_key(commands)
    card_command.add_card(commands)
    web_command.add(commands)
    return parser


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
    learned = read_learned(arguments.state or state_folder(check_name(arguments.device, "device id")))
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

    with closing(Store(arguments.state or state_folder(check_name(arguments.device, "device id")))) as store:
        public = signing.public_key(store.key())
        known = store.federation()
    print(f"public key   {signing.as_text(public)}")
    print(f"fingerprint  {signing.fingerprint(public)}")
    print(f"trusts       {signing.fingerprint(known.key) if known else 'the first federation it meets'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
