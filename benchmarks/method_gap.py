"""Where the global network loses accuracy on HAPT: the network, how its votes are read, or the federation.

    python -m benchmarks.method_gap          # about three minutes of a core; validation data, seed 100

One sign network is trained with everybody's samples in one place, and one by the federation, 30 rounds; the latter's
votes are then read in several ways, and its devices' own networks mixed with what was announced to them. FedAvg does
the same rounds. Test data is not used.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from rich.console import Console

from benchmarks.machine import commit, describe
from coordinator import baselines, rounds
from coordinator.baselines.hidenseek_signs import HideNseekSigns, Network, SignsSettings, votes_of
from coordinator.baselines.method import Floats, Labels, Method, Samples, State, Task, Update, make_settings
from coordinator.datasets.dataset import FederatedData
from coordinator.experiment import DataSettings
from coordinator.models import build_plan
from coordinator.simulate_command import TRAINED
from wire.prng import mix

RESULT = Path(__file__).resolve().parent / "results" / "method-gap.json"
SEED, ROUNDS, PER_ROUND, LAST = 100, 30, 10, 5
PASSES = 12  # over everybody's samples
READINGS: dict[str, Callable[[Floats, Floats], Floats]] = {  # of the vote and its running average
    "mean vote (default)": lambda vote, average: vote,
    "sign of the vote": lambda vote, average: np.where(vote >= 0, 1, -1),
    "square root of the vote": lambda vote, average: np.sign(vote) * np.sqrt(np.abs(vote)),
    "vote squared": lambda vote, average: vote * np.abs(vote),
    "running average, 0.8": lambda vote, average: average,
}
OWN = (1.0, 0.7, 0.5, 0.3)  # share of own signs in a device's network, the rest is the vote it was sent
Parts = Mapping[str, tuple[Floats, Labels]]


def main() -> None:
    """Train, read, write."""
    argparse.ArgumentParser(
        prog="python -m benchmarks.method_gap",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    torch.set_num_threads(1)
    console = Console()
    data = DataSettings(validate=TRAINED).load(SEED)
    task = Task(
        plan=build_plan("har-cnn", input_shape=data.input_shape, classes=data.classes),
        devices=tuple(data.devices),
        seed=SEED,
    )
    everyone = list(data.devices.values())
    parts = {
        "training": _joined([(one.x_train, one.y_train) for one in everyone]),
        "later": _joined([(one.x_test, one.y_test) for one in everyone]),
    }
    ours = HideNseekSigns(task, SignsSettings())
    fedavg = baselines.get("fedavg")
    rival = fedavg(task, make_settings(fedavg.Config, {"epochs": 2, "batch": 16}))
    result = {
        "command": "python -m benchmarks.method_gap",
        "machine": describe(),
        "commit": commit(),
        "seed": SEED,
        "rounds": ROUNDS,
        "one place": _one_place(ours, parts, console),
        "hidenseek": _federated(ours, data, parts, console),
        "fedavg": _federated(rival, data, parts, console),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    console.print(f"{RESULT} written", soft_wrap=True)


def _one_place(method: HideNseekSigns, parts: Parts, console: Console) -> list[dict[str, float]]:
    """Accuracies of the signs after every second pass over all samples."""
    x, y = parts["training"]
    batch, runtime, rng = method.training.batch, method.runtime, np.random.default_rng(SEED)
    scores, ones = np.full(method.ticket.kept, method.settings.start, dtype=np.float32), np.ones(batch, np.float32)
    runtime.set_log_prior(np.zeros(method.task.plan.classes, dtype=np.float32))
    found = []
    for done in range(1, PASSES + 1):
        runtime.set_scores(scores)
        for chosen in np.array_split(rng.permutation(y.size), np.arange(batch, y.size, batch)):
            runtime.step(x[chosen], y[chosen], ones[: chosen.size])
        scores = runtime.scores()
        if done % 2 == 0:
            signs = Network(multipliers=np.where(scores >= 0, 1, -1).astype(np.float32))
            found.append({"passes": done} | {name: _accuracy(method, signs, *part) for name, part in parts.items()})
            console.print(f"in one place: {found[-1]}", highlight=False)
    return found


def _federated(method: Method[Any], data: FederatedData, parts: Parts, console: Console) -> dict[str, Any]:
    """Means of the last five rounds: of the global network, by every reading, and of the devices' own networks."""
    schedule = rounds.Schedule(
        rounds=ROUNDS,
        per_round=PER_ROUND,
        quorum=PER_ROUND,
        deadline_s=1.0,
        start_devices=len(data.devices),
        seed=SEED,
    )
    standing = rounds.Rounds(schedule=schedule, number=1, online=frozenset(data.devices))
    standing, actions = rounds.handle(standing, rounds.Tick(), 0.0)
    state, average = method.start(), None
    readings: list[dict[str, dict[str, float]]] = []
    own: list[dict[str, float]] = []
    while not standing.over:
        (opened,) = [action for action in actions if isinstance(action, rounds.Announce)]
        state, hits = _round(method, data, state, opened.number, opened.selected)
        own = [*own, hits][-3 * LAST :]  # few test samples a round: fifteen rounds
        networks = {"global": method.model(method.announce(state, None))}
        if isinstance(method, HideNseekSigns):
            vote = votes_of(state).mean
            average = vote if average is None else np.float32(0.8) * average + np.float32(0.2) * vote
            networks = {
                name: Network(multipliers=read(vote, average).astype(np.float32)) for name, read in READINGS.items()
            }
        if opened.number > ROUNDS - LAST:
            readings.append(
                {
                    name: {part: _accuracy(method, network, *parts[part]) for part in parts}
                    for name, network in networks.items()
                }
            )
        console.print(f"{type(method).__name__} round {opened.number}: own {hits}", highlight=False)
        for device in opened.selected:
            standing, actions = rounds.handle(standing, rounds.MaskStored(device=device), now_s=0.0)
    return {
        "global": {
            name: {part: round(fmean(row[name][part] for row in readings), 4) for part in parts} for name in readings[0]
        },
        "own, 15 rounds": {share: round(fmean(row[share] for row in own), 4) for share in own[0]},
    }


