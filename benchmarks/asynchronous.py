"""A fleet of which 30 % is awake at any time: rounds against asynchronous steps, on a clock of its own.

    python -m benchmarks.asynchronous                   # all runs, a minute or two each; stop and go on as you like
    python -m benchmarks.asynchronous --only async      # those with this in their name
    python -m benchmarks.asynchronous --done            # no runs, only write down those that are finished

HAPT, its 25 people, har-cnn at density 0.10, the default recipe; the real coordinator and real clients over the
in-memory bus (`benchmarks.sleepers`). A device is awake for 4 minutes on average and then asleep for 9 min 20 s; a
training step takes 0.5 s on the fastest and 2 s on the slowest. Every run counts about as many masks.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.machine import describe
from benchmarks.sleepers import Habits, Scene, sleepers
from coordinator.datasets import FederatedData, load
from coordinator.datasets.splits import natural
from coordinator.evaluate import Evaluator
from coordinator.federation import Federation, Recipe
from coordinator.rounds import Schedule
from coordinator.steps import Asynchrony
from edge_client.data import DeviceData
from wire.settings import Training

ROOT = Path(__file__).resolve().parents[1]
MASKS = 150
AWAKE = 0.3
AWAKE_S = 240.0
DEADLINE_S = 240.0
GOAL = 0.88  # unseen accuracy
SMOOTH = 3  # rounds whose mean must reach it
LAST = 5
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run.

    Attributes:
        voters: masks a round or step.
        asynchrony: None: in rounds, where a deadline closes with all but one or two of them.
        deadline_s: of a round.
        sleepy: 30 % are awake; else all, always.
        seed: of network, data order and habits.
    """

    voters: int
    asynchrony: Asynchrony | None = None
    deadline_s: float = DEADLINE_S
    sleepy: bool = True
    seed: int = 0

    @property
    def name(self) -> str:
        """For people and --only."""
        awake = f"{AWAKE:.0%} awake" if self.sleepy else "all awake"
        if self.asynchrony is None:
            return f"rounds of {self.voters}, deadline {self.deadline_s:g} s, {awake}, seed {self.seed}"
        rules = f"staleness {self.asynchrony.staleness}, decay {self.asynchrony.decay:g}"
        return f"async, buffer {self.voters}, {rules}, {awake}, seed {self.seed}"


def cases() -> list[Case]:
    """All runs, those that say most first."""

    def late(buffer: int, seed: int = 0, sleepy: bool = True, **more: Any) -> Case:
        return Case(voters=buffer, asynchrony=Asynchrony(buffer=buffer, **more), seed=seed, sleepy=sleepy)

    first = [Case(voters=5), late(5), Case(voters=10, sleepy=False), late(10)]
    return [
        *first,
        late(5, staleness=0),
        Case(voters=5, deadline_s=120.0),
        late(5, decay=1.0),
        late(10, sleepy=False),
        Case(voters=5, seed=1),
        late(5, seed=1),
        late(5, seed=1, decay=1.0),
        late(10, seed=1),
        late(10, decay=1.0),
        late(10, seed=1, decay=1.0),
    ]


def run(case: Case, data: FederatedData) -> Row:
    """One run's figures."""
    ticket = Recipe(seed=case.seed).make()
    assert data.unseen is not None
    federation = Federation(
        name="sleepers",
        ticket=ticket,
        training=Training(),
        schedule=Schedule(
            rounds=MASKS // case.voters,
            per_round=case.voters,
            quorum=case.voters - (2 if case.voters > 5 else 1),
            deadline_s=case.deadline_s,
            start_devices=case.voters,
            attempts=100,
            seed=case.seed,
        ),
        runtimes=("sparse",),
        asynchrony=case.asynchrony,
        evaluate=False,
    )
    habits = Habits(
        awake_s=AWAKE_S,
        asleep_s=AWAKE_S * (1 - AWAKE) / AWAKE if case.sleepy else 0.0,
        step_s=0.5,
        slowest=4.0,
        seed=case.seed,
    )
    people = {
        name: DeviceData(x_train=one.x_train, y_train=one.y_train, x_test=one.x_test, y_test=one.y_test, source=name)
        for name, one in data.devices.items()
    }
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        evaluator = Evaluator(ticket, *data.unseen)
        with sleepers(federation, people, habits, Path(folder), evaluator=evaluator) as scene:
            scene.coordinator().serve()
            return {"name": case.name, "wall_s": round(time.monotonic() - began), **_figures(scene)}


