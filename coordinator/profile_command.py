"""`hidenseek profile`: a board profiled over ssh."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from wire import command
from wire.errors import ConfigError

Subparsers = argparse._SubParsersAction

EXAMPLES = """
examples:
  hidenseek profile har.hns --ssh pi@raspberrypi.local
  hidenseek profile har.hns --ssh pi@10.0.0.7 --profile pi-4-4gb --json profiles/pi-01.json
  hidenseek profile har-export --runtime onnx --ssh pi-01 --seconds 20 --threads 4
  hidenseek profile har.hns --ssh pi@10.0.0.7 --ssh-option=-p2222 --ssh-option=-ibench_key
  hidenseek profile har.hns --ssh pi@10.0.0.7 --wheel dist/hidenseek-0.1.0-py3-none-manylinux_2_34_aarch64.whl

The board needs ssh and Python 3.11 or newer, nothing else: numpy is sent along where it is missing. All lies in
one temporary folder, which is removed at the end, after Ctrl-C, and when the connection breaks.
On the board itself: hidenseek-edge profile. The JSON goes into a report: hidenseek report DIR --profile FILE
"""


def add_profile(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`hidenseek profile`."""
    parser = subparsers.add_parser(
        "profile",
        help="measure what a ticket costs on a board, over ssh, installing nothing",
        description="Measure what training a ticket costs on a board that ssh reaches: latency by layer, memory, page "
        "faults, temperature, energy (docs/profiling.md). Nothing stays on the board.",
        epilog=EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    parser.add_argument("subject", type=Path, metavar="TICKET", help="a ticket (.hns), bundle or exported folder")
    parser.add_argument("--ssh", required=True, metavar="[USER@]HOST", help="the board, as for ssh")
    parser.add_argument(
        "--ssh-option", action="append", default=[], metavar="ARG", help="for ssh, such as --ssh-option=-p2222"
    )
    parser.add_argument("--python", default="python3", metavar="PATH", help="the board's Python")
    parser.add_argument("--wheel", type=Path, metavar="FILE", help="of hidenseek, for the board (default: from dist/)")
    parser.add_argument("--runtime", choices=("sparse", "onnx"), default="sparse", help="executorch: on the board only")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="how long to measure, about")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="cores to train with")
    parser.add_argument("--batch", type=int, metavar="N", help="samples a step (default: as exported, or 16)")
    parser.add_argument("--profile", metavar="NAME", default="", help="kind of hardware, a name from devices.yaml")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure here too")
    parser.set_defaults(run=_profile)


def _profile(arguments: argparse.Namespace) -> int:
    from coordinator.remote import Board
    from coordinator.report.profiles import parse
    from coordinator.terminal import printable

    if not arguments.subject.exists():
        raise ConfigError("no such file or folder", where=str(arguments.subject))
    if arguments.subject.is_dir() and not (arguments.subject / "ticket.hns").exists():
        raise ConfigError(  # a state folder has a device's private key in it
            "no ticket.hns in this folder", where=str(arguments.subject), hint="Name a ticket, or what export wrote"
        )
    words = ["--seconds", f"{arguments.seconds:g}", "--threads", str(arguments.threads)]
    words += ["--batch", str(arguments.batch)] if arguments.batch is not None else []
    words += ["--profile", arguments.profile] if arguments.profile else []
    board = Board(
        host=arguments.ssh,
        options=arguments.ssh_option,
        python=arguments.python,
        tell=lambda text: print(f"{text} ...", file=sys.stderr, flush=True),
    )
    found = board.profile(arguments.subject, arguments.runtime, words, arguments.wheel)
    parse(found.report, where=arguments.ssh)
    for line in found.table.splitlines():
        if not line.startswith("wrote "):
            print(printable(line))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        command.write_whole(arguments.json, found.report)
        print(f"wrote {arguments.json}")
    return 0
