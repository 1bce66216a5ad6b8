"""The machine that we are on as a profile: measured for a few seconds, in processes like a device's."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from coordinator import footprint, profiles, yaml_file
from coordinator.budgets import Budget
from coordinator.config import DevicesFile
from coordinator.hardware import Figure, Profile, Runtime
from coordinator.planner import Load, Planner
from export.bundle import make_bundle
from wire.command import write_whole
from wire.errors import ConfigError, UnknownName
from wire.layers import Conv, Flatten, Linear, MaxPool, Relu
from wire.plan import Plan
from wire.settings import Training
from wire.ticket import Keep, Ticket

Value = TypeVar("Value", str, float)

BATCH, STEPS, SAMPLES = 16, 5, 64
SECONDS = 0.1  # of steps, for each of NETS, runtimes and TRIES
CALIBRATED: tuple[Runtime, ...] = ("sparse", "onnx")  # making a program for ExecuTorch takes too long
TIMEOUT_S = 120
_CONV = Conv(out_channels=32, kernel=(3, 3), stride=(1, 1), padding=(1, 1))
_POOL = MaxPool(kernel=(2, 2), stride=(2, 2))
_END = (Flatten(), Linear(out_features=64), Relu(), Linear(out_features=10))
# Bytes of a process that has opened the first of NETS, on the machine that `footprint.PROCESS` is of.
OPENED: Mapping[Runtime, float] = {"sparse": 47.8e6, "onnx": 78.6e6}
TRIES = 4  # a neighbour on the same machine takes up to half of a second's time
NETS = (
    Plan(name="wide", input_shape=(8, 24, 24), layers=(_CONV, Relu(), _POOL, _CONV, Relu(), _POOL, *_END)),
    Plan(name="flat", input_shape=(512,), layers=(Linear(out_features=256), Relu(), *_END[1:])),
)
DENSITY = 0.1


def measure(tell: Callable[[str], None]) -> Profile:
    """Measure this machine: one core's peak and bandwidth, and how far off estimates are.

    Args:
        tell: called with what is measured next.

    Raises:
        ConfigError: if there are no kernels, or a child process fails.
    """
    tell("one core's arithmetic and memory")
    core = worker("machine")
    if core["flops"] is None:
        raise ConfigError("no kernels are built here, so the core's peak cannot be measured", where="--here")
    clock_hz = 1e6 * (core["frequency_mhz"] or _cpuinfo("cpu MHz", 2000.0))
    memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    facts = {
        "title": _cpuinfo("model name", platform.machine()),
        "cpu": _cpuinfo("model name", platform.machine()),
        "machine": platform.machine() if platform.machine() in ("x86_64", "aarch64", "armv7l") else None,
        "cores": os.cpu_count() or 1,
        "ram_mb": int(memory["MemTotal"].split()[0]) // 1024,
        "usable_ram_mb": int(memory["MemAvailable"].split()[0]) * 1024 // 10**6,
        "clock_ghz": clock_hz / 1e9,
        "flops_per_cycle": core["flops"] / clock_hz,
        "memory_gb_s": core["bandwidth"] / 1e9,
        "runtimes": core["runtimes"],
    }
    day = time.strftime("%Y-%m-%d")
    figures: list[Figure] = ["cores", "ram_mb", "usable_ram_mb", "clock_ghz", "flops_per_cycle", "memory_gb_s"]
    profile = Profile(**facts, sources={f"measured here by hidenseek plan --here, {day}": figures})
    factors: dict[Runtime, float] = {}
    processes: dict[Runtime, float] = {}
    for runtime in (name for name in CALIBRATED if name in profile.runtimes):
        if runtime == "onnx" and find_spec("onnx") is None:  # what makes the graphs; a board has onnxruntime only
            continue
        tell(f"the runtime {runtime}")
        factors[runtime], processes[runtime] = _calibrate(profile, runtime)
    if "executorch" in profile.runtimes and "sparse" in processes:
        more = (footprint.PROCESS["executorch"] - footprint.PROCESS["sparse"]) / 1e6
        processes["executorch"] = processes["sparse"] + more
    return profile.model_copy(update={"calibration": factors, "process_mb": processes})


def _calibrate(profile: Profile, runtime: Runtime) -> tuple[float, float]:
    """Measured over estimated time of a step, a mean over NETS, and MB of a process without a network.

    One process trains both, and both again: the calmer time counts. Its memory is that after the first was opened.
    """
    with tempfile.TemporaryDirectory() as folder:
        tickets = [_ticket(plan) for plan in NETS]
        paths = [_written(ticket, runtime, BATCH, Path(folder) / ticket.plan.name) for ticket in tickets]
        tried = workers(os.pathsep.join(map(str, paths * TRIES)), str(BATCH), str(STEPS), str(SAMPLES), str(SECONDS))
    factors = []
    for number, ticket in enumerate(tickets):
        planner = Planner(ticket=ticket, load=Load(training=Training(batch=BATCH), samples=SAMPLES))
        cost = planner.cost(profile, runtime, Budget(), BATCH)
        assert cost.step_ms is not None  # the profile has all figures
        # As the core's peak, of the calmest: what other processes take shall not be in it.
        own = tried[number :: len(NETS)]
        step_s = min(statistics.quantiles(found["cpu_seconds"], n=4)[0] for found in own)
        factors.append(step_s * 1e3 / cost.step_ms)
    opened = footprint.PROCESS[runtime] + tried[0]["peaks"]["opened"] - OPENED[runtime]
    return statistics.geometric_mean(factors), opened / 1e6


def _written(ticket: Ticket, runtime: Runtime, batch: int, path: Path) -> Path:
    bundle = make_bundle(ticket, runtime, Training(batch=batch))
    path.write_bytes(bundle.encoded)
    Path(f"{path}.id").write_bytes(bundle.id)
    return path


def try_bundle(
    ticket: Ticket, runtime: Runtime, *, batch: int, steps: int, samples: int, seconds: float = 0.0
) -> dict[str, Any]:
    """Train a ticket in a fresh process; what `coordinator.device_worker` says of it.

    Raises:
        ExportError: if the runtime cannot express the plan.
        ConfigError: if the process fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = _written(ticket, runtime, batch, Path(folder) / "bundle")
        return worker(str(path), str(batch), str(steps), str(samples), str(seconds))


