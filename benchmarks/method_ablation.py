"""What every part of the recipe is worth: one setting changed at a time, on HAPT's validation split.

    python -m benchmarks.method_ablation                 # about 20 minutes on two quiet cores; resumable
    python -m benchmarks.method_ablation --only memory   # variants whose name holds a word

Two seeds, 15 rounds, 25 people, 10 a round; accuracies are means of the last five rounds. Test data is not used.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console

from benchmarks.machine import describe
from coordinator.experiment import DataSettings, Experiment
from coordinator.simulate_command import TRAINED, simulate_with_progress

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "method-ablation.json"
SEEDS = (100, 101)
ROUNDS = 15
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "Kaiming's scale in the last layer": {"logit_deviation": 0.0},
    "logit deviation 0.1": {"logit_deviation": 0.1},
    "logit deviation 0.6": {"logit_deviation": 0.6},
    "Adam epsilon 1e-8": {"epsilon": 1e-8},
    "Adam epsilon 1e-3": {"epsilon": 1e-3},
    "SGD, learning rate 1": {"optimiser": "sgd", "learning_rate": 1.0},
    "learning rate 0.005": {"learning_rate": 0.005},
    "learning rate 0.02": {"learning_rate": 0.02},
    "start 0.05": {"start": 0.05},
    "start 0.2": {"start": 0.2},
    "memory 0": {"memory": 0.0},
    "memory 0.8": {"memory": 0.8},
    "1 epoch": {"epochs": 1},
    "2 epochs": {"epochs": 2},
    "8 epochs": {"epochs": 8},
    "batch 8": {"batch": 8},
    "batch 32": {"batch": 32},
    "one pass of SynFlow": {"passes": 1},
    "free-form (block 1)": {"block": 1},
    "block 8": {"block": 8},
    "Kaiming magnitudes": {"magnitudes": "normal"},
    "random, SynFlow's densities": {"pruning": "random-synflow"},
    "random, ERK densities": {"pruning": "erk"},
    "random, uniform": {"pruning": "uniform"},
    "largest initial weights": {"pruning": "magnitude"},
    "multiply-adds at most 30 %": {"macs": 0.30},
    "multiply-adds at most 10 %": {"macs": 0.10},
    "density 0.03": {"density": 0.03},
    "density 0.05": {"density": 0.05},
    "density 0.20": {"density": 0.20},
}
IDEAS = ("Plain", "Bop", "TanhSurrogate", "StochasticSigns", "ResetScores", "ClampScores", "OwnMemory")
IDEAS += ("PersonalTail", "Decay", "OneBitDown", "TwoBitsDown", "ClassFrequencies", "LeanOnVotes")


def main() -> None:
    """Run the variants and write the results."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.method_ablation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", default="", metavar="WORD", help="variants whose name holds this")
    parser.add_argument("--done", action="store_true", help="run nothing, only write the results of finished variants")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), metavar="N")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "method", metavar="DIR", help="where runs are kept")
    arguments = parser.parse_args()
    console = Console()
    began = time.monotonic()
    rows = []
    ideas = {f"{name} (method_variants.py)": (f"benchmarks.method_variants:{name}", {}) for name in IDEAS}
    every = {name: ("hidenseek-signs", settings) for name, settings in VARIANTS.items()} | ideas
    for name, (method, settings) in every.items():
        if arguments.only not in name:
            continue
        experiment = Experiment(method=method, settings=settings, data=DataSettings(validate=TRAINED), rounds=ROUNDS)
        if arguments.done and any(experiment.finished(seed, arguments.out) is None for seed in SEEDS):
            continue
        results = []
        for seed in SEEDS:
            run = simulate_with_progress(
                experiment, seed, out=arguments.out, workers=arguments.workers, console=console
            )
            results.append(experiment.result(seed, run))
        rows.append(_row(name, settings, results))
        console.print(_line(rows[-1]), highlight=False)
    if not arguments.only:
        result = {"machine": describe(), "seconds": round(time.monotonic() - began), "seeds": SEEDS, "rows": rows}
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
        console.print(f"{RESULT} written", soft_wrap=True)


def _row(name: str, settings: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("seen", "personalised", "up_bytes_per_device_round", "ideal_up_bytes_per_device_round", "cpu_seconds")
    return {"variant": name, "settings": settings} | {key: fmean(r[key] for r in results) for key in names}


def _line(row: dict[str, Any]) -> str:
    return (
        f"| {row['variant']} | {100 * row['seen']:.1f} | {100 * row['personalised']:.1f} "
        f"| {row['up_bytes_per_device_round']:,.0f} | {row['ideal_up_bytes_per_device_round']:,.0f} "
        f"| {row['cpu_seconds']:.0f} |"
    )


if __name__ == "__main__":
    main()
