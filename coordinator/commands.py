"""The options of `hidenseek demo` and `serve`, and what each does with them."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from wire import command
from wire.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rich.console import Console

    from coordinator.broker import EmbeddedBroker
    from coordinator.config import DevicesFile
    from coordinator.evaluate import Evaluator
    from coordinator.report.summary import Summary
    from wire.mqtt import Broker
    from wire.ticket import Ticket

Subparsers = argparse._SubParsersAction
DEFAULT_LISTEN = "127.0.0.1:1883"

SERVE_EXAMPLES = """
examples:
  hidenseek serve --check                                      # only look at devices.yaml
  hidenseek serve --broker mqtt://192.168.1.10                 # a broker that runs already
  hidenseek serve --broker mqtt://192.168.1.10 --log run.jsonl  # for a log collector
  hidenseek serve --listen 0.0.0.0:1883                        # start one here, for devices listed in devices.yaml
  HIDENSEEK_PASSWORD=... hidenseek serve --broker mqtts://coordinator@hub.example.org --ca ca.crt

Stop with Ctrl-C; the same command takes the run up where it stopped.
"""

DEMO_EXAMPLES = """
examples:
  hidenseek demo                                   # 25 people, 20 rounds
  hidenseek demo --rounds 5 --json result.json
  hidenseek demo --broker mqtt://127.0.0.1:1883    # through a broker of yours that lets anyone in
"""


def add_demo(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`hidenseek demo`."""
    parser = subparsers.add_parser(
        "demo",
        help="a real federation on this machine, from nothing to a report",
        description="Start a broker, a coordinator and 25 devices, each with one real person's phone recordings, "
        "train together, and write a report.",
        epilog=DEMO_EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="rounds to train")
    parser.add_argument("--devices", type=int, default=25, metavar="N", help="people that take part, at most 25")
    parser.add_argument("--per-round", type=int, default=10, metavar="N", help="devices selected for a round")
    parser.add_argument("--density", type=float, default=0.10, metavar="D", help="share of the weights kept")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the network, the draw and the batches")
    parser.add_argument("--runtime", metavar="NAME", help="what devices train with (default: the best one installed)")
    parser.add_argument("--broker", metavar="URL", help="use this broker instead of starting one")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where everything goes (default out/demo-DATE-TIME)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    parser.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from coordinator import demo

    console = Console()
    out: Path = arguments.out or Path("out") / time.strftime("demo-%Y%m%d-%H%M%S")
    if out.exists() and any(out.iterdir()):
        raise ConfigError("folder is not empty", where=str(out), hint="Name a new one with --out")
    summary = demo.run(
        demo.DemoSettings(
            out=out,
            rounds=arguments.rounds,
            devices=arguments.devices,
            per_round=arguments.per_round,
            density=arguments.density,
            seed=arguments.seed,
            runtime=arguments.runtime,
            broker=arguments.broker,
        ),
        console,
    )
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(summary.to_json(), indent=2) + "\n")
    conclude(console, summary, out / "report.html")
    return 0


def conclude(console: Console, summary: Summary, page: Path) -> None:
    """Write the report page, print what the run came to, and last where the page lies."""
    from rich.table import Table

    from coordinator.report.page import write_page
    from coordinator.report.summary import LAST_ROUNDS

    write_page(summary, page)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", justify="right")
    table.add_column()
    share = summary.fedavg_bytes / summary.up_bytes if summary.up_bytes else 0
    for value, meaning in (
        (
            _percent(summary.personalised),
            f"accuracy of the devices' own signs (mean of the last {LAST_ROUNDS} rounds)",
        ),
        (_percent(summary.seen), "accuracy of the global network on the devices' own test recordings"),
        (_percent(summary.unseen), "accuracy of the global network on people who never trained"),
        (
            f"{summary.up_bytes:,.0f} B",
            f"sent up per device and round; FedAvg {summary.fedavg_bytes:,} B, {share:,.0f} times",
        ),
        (f"{summary.down_bytes:,.0f} B", "received per device and round"),
        (f"{summary.seconds:,.0f} s", f"for {len(summary.rounds)} rounds with {len(summary.devices)} devices"),
    ):
        table.add_row(value, meaning)
    console.print()
    console.print(table)
    console.print()
    console.print(f"report: {page.resolve()}", highlight=False, soft_wrap=True)


