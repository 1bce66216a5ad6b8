"""Brokers of a deployment as processes of this machine: started again when they end, told to read their accounts."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from coordinator.brokers.deployment import Deployment, Node
from coordinator.brokers.process import (
    answers,
    end,
    end_orphan,
    launch,
    mosquitto_binary,
    nats_binary,
    running,
    write_private,
)
from wire.errors import BrokerUnreachable, ConfigError, StateError

START_S = 30.0
RESTART_S = 0.25


@dataclass
class Up:
    """Some nodes of a deployment, running here.

    Args:
        folder: the deployment's.
        deployment: its settings.
        nodes: which to run.
        say: told every line of every node: its name and the line.
    """

    folder: Path
    deployment: Deployment
    nodes: list[Node]
    say: Callable[[str, str], None]
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Start them, and wait until each takes connections.

        Raises:
            RuntimeMissing: if the broker is not installed.
            ConfigError: if a port is taken.
            BrokerUnreachable: if one does not come up.
        """
        (self.folder / "run").mkdir(exist_ok=True, mode=0o700)
        for node in self.nodes:
            end_orphan(pid_file(self.folder, node), _mark(self.folder, self.deployment, node))
            for port in (node.port, *([node.certificate_port] if node.certificate_port else [])):
                if answers(node.bind, port):
                    raise ConfigError(f"port {port} on {node.bind} is taken", where=f"nodes/{node.name}")
        for node in self.nodes:
            self._launch(node)
        for node in self.nodes:
            deadline = time.monotonic() + START_S
            process = self._processes[node.name]
            while process.poll() is not None or not answers(node.bind, node.port):
                if process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise BrokerUnreachable(
                        f"node {node.name} did not start", where=str(self.folder), hint="Its own words are above"
                    )
                time.sleep(0.05)
        for node in self.nodes:
            self._thread(self._keep, node)

    def stop(self) -> None:
        """End them all; messages and sessions stay."""
        self._stopping.set()
        end(self._processes.values(), within_s=20)
        for node in self.nodes:
            pid_file(self.folder, node).unlink(missing_ok=True)
        for thread in self._threads:
            thread.join(timeout=2)

    def wait(self) -> None:
        """Until somebody interrupts."""
        while not self._stopping.wait(0.5):
            pass

    def _launch(self, node: Node) -> None:
        command = _command(self.folder, self.deployment, node)
        process = launch(command, subprocess.PIPE, folder=self.folder / "nodes" / node.name, more={"NODE": node.name})
        self._processes[node.name] = process
        write_private(pid_file(self.folder, node), f"{process.pid}\n")
        self._thread(self._pass_on, node, process)

    def _thread(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _pass_on(self, node: Node, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.say(node.name, line.decode(errors="replace").rstrip())

    def _keep(self, node: Node) -> None:
        """Start a node again whenever it ends by itself, until `stop`."""
        pause_s = RESTART_S
        while not self._stopping.is_set():
            began_s = time.monotonic()
            code = self._processes[node.name].wait()
            pause_s = RESTART_S if time.monotonic() - began_s > START_S else min(2 * pause_s, START_S)
            if self._stopping.is_set():
                return
            self.say(node.name, f"ended with {code}; starting it again in {pause_s:g} s")
            if self._stopping.wait(pause_s):
                return
            self._launch(node)


def pid_file(folder: Path, node: Node) -> Path:
    """Where the process id of a node is that runs here."""
    return folder / "run" / f"{node.name}.pid"


def reload(folder: Path, deployment: Deployment) -> list[Node]:
    """Have every node that runs here read its accounts again; which those are."""
    told = []
    for node in deployment.broker_nodes():
        pid = running(pid_file(folder, node), _mark(folder, deployment, node))
        if pid is not None:
            os.kill(pid, signal.SIGHUP)
            told.append(node)
    return told


def running_nodes(folder: Path, deployment: Deployment) -> dict[str, int]:
    """Process ids by the names of nodes that run here."""
    found = {
        node.name: running(pid_file(folder, node), _mark(folder, deployment, node))
        for node in deployment.broker_nodes()
    }
    return {name: pid for name, pid in found.items() if pid is not None}


@contextmanager
def alone(folder: Path, nodes: list[Node]) -> Iterator[None]:
    """Nobody else runs these nodes on this machine meanwhile.

    Raises:
        StateError: if somebody does.
    """
    (folder / "run").mkdir(exist_ok=True, mode=0o700)
    with ExitStack() as stack:
        for node in nodes:
            lock = stack.enter_context((folder / "run" / f"{node.name}.lock").open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StateError(
                    f"another hidenseek broker up runs {node.name} here",
                    where=str(folder),
                    hint="Stop it with Ctrl-C there",
                ) from None
        yield


def _config(folder: Path, deployment: Deployment, node: Node) -> Path:
    """What the process is told to read: absolute, so that its command line says whose it is."""
    config = folder.resolve() / "nodes" / node.name / "config" / f"{deployment.kind}.conf"
    if deployment.kind == "mosquitto" and os.geteuid() == 0:
        # Started as root it would become another user, and could not read its own passwords again.
        own = folder.resolve() / "run" / f"{node.name}.conf"
        write_private(own, f"user root\n{config.read_text()}")
        return own
    return config


def _command(folder: Path, deployment: Deployment, node: Node) -> list[str]:
    binary = mosquitto_binary() if deployment.kind == "mosquitto" else nats_binary()
    return [str(binary), "-c", str(_config(folder, deployment, node))]


def _mark(folder: Path, deployment: Deployment, node: Node) -> str:
    """Words of its command line that no other process has."""
    if deployment.kind == "mosquitto" and os.geteuid() == 0:
        return str(folder.resolve() / "run" / f"{node.name}.conf")
    return str(folder.resolve() / "nodes" / node.name / "config" / f"{deployment.kind}.conf")
