"""The options of `hidenseek demo`, `prune`, `inspect`, `serve` and `report`, and what each does with them."""

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

    from coordinator.config import DevicesFile
    from coordinator.evaluate import Evaluator
    from coordinator.report.summary import Summary
    from wire.ticket import Ticket

Subparsers = argparse._SubParsersAction
DEFAULT_LISTEN = "127.0.0.1:1883"

PRUNE_EXAMPLES = """
examples:
  hidenseek prune --model har-cnn --density 0.1 --seed 0 -o har.hns
  hidenseek prune --model conv4 --input-shape 3,32,32 --method random-synflow -o cifar.hns   # under 1 kB
  hidenseek prune --model lenet --method magnitude --block 1 -o lenet.hns

The same options give the same bytes on every machine. No data is looked at.
"""

SERVE_EXAMPLES = """
examples:
  hidenseek serve --check                                      # only look at devices.yaml
  hidenseek serve --broker mqtt://192.168.1.10                 # a broker that runs already
  hidenseek serve --listen 0.0.0.0:1883                        # start one here, for devices listed in devices.yaml
  HIDENSEEK_PASSWORD=... hidenseek serve --broker mqtts://coordinator@hub.example.org --ca ca.crt

Stop with Ctrl-C; the same command takes the run up where it stopped.
"""

DEMO_EXAMPLES = """
examples:
  hidenseek demo                                   # 25 people, 15 rounds
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
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="rounds to train")
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
    _conclude(console, summary, out / "report.html")
    return 0


def _conclude(console: Console, summary: Summary, page: Path) -> None:
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
        (_percent(summary.seen), "accuracy of the global signs on the devices' own test recordings"),
        (_percent(summary.unseen), "accuracy of the global signs on people who never trained"),
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


def add_prune(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`hidenseek prune`."""
    from coordinator.models import MODELS
    from coordinator.prune import DEFAULT_BLOCK, METHODS, PASSES

    models = "\n".join(f"  {name:10} {what}" for name, what in MODELS.items())
    methods = "\n".join(f"  {name:24} {what}" for name, what in METHODS.items())
    parser = subparsers.add_parser(
        "prune",
        help="prune a random network before any data, into a ticket",
        description="Prune a randomly initialised network and write its ticket.",
        epilog=f"models:\n{models}\n\nmethods:\n{methods}\n{PRUNE_EXAMPLES}",
        formatter_class=command.HelpFormatter,
    )
    parser.add_argument("--model", required=True, metavar="NAME", help="a model, see below")
    parser.add_argument("--input-shape", type=_shape, metavar="C,H,W", help="one sample (default: 6,128 or 1,28,28)")
    parser.add_argument("--classes", type=int, metavar="N", help="classes to tell apart (default: 6 or 10)")
    parser.add_argument("--density", type=float, default=0.10, metavar="D", help="share of the weights to keep, 0 to 1")
    parser.add_argument("--method", default="synflow", metavar="NAME", help="a method, see below")
    parser.add_argument("--passes", type=int, default=PASSES, metavar="N", help="of iterative synflow")
    parser.add_argument("--block", type=int, default=DEFAULT_BLOCK, metavar="B", help="output rows sharing positions")
    parser.add_argument(
        "--magnitudes", choices=("constant", "normal"), default="constant", help="+-c, or Kaiming-normal"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the random network")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the ticket, usually *.hns")
    parser.set_defaults(run=_prune)


