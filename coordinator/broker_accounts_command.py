"""`hidenseek broker add-device`, `remove-device` and `rotate`: who may use a broker, changed while it runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from wire import command
from wire.errors import ConfigError, UnknownName

if TYPE_CHECKING:
    from coordinator.brokers.deployment import Deployment

Subparsers = argparse._SubParsersAction


def add_deploy_argument(parser: argparse.ArgumentParser) -> None:
    """--deploy."""
    parser.add_argument("--deploy", type=Path, default=Path("deploy"), metavar="DIR", help="what broker init wrote")


def add_changes(actions: Subparsers[argparse.ArgumentParser]) -> None:
    """The three of them."""
    add = actions.add_parser(
        "add-device",
        help="an account for another device, without a restart",
        description="Make an account for a device and print its password; a broker that runs here lets it in at once.",
        epilog="examples:\n  hidenseek broker add-device pi-99\n  hidenseek broker add-device pi-99 --site north",
        formatter_class=command.HelpFormatter,
    )
    add.add_argument("device", nargs="+", metavar="ID", help="a device id")
    add.add_argument("--site", metavar="NAME", help="whose broker it connects to")
    remove = actions.add_parser(
        "remove-device",
        help="end a device's account, and its connection",
        description="Take a device's account away; a broker that runs here disconnects it at once. To have a "
        "coordinator not believe it any more either: hidenseek fleet revoke.",
        epilog="examples:\n  hidenseek broker remove-device pi-07",
        formatter_class=command.HelpFormatter,
    )
    remove.add_argument("device", nargs="+", metavar="ID", help="a device id")
    rotate = actions.add_parser(
        "rotate",
        help="other passwords, or other certificates",
        description="Give accounts other passwords, or the servers other certificates.",
        epilog="examples:\n  hidenseek broker rotate pi-07 pi-08\n  hidenseek broker rotate --everyone\n"
        "  hidenseek broker rotate --certificates     # same authority: devices notice nothing\n"
        "  hidenseek broker rotate --authority        # first bring ca.crt, which has both, to every device; then "
        "--certificates",
        formatter_class=command.HelpFormatter,
    )
    rotate.add_argument("user", nargs="*", metavar="USER", help="a device id, coordinator, worker-1 or site-A")
    rotate.add_argument("--everyone", action="store_true", help="all accounts")
    rotate.add_argument("--certificates", action="store_true", help="the servers' certificates and keys")
    rotate.add_argument("--authority", action="store_true", help="another certificate authority beside the old one")
    for parser, run in ((add, _add_device), (remove, _remove_device), (rotate, _rotate)):
        add_deploy_argument(parser)
        parser.set_defaults(run=run)


def _add_device(arguments: argparse.Namespace) -> int:
    from coordinator.brokers import accounts
    from coordinator.brokers import deployment as deployments
    from wire.topics import check_name

    before = deployments.load(arguments.deploy)
    names = {check_name(name, "device id"): arguments.site for name in arguments.device}
    if there := sorted(names.keys() & before.devices.keys()):
        raise ConfigError(f"'{there[0]}' has an account", hint="Another password: hidenseek broker rotate " + there[0])
    deployment = before.model_copy(update={"devices": before.devices | names})
    deployments.check(deployment)
    _apply(arguments.deploy, deployment)
    passwords = accounts.load(arguments.deploy)
    for name in names:
        print(f"{name}: {passwords[name]}")
    return 0


def _remove_device(arguments: argparse.Namespace) -> int:
    import time

    from coordinator.brokers import deployment as deployments
    from coordinator.brokers import shut_out

    before = deployments.load(arguments.deploy)
    _check_known(arguments.device, list(before.devices))
    _apply(arguments.deploy, shut_out.close(arguments.deploy, before, arguments.device, time.time()))
    print(f"removed: {', '.join(arguments.device)}")
    return 0


def _rotate(arguments: argparse.Namespace) -> int:
    from coordinator.brokers import accounts, certificates
    from coordinator.brokers import deployment as deployments

    if not (arguments.user or arguments.everyone or arguments.certificates or arguments.authority):
        raise ConfigError("nothing to rotate", hint="Name users, or say --everyone, --certificates or --authority")
    deployment = deployments.load(arguments.deploy)
    known = list(accounts.load(arguments.deploy))
    _check_known(arguments.user, known)
    users = known if arguments.everyone else arguments.user
    _apply(
        arguments.deploy,
        deployment,
        users=users,
        certificates=arguments.certificates,
        authority=arguments.authority,
    )
    passwords = accounts.load(arguments.deploy)
    for user in arguments.user:
        print(f"{user}: {passwords[user]}")
    if arguments.everyone:
        print(f"passwords of all {len(known)} accounts: {arguments.deploy / accounts.FILE}")
    if arguments.certificates:
        path = arguments.deploy / "nodes" / deployment.broker_nodes()[0].name / "config" / "server.crt"
        print(f"certificates are valid until {certificates.valid_until(path):%Y-%m-%d}")
        print("brokers show them to whoever connects from now on, once they have been told to read them")
    if arguments.authority:
        print(
            "bring ca.crt, which has the old authority and the new one, to every device; after that: "
            "hidenseek broker rotate --certificates"
        )
    return 0


def _check_known(users: list[str], known: list[str]) -> None:
    from wire.errors import did_you_mean

    for user in users:
        if user not in known:
            raise UnknownName(f"no account is called '{user}'", hint=did_you_mean(user, known))


def _apply(
    folder: Path,
    deployment: Deployment,
    *,
    users: list[str] | None = None,
    certificates: bool = False,
    authority: bool = False,
) -> None:
    """Write what has changed, and tell brokers that run here."""
    from rich.console import Console

    from coordinator.brokers import change

    with Console().status("making certificates and accounts"):
        writer = change.write(folder, deployment, users=users or (), certificates=certificates, authority=authority)
    for name in writer.edited:
        print(f"{folder / name}: you have edited it; see the .new or .edited file beside it")
    tell_reloaded(folder, deployment, True)
    if users and any(user.startswith("site-") for user in users):
        print("a site's new password is in its mosquitto.conf: restart that site's broker")


def tell_reloaded(folder: Path, deployment: Deployment, changed: bool) -> None:
    """Have brokers that run here read changed accounts, and say which."""
    from coordinator.brokers import change

    if not changed:
        return
    told = change.reload(folder, deployment)
    if told:
        print(f"{', '.join(node.name for node in told)}: told to read its accounts again")
    elif (folder / "run").exists():
        print(f"no broker of it runs here; to tell one elsewhere, see {folder}/README.md, Later")
