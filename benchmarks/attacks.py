"""How many hostile devices of 25 a federation survives: HideNseek, with and without its defence, and FedAvg.

    python -m benchmarks.attacks                  # all runs, about a minute each; stop and go on as you like
    python -m benchmarks.attacks --only poison    # those with this in their name
    python -m benchmarks.attacks --done           # no runs, only write down those that are finished

HAPT, its 25 participants, 10 of them a round, hostile ones drawn and selected like all (`benchmarks.attackers`).
Accuracy is the global network's, the mean of the last five rounds: seen, on all participants' test data; unseen, on
five people who never take part. An attack is survived if unseen is at most five points below that without attackers.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.attackers import ATTACKS
from benchmarks.machine import describe
from coordinator.baselines.method import State
from coordinator.experiment import DataSettings, Experiment
from coordinator.journal import load
from coordinator.simulate_command import simulate_with_progress
from wire.settings import Training

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 20
MILD = ("hide", "plot", "poison")  # what is sent is no longer than honest steps: one device of 25 does nothing
POINTS = 0.05  # of unseen accuracy that may be lost
Row = dict[str, Any]

OURS, RIVAL = "benchmarks.attackers:HostileHideNseek", "benchmarks.attackers:HostileFedAvg"
SIGNS = {name: getattr(Training(), name) for name in ("dither", "epsilon", "learning_rate")}
CONTESTANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "hidenseek": (OURS, {"defend": False}),
    "hidenseek defended": (OURS, {"defend": True}),
    "signs": (OURS, {"defend": False, **SIGNS}),
    "signs defended": (OURS, {"defend": True, **SIGNS}),
    "fedavg": (RIVAL, {"scale": 10.0}),
}
IMAGES = DataSettings(name="fashion-mnist", how="shards", devices=100, classes_per_device=2, limit=(100, 25))
COLOURS = {
    "hidenseek": "#e76f51",
    "hidenseek defended": "#0b6e4f",
    "signs": "#f4a261",
    "signs defended": "#8ab17d",
    "fedavg": "#1d3557",
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run: who is attacked, how, by how many."""

    contestant: str
    attack: str
    attackers: int
    seed: int = 0
    task: str = "har"
    data: DataSettings = field(default_factory=DataSettings)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For people and --only."""
        return f"{self.task}, {self.contestant}, {self.attackers} x {self.attack}, seed {self.seed}"

    @property
    def experiment(self) -> Experiment:
        """What is simulated."""
        method, settings = CONTESTANTS[self.contestant]
        every = settings | self.settings | {"attack": self.attack, "attackers": self.attackers}
        return Experiment(method=method, settings=every, data=self.data, rounds=ROUNDS)


def cases() -> Iterator[Case]:
    """All runs, those that say most first."""
    for contestant in CONTESTANTS:
        yield Case(contestant=contestant, attack="flip", attackers=0)
    for attack in ATTACKS:
        yield Case(contestant="hidenseek", attack=attack, attackers=10)
        yield Case(contestant="hidenseek defended", attack=attack, attackers=10)
    for attack in ATTACKS:
        yield Case(contestant="fedavg", attack=attack, attackers=10 if attack in MILD else 1)
    honest: dict[str, Any] = {"contestant": "hidenseek defended", "attack": "flip", "attackers": 0}
    yield Case(**honest, task="fmnist-2", data=IMAGES, settings={"macs": 0.1})
    for rate in (0.03, 0.1):
        yield Case(**honest, task=f"har, learning rate {rate}", settings={"learning_rate": rate})
    for attackers in (12, 6, 3):
        for attack in ATTACKS:
            for contestant in CONTESTANTS:
                yield Case(contestant=contestant, attack=attack, attackers=attackers)
    yield Case(contestant="hidenseek", attack="flip", attackers=0, seed=1)
    yield Case(contestant="hidenseek defended", attack="flip", attackers=0, seed=1)
    yield Case(contestant="hidenseek defended", attack="flip", attackers=10, seed=1)
    private: dict[str, Any] = {"contestant": "signs defended", "attack": "flip", "task": "har, epsilon 2"}
    yield Case(**private, attackers=10, settings={"privacy_epsilon": 2.0})


def main(argv: Sequence[str] | None = None) -> None:
    """Run, write."""
    arguments = _parser().parse_args(argv)
    console = Console()
    began = time.monotonic()
    rows: list[Row] = []
    for case in cases():
        finished = case.experiment.finished(case.seed, arguments.out)
        if finished is None and (arguments.done or arguments.only not in case.name):
            continue
        done = finished or simulate_with_progress(
            case.experiment, case.seed, out=arguments.out, workers=arguments.workers, console=console
        )
        rows.append(row_of(case, done, arguments.out))
        write(rows, arguments.output, time.monotonic() - began)
        console.print(f"{case.name}: unseen {rows[-1]['unseen']}, seen {rows[-1]['seen']}", highlight=False)


def row_of(case: Case, rounds: Sequence[Row], out: Path) -> Row:
    """One run's row."""
    experiment = case.experiment
    result = experiment.result(case.seed, rounds)
    row = {"task": case.task, "contestant": case.contestant, "attack": case.attack, "attackers": case.attackers}
    row |= {name: result[name] for name in ("seed", "rounds", "seen", "unseen", "personalised", "settings")}
    state = load(out / experiment.folder / f"seed-{case.seed}" / f"state.{ROUNDS:05d}.npz")
    return row | (_found(state, case, experiment) if "judged" in state else {})


