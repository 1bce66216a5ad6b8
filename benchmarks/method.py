"""`make bench-method`: HideNseek and its rivals on the same data, clients, rounds and seeds.

Every method gets the same small search first: three learning rates around its default, on one seed of
its own, on validation data (the later third of the training samples), and the best personalised accuracy wins.
HideNseek is tried the same way, and runs with its default all the same. Then the settings are fixed, and test data is
looked at once, in the runs that are reported: the mean of the last five rounds, never the best. Runs are kept in
out/method and taken up again where they stopped.

    make bench-method ARGS=--quick                              # 10 rounds on HAPT, one seed
    make bench-method ARGS="--tasks har --methods hidenseek fedavg --seeds 1"
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.machine import commit, describe
from benchmarks.method_report import write_markdown, write_svg
from coordinator import baselines
from coordinator.baselines.method import make_settings
from coordinator.experiment import DataSettings, Experiment, reach
from coordinator.simulate_command import TRAINED, simulate_with_progress

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SEARCH_SEED = 100
FACTORS = (1 / 3, 1.0, 3.0)  # of the method's default learning rate
Settings = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class BenchmarkTask:
    """One comparison.

    Attributes:
        data: who holds what.
        model: the network.
        target: the personalised accuracy that rounds, bytes and seconds are counted to.
        rivals: settings that all methods but HideNseek's have in common here.
        ours: settings of HideNseek's that are not its defaults.
        rates: the task whose searched learning rates are used.
        search_rounds: rounds of a run of the search.
    """

    data: DataSettings
    model: str
    target: float
    rivals: Settings
    ours: Settings
    rates: str
    search_rounds: int


LOCAL = {"epochs": 2, "batch": 16}
IMAGES = DataSettings(name="fashion-mnist", how="shards", devices=100, classes_per_device=2, limit=(100, 25))
TASKS = {
    "har": BenchmarkTask(
        data=DataSettings(), model="har-cnn", target=0.90, rivals=LOCAL, ours={}, rates="har", search_rounds=10
    ),
    "fmnist-2": BenchmarkTask(
        data=IMAGES, model="conv2", target=0.90, rivals=LOCAL, ours={"macs": 0.1}, rates="fmnist-2", search_rounds=5
    ),
    "fmnist-dirichlet": BenchmarkTask(
        data=replace(IMAGES, how="dirichlet", alpha=0.3),
        model="conv2",
        target=0.75,
        rivals=LOCAL,
        ours={"macs": 0.1},
        rates="fmnist-2",
        search_rounds=5,
    ),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Search, run, write."""
    arguments = _parser().parse_args(argv)
    if arguments.quick:
        arguments.tasks, arguments.rounds, arguments.seeds, arguments.search = ["har"], 10, 1, False
    console = Console()
    began = time.monotonic()
    searched = _read_search()
    if arguments.search and not arguments.done:
        for name in dict.fromkeys(TASKS[task].rates for task in arguments.tasks):
            for method in arguments.methods:
                if method not in searched.get(name, {}):
                    searched.setdefault(name, {})[method] = search(name, method, arguments, console)
                    (RESULTS / "method-search.json").write_text(json.dumps(searched, indent=1, sort_keys=True) + "\n")
    rows = []
    for name in arguments.tasks:
        for seed in range(arguments.seeds):  # all methods of a seed before the next, so that a part is a comparison
            for method in arguments.methods:
                best = searched.get(TASKS[name].rates, {}).get(method, {}).get("learning_rate")
                experiment = _experiment(TASKS[name], method, best, arguments.rounds)
                if arguments.done and experiment.finished(seed, arguments.out) is None:
                    continue
                rows.append(run(name, experiment, seed, arguments, console))
                write(rows + _earlier(rows, arguments), arguments, time.monotonic() - began)
    console.print(f"{arguments.output.with_suffix('.json')}, .md and .svg written", soft_wrap=True)


