"""The machine that we are on as a profile: measured for two seconds, in processes like a device's."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from coordinator import footprint, profiles, rates, sparse_work, yaml_file
from coordinator.config import DevicesFile
from coordinator.hardware import Figure, Profile, Runtime
from export.bundle import make_bundle
from export.work import Work
from wire.command import write_whole
from wire.errors import ConfigError, UnknownName
from wire.layers import Conv, Flatten, Linear, MaxPool, Relu
from wire.plan import Plan
from wire.settings import Training
from wire.ticket import Keep, Ticket

Process: TypeAlias = subprocess.Popen[str]

BATCH, SAMPLES = 16, 64
SECONDS, TURNS = 0.012, 8  # of steps, for each of NETS and runtimes; a neighbour takes up to half of a second's time
GRAPHS: tuple[Runtime, ...] = ("onnx", "executorch")
CALIBRATED: tuple[Runtime, ...] = ("sparse", *GRAPHS)
PROGRAMS = Path(__file__).with_name("programs")  # of what takes long to make, or needs what a board does not have
TIMEOUT_S = 120
_CONV = Conv(out_channels=32, kernel=(3, 3), stride=(1, 1), padding=(1, 1))
_POOL = MaxPool(kernel=(2, 2), stride=(2, 2))
_END = (Flatten(), Linear(out_features=64), Relu(), Linear(out_features=10))
# Bytes of a process that has opened the first of NETS, on the machine that `footprint.PROCESS` is of.
OPENED: Mapping[Runtime, float] = {"sparse": 43.6e6, "onnx": 75.1e6, "executorch": 46.4e6}
# Measured over estimated time of NETS, by that of networks with a name: how much further off the fits are for these.
# Of two machines, that of `rates.REFERENCE` and one without AVX-512, each within 9 % of it.
FITTED: Mapping[Runtime, float] = {"sparse": 0.92, "onnx": 1.05, "executorch": 0.99}
NETS = (
    Plan(name="wide", input_shape=(8, 24, 24), layers=(_CONV, Relu(), _POOL, _CONV, Relu(), _POOL, *_END)),
    Plan(name="flat", input_shape=(512,), layers=(Linear(out_features=256), Relu(), *_END[1:])),
)
DENSITY = 0.1


def measure(tell: Callable[[str], None]) -> Profile:
    """Measure this machine: one core's peak and bandwidth, and how far off estimates are.

    The processes of all runtimes start together, and then measure by turns, so that what disturbs one disturbs all.

    Args:
        tell: called with what is measured next.

    Raises:
        ConfigError: if there are no kernels, or a child process fails.
    """
    tell("starting")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        processes: dict[Runtime, Process] = {}
        for runtime in CALIBRATED:
            paths = [_bundle_of(plan, runtime, Path(folder)) for plan in NETS]
            options = (str(BATCH), str(SAMPLES), str(SECONDS))
            processes[runtime] = _start("turns", os.pathsep.join(map(str, paths)), *options)
            stack.callback(_end, processes[runtime])
        ready = {runtime: _line(process) for runtime, process in processes.items()}
        there = [runtime for runtime, said in ready.items() if "missing" not in said]
        if "sparse" not in there:
            raise ConfigError(
                "no kernels are built here, so the core's peak cannot be measured", where="--here",
                hint="make, or pip install a wheel",
            )  # fmt: skip
        tell("the runtimes by turns")
        turns = [
            {runtime: _line(processes[runtime], say="turn")["cpu_seconds"] for runtime in there} for _ in range(TURNS)
        ]
        tell("one core's arithmetic and memory")
        profile = _described(_line(processes["sparse"], say="machine"))
    factors = {runtime: _factor(profile, runtime, [turn[runtime] for turn in turns]) for runtime in there}
    opened = {runtime: footprint.PROCESS[runtime] + ready[runtime]["opened"] - OPENED[runtime] for runtime in there}
    memory = {runtime: nbytes / 1e6 for runtime, nbytes in opened.items()}
    return profile.model_copy(update={"calibration": factors, "process_mb": memory})


def _described(core: Mapping[str, Any]) -> Profile:
    """A profile of what this machine is and what a core of it does, uncorrected."""
    memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    facts = {
        "title": _cpuinfo("model name", platform.machine()),
        "cpu": _cpuinfo("model name", platform.machine()),
        "machine": platform.machine() if platform.machine() in ("x86_64", "aarch64", "armv7l") else None,
        "cores": os.cpu_count() or 1,
        "ram_mb": int(memory["MemTotal"].split()[0]) // 1024,
        "usable_ram_mb": int(memory["MemAvailable"].split()[0]) * 1024 // 10**6,
        "clock_ghz": core["clock"] / 1e9,
        "flops_per_cycle": core["flops"] / core["clock"],
        "memory_gb_s": core["bandwidth"] / 1e9,
        "runtimes": core["runtimes"],
    }
    day = time.strftime("%Y-%m-%d")
    figures: list[Figure] = ["cores", "ram_mb", "usable_ram_mb", "clock_ghz", "flops_per_cycle", "memory_gb_s"]
    return Profile(**facts, sources={f"measured here by hidenseek plan --here, {day}": figures})


def _factor(profile: Profile, runtime: Runtime, measured: Sequence[Sequence[Sequence[float]]]) -> float:
    """Measured over estimated time of a step, a mean over NETS.

    As the core's peak, of the calmest turn: what other processes take shall not be in it.

    Args:
        profile: of this machine, uncorrected.
        runtime: its name.
        measured: seconds of steps, by turn and network.
    """
    core, factors = rates.core_of(profile), []
    assert core is not None  # the profile has all figures
    for plan, *turns in zip(NETS, *measured, strict=True):
        step_s = min(statistics.quantiles(times, n=4)[0] for times in turns)
        factors.append(step_s / rates.seconds(_work(plan, runtime), runtime, core))
    return statistics.geometric_mean(factors) / FITTED[runtime]


def _work(plan: Plan, runtime: Runtime) -> Mapping[str, Work]:
    """What a step of a network takes; with a graph's runtime as it was counted when the graph was made."""
    if runtime == "sparse":
        return sparse_work.count(ticket_of(plan), BATCH).work
    counted = json.loads((PROGRAMS / "work.json").read_text(encoding="utf-8"))[runtime][plan.name]
    return {kind: Work(**one) for kind, one in counted.items()}


