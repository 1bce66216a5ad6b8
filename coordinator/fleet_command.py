"""`hidenseek fleet`: the devices that were seen, and who of them may take part."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from coordinator import broker_accounts_command
from coordinator.fleet_actions import BROKER_TOO, TO_DEVICES, TO_RUNS, Action
from coordinator.fleet_update_command import add_update
from coordinator.place import Place
from coordinator.store_options import add_store_argument, database_in, open_store, read_server
from wire import command, signing
from wire.errors import DataError

if TYPE_CHECKING:
    from wire.federation_messages import Hello

Subparsers = argparse._SubParsersAction

EXAMPLES = """
examples:
  hidenseek fleet list                       # every device that was seen, its key, and whether it may take part
  hidenseek fleet revoke pi-07               # stolen: it takes part no more, from the next round on
  hidenseek fleet restore pi-07              # found again
  hidenseek fleet forget pi-07               # its card was replaced: whoever joins next as pi-07 is it
  hidenseek fleet approve pi-07              # its card was refused as used before, and it is the right one
  hidenseek fleet pause                      # no round opens after the one that is open
  hidenseek fleet resume                     # rounds open again
  hidenseek fleet rename pi-07 kitchen       # in devices.yaml, the database, and the broker's accounts
  hidenseek fleet update --broker mqtt://192.168.1.10 --percent 10   # another version of the client, for a tenth first

While hidenseek serve runs, it follows within a second. The state folder, or the store, is that of hidenseek serve.
"""


CONFIG = Path("devices.yaml")
AT_THE_BROKER = {
    "revoke": " If it has a certificate of the deployment's, that opens the broker no more, and its connection ends.",
    "restore": " Its certificate of the deployment's, if it has one, is good again.",
}
STATE_HELP = "state folder of hidenseek serve"


def add_fleet(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`hidenseek fleet` and its actions."""
    parser = subparsers.add_parser(
        "fleet",
        help="list the devices, revoke one, let one in again; pause the rounds",
        description="The devices that a coordinator has seen: list them, revoke one, let one in again, forget a key; "
        "and pause its rounds.",
        epilog=EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    of_all = ("list", *TO_RUNS)  # name no device
    for name, text, run in (
        ("list", "show every device that was seen", _list),
        *((name, action.text, _run(name, action)) for name, action in TO_DEVICES.items()),
        ("approve", "let a flashed card claim its account once more", _approve),
        *((name, action.text, partial(_to_run, action)) for name, action in TO_RUNS.items()),
    ):
        action = actions.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + "." + AT_THE_BROKER.get(name, ""),
            epilog=f"examples:\n  hidenseek fleet {name}{'' if name in of_all else ' pi-07'}"
            + (" --deploy deploy" if name == "approve" else " --state hidenseek-default"),
            formatter_class=command.HelpFormatter,
        )
        if name not in of_all:
            action.add_argument("device", metavar="ID", help="a device id")
        if name in ("list", "approve", *BROKER_TOO):
            broker_accounts_command.add_deploy_argument(action)
        if name == "approve":
            action.set_defaults(run=run)
            continue
        where = action.add_mutually_exclusive_group()
        where.add_argument("--state", type=Path, metavar="DIR", help=STATE_HELP)
        where.add_argument("--config", type=Path, default=CONFIG, metavar="FILE", help="names it, without --state")
        add_store_argument(where)
        action.set_defaults(run=run)
    _add_rename(actions)
    add_update(actions)


def _run(name: str, action: Action[[str]]) -> Callable[[argparse.Namespace], int]:
    if name in BROKER_TOO:
        return partial(_to_device_and_broker, action, out=BROKER_TOO[name])
    return partial(_to_device, action)


def _add_rename(actions: Subparsers[argparse.ArgumentParser]) -> None:
    action = actions.add_parser(
        "rename",
        help="give a device another id",
        description="Give a device another id in devices.yaml, in the coordinator's database with all its past rounds, "
        "and among the accounts of the broker's deployment, where it keeps its password and its key. The board itself "
        "calls itself by the old one, and is not let in, until it is told; the command says how.",
        epilog="examples:\n  hidenseek fleet rename pi-07 kitchen\n"
        "  hidenseek fleet rename pi-07 kitchen --state hidenseek-default --deploy deploy",
        formatter_class=command.HelpFormatter,
    )
    action.add_argument("old", metavar="OLD", help="its id")
    action.add_argument("new", metavar="NEW", help="an id that no device has had")
    action.add_argument("--state", type=Path, metavar="DIR", help=f"{STATE_HELP} (default: as the config file says)")
    action.add_argument("--config", type=Path, default=CONFIG, metavar="FILE", help="where devices are listed")
    add_store_argument(action)
    broker_accounts_command.add_deploy_argument(action)
    action.set_defaults(run=_rename)


