"""`hidenseek backup` and `restore`: a coordinator in one file, and out of it."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from coordinator.store_options import add_store_argument, read_server
from wire import command

Subparsers = argparse._SubParsersAction

BACKUP_EXAMPLES = """
examples:
  hidenseek backup -o backup.tar                        # of the coordinator of ./devices.yaml, which may be at work
  hidenseek backup -o backup.tar --state hidenseek-site --deploy deploy
  hidenseek backup -o backup.tar --store postgresql://hidenseek@db.example.org/site    # all in one file, too

The file has private keys and passwords: only you can read it, and it belongs where others cannot.
"""
RESTORE_EXAMPLES = """
examples:
  hidenseek restore backup.tar                          # into an empty folder; then the same hidenseek serve as before
  hidenseek restore backup.tar --state hidenseek-site
  hidenseek restore backup.tar --store postgresql://hidenseek@db.example.org/site      # whatever it was before

What is there already is never overwritten. An unfinished run goes on from the round that it was in when the backup was
made. Who was revoked since then has to be revoked again.
"""


def add_backup(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`hidenseek backup`."""
    parser = subparsers.add_parser(
        "backup",
        help="all that a coordinator cannot make again, in one file",
        description="Write the database, the federation's key, devices.yaml, and what a broker's deployment is made of "
        "into one file, while the coordinator is at work or not.",
        epilog=BACKUP_EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the file, replaced if there")
    _add_places(parser)
    parser.set_defaults(run=_backup)


def add_restore(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`hidenseek restore`."""
    parser = subparsers.add_parser(
        "restore",
        help="a coordinator out of a backup",
        description="Put back what hidenseek backup has written, on this machine or another.",
        epilog=RESTORE_EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    parser.add_argument("backup", type=Path, metavar="FILE", help="made by hidenseek backup")
    _add_places(parser)
    parser.set_defaults(run=_restore)


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state", type=Path, metavar="DIR", help="state folder of hidenseek serve (default: by name)")
    parser.add_argument(
        "--config", type=Path, default=Path("devices.yaml"), metavar="FILE", help="federation and fleet"
    )
    add_store_argument(parser)
    parser.add_argument("--deploy", type=Path, default=Path("deploy"), metavar="DIR", help="of hidenseek broker init")


def _backup(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from coordinator import backup
    from coordinator import config as configs
    from coordinator.federation import state_folder

    wanted = configs.load(arguments.config).federation
    places = backup.Places(
        state=arguments.state or state_folder(wanted.name),
        config=arguments.config,
        deploy=arguments.deploy,
        server=read_server(arguments),
    )
    with Console().status("copying"):
        names = backup.make(places, wanted.name, wanted.ticket, arguments.output)
    size = arguments.output.stat().st_size
    print(f"{arguments.output}: {size / 1e6:,.1f} MB, for your eyes only: {', '.join(names)}")
    return 0


def _restore(arguments: argparse.Namespace) -> int:
    from coordinator import backup
    from coordinator.federation import state_folder

    manifest = backup.read_manifest(arguments.backup)
    places = backup.Places(
        state=arguments.state or state_folder(manifest.federation),
        config=arguments.config,
        deploy=arguments.deploy,
        server=read_server(arguments),
    )
    for path in backup.restore(arguments.backup, manifest, places):
        print(f"restored: {path}")
    if places.server is not None:
        print(f"restored: {places.server}")
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(manifest.made_s))
    print(f"next: the same hidenseek serve as before; revoke again whom you have revoked since {made}")
    return 0