def _found(state: State, case: Case, experiment: Experiment) -> Row:
    """What the defence found, or would have found, and how far honest masks went."""
    from benchmarks.attackers import hostile_devices
    from coordinator.baselines.method import Task
    from coordinator.models import build_plan

    devices = tuple(case.data.load(case.seed).devices)
    task = Task(plan=build_plan("har-cnn"), devices=devices, seed=case.seed)  # the plan does not matter here
    hostile = np.isin(devices, list(hostile_devices(task, case.attackers)))
    counts = {
        f"{who}_{name}": int(state[name][mask].sum())
        for who, mask in (("hostile", hostile), ("honest", ~hostile))
        for name in ("judged", "turned", "copy")
    }
    turned, near, ratio, deviations = state["extremes"].T
    extremes = {
        "most_turned": float(np.nanmax(turned)),
        "nearest": float(np.nanmin(near)),
        "furthest_of_median": float(np.nanmax(ratio)),
        "furthest_deviations": float(np.nanmax(deviations)),
        "rounds_beyond_3_deviations": int((deviations > 3).sum()),
    }
    return counts | {name: round(value, 3) for name, value in extremes.items()}


def write(rows: Sequence[Row], stem: Path, seconds: float) -> None:
    """What there is so far, as JSON, tables and a picture."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    result = {"command": "python -m benchmarks.attacks", "machine": describe(), "seconds": round(seconds), "rows": rows}
    stem.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    stem.with_suffix(".md").write_text("\n".join([*accuracy_table(rows), "", *found_table(rows)]) + "\n")
    draw(rows, stem.with_suffix(".svg"))


def survived(row: Row, rows: Sequence[Row]) -> bool | None:
    """Whether a row's unseen accuracy is near that without attackers; None if that is not known."""
    same = ("task", "contestant", "seed")
    clean = [r for r in rows if not r["attackers"] and all(r[name] == row[name] for name in same)]
    return bool(row["unseen"] >= clean[0]["unseen"] - POINTS) if clean else None


def accuracy_table(rows: Sequence[Row]) -> list[str]:
    """A line for every attack, seed and number of attackers."""
    every = [row for row in rows if row["task"] == "har"]
    keys = dict.fromkeys((_attack(r), r["attackers"], r["seed"]) for r in every)
    lines = [
        f"| attack | hostile of 25 | seed | {' | '.join(f'{name}: seen / unseen %' for name in CONTESTANTS)} |",
        "|---|" + "---:|" * (2 + len(CONTESTANTS)),
    ]
    for attack, count, seed in sorted(
        keys, key=lambda k: (k[2], list(ATTACKS).index(k[0]) if k[0] in ATTACKS else -1, k[1])
    ):
        cells = []
        for contestant in CONTESTANTS:
            found = [
                r
                for r in every
                if (_attack(r), r["attackers"], r["seed"], r["contestant"]) == (attack, count, seed, contestant)
            ]
            cells.append(_accuracies(found[0], rows) if found else "")
        lines.append(f"| {attack} | {count} | {seed} | {' | '.join(cells)} |")
    return lines


def _attack(row: Row) -> str:
    return str(row["attack"]) if row["attackers"] else "none"


def _accuracies(row: Row, rows: Sequence[Row]) -> str:
    text = f"{100 * row['seen']:.1f} / {100 * row['unseen']:.1f}"
    return text if survived(row, rows) in (True, None) else f"{text} **lost**"


def found_table(rows: Sequence[Row]) -> list[str]:
    """A line for every defended run: masks found hostile, and how far honest ones went."""
    lines = [
        "| data | attack | hostile | seed | hostile masks found | honest masks found | most turned "
        "| least apart | furthest, of median | furthest, deviations | rounds over 3 |",
        "|---|---|" + "---:|" * 9,
    ]
    for row in rows:
        if "honest_judged" not in row or not row["settings"]["defend"]:
            continue
        found = {who: row[f"{who}_turned"] + row[f"{who}_copy"] for who in ("hostile", "honest")}
        lines.append(
            f"| {row['task']} | {_attack(row)} | {row['attackers']} | {row['seed']} "
            f"| {found['hostile']} of {row['hostile_judged']} | {found['honest']} of {row['honest_judged']} "
            f"| {row['most_turned']:.2f} | {row['nearest']:.2f} | {row['furthest_of_median']:.1f} "
            f"| {row['furthest_deviations']:.1f} | {row['rounds_beyond_3_deviations']} |"
        )
    return lines


def draw(rows: Sequence[Row], path: Path) -> None:
    """Unseen accuracy against the number of attackers, a panel for every attack."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "hidenseek"
    from matplotlib import pyplot

    every = [row for row in rows if row["task"] == "har" and row["seed"] == 0]
    figure, axes = pyplot.subplots(2, 4, figsize=(13, 6), sharex=True, sharey=True, layout="constrained")
    axes.flat[-1].set_visible(False)
    for axis, attack in zip(axes.flat, ATTACKS, strict=False):
        for contestant, colour in COLOURS.items():
            own = [r for r in every if r["contestant"] == contestant and _attack(r) in (attack, "none")]
            points = sorted((row["attackers"], 100 * row["unseen"]) for row in own)
            axis.plot(*zip(*points, strict=True) if points else ([], []), "o-", color=colour, label=contestant)
        axis.set_title(attack)
        axis.grid(alpha=0.25)
        axis.set_ylim(0, 100)
    figure.supxlabel("hostile devices of 25")
    figure.supylabel("accuracy of the global network on new people, %")
    figure.legend(*axes.flat[0].get_legend_handles_labels(), frameon=False, loc="lower right")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.attacks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="only runs with this in their name")
    parser.add_argument("--done", action="store_true", help="run nothing, only write down finished runs")
    parser.add_argument("--workers", type=int, default=1, metavar="N")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "attacks", metavar="DIR", help="where runs are kept")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "out" / "attacks", metavar="STEM", help="of the .json, .md and .svg"
    )
    return parser


if __name__ == "__main__":
    main()