def _figures(scene: Scene) -> Row:
    masks = scene.store.query("SELECT number, counted, device, payload_bytes, correct, test_samples FROM mask")
    unseen = [one for one in scene.watcher.accuracies if one is not None]
    minutes = [second / 60 for second in scene.watcher.closed_s]
    reached = [end for end in range(SMOOTH, len(unseen) + 1) if fmean(unseen[end - SMOOTH : end]) >= GOAL]
    tried = [row for row in masks if row["counted"] > len(unseen) - LAST]
    return {
        "steps": len(unseen),
        "minutes": round(minutes[-1], 1),
        "minutes_to_goal": round(minutes[reached[0] - 1], 1) if reached else None,
        "steps_to_goal": reached[0] if reached else None,
        "unseen": round(fmean(unseen[-LAST:]), 4),
        "personalised": round(fmean(row["correct"] / row["test_samples"] for row in tried), 4),
        "trainings": sum(device.begun for device in scene.fleet.devices),
        "masks": len(masks),
        "late": sum(row["counted"] > row["number"] for row in masks),
        "voters": len({row["device"] for row in masks}),
        "up_bytes": round(fmean(row["payload_bytes"] for row in masks)),
        "accuracies": unseen,
        "closed_min": [round(one, 1) for one in minutes],
    }


def table(rows: Sequence[Row]) -> list[str]:
    """A line for every run."""
    lines = [
        f"| run | steps | minutes | minutes to {GOAL:.0%} | unseen % | own % | trainings begun | masks counted "
        "| of them late | devices that voted | B up a mask |",
        "|---|" + "---:|" * 10,
    ]
    for row in rows:
        goal = f"{row['minutes_to_goal']:.0f}" if row["minutes_to_goal"] is not None else "-"
        lines.append(
            f"| {row['name']} | {row['steps']} | {row['minutes']:.0f} | {goal} | {100 * row['unseen']:.1f} "
            f"| {100 * row['personalised']:.1f} | {row['trainings']} | {row['masks']} | {row['late']} "
            f"| {row['voters']} | {row['up_bytes']:,} |"
        )
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Run, write."""
    arguments = _parser().parse_args(argv)
    kept: Path = arguments.output.with_suffix(".json")
    found = json.loads(kept.read_text())["rows"] if kept.exists() else []
    rows: dict[str, Row] = {row["name"]: row for row in found}
    data = natural(load("har"))
    for case in cases():
        if arguments.done or arguments.only not in case.name or case.name in rows:
            continue
        rows[case.name] = run(case, data)
        ordered = [rows[one.name] for one in cases() if one.name in rows]
        kept.parent.mkdir(parents=True, exist_ok=True)
        result = {"command": "python -m benchmarks.asynchronous", "machine": describe(), "rows": ordered}
        kept.write_text(json.dumps(result, indent=1) + "\n")
        print("\n".join(table([rows[case.name]])[-1:]), flush=True)
    lines = table([rows[one.name] for one in cases() if one.name in rows])
    arguments.output.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.asynchronous",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="only runs with this in their name")
    parser.add_argument("--done", action="store_true", help="run nothing, only write down finished runs")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "out" / "asynchronous", metavar="STEM", help="of the .json and .md"
    )
    return parser


if __name__ == "__main__":
    main()
