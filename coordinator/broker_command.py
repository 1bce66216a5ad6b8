"""`hidenseek broker`: a secured broker of one's own, from its files to the proof that it does what it should."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from coordinator import broker_accounts_command, broker_check_command, broker_invite_command, broker_up_command
from wire import command
from wire.errors import ConfigError

if TYPE_CHECKING:
    from coordinator.brokers.deployment import Deployment
    from coordinator.brokers.files import Writer

Subparsers = argparse._SubParsersAction
DEFAULT_PREFIX = "homeassistant"  # as `coordinator.monitoring.discovery` has it

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
    broker_up_command.add(actions)
    broker_check_command.add_check(actions)
    broker_accounts_command.add_changes(actions)
    broker_invite_command.add_invite(actions)


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
    init.add_argument(
        "--home-assistant",
        nargs="?",
        const=DEFAULT_PREFIX,
        metavar="PREFIX",
        help="an account for Home Assistant, and what hidenseek serve --home-assistant needs (discovery prefix "
        f"{DEFAULT_PREFIX})",
    )
    init.add_argument("--fleet", type=int, metavar="N", help="size the limits for N devices (default: those listed)")
    init.add_argument("--port", type=int, metavar="PORT", help="MQTT over TLS (default 8883)")
    init.add_argument("--ws-port", type=int, metavar="PORT", help="MQTT over secure websockets (default 8084)")
    init.add_argument(
        "--client-certificates",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="mosquitto: flashed cards get certificates, not passwords (default: yes for a new deployment)",
    )
    init.add_argument("--certificate-port", type=int, metavar="PORT", help="where these are shown (default 8893)")
    init.add_argument("--cluster-port", type=int, metavar="PORT", help="nats: between nodes (default 6222)")
    init.add_argument(
        "--client-port", type=int, metavar="PORT", help="nats: its own protocol, loopback only (default 4222)"
    )
    init.set_defaults(run=_init)


def _init(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from coordinator.brokers import change, up
    from coordinator.brokers import deployment as deployments

    folder: Path = arguments.output
    deployment = _wanted(arguments, folder)
    strays: list[str] = []
    certified_before = False
    if (folder / deployments.FILE).exists():
        before = deployments.load(folder)
        if before.kind != deployment.kind:
            raise ConfigError(
                f"it is a deployment of {before.kind}", where=str(folder), hint="Name another folder with -o"
            )
        certified_before = before.client_certificates
        strays = sorted(before.devices.keys() - deployment.devices.keys())
        deployment = deployment.model_copy(update={"devices": before.devices | deployment.devices})
    deployments.check(deployment)
    folder.mkdir(parents=True, exist_ok=True)
    with Console().status("making certificates and accounts"):
        writer = change.write(folder, deployment)
    _tell_written(folder, writer)
    nodes = deployment.broker_nodes()
    print(
        f"{deployment.kind} for federation '{deployment.federation}': {len(nodes)} node{'s'[: len(nodes) > 1]}, "
        f"{len(deployment.devices)} device accounts, limits for {deployment.size} devices"
    )
    for stray in strays:
        print(f"{stray} has an account and is not listed any more; to end it: hidenseek broker remove-device {stray}")
    broker_accounts_command.tell_reloaded(folder, deployment, bool(writer.made or writer.changed))
    if deployment.client_certificates and not certified_before and up.running_nodes(folder, deployment):
        print(f"start the broker again: it listens at port {deployment.certificate_port} for certificates then")
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
    fresh = not known
    listed: Path | None = arguments.devices or (Path("devices.yaml") if Path("devices.yaml").exists() else None)
    if listed is not None:
        settings = config.load(listed)
        known |= {
            "federation": settings.federation.name,
            "packet_kb": settings.federation.packet_kb,
            "devices": {name: one.site if one else None for name, one in settings.devices.items()},
        }
    known.setdefault("federation", "default")
    options = (
        *("kind", "nodes", "workers", "home_assistant", "fleet", "client_certificates"),
        *("port", "ws_port", "certificate_port", "cluster_port", "client_port"),
    )
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
    if fresh:
        known.setdefault("client_certificates", known["kind"] == "mosquitto")
    try:
        return deployments.Deployment.model_validate(known)
    except ValidationError as error:
        first = error.errors()[0]
        where = "--" + "-".join(str(part) for part in first["loc"][:1]).replace("_", "-")
        raise ConfigError(f"{first['input']!r:.60} found, {first['msg'].removeprefix('Input ')}", where=where) from None


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _tell_written(folder: Path, writer: Writer) -> None:
    for words, names in (("new", writer.made), ("changed", writer.changed)):
        if names:
            print(f"{words}: {len(names)} files in {folder}")
    for name in writer.edited:
        print(f"{folder / name}: you have edited it, so it stays; what would be written is in the .new file beside it")
    if not (writer.made or writer.changed or writer.edited):
        print("nothing has changed")