def _bundle_of(plan: Plan, runtime: Runtime, folder: Path) -> Path:
    """A network's bundle; with a graph's runtime the one that comes with hidenseek."""
    path = folder / f"{plan.name}-{runtime}"
    if runtime == "sparse":
        return _written(ticket_of(plan), runtime, BATCH, path)
    encoded = (PROGRAMS / f"{plan.name}-{runtime}.hnsb").read_bytes()
    path.write_bytes(encoded)
    Path(f"{path}.id").write_bytes(sha256(encoded).digest())
    return path


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
    process = _start(*arguments)
    try:
        return _line(process)
    finally:
        _end(process)


def _start(*arguments: str) -> Process:
    command = [sys.executable, "-P", "-m", "coordinator.device_worker", *arguments]
    env = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=env)


def _line(process: Process, say: str = "") -> dict[str, Any]:
    """Say something to a process, and wait for its next line of JSON."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    watch = threading.Timer(TIMEOUT_S, process.kill)
    watch.start()
    try:
        if say:
            process.stdin.write(f"{say}\n")
            process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            last = process.stderr.read().strip().splitlines()[-1:] or ["no message"]
            raise ConfigError(f"the measuring process failed: {last[0]:.300}", where="--here")
    except BrokenPipeError:
        raise ConfigError("the measuring process ended while it was to measure", where="--here") from None
    finally:
        watch.cancel()
    found: dict[str, Any] = json.loads(line)
    return found


def _end(process: Process) -> None:
    process.kill()
    process.communicate()


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


def ticket_of(plan: Plan) -> Ticket:
    """One of a network of NETS."""
    blocks = [4 if shape.out_units % 4 == 0 else 1 for shape in plan.weight_layers()]
    keeps = [
        Keep(block=block, mask=max(1, round(DENSITY * shape.weights / block)), scale=0.125)
        for block, shape in zip(blocks, plan.weight_layers(), strict=True)
    ]
    return Ticket(plan=plan, seed=0, magnitudes="constant", layers=tuple(keeps))


def _cpuinfo(key: str, default: str) -> str:
    """The first value of a key in /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return default
    found = [line.partition(":")[2].strip() for line in lines if line.startswith(key)]
    return found[0] if found else default