def add_serve(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`hidenseek serve`."""
    parser = subparsers.add_parser(
        "serve",
        help="run a federation for real devices",
        description="Prune (or read) the ticket, offer it to the devices, run the rounds, write the report.",
        epilog=SERVE_EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    command.add_broker_arguments(parser, required=False)
    parser.add_argument(
        "--config", type=Path, default=Path("devices.yaml"), metavar="FILE", help="federation and fleet"
    )
    parser.add_argument("--listen", default=DEFAULT_LISTEN, metavar="HOST:PORT", help="for the broker started here")
    parser.add_argument("--state", type=Path, metavar="DIR", help="database and broker files (default hidenseek-NAME)")
    parser.add_argument("--unseen", type=Path, metavar="FILE", help=".npz with x and y nobody trains on, to test with")
    parser.add_argument("--new", action="store_true", help="abandon an unfinished run")
    parser.add_argument("--log", type=Path, metavar="FILE", help="append what happens, a JSON object a line")
    parser.add_argument("--check", action="store_true", help="only check the config file and say what it holds")
    parser.set_defaults(run=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    from coordinator import config

    settings = config.load(arguments.config)
    if arguments.check:
        print(f"{arguments.config}: {settings.in_words()}")
        return 0
    return _serve_run(arguments, settings)


def _serve_run(arguments: argparse.Namespace, settings: DevicesFile) -> int:
    from rich.console import Console

    from coordinator import federation as fed
    from coordinator.broker import EmbeddedBroker
    from coordinator.serving import serving
    from wire.settings import Training

    console = Console()
    wanted = settings.federation
    state: Path = arguments.state or fed.state_folder(wanted.name)
    recipe = fed.Recipe(
        ticket=arguments.config.parent / wanted.ticket if wanted.ticket else None,
        model=wanted.model,
        input_shape=tuple(wanted.input_shape) if wanted.input_shape else None,
        classes=wanted.classes,
        density=wanted.density,
        method=wanted.method,
        seed=wanted.seed,
    )
    with console.status("preparing the ticket"):
        federation = fed.Federation(
            name=wanted.name,
            ticket=recipe.make(),
            training=Training(**wanted.training.model_dump()),
            schedule=wanted.schedule(),
            runtimes=tuple(wanted.runtimes),
            asynchrony=wanted.asynchrony(),
            memory=wanted.memory,
            defend=wanted.defends,
            secure_aggregation=wanted.secure_aggregation,
            allowed=settings.allowed,
            keys=settings.keys,
            evaluate=wanted.evaluate,
            telemetry=wanted.telemetry,
        )
        evaluator = _read_unseen(arguments.unseen, federation.ticket)
    broker = _broker(arguments, settings, state)
    with serving(
        federation,
        broker,
        console,
        title=f"{wanted.name}: {federation.ticket.plan.name}, {federation.ticket.kept:,} sign bits",
        state=state,
        timeout_s=arguments.connect_timeout,
        packet_bytes=wanted.packet_kb * 1024,
        evaluator=evaluator,
        new=arguments.new,
        log=arguments.log,
    ) as service:
        if isinstance(broker, EmbeddedBroker):
            console.print(f"broker: {broker.url()}; passwords of the devices: {broker.folder / 'passwords.json'}")
        conclude(console, service.run(), state / "report.html")
    return 0


def _broker(arguments: argparse.Namespace, settings: DevicesFile, state: Path) -> Broker | EmbeddedBroker:
    """The broker that was named, or one to start.

    Raises:
        ConfigError: if there is no device that the one to start could let in.
    """
    from coordinator.broker import EmbeddedBroker, parse_listen

    if arguments.broker:
        return command.read_broker(arguments)
    if not settings.devices:
        raise ConfigError(
            "no devices listed, and the embedded broker gives every device an account of its own",
            where=str(arguments.config),
            hint="List them under `devices:`, or name a broker with --broker",
        )
    host, port = parse_listen(arguments.listen)
    return EmbeddedBroker(state / "broker", settings.federation.name, sorted(settings.devices), host, port)


def _read_unseen(path: Path | None, ticket: Ticket) -> Evaluator | None:
    if path is None:
        return None
    import numpy as np

    from coordinator.evaluate import Evaluator

    try:
        with np.load(path, allow_pickle=False) as archive:
            return Evaluator(ticket, archive["x"].astype(np.float32), archive["y"].astype(np.int64))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"not a readable .npz file with x and y ({error})", where=str(path)) from error


def _percent(value: float | None) -> str:
    return f"{value:.1%}" if value is not None else "–"