def search(name: str, method: str, arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Try three learning rates on validation data; return the best and what all came to."""
    task = TASKS[name]
    default = make_settings(baselines.get(method).Config, {}).learning_rate
    tried = {}
    for factor in FACTORS:
        rate = float(f"{default * factor:.3g}")
        experiment = _experiment(
            replace(task, data=replace(task.data, validate=TRAINED)), method, rate, task.search_rounds
        )
        rows = simulate_with_progress(
            experiment, SEARCH_SEED, out=arguments.out, workers=arguments.workers, console=console
        )
        tried[str(rate)] = experiment.result(SEARCH_SEED, rows)["personalised"]
    # HideNseek's stays as it is whatever comes out: what is compared is what a user gets without options.
    best = default if method == "hidenseek" else max(tried, key=lambda rate: tried[rate])
    return {"learning_rate": float(best), "tried": tried}


def run(
    name: str, experiment: Experiment, seed: int, arguments: argparse.Namespace, console: Console
) -> dict[str, Any]:
    """One method, one seed: a row of the results."""
    task = TASKS[name]
    rows = simulate_with_progress(experiment, seed, out=arguments.out, workers=arguments.workers, console=console)
    result = experiment.result(seed, rows)
    return {
        "task": name,
        **result,
        "to_target": reach(rows, task.target),
        "target": task.target,
        "curve": [
            [row["personalised"], row["seen"], row["up_bytes"] + row["down_bytes"], row["cpu_s"]] for row in rows
        ],
    }


def _experiment(task: BenchmarkTask, method: str, rate: float | None, rounds: int) -> Experiment:
    ours = {"hidenseek": task.ours, "hidenseek-signs": task.ours, "hidenseek-paper": {}}
    settings = dict(ours.get(method, task.rivals))
    if rate is not None:
        settings["learning_rate"] = rate
    return Experiment(method=method, settings=settings, data=task.data, model=task.model, rounds=rounds)


def write(rows: Sequence[dict[str, Any]], arguments: argparse.Namespace, seconds: float) -> None:
    """Write what there is so far as JSON, a Markdown table and a picture, methods in their usual order."""
    order = baselines.names()
    result = {
        "command": "python -m benchmarks.method",
        "rounds": arguments.rounds,
        "commit": commit(),
        "machine": describe(),
        "versions": {package: metadata.version(package) for package in ("torch", "numpy")},
        "seconds": round(seconds),
        "tasks": {name: asdict(TASKS[name]) for name in arguments.tasks},
        "rows": sorted(rows, key=lambda row: order.index(row["method"])),
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.with_suffix(".json").write_text(json.dumps(result, indent=None, separators=(",", ":")) + "\n")
    write_markdown(arguments.output.with_suffix(".md"), result)
    write_svg(arguments.output.with_suffix(".svg"), result)


def _earlier(rows: Sequence[dict[str, Any]], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """What is on record of runs that are not among these, each with the commit that it is of."""
    taken = {_which(row) for row in rows}
    found = []
    for path in arguments.also:
        result = json.loads(path.read_text())
        news = [row for row in result["rows"] if row["task"] in arguments.tasks and _which(row) not in taken]
        found += [{**row, "commit": row.get("commit", result["commit"])} for row in news]
        taken |= {_which(row) for row in news}
    return found


def _which(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["task"], row["method"], row["seed"]


def _read_search() -> dict[str, dict[str, Any]]:
    path = RESULTS / "method-search.json"
    found: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.method", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="HAPT, 10 rounds, one seed: under ten minutes")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="comparisons")
    parser.add_argument("--methods", nargs="+", choices=baselines.names(), default=baselines.names(), help="methods")
    parser.add_argument("--rounds", type=int, default=60, metavar="N")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), metavar="N")
    parser.add_argument("--done", action="store_true", help="run nothing, only write the results of finished runs")
    parser.add_argument("--no-search", dest="search", action="store_false", help="take the learning rates on record")
    parser.add_argument(
        "--also",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="results whose runs are taken over where there is none",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "method", metavar="DIR", help="where runs are kept")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "out" / "method", metavar="STEM", help="of the .json, .md and .svg"
    )
    return parser


if __name__ == "__main__":
    main()
