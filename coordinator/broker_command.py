"""`hidenseek broker`: a secured broker of one's own, from its files to the proof that it does what it should."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from coordinator import broker_check_command
from wire import command
from wire.errors import ConfigError, UnknownName

if TYPE_CHECKING:
    from coordinator.brokers.deployment import Deployment
    from coordinator.brokers.files import Writer

Subparsers = argparse._SubParsersAction
RELOADED_S = 0.5  # what a broker may take to read its accounts again

INIT_EXAMPLES = """
examples:
  # everything for one broker: certificates, accounts, systemd, Docker, Kubernetes, firewall; deploy/README.md goes on
  hidenseek broker init --kind mosquitto --hosts hub.example.org,192.168.1.10 -o deploy
  # a cluster of three: any one machine may be lost
  hidenseek broker init --kind nats --nodes 3 --hosts n1.example.org,n2.example.org,n3.example.org -o deploy
  # a hub, and a broker at each of two sites that goes on while the line to the hub is down
  hidenseek broker init --kind mosquitto --hosts hub.example.org --sites north=10.1.0.2,south=10.2.0.2 -o deploy
  # try it on this machine
  hidenseek broker init --kind nats --hosts localhost,127.0.0.1 -o deploy

Federation and devices come from devices.yaml (--devices); every device gets an account of its own. The same command
again keeps keys, passwords, and what you have edited, and adds what is new.
"""
UP_EXAMPLES = """
examples:
  hidenseek broker up                                # all nodes of ./deploy
  hidenseek broker up --deploy deploy --node node-2  # one of them, on its machine
