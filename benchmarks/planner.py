"""Predicted against measured: peak memory and step time of every network on every runtime, each in a fresh process.

    python -m benchmarks.planner --bundles DIR -o benchmarks/results/planner.json
    python -m benchmarks.planner --bundles DIR --arm -o benchmarks/results/planner-arm.json   # memory, under qemu-user

The first measures this machine as `hidenseek plan --here` does, predicts, and then trains. Times are of the processor
and of a calm step, the lower quartile, so that other processes disturb them less; the clock's are kept beside them. DIR
keeps bundles between runs: those for ExecuTorch take up to minutes each. With --arm, nothing of the machine is given to
the planner, as for a board that nobody has measured, and qemu's own memory is left out; --resume keeps what OUTPUT has
measured, for a bundle takes up to minutes there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import machine
from coordinator import device_worker, here
from coordinator.budgets import Budget
from coordinator.hardware import Profile, Runtime
from coordinator.models import MODELS, build_plan
from coordinator.planner import Load, Planner
from coordinator.prune import prune
from coordinator.rates import core_of
from export.bundle import make_bundle
from wire.settings import Training
from wire.ticket import Ticket, read_ticket

RUNTIMES: tuple[Runtime, ...] = ("sparse", "onnx", "executorch")
DENSITY, PASSES, BATCH, SAMPLES = 0.1, 20, 16, 64
STEPS, SECONDS = 5, 0.7
ARM_STEPS = 1
PROCESSES = 4  # a neighbour on the same host takes up to a third of a core's time for seconds


def main() -> None:
    """Run it and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, required=True, help="folder of bundles, made if they are missing")
    parser.add_argument("--nets", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--arm", action="store_true", help="memory only, in the arm64 root under qemu-user")
    parser.add_argument("--resume", action="store_true", help="with --arm: keep what OUTPUT has measured")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.bundles.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for row in _on_arm(arguments) if arguments.arm else _on_this_machine(arguments):
        rows.append(_with_errors(row))
        print(_line(rows[-1]), flush=True)
        _write(arguments.output, rows)  # after every row: an emulated one takes minutes
    print(json.dumps(_errors(rows), indent=1))


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    result = {
        "machine": machine.describe(),
        "commit": machine.commit(),
        "versions": {name: version(name) for name in ("numpy", "onnxruntime", "executorch")},
        "density": DENSITY,
        "batch": BATCH,
        "samples": SAMPLES,
        "rows": rows,
        "errors": _errors(rows),
    }
    path.write_text(json.dumps(result, indent=1) + "\n")


def _on_this_machine(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every bundle in fresh processes, a pass over all of them apart; the quickest one's time counts."""
    profile = here.measure(print)
    print(profile.model_dump_json(exclude_defaults=True))
    core = core_of(profile)
    assert core is not None  # here.measure has all figures
    bundles = _bundles(arguments)
    earlier = [{path: _tried(path) for _, _, _, path in bundles} for _ in range(1, PROCESSES)]
    for name, runtime, ticket, path in bundles:
        tries = [*(one[path] for one in earlier), _tried(path)]
        times = [statistics.quantiles(found["cpu_seconds"], n=4)[0] * 1e3 for found in tries]
        quickest = tries[times.index(min(times))]
        peaks = [found["peaks"]["tried"] / 1e6 for found in tries]
        yield _predicted(profile, runtime, ticket) | {
            "net": name,
            "core": asdict(core),
            "peak_mb": max(peaks),
            "step_ms": min(times),
            "step_by_clock_ms": statistics.median(quickest["seconds"]) * 1e3,
            "steps": len(quickest["seconds"]),
            "peaks_apart": max(peaks) / min(peaks) - 1,
            "steps_apart": max(times) / min(times) - 1,
        }


def _tried(path: Path) -> dict[str, Any]:
    return here.worker(str(path), str(BATCH), str(STEPS), str(SAMPLES), str(SECONDS))


def _on_arm(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from benchmarks import emulated
    from tests.integration.arm_debian import AARCH64
    from tests.integration.arm_root import install

    before = json.loads(arguments.output.read_text())["rows"] if arguments.resume and arguments.output.exists() else []
    measured = {(row["net"], row["runtime"]): row["peak_mb"] for row in before}
    with tempfile.TemporaryDirectory() as folder:
        root = None
        for name, runtime, ticket, path in _bundles(arguments):
            if (name, runtime) not in measured:
                root = root or install(AARCH64, Path(folder))
                options = (str(BATCH), str(ARM_STEPS), str(SAMPLES))
                _, nbytes = emulated.told(root, device_worker.__file__, path, *options)
                measured[name, runtime] = nbytes / 1e6
            board = Profile(title="", cores=1, ram_mb=1, machine="aarch64")
            yield _predicted(board, runtime, ticket) | {"net": name, "peak_mb": measured[name, runtime]}


def _bundles(arguments: argparse.Namespace) -> list[tuple[str, Runtime, Ticket, Path]]:
    """All bundles wanted, made where they are missing; a network's first, the smallest networks first."""
    found = []
    for name in arguments.nets:
        ticket_path = arguments.bundles / f"{name}-{DENSITY}.hns"
        if not ticket_path.exists():
            print(f"pruning {name}")
            ticket_path.write_bytes(prune(build_plan(name), density=DENSITY, seed=0, passes=PASSES).encoded)
        ticket = read_ticket(ticket_path)
        for runtime in RUNTIMES:
            path = arguments.bundles / f"{name}-{DENSITY}-{runtime}.hnsb"
            if not path.exists():
                print(f"exporting {name} for {runtime}")
                bundle = make_bundle(ticket, runtime, Training(batch=BATCH))
                Path(f"{path}.id").write_bytes(bundle.id)
                path.write_bytes(bundle.encoded)
            found.append((name, runtime, ticket, path))
    return found


def _predicted(profile: Profile, runtime: Runtime, ticket: Ticket) -> dict[str, Any]:
    # The process has SAMPLES in all, the planner adds a fifth to test with.
    planner = Planner(ticket=ticket, load=Load(training=Training(batch=BATCH), samples=SAMPLES * 5 // 6))
    cost = planner.cost(profile, runtime, Budget(), BATCH)
    return {
        "runtime": runtime,
        "predicted_peak_mb": cost.peak_mb,
        **({} if cost.step_ms is None else {"predicted_step_ms": cost.step_ms}),
        "calibration": profile.calibration.get(runtime),
    }


def _with_errors(row: dict[str, Any]) -> dict[str, Any]:
    for name in ("peak_mb", "step_ms"):
        if row.get(name) is not None:
            row[f"{name}_error"] = row[f"predicted_{name}"] / row[name] - 1
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}


def _line(row: dict[str, Any]) -> str:
    line = f"{row['net']:20} {row['runtime']:11} peak {row['predicted_peak_mb']:6.1f} for {row['peak_mb']:6.1f} MB "
    line += f"{row['peak_mb_error']:+6.1%}"
    if "step_ms" in row:
        line += f"   step {row['predicted_step_ms']:8.2f} for {row['step_ms']:8.2f} ms {row['step_ms_error']:+6.1%}"
    return line


def _errors(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of every runtime: the median and the largest error, without their signs, and how many are within the targets.

    Beside them how far processes with the same bundle were apart at most.
    """
    found = {}
    for runtime in RUNTIMES:
        for name, target in (("peak_mb", 0.05), ("step_ms", 0.25)):
            apart = "peaks_apart" if name == "peak_mb" else "steps_apart"
            errors = [abs(row[f"{name}_error"]) for row in rows if row["runtime"] == runtime and name in row]
            if errors:
                found[f"{runtime} {name}"] = {
                    "median": round(statistics.median(errors), 3),
                    "largest": round(max(errors), 3),
                    "within_target": sum(error <= target for error in errors),
                    "of": len(errors),
                    "processes_apart": max(
                        (row[apart] for row in rows if row["runtime"] == runtime and apart in row), default=None
                    ),
                }
    return found


if __name__ == "__main__":
    main()
