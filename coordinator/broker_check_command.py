"""`hidenseek broker check`: what a broker does, tried, in a table."""

from __future__ import annotations

import argparse
import json
import os
import signal
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from coordinator.brokers.access import HOME_ASSISTANT
from coordinator.monitoring.discovery import DEFAULT_PREFIX
from wire import command
from wire.errors import BrokerRefused, BrokerUnreachable, ConfigError

if TYPE_CHECKING:
    from coordinator.brokers.checks.rows import Row, Table, Target

Subparsers = argparse._SubParsersAction
STYLES = {"ok": "green", "FAIL": "bold red", "not tried": "yellow", "note": "dim"}

EXAMPLES = """
examples:
  hidenseek broker check                              # the one of ./deploy, by two accounts made for it
  hidenseek broker check --deploy deploy --restart    # kills it -9 too, where hidenseek broker up runs it
  # any other: accounts.json is {"coordinator": "...", "pi-01": "...", "pi-02": "..."}, of devices not at work now
  hidenseek broker check mqtts://hub.example.org:8883 --ca ca.crt --accounts accounts.json
  HIDENSEEK_PASSWORD=... hidenseek broker check mqtts://coordinator@hub.example.org --ca ca.crt --ws wss://hub.example.org/mqtt
  # those with workers or Home Assistant: {"coordinator": ..., "worker-1": ..., "home-assistant": ..., two devices}
  hidenseek broker check mqtts://hub.example.org --accounts accounts.json --worker worker-1 --home-assistant

Nothing of a federation is touched: topics that end in check-... are used, and retained ones are deleted again.
exit codes: 0 all is as it should be, 15 nobody answers, 16 something is not
"""


def add_check(actions: Subparsers[argparse.ArgumentParser]) -> None:
    """`hidenseek broker check`."""
    parser = actions.add_parser(
        "check",
        help="try what a running broker does, and print a table",
        description="Try a running broker: who may connect and how, who reads and writes which topics, devices' "
        "certificates, retained messages, queues, order, last will, payload limits, websockets, and kill -9.",
        epilog=EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    parser.add_argument("url", nargs="?", metavar="URL", help="of any broker; without one, that of --deploy")
    parser.add_argument("--deploy", type=Path, default=Path("deploy"), metavar="DIR", help="what broker init wrote")
    parser.add_argument("--node", metavar="NAME", help="this one of a cluster (default: the first)")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="certificate authority of the broker")
    parser.add_argument(
        "--accounts", type=Path, metavar="FILE", help="JSON: user and password of coordinator and two devices"
    )
    parser.add_argument("--user", metavar="NAME", help="the coordinator's (default: coordinator, or that of the URL)")
    parser.add_argument(
        "--password-file", type=Path, metavar="FILE", help="its password, if not in --accounts or $HIDENSEEK_PASSWORD"
    )
    parser.add_argument("--federation", default="default", metavar="NAME", help="whose topics are used, with a URL")
    parser.add_argument("--ws", metavar="URL", help="the broker's wss:// address, for apps")
    parser.add_argument("--worker", metavar="NAME", help="with a URL: the user of --accounts that a worker has")
    parser.add_argument(
        "--home-assistant",
        nargs="?",
        const=DEFAULT_PREFIX,
        metavar="PREFIX",
        help=f"with a URL: user {HOME_ASSISTANT} is in --accounts, too (discovery prefix, default: {DEFAULT_PREFIX})",
    )
    parser.add_argument("--packet-kb", type=int, default=256, metavar="N", help="largest payload, with a URL")
    parser.add_argument(
        "--queue", type=int, default=1000, metavar="N", help="messages to keep for a device that is away"
    )
    parser.add_argument("--restart", action="store_true", help="kill the broker -9, where broker up runs it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")
    parser.set_defaults(run=_check)