"""


def add_broker(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`hidenseek broker` and its actions."""
    parser = subparsers.add_parser(
        "broker",
        help="deploy a secured broker, run it, check one, change who may use it",
        description="Deploy a secured MQTT broker with an account for each device, run it, prove what it does, and "
        "change who may use it while it runs.",
        epilog=INIT_EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    _add_init(actions)
    _add_up(actions)
    broker_check_command.add_check(actions)
    _add_changes(actions)


def add_deploy_argument(parser: argparse.ArgumentParser) -> None:
    """--deploy."""
    parser.add_argument("--deploy", type=Path, default=Path("deploy"), metavar="DIR", help="what broker init wrote")


def _add_init(actions: Subparsers[argparse.ArgumentParser]) -> None:
    init = actions.add_parser(
        "init",
        help="write everything for a broker into a folder",
        description="Write a complete deployment: certificate authority and certificates, accounts and access rules, "
        "settings with limits for the fleet, systemd, Docker, Kubernetes, firewall, and a README that says how.",
        epilog=INIT_EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    init.add_argument("--kind", choices=("nats", "mosquitto"), help="which broker (again: the one it was)")
    init.add_argument(
        "--hosts", metavar="H,H", help="names and addresses that devices know it by; of a cluster, each node's"
    )
    init.add_argument("-o", "--output", type=Path, default=Path("deploy"), metavar="DIR", help="the folder")
    init.add_argument(
        "--devices", type=Path, metavar="FILE", help="devices.yaml (default: ./devices.yaml if there is one)"
    )
    init.add_argument("--nodes", type=int, metavar="N", help="nats: a cluster of 3 or 5")
    init.add_argument(
        "--sites", metavar="NAME=HOST,NAME", help="mosquitto: a hub, and a broker at each site that bridges to it"
    )
    init.add_argument("--workers", type=int, metavar="N", help="accounts for aggregation workers, worker-1 and so on")
    init.add_argument("--fleet", type=int, metavar="N", help="size the limits for N devices (default: those listed)")
    init.add_argument("--port", type=int, metavar="PORT", help="MQTT over TLS (default 8883)")
    init.add_argument("--ws-port", type=int, metavar="PORT", help="MQTT over secure websockets (default 8084)")
    init.add_argument("--cluster-port", type=int, metavar="PORT", help="nats: between nodes (default 6222)")
    init.add_argument(
        "--client-port", type=int, metavar="PORT", help="nats: its own protocol, loopback only (default 4222)"
    )
    init.set_defaults(run=_init)


def _add_up(actions: Subparsers[argparse.ArgumentParser]) -> None:
    up = actions.add_parser(
        "up",
        help="run the broker here, in the foreground",
        description="Run the broker on this machine, and start it again if it ends. Ctrl-C stops it; messages stay.",
        epilog=UP_EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    add_deploy_argument(up)
    up.add_argument("--node", action="append", metavar="NAME", help="only this one of several (may be repeated)")
    up.set_defaults(run=_up)


def _add_changes(actions: Subparsers[argparse.ArgumentParser]) -> None:
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


def _init(arguments: argparse.Namespace) -> int:
    from coordinator.brokers import deployment as deployments
    from coordinator.brokers import render

    folder: Path = arguments.output
    deployment = _wanted(arguments, folder)
    deployments.check(deployment)
    strays: list[str] = []
    if (folder / deployments.FILE).exists():
        before = deployments.load(folder)
        if before.kind != deployment.kind:
            raise ConfigError(
                f"it is a deployment of {before.kind}", where=str(folder), hint="Name another folder with -o"
            )
        strays = sorted(before.devices.keys() - deployment.devices.keys())
        deployment = deployment.model_copy(update={"devices": before.devices | deployment.devices})
        deployments.check(deployment)
    writer = render.write(folder, deployment)
    _tell_written(folder, writer)
    nodes = deployment.broker_nodes()
    print(
        f"{deployment.kind} for federation '{deployment.federation}': {len(nodes)} node{'s'[: len(nodes) > 1]}, "
        f"{len(deployment.devices)} device accounts, limits for {deployment.size} devices"
    )
    for stray in strays:
        print(f"{stray} has an account and is not listed any more; to end it: hidenseek broker remove-device {stray}")
    _tell_reloaded(folder, deployment, bool(writer.made or writer.changed))
    print(f"next: {folder}/README.md, or: hidenseek broker up --deploy {folder}")
    return 0


def _wanted(arguments: argparse.Namespace, folder: Path) -> Deployment:
    """What the options, devices.yaml, and an earlier init say, in this order.

    Raises:
        ConfigError: if kind or hosts are missing, or something is out of range.
    """
    from pydantic import ValidationError

    from coordinator import config
    from coordinator.brokers import deployment as deployments

    known = deployments.load(folder).model_dump() if (folder / deployments.FILE).exists() else {}
    listed: Path | None = arguments.devices or (Path("devices.yaml") if Path("devices.yaml").exists() else None)
    if listed is not None:
        settings = config.load(listed)
        known |= {
            "federation": settings.federation.name,
            "packet_kb": settings.federation.packet_kb,
            "devices": {name: one.site if one else None for name, one in settings.devices.items()},
        }
    known.setdefault("federation", "default")
    options = ("kind", "nodes", "workers", "fleet", "port", "ws_port", "cluster_port", "client_port")
    known |= {name: value for name in options if (value := getattr(arguments, name)) is not None}
    if arguments.hosts:
        known["hosts"] = _split(arguments.hosts)
    if arguments.sites:
        sites = dict(part.partition("=")[::2] for part in _split(arguments.sites))
        known["sites"] = {name: host.split("+") if host else [name] for name, host in sites.items()}
    for name, hint in (
        ("kind", "Say which broker: --kind nats, or --kind mosquitto"),
        ("hosts", "Say what devices know it by: --hosts hub.example.org,192.168.1.10"),
    ):
        if name not in known:
            raise ConfigError("missing", where=f"--{name}", hint=hint)
    try:
        return deployments.Deployment.model_validate(known)
    except ValidationError as error:
        first = error.errors()[0]
        where = "--" + "-".join(str(part) for part in first["loc"][:1]).replace("_", "-")
        raise ConfigError(f"{first['input']!r:.60} found, {first['msg'].removeprefix('Input ')}", where=where) from None


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _up(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.text import Text

    from coordinator.brokers import deployment as deployments
    from coordinator.brokers.up import Up, alone
    from wire.errors import did_you_mean

    deployment = deployments.load(arguments.deploy)
    nodes = deployment.broker_nodes()
    names = [node.name for node in nodes]
    for name in arguments.node or ():
        if name not in names:
            raise UnknownName(f"no node is called '{name}'", where="--node", hint=did_you_mean(name, names))
    chosen = [node for node in nodes if not arguments.node or node.name in arguments.node]
    console = Console()

    def say(node: str, line: str) -> None:
        prefix = Text(f"{node:<{max(map(len, names))}} ", style="cyan") if len(names) > 1 else Text()
        console.print(prefix + Text(line), soft_wrap=True)

    with alone(arguments.deploy, chosen):
        up = Up(arguments.deploy, deployment, chosen, say)
        try:
            up.start()
            for node in chosen:
                console.print(
                    f"{node.name} is up: {node.url}, {node.ws_url}", style="green", highlight=False, soft_wrap=True
                )
            console.print(
                f"CA for devices: {arguments.deploy / 'ca.crt'}; Ctrl-C stops it", highlight=False, soft_wrap=True
            )
            up.wait()
        finally:
            up.stop()
            console.print("stopped; messages and sessions stay", highlight=False, soft_wrap=True)
    return 0


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
    from coordinator.brokers import deployment as deployments

    before = deployments.load(arguments.deploy)
    _check_known(arguments.device, list(before.devices))
    left = {name: site for name, site in before.devices.items() if name not in arguments.device}
    _apply(arguments.deploy, before.model_copy(update={"devices": left}))
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
    from coordinator.brokers import render, up

    if users and deployment.kind == "nats" and up.running_nodes(folder, deployment):
        # nats-server throws out whom it does not know any more, and nobody whose password is another now.
        render.write(folder, deployment, omit=users)
        up.reload(folder, deployment)
        time.sleep(RELOADED_S)
    writer = render.write(
        folder,
        deployment,
        renew_passwords=users or (),
        renew_certificates=certificates,
        renew_authority=authority,
    )
    for name in writer.edited:
        print(f"{folder / name}: you have edited it; see the .new or .edited file beside it")
    _tell_reloaded(folder, deployment, True)
    if users and any(user.startswith("site-") for user in users):
        print("a site's new password is in its mosquitto.conf: restart that site's broker")


def _tell_written(folder: Path, writer: Writer) -> None:
    for words, names in (("new", writer.made), ("changed", writer.changed)):
        if names:
            print(f"{words}: {len(names)} files in {folder}")
    for name in writer.edited:
        print(f"{folder / name}: you have edited it, so it stays; what would be written is in the .new file beside it")
    if not (writer.made or writer.changed or writer.edited):
        print("nothing has changed")


def _tell_reloaded(folder: Path, deployment: Deployment, changed: bool) -> None:
    from coordinator.brokers import up

    if not changed:
        return
    told = up.reload(folder, deployment)
    if told:
        time.sleep(RELOADED_S)
        print(f"{', '.join(node.name for node in told)}: told to read its accounts again")
    elif (folder / "run").exists():
        print(f"no broker of it runs here; to tell one elsewhere, see {folder}/README.md, Later")
