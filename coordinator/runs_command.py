"""`hidenseek runs`: start one, stop it, change its settings; what the database keeps of runs, and dropping old ones."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from coordinator.rounds import CHANGEABLE
from coordinator.store_options import add_store_argument, open_store
from wire import command
from wire.errors import ConfigError

Subparsers = argparse._SubParsersAction

EXAMPLES = """
examples:
  hidenseek runs list                        # of the coordinator of ./devices.yaml, the newest first
  hidenseek runs set rounds=40 deadline_s=90 # of the run that goes on
  hidenseek runs stop                        # it ends now, with the network of the last round that has closed
  hidenseek runs start rounds=10             # another, with 10 rounds in place of what devices.yaml says
  hidenseek runs drop --keep 5               # finished runs older than the newest five; daily, by cron
  hidenseek runs drop --keep 1 --state hidenseek-site
  hidenseek runs list --store postgresql://hidenseek@db.example.org/site

The coordinator may be at work meanwhile: it heeds what it is told within a second. A run that is not finished always
stays, and so do devices, their keys, and who was revoked. A dropped run has no report any more: write those that you
want first, hidenseek report.
"""


def add_runs(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`hidenseek runs`."""
    parser = subparsers.add_parser(
        "runs",
        help="start a run, stop it, change its settings; list runs, and drop old ones",
        description="Start a run, stop it, or change its settings; list the runs in a coordinator's database, drop "
        "finished ones, which it keeps until then, or let an unfinished one go on from an older state.",
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
    starting = _add_settings(
        actions,
        "start",
        "start a run, when none goes on",
        "Have the coordinator start a run by devices.yaml, some settings of its federation changed. It does so at once "
        "if it waits for one (hidenseek serve --stay, or --page), and otherwise when it is started.",
        "  hidenseek runs start\n  hidenseek runs start rounds=10 per_round=5 quorum=3 training.epochs=2",
        "*",
    )
    starting.set_defaults(run=_start)
    setting = _add_settings(
        actions,
        "set",
        "change settings of the run that goes on",
        f"Change settings of the run that goes on: {', '.join(CHANGEABLE)}. They count from the next round on, a "
        "longer or shorter run at once; devices.yaml stays as it is, and counts for the next run. With another number "
        "of rounds devices begin what they train for the open round again.",
        "  hidenseek runs set rounds=40\n  hidenseek runs set per_round=20 quorum=15 deadline_s=120",
        "+",
    )
    setting.set_defaults(run=_set)
    stopping = actions.add_parser(
        "stop",
        help="end the run that goes on",
        description="End the run that goes on, with the network of the last round that has closed. Masks of the open "
        "round are not counted. It cannot be taken up again; hidenseek fleet pause leaves it as it is.",
        epilog="examples:\n  hidenseek runs stop --state hidenseek-default",
        formatter_class=command.HelpFormatter,
    )
    stopping.set_defaults(run=_stop)
    renewing = actions.add_parser(
        "renew",
        help="let an unfinished run go on from an older state",
        description="After the database was put back as it was some time ago, by pg_restore or from a snapshot of its "
        "disk: the run goes on as a new one to the devices, which would not listen to one that knows less than they "
        "do. hidenseek restore does it by itself.",
        epilog="examples:\n  hidenseek runs renew --store postgresql://hidenseek@db.example.org/site",
        formatter_class=command.HelpFormatter,
    )
    renewing.set_defaults(run=_renew)
    for one in (listing, dropping, starting, setting, stopping, renewing):
        one.add_argument("--state", type=Path, metavar="DIR", help="state folder of hidenseek serve (default: by name)")
        one.add_argument("--config", type=Path, default=Path("devices.yaml"), metavar="FILE", help="federation")
        add_store_argument(one)


def _add_settings(
    actions: Subparsers[argparse.ArgumentParser], name: str, text: str, description: str, examples: str, count: str
) -> argparse.ArgumentParser:
    parser = actions.add_parser(
        name,
        help=text,
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=command.HelpFormatter,
    )
    parser.add_argument(
        "settings", nargs=count, metavar="NAME=VALUE", help="a setting below `federation` in devices.yaml"
    )
    return parser


def _settings(arguments: argparse.Namespace) -> dict[str, object]:
    """What was written on the command line; raises ConfigError if it is no setting."""
    from coordinator import orders

    texts = {}
    for one in arguments.settings:
        name, equals, text = one.partition("=")
        if not (name and equals):
            raise ConfigError(f"'{one}' is no setting", hint="Write NAME=VALUE, as rounds=40")
        texts[name] = text
    return orders.values(texts)


def _start(arguments: argparse.Namespace) -> int:
    from coordinator import config, orders

    with open_store(arguments) as store:
        print(orders.ask(store, config.load(arguments.config), _settings(arguments)))
    print("a coordinator that waits does so within a second; otherwise: hidenseek serve")
    return 0


def _set(arguments: argparse.Namespace) -> int:
    from coordinator import orders

    with open_store(arguments) as store:
        print(orders.change(store, _settings(arguments)))
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    from coordinator import orders

    with open_store(arguments) as store:
        print(orders.stop(store))
    return 0


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


def _renew(arguments: argparse.Namespace) -> int:
    with open_store(arguments) as store:
        store.claim("runs renew")
        before = store.unfinished_run()
        store.renew_run()
        after = store.unfinished_run()
    if before is None or after is None:
        print("no run is unfinished: the next hidenseek serve begins one")
    else:
        print(f"run {before.id.hex()} goes on as {after.id.hex()}, with the same hidenseek serve as before")
    return 0


def _moment(time_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(time_s))
