"""`hidenseek-edge profile`: what a ticket costs on this board, without a coordinator."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from wire import command
from wire.errors import ConfigError

if TYPE_CHECKING:
    from edge_client.runtimes.base import Floats, Labels
    from wire.bundle import Bundle
    from wire.settings import Training

EXAMPLES = """
examples:
  hidenseek-edge profile har.hns                           # a ticket, with our own kernels, on random samples
  hidenseek-edge profile har-export --runtime onnx         # a folder that hidenseek export wrote
  hidenseek-edge profile har.hns --threads 4 --seconds 30
  hidenseek-edge profile ~/.local/state/hidenseek/pi-01 --data ~/recordings    # what join downloaded, on own data
  hidenseek-edge profile har.hns --json pi-01.json         # for hidenseek report DIR --profile pi-01.json
  hidenseek-edge profile har.hns --json -                  # JSON instead of the table

What every figure is and where it is read from: docs/profiling.md. Stop with Ctrl-C: nothing is left behind.
"""


def add_profile(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`hidenseek-edge profile`."""
    parser = commands.add_parser(
        "profile",
        help="measure what a ticket costs on this board: time, memory, energy",
        description="Train a ticket for some seconds on this board and say what that costs: latency, time by layer or "
        "operator, memory, page faults, processor, temperature, energy. Needs no coordinator and no broker.",
        epilog=EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    parser.add_argument(
        "bundle", type=Path, metavar="BUNDLE", help="a ticket (.hns), a bundle (.hnsb), an exported or a state folder"
    )
    parser.add_argument("--runtime", metavar="NAME", help="sparse, onnx or executorch (default: the best there is)")
    parser.add_argument("--data", type=Path, metavar="PATH", help="as of join (default: random samples)")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="how long to measure, about")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="cores to train with")
    parser.add_argument("--batch", type=int, metavar="N", help="samples a step (default: as exported, or 16)")
    parser.add_argument("--optimiser", metavar="NAME", help="adam or sgd (default: as exported, or adam)")
    parser.add_argument("--profile", metavar="NAME", default="", help="kind of hardware, a name from devices.yaml")
    parser.add_argument(
        "--json", metavar="FILE", help="write every figure here; - for standard output, instead of the table"
    )
    parser.set_defaults(run=_profile)


def _profile(arguments: argparse.Namespace) -> int:
    # Imported here so that --help and usage errors answer at once on a slow board.
    import json
    from dataclasses import asdict

    from edge_client import bundles, profile_page
    from edge_client.profiler import Profiler
    from edge_client.runtimes import registry

    if not 0 < arguments.seconds <= 3600:
        raise ConfigError(f"{arguments.seconds:g} found, a number above 0 and up to 3600 expected", where="--seconds")
    if arguments.threads < 1:
        raise ConfigError(f"{arguments.threads} found, 1 or more expected", where="--threads")
    runtime = registry.pick(arguments.runtime) if arguments.runtime else None
    bundle = bundles.find(arguments.bundle, runtime=runtime, installed=registry.available())
    training = _training(arguments, bundles.settings_of(arguments.bundle))
    x, y = _data(arguments, bundle, training)
    report = Profiler(
        bundle=bundle,
        training=training,
        x=x,
        y=y,
        data=arguments.data.name if arguments.data else "random",
        seconds=arguments.seconds,
        threads=arguments.threads,
        profile=arguments.profile,
        tell=lambda words: print(f"{words} ...", file=sys.stderr, flush=True),
    ).measure()
    text = json.dumps(asdict(report), indent=2) + "\n"
    if arguments.json == "-":
        sys.stdout.write(text)
        return 0
    print(*profile_page.lines(report), sep="\n")
    if arguments.json:
        command.write_whole(Path(arguments.json), text.encode())
        print(f"wrote {arguments.json}")
    return 0


def _training(arguments: argparse.Namespace, made_for: Training) -> Training:
    from dataclasses import replace

    asked = {name: value for name in ("batch", "optimiser") if (value := getattr(arguments, name)) is not None}
    return replace(made_for, **asked)


def _data(arguments: argparse.Namespace, bundle: Bundle, training: Training) -> tuple[Floats, Labels]:
    from edge_client import data
    from edge_client.profiler import random_data

    if arguments.data is None:
        return random_data(bundle, training)
    loaded = data.load(arguments.data)
    loaded.check(bundle.ticket.plan)
    return loaded.x_train, loaded.y_train
