"""`hidenseek demo`: a real federation on this machine. 25 people's phone recordings, 25 clients, one broker."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from coordinator import dithered
from coordinator.broker import EmbeddedBroker
from coordinator.brokers.process import end
from coordinator.datasets import FederatedData, load, natural
from coordinator.evaluate import Evaluator
from coordinator.federation import DATABASE, Federation, Recipe
from coordinator.page.options import PageSettings
from coordinator.report.summary import Summary
from coordinator.rounds import Schedule
from coordinator.serving import reached, serving, showing
from wire.broker import parse_url
from wire.command import PASSWORD_VARIABLE
from wire.errors import ConfigError, RoundFailed

NAME = "demo"
CONNECT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """What the demo's options say."""

    out: Path
    rounds: int = 20
    devices: int = 25
    per_round: int = 10
    density: float = 0.10
    seed: int = 0
    runtime: str | None = None
    broker: str | None = None
    page: PageSettings | None = None


@dataclass
class DeviceProcesses:
    """The devices' processes: each its own client, its own connection, its own folder.

    Args:
        broker: address of one that lets anyone in, or ours, started before the first device.
        folder: where their data, state and logs lie.
    """

    broker: str | EmbeddedBroker
    folder: Path
    runtime: str | None = None
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __enter__(self) -> DeviceProcesses:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(wait_s=10.0 if kind is None else 0.0)

    def start(self, device: str) -> None:
        """Start one device; its words go to `<folder>/<device>/log`."""
        home = self.folder / device
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        if isinstance(self.broker, EmbeddedBroker):
            url = self.broker.url(device)
            environment[PASSWORD_VARIABLE] = self.broker.passwords[device]
        else:
            url = self.broker
        arguments = [sys.executable, "-m", "edge_client.cli", "join", "--once", "--federation", NAME]
        arguments += ["--broker", url, "--connect-timeout", str(CONNECT_S)]
        arguments += ["--device", device, "--data", str(home / "data"), "--state", str(home / "state")]
        if self.runtime:
            arguments += ["--runtime", self.runtime]
        with (home / "log").open("ab") as log:
            # A session of its own, so that Ctrl-C reaches this program first and it can end them in order.
            self.running[device] = subprocess.Popen(
                arguments, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def check(self) -> None:
        """Notice a device that gave up.

        Raises:
            RoundFailed: with the device's last words.
        """
        for device, process in self.running.items():
            if process.poll():
                log = self.folder / device / "log"
                words = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
                raise RoundFailed(f"{device} ended with exit code {process.returncode}: {words[-1]}", where=str(log))

    def stop(self, wait_s: float) -> None:
        """Wait a moment for every device to leave by itself, then end it."""
        deadline = time.monotonic() + wait_s
        for process in self.running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=max(deadline - time.monotonic(), 0.0))
        end(self.running.values(), within_s=5)


def run(settings: DemoSettings, console: Console) -> Summary:
    """Run the whole demo; return what it came to. The database and logs stay in `settings.out`."""
    data = natural(load("har"))
    if not 1 <= settings.devices <= len(data.devices):
        raise ConfigError(
            f"--devices is {settings.devices}, the data set has 1..{len(data.devices)} people who train", where="demo"
        )
    devices = sorted(data.devices)[: settings.devices]
    per_round = min(settings.per_round, len(devices))
    _write_data(data, devices, settings.out / "devices")
    with _progress(console) as progress:
        task = progress.add_task(f"pruning har-cnn to {settings.density:.0%} before any data", total=None)
        recipe = Recipe(density=settings.density, seed=settings.seed)
        ticket = recipe.make(lambda done, total: progress.update(task, completed=done, total=total))
    federation = Federation(
        name=NAME,
        ticket=ticket,
        training=dithered.TRAINING,
        schedule=Schedule(
            rounds=settings.rounds,
            per_round=per_round,
            quorum=max(per_round - 2, 1),
            deadline_s=120.0,
            start_devices=len(devices),
            seed=settings.seed,
        ),
        runtimes=("sparse", "onnx"),
        allowed=frozenset(devices),
    )
    assert data.unseen is not None
    evaluator = Evaluator(ticket, *data.unseen)
    return _serve(federation, devices, evaluator, settings, console)


def _serve(
    federation: Federation, devices: list[str], evaluator: Evaluator, settings: DemoSettings, console: Console
) -> Summary:
    broker = settings.broker or EmbeddedBroker(folder=settings.out / "broker", federation=NAME, devices=devices)
    with (
        showing(settings.page) as page,
        reached(parse_url(broker) if isinstance(broker, str) else broker) as address,
        serving(
            federation,
            address,
            console,
            title=f"HideNseek demo: {len(devices)} people's phones, {federation.ticket.kept:,} sign bits",
            database=settings.out / DATABASE,
            state=settings.out,
            timeout_s=CONNECT_S,
            evaluator=evaluator,
            page=page,
        ) as service,
        DeviceProcesses(broker, settings.out / "devices", settings.runtime) as processes,
    ):
        service.announce(console)
        service.coordinator.watch = processes.check
        for device in devices:
            processes.start(device)
        return service.run()


def _write_data(data: FederatedData, devices: list[str], folder: Path) -> None:
    """Give every device its own person's recordings, in a folder of its own."""
    for name in devices:
        home = folder / name / "data"
        home.mkdir(parents=True, exist_ok=True)
        mine = data.devices[name]
        np.savez(home / "train.npz", x=mine.x_train, y=mine.y_train)
        np.savez(home / "test.npz", x=mine.x_test, y=mine.y_test)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console, transient=False
    )