def _prune(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import Progress

    from coordinator.models import build_plan
    from coordinator.prune import prune

    har = arguments.model == "har-cnn"
    plan = build_plan(
        arguments.model,
        input_shape=arguments.input_shape or ((6, 128) if har else (1, 28, 28)),
        classes=arguments.classes or (6 if har else 10),
    )
    with Progress(transient=True, console=Console(stderr=True)) as progress:
        task = progress.add_task(f"pruning {plan.name} by {arguments.method}", total=None)
        ticket = prune(
            plan,
            density=arguments.density,
            seed=arguments.seed,
            method=arguments.method,
            block=arguments.block,
            passes=arguments.passes,
            magnitudes=arguments.magnitudes,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    _write_whole(arguments.output, ticket.encoded)
    _show(ticket)
    print(f"wrote {arguments.output}")
    return 0


def add_inspect(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`hidenseek inspect`."""
    parser = subparsers.add_parser(
        "inspect",
        help="show what a ticket holds",
        description="Show a ticket, layer by layer. Needs no torch.",
        epilog="examples:\n  hidenseek inspect har.hns",
        formatter_class=command.HelpFormatter,
    )
    parser.add_argument("ticket", type=Path, metavar="FILE", help="a ticket made by hidenseek prune")
    parser.set_defaults(run=_inspect)


def _inspect(arguments: argparse.Namespace) -> int:
    from wire.ticket import read_ticket

    _show(read_ticket(arguments.ticket))
    return 0


def _show(ticket: Ticket) -> None:
    from rich.console import Console

    from coordinator.ticket_table import render

    console = Console()
    # A table squeezed into a pipe's 80 columns would lose its numbers.
    console.width = max(console.width, 130) if not console.is_terminal else console.width
    console.print(render(ticket), highlight=False)


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
    parser.add_argument("--check", action="store_true", help="only check the config file and say what it holds")
    parser.set_defaults(run=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    from coordinator import config

    settings = config.load(arguments.config)
    if arguments.check:
        federation = settings.federation
        print(
            f"{arguments.config}: federation '{federation.name}', {federation.rounds} rounds of {federation.per_round} "
            f"devices, {len(settings.profiles)} profiles, {len(settings.devices) or 'any'} devices may join"
        )
        return 0
    return _serve_run(arguments, settings)


def _serve_run(arguments: argparse.Namespace, settings: DevicesFile) -> int:
    from rich.console import Console

    from coordinator import federation as fed
    from coordinator.broker import COORDINATOR, EmbeddedBroker, parse_listen
    from coordinator.report.summary import summarise
    from coordinator.store import Store
    from coordinator.terminal import Board
    from wire.mqtt import parse_url
    from wire.settings import Training

    console = Console()
    wanted = settings.federation
    state: Path = arguments.state or Path(f"hidenseek-{wanted.name}")
    recipe = fed.Recipe(
        ticket=arguments.config.parent / wanted.ticket if wanted.ticket else None,
        model=wanted.model,
        input_shape=tuple(wanted.input_shape),
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
            memory=wanted.memory,
            allowed=settings.allowed,
            evaluate=wanted.evaluate,
        )
        evaluator = _read_unseen(arguments.unseen, federation.ticket)
    embedded = None
    channel = None
    store = Store(state / fed.DATABASE)
    board = Board(
        console,
        title=f"{wanted.name}: {federation.ticket.plan.name}, {federation.ticket.kept:,} sign bits",
        rounds=wanted.rounds,
        fedavg_bytes=4 * federation.ticket.plan.weights,
    )
    try:
        if arguments.broker:
            broker = parse_url(arguments.broker, password=command.read_password(arguments), ca=arguments.ca)
        else:
            if not settings.devices:
                raise ConfigError(
                    "no devices listed, and the embedded broker gives every device an account of its own",
                    where=str(arguments.config),
                    hint="List them under `devices:`, or name a broker with --broker",
                )
            host, port = parse_listen(arguments.listen)
            embedded = EmbeddedBroker(state / "broker", wanted.name, sorted(settings.devices), host, port)
            embedded.start()
            broker = parse_url(embedded.url(COORDINATOR), password=embedded.passwords[COORDINATOR])
            console.print(f"broker: {embedded.url()}; passwords of the devices: {embedded.folder / 'passwords.json'}")
        channel = fed.connect(
            broker,
            wanted.name,
            federation.ticket,
            timeout_s=arguments.connect_timeout,
            packet_bytes=wanted.packet_kb * 1024,
        )
        coordinator = fed.prepare(
            federation, store=store, channel=channel, observer=board, evaluator=evaluator, new=arguments.new
        )
        with board:
            coordinator.serve()
        _conclude(console, summarise(store), state / "report.html")
    finally:
        if channel is not None:
            channel.transport.close()
        if embedded is not None:
            embedded.stop()
        store.close()
    return 0


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


def add_report(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`hidenseek report`."""
    parser = subparsers.add_parser(
        "report",
        help="write the report of a run again",
        description="Write the HTML report of the newest run in a state folder, finished or not.",
        epilog="examples:\n  hidenseek report hidenseek-default\n  hidenseek report out/demo -o report.html",
        formatter_class=command.HelpFormatter,
    )
    parser.add_argument("state", type=Path, metavar="DIR", help="the folder of hidenseek serve --state or demo --out")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the page (default DIR/report.html)")
    parser.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from coordinator.federation import DATABASE
    from coordinator.report.summary import summarise
    from coordinator.store import Store

    database = arguments.state / DATABASE
    if not database.exists():
        raise DataError("no coordinator.db in this folder", where=str(arguments.state), hint="Name the folder of a run")
    store = Store(database)
    try:
        _conclude(Console(), summarise(store), arguments.output or arguments.state / "report.html")
    finally:
        store.close()
    return 0


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no shape; write it as 1,28,28") from None


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file so that an interrupt leaves no half of it."""
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot be written ({error.strerror})", where=str(path)) from error


def _percent(value: float | None) -> str:
    return f"{value:.1%}" if value is not None else "–"