def _check(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from coordinator.brokers.checks import delivery, home, shown, topics, transport, workers
    from coordinator.brokers.checks.rows import Table, attempt

    console = Console()
    target = _named(arguments) if arguments.url else _deployed(arguments)
    with console.status("") as status:

        def tell(row: Row) -> None:
            status.update(f"{row.side}: {row.what}")

        table = Table(tell)
        refusal = attempt(target.account(target.coordinator))
        if "refused" in refusal and not refusal.startswith(("TLS", "certificate")) and not _open(target):
            raise BrokerUnreachable(f"nobody answers at {target.broker}", hint="Start it: hidenseek broker up")
        if transport.check(target, table):
            topics.check(target, table)
            workers.check(target, table)
            home.check(target, table)
            shown.check(target, table)
            delivery.check(target, table)
            _restart(arguments, target, table)
    _print(console, f"{target.broker}", table)
    if arguments.json:
        rows = [asdict(row) for row in table.rows]
        content = {"broker": f"{target.broker}", "failed": table.failed, "rows": rows}
        command.write_whole(arguments.json, (json.dumps(content, indent=1) + "\n").encode())
    return BrokerRefused.exit_code if table.failed else 0


def _open(target: Target) -> bool:
    import socket

    try:
        with socket.create_connection((target.broker.host, target.broker.port), 5):
            return True
    except OSError:
        return False


def _deployed(arguments: argparse.Namespace) -> Target:
    """The broker of a deployment, by the accounts that were made to check it."""
    from coordinator.brokers import accounts, certificates
    from coordinator.brokers import deployment as deployments
    from coordinator.brokers.access import COORDINATOR
    from coordinator.brokers.checks.rows import Target
    from wire.broker import parse_url
    from wire.errors import UnknownName, did_you_mean

    deployment = deployments.load(arguments.deploy)
    nodes = {node.name: node for node in deployment.broker_nodes() if node.site is None}
    if arguments.node and arguments.node not in nodes:
        raise UnknownName(
            f"no node is called '{arguments.node}'", where="--node", hint=did_you_mean(arguments.node, list(nodes))
        )
    node = nodes[arguments.node] if arguments.node else next(iter(nodes.values()))
    ca = arguments.deploy / certificates.CERTIFICATES
    return Target(
        broker=parse_url(node.url, ca=ca),
        websocket=parse_url(node.ws_url, ca=ca),
        federation=deployment.federation,
        passwords=accounts.load(arguments.deploy),
        coordinator=COORDINATOR,
        devices=deployments.CHECKERS,
        packet_bytes=deployment.packet_kb * 1024,
        queue=arguments.queue,
        home_assistant=deployment.home_assistant,
        worker=next(iter(deployment.workers_names), None),
        certified=parse_url(node.certificate_url, ca=ca) if node.certificate_url else None,
        deploy=arguments.deploy,
    )


def _named(arguments: argparse.Namespace) -> Target:
    """The broker that a URL names.

    Raises:
        ConfigError: if something that is named cannot be used.
    """
    from coordinator.brokers.access import COORDINATOR
    from coordinator.brokers.checks.rows import Target, with_hosts
    from coordinator.monitoring.discovery import check_prefix
    from wire.broker import parse_url
    from wire.topics import check_name

    passwords: dict[str, str] = {}
    if arguments.accounts:
        try:
            passwords = json.loads(arguments.accounts.read_text())
            well = all(isinstance(one, str) for one in passwords.values())
        except (OSError, ValueError, AttributeError) as error:
            raise ConfigError(f"cannot be read ({error})", where=str(arguments.accounts)) from error
        if not well:
            raise ConfigError('not of the form {"USER": "PASSWORD"}', where=str(arguments.accounts))
    broker = parse_url(arguments.url, password=command.read_password(arguments), ca=arguments.ca)
    user = arguments.user or broker.user or (COORDINATOR if COORDINATOR in passwords else None)
    if user is not None and user not in passwords:
        if broker.password is None:
            raise ConfigError(
                f"no password for '{user}'", where="--accounts", hint="Or set HIDENSEEK_PASSWORD, or --password-file"
            )
        passwords[user] = broker.password
    if arguments.worker and arguments.worker not in passwords:
        raise ConfigError(f"no password for '{arguments.worker}'", where="--worker", hint="Add it to --accounts")
    if arguments.home_assistant and HOME_ASSISTANT not in passwords:
        raise ConfigError(f"no password for '{HOME_ASSISTANT}'", where="--home-assistant", hint="Add it to --accounts")
    others = [name for name in passwords if name not in (user, arguments.worker, HOME_ASSISTANT)]
    return Target(
        broker=broker,
        websocket=with_hosts(arguments.ws, broker) if arguments.ws else None,
        federation=check_name(arguments.federation, "federation name"),
        passwords=passwords,
        coordinator=user,
        devices=tuple(check_name(name, "device id") for name in others[:2]),
        packet_bytes=arguments.packet_kb * 1024,
        queue=arguments.queue,
        home_assistant=check_prefix(arguments.home_assistant) if arguments.home_assistant else None,
        worker=arguments.worker,
    )


def _restart(arguments: argparse.Namespace, target: Target, table: Table) -> None:
    from coordinator.brokers import deployment as deployments
    from coordinator.brokers import up
    from coordinator.brokers.checks import delivery

    what = "killed, it keeps what it has confirmed"
    if arguments.url:
        table.skip(delivery.KILLED, what, "it is not run by hidenseek broker up here")
        return
    deployment = deployments.load(arguments.deploy)
    running = up.running_nodes(arguments.deploy, deployment)
    if not arguments.restart or not running:
        table.skip(delivery.KILLED, what, "add --restart" if running else "it is not run by hidenseek broker up here")
        return

    def kill() -> None:
        for pid in running.values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    delivery.killed(target, table, kill)


def _print(console: object, title: str, table: Table) -> None:
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    assert isinstance(console, Console)
    grid = Grid(title=title, box=None, pad_edge=False, title_justify="left", header_style="bold")
    for name in ("", "tried", "expected", "found", ""):
        grid.add_column(name, overflow="fold")
    side = ""
    for row in table.rows:
        shown = "" if row.side == side else row.side
        if shown and side:
            grid.add_row()
        side = row.side
        grid.add_row(
            Text(shown, style="bold"), row.what, row.expected, row.found, Text(row.verdict, style=STYLES[row.verdict])
        )
    console.print(grid)
    counts = {verdict: sum(row.verdict == verdict for row in table.rows) for verdict in STYLES}
    console.print(
        f"{counts['ok']} as they should be, {counts['FAIL']} not, {counts['not tried']} not tried",
        style="bold red" if table.failed else "green",
        highlight=False,
    )