def _rename(arguments: argparse.Namespace) -> int:
    from coordinator import config, renaming
    from coordinator.brokers import deployment as deployments
    from coordinator.federation import state_folder

    listed = arguments.config if arguments.config.exists() else None
    database: Place | None = read_server(arguments)
    if database is None and (arguments.state or listed):
        database = database_in(arguments.state or state_folder(config.load(arguments.config).federation.name))
        if arguments.state is None and not database.exists():
            database = None  # no run yet
    there = renaming.Places(
        config=listed,
        database=database,
        deploy=arguments.deploy if (arguments.deploy / deployments.FILE).exists() else None,
    )
    old, new = arguments.old, arguments.new
    done = renaming.rename(there, old, new)
    print(f"'{old}' is '{new}' in {', '.join(done.where)}")
    print("a coordinator that is running knows of it when it is started again: hidenseek serve")
    if done.waiting:
        print(f"its card was not used yet, and is good for nothing now: hidenseek flash {new}")
        return 0
    out = f"is shut out as '{old}'" if done.account else f"goes on as '{old}', where its broker lets it"
    print(f"the board itself {out} until it is told its new name. With a card of hidenseek flash, on the board:")
    print(f'  sudo sed -i \'s/"device": "{old}"/"device": "{new}"/\' /etc/hidenseek/card.json')
    print("  sudo systemctl restart hidenseek")
    print(f"and otherwise start hidenseek-edge join with --device {new}, and the --state that it had")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from rich.table import Table
    from rich.text import Text

    from coordinator.brokers import claims
    from coordinator.terminal import printable, wide

    cards = claims.load(arguments.deploy).cards
    revoked: frozenset[str] = frozenset()
    devices: dict[str, Hello] = {}
    seen: dict[str, float] = {}
    try:
        with open_store(arguments) as store:
            revoked, devices = store.revoked(), store.devices()
            seen = {row["name"]: row["seen_s"] for row in store.query("SELECT name, seen_s FROM device")}
    except DataError:  # no run yet: the cards are all that there is
        if not cards:
            raise
    certified = any(card.certificates for card in cards.values())
    table = Table(box=None, pad_edge=False)
    for title in (
        "device",
        "key",
        "client",
        "runtime",
        "profile",
        "last hello",
        *(["card"] if cards else []),
        *(["certificate"] if certified else []),
        "may take part",
    ):
        table.add_column(title, no_wrap=title in ("device", "key"))
    for name in sorted({*devices, *revoked, *cards}):
        hello = devices.get(name)
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(seen[name])) if name in seen else ""
        facts = ("", "", "", "")
        if hello:
            client = hello.software.removeprefix("hidenseek-edge ")
            facts = (signing.fingerprint(hello.key), client, hello.runtime, hello.profile)
        card = ([cards[name].in_words(time.time()) if name in cards else ""]) if cards else []
        if certified:
            card.append(cards[name].certificate_in_words(time.time()) if name in cards else "")
        may = "revoked" if name in revoked else "yes"
        table.add_row(name, *(Text(printable(fact)) for fact in facts), when, *card, may)
    console = wide()
    console.print(table if table.rows else "no device was seen yet")
    for name, one in sorted(cards.items()):
        for attempt in one.refused:
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(attempt.at_s))
            who = f"{signing.fingerprint(signing.from_text(attempt.key, where=name))} {printable(attempt.hardware)}"
            console.print(
                Text(f"{name}: its card was used once more at {when}, by {who.strip()}: refused"), soft_wrap=True
            )
    return 0


def _approve(arguments: argparse.Namespace) -> int:
    from coordinator.brokers import deployment as deployments
    from coordinator.brokers import enroller
    from wire.topics import check_name

    device = check_name(arguments.device, "device id")
    bound = enroller.approve(arguments.deploy, deployments.load(arguments.deploy), device, time.time())
    print(f"{device}: its card may claim the account once more" + ("; who had it is out" if bound else ""))
    if bound:
        print(f"a coordinator that does not see {arguments.deploy} has to be told: hidenseek fleet forget {device}")
    return 0


def _to_device(action: Action[[str]], arguments: argparse.Namespace) -> int:
    from wire.topics import check_name

    device = check_name(arguments.device, "device id")
    with open_store(arguments) as store:
        print(f"{device} {action.carry_out(store, device)}")
    return 0


def _to_device_and_broker(action: Action[[str]], arguments: argparse.Namespace, *, out: bool) -> int:
    """The broker first: a device that is shut out there before any run is shut out all the same."""
    from coordinator.brokers import shut_out
    from wire.topics import check_name

    device = check_name(arguments.device, "device id")
    said = shut_out.follow(arguments.deploy, None, device, time.time(), out=out)
    if said:
        print(f"{device}: {said}")
    try:
        return _to_device(action, arguments)
    except DataError:  # no run yet
        if not said:
            raise
        return 0


def _to_run(action: Action[[]], arguments: argparse.Namespace) -> int:
    with open_store(arguments) as store:
        print(action.carry_out(store))
    return 0