def worker(*arguments: str) -> dict[str, Any]:
    """What `coordinator.device_worker` says in a fresh process.

    Raises:
        ConfigError: if it fails.
    """
    return workers(*arguments)[0]


def workers(*arguments: str) -> list[dict[str, Any]]:
    """As `worker`, of several bundles that are named as one argument.

    Raises:
        ConfigError: if it fails.
    """
    command = [sys.executable, "-P", "-m", "coordinator.device_worker", *arguments]
    env = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=TIMEOUT_S)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise ConfigError(f"the measuring process failed: {last[0]:.300}", where="--here")
    return [json.loads(line) for line in done.stdout.splitlines()]


def save(path: Path, name: str, profile: Profile) -> None:
    """Add a profile to a devices.yaml, comments and all else untouched; make the file if there is none.

    Raises:
        ConfigError: if the file is wrong, would become so, or cannot be written.
        UnknownName: if the name is taken by a profile that we know.
    """
    if name in profiles.built_in_settings():
        raise UnknownName(
            f"'{name}' is a profile that comes with hidenseek", where="--save", hint="Choose another name"
        )
    tree = yaml_file.read(path) if path.exists() else CommentedMap()
    listed = tree.get("profiles")
    if not listed:
        listed = tree["profiles"] = CommentedMap()
    facts = profile.model_dump(exclude_defaults=True)
    listed[name] = _rounded(facts)
    yaml_file.parse(path, tree, DevicesFile)
    yaml = YAML(typ="rt")
    yaml.width = 120
    with tempfile.SpooledTemporaryFile(mode="w+", encoding="utf-8") as text:
        yaml.dump(tree, text)
        text.seek(0)
        write_whole(path, text.read().encode("utf-8"))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _ticket(plan: Plan) -> Ticket:
    blocks = [4 if shape.out_units % 4 == 0 else 1 for shape in plan.weight_layers()]
    keeps = [
        Keep(block=block, mask=max(1, round(DENSITY * shape.weights / block)), scale=0.125)
        for block, shape in zip(blocks, plan.weight_layers(), strict=True)
    ]
    return Ticket(plan=plan, seed=0, magnitudes="constant", layers=tuple(keeps))


def _cpuinfo(key: str, default: Value) -> Value:
    """The first value of a key in /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return default
    found = [line.partition(":")[2].strip() for line in lines if line.startswith(key)]
    return type(default)(found[0]) if found else default
