"""A deployment of `hidenseek broker init` on free loopback ports, run by `hidenseek broker up` as a user runs it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from coordinator import cli
from coordinator.brokers import accounts
from coordinator.brokers import deployment as deployments
from coordinator.brokers.probe import Probe
from coordinator.brokers.up import running_nodes
from tests.integration.fleet import wait_until
from wire.broker import Broker, parse_url

PORTS_EACH = 4
TAKEN: list[socket.socket] = []  # names of runs of ports that are this process's
MONITOR = 4000  # above a NATS node's port for clients is the one that tells of its state


def free_ports(count: int) -> list[int]:
    """First ports of so many free runs of `PORTS_EACH`, which no other test is given as long as this process lives."""
    found: list[int] = []
    for start in (*range(21000, 21000 + MONITOR, PORTS_EACH), *range(13000, 13000 + MONITOR, PORTS_EACH)):
        ours = socket.socket(socket.AF_UNIX)
        try:
            ours.bind(f"\0hidenseek-test-port-{start}")  # a name that the kernel forgets with the process
            for port in range(start, start + PORTS_EACH):
                for one in (port, port + MONITOR):
                    with socket.socket() as probe:
                        probe.bind(("127.0.0.1", one))
        except OSError:
            ours.close()
            continue
        TAKEN.append(ours)
        found.append(start)
        if len(found) == count:
            return found
    raise AssertionError("no free ports")


@dataclass
class Deployed:
    """A deployment and the processes that run it, by the names of their nodes ("" runs all)."""

    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def settings(self) -> deployments.Deployment:
        """Its settings."""
        return deployments.load(self.folder)

    @property
    def log(self) -> str:
        """What `broker up` has said."""
        return (self.folder / "up.log").read_text()

    def password(self, user: str) -> str:
        """Of an account."""
        return accounts.load(self.folder)[user]

    def broker(self, user: str, password: str | None = None, node: int = 0) -> Broker:
        """The way to a node as this user."""
        url = self.settings.broker_nodes()[node].url
        there = parse_url(url, ca=self.folder / "ca.crt")
        return replace(there, user=user, password=password or self.password(user))

    def probe(self, user: str, password: str | None = None, node: int = 0) -> Probe:
        """A client that is connected as this user."""
        probe = Probe(self.broker(user, password, node))
        refusal = probe.connect()
        assert not refusal, refusal
        return probe

    def url(self, user: str, node: int | None = 0) -> str:
        """An address for --broker; None: all nodes'."""
        urls = [one.url.replace("://", f"://{user}@") for one in self.settings.broker_nodes()]
        return ",".join(urls) if node is None else urls[node]

    def up(self, name: str) -> None:
        """Start `broker up` for a node."""
        command = [sys.executable, "-m", "coordinator.cli", "broker", "up", "--deploy", str(self.folder)]
        with (self.folder / "up.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*command, *(["--node", name] if name else [])], stdout=log, stderr=log
            )

    def kill(self, name: str) -> None:
        """Kill -9 a node and what would start it again: its machine is gone."""
        pid = running_nodes(self.folder, self.settings)[name]
        self.processes[name].kill()
        os.kill(pid, signal.SIGKILL)
        self.processes.pop(name).wait()


@contextmanager
def deployed(
    folder: Path,
    kind: str,
    *more: str,
    devices: str = "{pi-1: {}, pi-2: {}}",
    hosts: str = "localhost",
    each: bool = False,
) -> Iterator[Deployed]:
    """Make one and run it; each node by a `broker up` of its own, if wanted."""
    config = folder / "devices-of-broker.yaml"
    config.write_text(f"federation: {{name: t}}\ndevices: {devices}\n")
    deploy = folder / "deploy"
    names = ("--port", "--ws-port", "--cluster-port", "--client-port", "--certificate-port")
    ports = zip(names, free_ports(len(names)), strict=True)
    options = [word for name, port in ports for word in (name, str(port))]
    command = ["broker", "init", "--kind", kind, "--hosts", hosts, "-o", str(deploy), "--devices", str(config)]
    assert cli.main([*command, *options, *more]) == 0
    made = Deployed(deploy)
    for name in [node.name for node in made.settings.broker_nodes()] if each else [""]:
        made.up(name)

    def up() -> bool:
        for process in made.processes.values():
            assert process.poll() is None, made.log
        return made.log.count("Ctrl-C stops it") == len(made.processes)

    try:
        wait_until(up, 40, "the broker is up")
        yield made
    finally:
        for process in made.processes.values():
            process.terminate()
        for process in made.processes.values():
            process.wait(30)
    assert not running_nodes(deploy, made.settings), "stopped, it leaves nothing behind"
