"""The options of `hidenseek simulate`, and what it prints."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wire import command
from wire.errors import ConfigError

TRAINED = 0.65  # of every class's training samples, when the others validate

if TYPE_CHECKING:
    from rich.console import Console

    from coordinator.experiment import Experiment
    from coordinator.journal import Row

Subparsers = argparse._SubParsersAction

EXAMPLES = """
examples:
  hidenseek simulate                                                  # HideNseek, 25 people, 60 rounds
  hidenseek simulate --method fedavg --seeds 3 --workers 2
  hidenseek simulate --method hidenseek --set density=0.03 --set epochs=2
  hidenseek simulate --data fashion-mnist --how shards --devices 100 --classes-per-device 2 --limit 100,25
  hidenseek simulate --method lotteryfl --set prune=0.1 --validate    # choose settings without test data
  PYTHONPATH=examples hidenseek simulate --method my_method:HalfFedAvg --rounds 5

Every round is saved: stop with Ctrl-C, and the same command goes on where it stopped.
Settings of a method: hidenseek simulate --method NAME --settings
"""


def add_simulate(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`hidenseek simulate`."""
    from coordinator.baselines import METHODS

    methods = "\n".join(f"  {name:16} {what}" for name, (_, _, what) in METHODS.items())
    parser = subparsers.add_parser(
        "simulate",
        help="a federation of many devices on this machine, for HideNseek and its rivals",
        description="Simulate a federation on real data: the coordinator's own rounds, aggregation and codecs, "
        "with bytes counted from what is sent, for HideNseek or a method to compare it with.",
        epilog=f"methods:\n{methods}\n{EXAMPLES}",
        formatter_class=command.HelpFormatter,
    )
    parser.add_argument("--method", default="hidenseek", metavar="NAME", help="a method, see below, or MODULE:CLASS")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the method")
    parser.add_argument("--settings", action="store_true", help="list the method's settings and stop")
    parser.add_argument("--rounds", type=int, default=60, metavar="N", help="rounds to train")
    parser.add_argument("--per-round", type=int, default=10, metavar="N", help="devices selected for a round")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="repeat with so many seeds")
    parser.add_argument("--first-seed", type=int, default=0, metavar="S", help="the first of them")
    group = parser.add_argument_group("data")
    group.add_argument("--data", default="har", metavar="NAME", help="a data set, see hidenseek data list")
    group.add_argument("--how", metavar="SPLIT", help="natural, shards, dirichlet or iid (default: natural, or shards)")
    group.add_argument("--devices", type=int, default=100, metavar="N", help="how many (not for natural)")
    group.add_argument("--classes-per-device", type=int, default=2, metavar="K", help="for shards")
    group.add_argument("--alpha", type=float, default=0.3, metavar="A", help="for dirichlet")
    group.add_argument("--limit", type=_limit, metavar="TRAIN,TEST", help="most samples a device (default: all)")
    group.add_argument(
        "--validate",
        nargs="?",
        type=float,
        const=TRAINED,
        default=False,
        metavar="SHARE",
        help=f"train on this share of the training data ({TRAINED:g} if not given), test on what comes later instead",
    )
    group.add_argument(
        "--model",
        default="",
        metavar="NAME",
        help="the network (default: har-cnn, or conv2 for images), or MODULE:NAME",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    parser.add_argument("--evaluate-every", type=int, default=5, metavar="N", help="rounds between global evaluations")
    parser.add_argument("--out", type=Path, default=Path("out/simulate"), metavar="DIR", help="where runs are kept")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results as JSON")
    parser.set_defaults(run=_simulate)


def _simulate(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from coordinator.experiment import DataSettings, Experiment

    if arguments.settings:
        return _list_settings(arguments.method)
    for name in ("rounds", "per_round", "seeds", "evaluate_every"):
        if getattr(arguments, name) < 1:
            raise ConfigError(
                f"{getattr(arguments, name)} found, at least 1 expected", where=f"--{name}".replace("_", "-")
            )
    experiment = Experiment(
        method=arguments.method,
        settings=dict(map(_setting, arguments.set)),
        data=DataSettings(
            name=arguments.data,
            how=arguments.how or ("natural" if arguments.data == "har" else "shards"),
            devices=arguments.devices,
            classes_per_device=arguments.classes_per_device,
            alpha=arguments.alpha,
            limit=arguments.limit,
            validate=arguments.validate,
        ),
        model=arguments.model,
        rounds=arguments.rounds,
        per_round=arguments.per_round,
        evaluate_every=arguments.evaluate_every,
    )
    experiment.about()  # complains about method and settings before anything is shown
    workers = arguments.workers or len(os.sched_getaffinity(0))
    console = Console()
    results = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        rows = simulate_with_progress(experiment, seed, out=arguments.out, workers=workers, console=console)
        results.append(experiment.result(seed, rows))
    _print(results, console)
    console.print(f"rounds: {(arguments.out / experiment.folder).resolve()}", highlight=False, soft_wrap=True)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


def simulate_with_progress(
    experiment: Experiment, seed: int, *, out: Path, workers: int, console: Console
) -> list[Row]:
    """Run one experiment with a progress bar: rounds, time left, the newest accuracies."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[newest]}"),
        console=console,
    ) as progress:
        title = f"{experiment.method.rpartition(':')[2]} seed {seed}"
        task = progress.add_task(title, total=experiment.rounds, newest="preparing")

        def report(row: Row) -> None:
            known = [name for name in ("personalised", "seen") if row[name] is not None]
            newest = ", ".join(f"{name} {row[name]:.1%}" for name in known)
            progress.update(task, completed=row["round"], newest=newest)

        rows = experiment.run(seed, out=out, workers=workers, report=report)
        if not progress.tasks[0].completed:
            progress.update(task, completed=len(rows), newest="was done before")
    return rows


def _print(results: Sequence[dict[str, Any]], console: Console) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("seed", "seen", "unseen", "personalised", "up B", "down B", "CPU s"):
        table.add_column(heading, justify="right")
    for result in results:
        table.add_row(
            str(result["seed"]),
            *("-" if result[name] is None else f"{result[name]:.1%}" for name in ("seen", "unseen", "personalised")),
            f"{result['up_bytes_per_device_round']:,.0f}",
            f"{result['down_bytes_per_device_round']:,.0f}",
            f"{result['cpu_seconds']:,.0f}",
        )
    console.print()
    console.print(table)
    console.print("accuracies: mean of the last 5 rounds; bytes: a device and round; CPU: local training, all devices")


def _list_settings(name: str) -> int:
    from dataclasses import fields

    from coordinator.baselines import get

    for field in fields(get(name).Config):
        print(f"{field.name:16} {field.default}")
    return 0


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ConfigError(f"'{text}' found, NAME=VALUE expected", where="--set")
    return name, value


def _limit(text: str) -> tuple[int, int]:
    try:
        train, test = map(int, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' found, two whole numbers expected, e.g. 100,25") from None
    return train, test
