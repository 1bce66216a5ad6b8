"""`hidenseek demo`: its options, and what it does with them; and how a run ends that somebody watched."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from coordinator.page.options import add_page_arguments, read_page
from wire import command
from wire.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from coordinator.report.summary import Summary

Subparsers = argparse._SubParsersAction

DEMO_EXAMPLES = """
examples:
  hidenseek demo                                   # 25 people, 20 rounds
  hidenseek demo --rounds 5 --json result.json
  hidenseek demo --page                            # and watch it in a browser
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
    add_page_arguments(parser)
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
            page=read_page(arguments, out),
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


def _percent(value: float | None) -> str:
    return f"{value:.1%}" if value is not None else "–"
