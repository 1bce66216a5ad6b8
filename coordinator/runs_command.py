"""`hidenseek runs`: what the database keeps of runs, and dropping old ones."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from coordinator.fleet_command import open_store
from wire import command
from wire.errors import ConfigError

Subparsers = argparse._SubParsersAction

EXAMPLES = """
examples:
  hidenseek runs list                        # of the coordinator of ./devices.yaml, the newest first
  hidenseek runs drop --keep 5               # finished runs older than the newest five; daily, by cron
  hidenseek runs drop --keep 1 --state hidenseek-site

The coordinator may be at work meanwhile. A run that is not finished always stays, and so do devices, their keys, and
who was revoked. A dropped run has no report any more: write those that you want first, hidenseek report.
"""


def add_runs(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`hidenseek runs`."""
    parser = subparsers.add_parser(
        "runs",
        help="what the database keeps of runs, and dropping old ones",
        description="List the runs in a coordinator's database, or drop finished ones, which it keeps until then.",
        epilog=EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser(
        "list",
        help="every run, the newest first",
        epilog="examples:\n  hidenseek runs list --state hidenseek-default",
        formatter_class=command.HelpFormatter,
    )
    listing.set_defaults(run=_list)
    dropping = actions.add_parser(
        "drop",
        help="finished runs but the newest",
        epilog="examples:\n  hidenseek runs drop --keep 5 --state hidenseek-default",
        formatter_class=command.HelpFormatter,
    )
    dropping.add_argument("--keep", type=int, required=True, metavar="N", help="the newest N runs stay, 1 at least")
    dropping.set_defaults(run=_drop)
    for one in (listing, dropping):
        one.add_argument("--state", type=Path, metavar="DIR", help="state folder of hidenseek serve (default: by name)")
        one.add_argument("--config", type=Path, default=Path("devices.yaml"), metavar="FILE", help="federation")


def _list(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from coordinator import retention

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("run", "started", "finished", "rounds", "masks", "signs"):
        grid.add_column(name, justify="left" if name in ("run", "started", "finished") else "right")
    with open_store(arguments) as store:
        for one in retention.kept(store):
            run = one.run
            grid.add_row(
                run.id.hex(),
                _moment(run.started_s),
                _moment(run.finished_s) if run.finished_s is not None else "–",
                f"{one.rounds:,}",
                f"{one.masks:,}",
                f"{one.signs_bytes / 1e6:,.1f} MB",
            )
    Console().print(grid)
    return 0


def _drop(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from coordinator import retention

    if arguments.keep < 1:
        raise ConfigError(
            f"{arguments.keep} runs are to stay", where="--keep", hint="1 or more: devices ask for the newest one"
        )
    with open_store(arguments) as store, Console().status("dropping") as status:
        gone = retention.superfluous(store, arguments.keep)
        for run in gone:
            rows = 0
            for deleted in retention.drop(store, run):
                rows += deleted
                status.update(f"{run.id.hex()}: {rows:,} rows")
            print(f"dropped: run {run.id.hex()}, begun {_moment(run.started_s)}, {rows:,} rows")
    print(f"{len(gone)} dropped; the file stays as long as it is, and what comes next is written where they were")
    return 0


def _moment(time_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(time_s))