def _round(
    method: Method[Any], data: FederatedData, state: State, number: int, selected: tuple[str, ...]
) -> tuple[State, dict[str, float]]:
    """The state after a round, and the accuracy of the devices' own networks by share of own signs."""
    updates, hits, tests = [], dict.fromkeys(map(str, OWN), 0), 0
    for device in selected:
        one = data.devices[device]
        down = method.hear(state, device, method.announce(state, device))
        local = method.train(down, Samples(x=one.x_train, y=one.y_train), {}, mix(SEED, number, device))
        updates.append(Update(device=device, samples=one.y_train.size, payload=local.up))
        for share in OWN:
            model = local.model
            if isinstance(method, HideNseekSigns):
                mixed = share * model.multipliers + (1 - share) * votes_of(state).mean
                model = Network(multipliers=mixed.astype(np.float32), log_prior=model.log_prior)
            hits[str(share)] += int(np.count_nonzero(method.logits(model, one.x_test).argmax(axis=1) == one.y_test))
        tests += one.y_test.size
    kept = hits if isinstance(method, HideNseekSigns) else {"1.0": hits["1.0"]}
    return method.aggregate(state, updates), {share: count / tests for share, count in kept.items()}


def _accuracy(method: Method[Any], model: Any, x: Floats, y: Labels) -> float:
    logits = np.concatenate([method.logits(model, part) for part in np.array_split(x, -(-y.size // 256))])
    return round(float(np.mean(logits.argmax(axis=1) == y)), 4)


def _joined(parts: list[tuple[Floats, Labels]]) -> tuple[Floats, Labels]:
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


if __name__ == "__main__":
    main()
