"""What randomised response on signs costs on HAPT, and what it promises: the table of docs/privacy.md.

    python -m benchmarks.privacy                 # all runs, about a minute each; stop and go on as you like
    python -m benchmarks.privacy --done          # no runs, only write down those that are finished
    python -m benchmarks.privacy --accounts      # no runs at all, only what is promised

25 people, 10 a round, the default recipe; accuracies are means of the last five rounds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.machine import describe
from coordinator.experiment import Experiment
from coordinator.privacy import DELTA, account, vote_deviation
from coordinator.simulate_command import simulate_with_progress
from wire.settings import Training

ROOT = Path(__file__).resolve().parents[1]
ROUNDS, PER_ROUND, DEVICES, KEPT = 20, 10, 25, 30_322  # kept weights of har-cnn at the default density
VARIANTS: tuple[tuple[float, dict[str, Any]], ...] = (
    (0.0, {}),
    (4.0, {}),
    (2.0, {}),
    (1.0, {}),
    (0.5, {}),
    (0.5, {"memory": 0.8}),
)
SEEDS = (0, 1)


def main(argv: Sequence[str] | None = None) -> None:
    """Run, write."""
    arguments = _parser().parse_args(argv)
    console = Console()
    if arguments.accounts:
        print("\n".join(promises()))
        return
    rows: list[dict[str, Any]] = []
    for seed in SEEDS[: arguments.seeds]:
        for epsilon, settings in VARIANTS:
            given = {"privacy_epsilon": epsilon, **settings}
            experiment = Experiment(method="hidenseek-signs", settings=given, rounds=ROUNDS)
            done = experiment.finished(seed, arguments.out)
            if done is None:
                if arguments.done:
                    continue
                done = simulate_with_progress(
                    experiment, seed, out=arguments.out, workers=arguments.workers, console=console
                )
            rows.append({"privacy_epsilon": epsilon, **experiment.result(seed, done)})
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            result = {"command": "python -m benchmarks.privacy", "machine": describe(), "rows": rows}
            arguments.output.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
            arguments.output.with_suffix(".md").write_text("\n".join(table(rows)) + "\n")
    print("\n".join(table(rows)))


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line for every run."""
    lines = [
        "| epsilon, a sign and round | other settings | seed | seen % | unseen % | personalised % | up B | down B |",
        "|---|---|" + "---:|" * 6,
    ]
    for row in rows:
        other = ", ".join(f"{k} {v}" for k, v in row["settings"].items() if k != "privacy_epsilon") or "-"
        accuracies = " | ".join(f"{100 * row[name]:.1f}" for name in ("seen", "unseen", "personalised"))
        sizes = " | ".join(f"{row[f'{way}_bytes_per_device_round']:,.0f}" for way in ("up", "down"))
        lines.append(f"| {row['privacy_epsilon'] or 'off'} | {other} | {row['seed']} | {accuracies} | {sizes} |")
    return lines


def promises() -> list[str]:
    """A line for every epsilon: what it is for a sign and for a mask, in one round and in those of a run."""
    part = ROUNDS * PER_ROUND // DEVICES
    lines = [
        f"| epsilon, a sign and round | turned % | deviation of {PER_ROUND} voters' mean "
        f"| sign, {part} rounds: sum / exact "
        f"| mask, a round: sum / advanced / exact | mask, {part} rounds: sum / exact |",
        "|---|" + "---:|" * 5,
    ]
    for epsilon in (4.0, 2.0, 1.0, 0.5):
        chance = Training(privacy_epsilon=epsilon).flip_chance
        sign, mask, run = (account(epsilon, answers) for answers in (part, KEPT, KEPT * part))
        lines.append(
            f"| {epsilon:g} | {100 * chance:.1f} | {vote_deviation(chance, PER_ROUND):.2f} "
            f"| {sign.total:g} / {sign.exact:.1f} | {mask.total:,.0f} / {mask.advanced:,.0f} / {mask.exact:,.0f} "
            f"| {run.total:,.0f} / {run.exact:,.0f} |"
        )
    return [*lines, "", f"*exact* and *advanced*: but for a probability of {DELTA:g}; the sum always."]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.privacy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1, metavar="N", choices=(1, 2))
    parser.add_argument("--done", action="store_true", help="run nothing, only write down finished runs")
    parser.add_argument("--accounts", action="store_true", help="only what is promised")
    parser.add_argument("--workers", type=int, default=1, metavar="N")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "privacy", metavar="DIR", help="where runs are kept")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "out" / "privacy", metavar="STEM", help="of the .json and .md"
    )
    return parser


if __name__ == "__main__":
    main()
