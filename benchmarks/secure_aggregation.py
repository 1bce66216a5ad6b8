"""What secure aggregation costs on HAPT, and that it changes no vote: the tables of docs/secure-aggregation.md.

    python -m benchmarks.secure_aggregation             # bytes and CPU time of a round, seconds
    python -m benchmarks.secure_aggregation --run       # also 20 rounds of HAPT, hidden and in the clear

har-cnn at density 0.10 keeps 30,322 weights. Bytes are those of signed messages on topics like a fleet's, masks of
coins, for what is sent says nothing of them; CPU time is one process's, every device played in it after the other.
`--run` plays the simulation of `benchmarks.privacy` twice: once counting masks as `coordinator.aggregate` does, once
with every round's masks given to devices that add them up, dropouts among them; votes must be equal bit by bit.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np
from rich.console import Console

from benchmarks.machine import commit, describe
from coordinator import exchange as ex
from coordinator.aggregate import remember
from coordinator.baselines.hidenseek_signs import BEFORE, HideNseekSigns, votes_of
from coordinator.baselines.method import State, Update
from coordinator.exchange import Exchange
from coordinator.experiment import Experiment
from coordinator.simulate_command import simulate_with_progress
from coordinator.unmask import count
from edge_client import secure as edge
from edge_client.secure import Answer, Participant
from wire import mask, signing
from wire.channel import seal
from wire.federation_messages import MaskUpdate, Receipt
from wire.fields import single
from wire.mask import Signs
from wire.messages import Message
from wire.topics import Topics

ROOT = Path(__file__).resolve().parents[1]
KEPT = 30_322  # of har-cnn at the default density
CASES = ((10, 0), (10, 3), (50, 0), (50, 16))  # devices, and how many of them drop out with their signs masked
ROUNDS = 20
RUN, TOPICS = bytes(8), Topics("default")
T = TypeVar("T")


@dataclass
class Round:
    """One round of devices and a coordinator, in memory; counts what is sent and how long it takes.

    Args:
        masks: every device's signs, bool (devices, kept).
        random: bytes.
        lost: devices that drop out before they send their masked signs.
    """

    masks: Signs
    random: Callable[[int], bytes]
    lost: int = 0
    up: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    down: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    device_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    coordinator_ms: float = 0.0

    def play(self) -> np.ndarray:
        """The sum of those who do not drop out, uint8 (kept,)."""
        names = [f"pi-{i:03}" for i in range(len(self.masks))]
        self.devices = {name: Participant(name=name, key=self.random(32)) for name in names}
        self.exchange = Exchange(run=RUN, number=1, kept=self.masks.shape[1])
        for name, signs in zip(names, self.masks, strict=True):
            self._device("keys", name, lambda who, signs=signs: edge.vote(who, _ballot(signs), self.random))
        self._phase("shares", names)
        self._phase("masked signs", names[self.lost :])
        self._phase("reveal", names[self.lost :])
        counts = self._coordinator(lambda: count(self.exchange))
        assert counts is not None
        return counts

    def _phase(self, what: str, present: Sequence[str]) -> None:
        self.exchange = self._coordinator(lambda: ex.decide(self.exchange))
        for name in present:
            message = self._coordinator(lambda name=name: ex.ask(self.exchange, name))
            assert message is not None
            self.down[what].append(_size(self.devices[name].key, TOPICS.down(name), message))
            self._device(what, name, lambda who, message=message: edge.hear(who, message, self.random))

    def _device(self, what: str, name: str, does: Callable[[Participant], tuple[Participant, Answer | None]]) -> None:
        began = time.process_time()
        self.devices[name], answer = does(self.devices[name])
        assert answer is not None
        kind = "mask" if isinstance(answer, MaskUpdate) else "exchange"
        size = _size(self.devices[name].key, TOPICS.up(name, kind), answer)
        self.device_ms[what].append((time.process_time() - began) * 1e3)
        self.up[what].append(size)
        identity = signing.public_key(self.devices[name].key)
        self.exchange = self._coordinator(lambda: ex.hear(self.exchange, name, identity, answer))

    def _coordinator(self, does: Callable[[], T]) -> T:
        began = time.process_time()
        found = does()
        self.coordinator_ms += (time.process_time() - began) * 1e3
        return found


def _ballot(signs: Signs) -> MaskUpdate:
    return MaskUpdate(
        run=RUN, number=1, signs=mask.ballot(signs), train_samples=300, loss=single(0.1), correct=60,
        test_samples=64, train_s=single(0.1), step_ms=single(0.1), peak_memory_kb=65_536,
    )  # fmt: skip


def _size(key: bytes, topic: str, message: Message) -> int:
    return len(seal(key, topic, message))


def price(devices: int, lost: int, repeats: int = 5) -> dict[str, Any]:
    """Bytes and milliseconds of one device and of the coordinator in one round, the best of some rounds."""
    rng = np.random.default_rng(devices)
    masks = rng.random((devices, KEPT)) < 0.5
    rounds = []
    for _ in range(repeats):
        edge.secure.read_roster.cache_clear()
        one = Round(masks, rng.bytes, lost)
        assert np.array_equal(one.play(), masks[lost:].sum(axis=0)), "the sum is not that of the masks"
        rounds.append(one)
    last, receipt = rounds[-1], _size(bytes(32), TOPICS.down("pi-000"), Receipt(run=RUN, number=1))
    # All devices are played in one process, and a roster is checked once in it: every device pays that itself.
    roster = last.exchange.roster
    assert roster is not None
    edge.secure.read_roster.cache_clear()
    began = time.process_time()
    edge.secure.read_roster(roster)
    check_ms = (time.process_time() - began) * 1e3
    spent = {what: min(median(one.device_ms[what]) for one in rounds) for what in last.device_ms}
    spent["shares"] += check_ms
    return {
        "devices": devices,
        "dropped_out": lost,
        "needed": last.exchange.needed,
        "bits_a_weight": edge.secure.width(devices),
        "up_bytes": {what: round(median(sizes)) for what, sizes in last.up.items()},
        "down_bytes": {**{what: round(median(sizes)) for what, sizes in last.down.items()}, "receipt": receipt},
        "device_ms": {what: round(ms, 2) for what, ms in spent.items()},
        "coordinator_ms": round(min(one.coordinator_ms for one in rounds), 1),
    }


class Hidden(HideNseekSigns):
    """The method with its masks added up unseen: three of a round's ten drop out of the exchange, then join again."""

    def aggregate(self, state: State, updates: Sequence[Update]) -> State:
        """Sum masks by the protocol, all of them, and once without three; compare with counting them."""
        votes, rng = votes_of(state), np.random.default_rng(len(updates))
        masks = np.array([mask.decode_signs(one.payload, votes, self.ticket.ends) for one in updates])
        partly = Round(masks, rng.bytes, lost=len(updates) - edge.secure.threshold(len(updates))).play()
        assert np.array_equal(partly, masks[-edge.secure.threshold(len(updates)) :].sum(axis=0))
        counts = Round(masks, rng.bytes).play()
        fresh = mask.votes_of(counts.astype(np.uint32), len(updates), votes.signs)
        after = super().aggregate(state, updates)
        hidden = remember(votes, fresh, self.settings.memory, self.training.flip_chance)
        assert hidden.digest == votes_of(after).digest, "votes are not those of the same masks in the clear"
        assert votes_of(after, BEFORE).digest == votes.digest
        return after


def play(method: str, arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Twenty rounds of HAPT by a method."""
    experiment = Experiment(method=method, settings={"defend": False}, rounds=ROUNDS)
    done = experiment.finished(0, arguments.out) or simulate_with_progress(
        experiment, 0, out=arguments.out, workers=1, console=console
    )
    return experiment.result(0, done)


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line for every case."""
    lines = [
        "| devices | drop out | bits a weight | up B: keys + shares + masked signs + reveal "
        "| down B: roster + shares + survivors + receipt | device, ms | coordinator, ms |",
        "|---:|---:|---:|---|---|---:|---:|",
    ]
    for row in rows:
        up, down = (
            f"**{sum(row[way].values()):,}**: " + " + ".join(f"{size:,}" for size in row[way].values())
            for way in ("up_bytes", "down_bytes")
        )
        lines.append(
            f"| {row['devices']} | {row['dropped_out']} | {row['bits_a_weight']} | {up} | {down} "
            f"| {sum(row['device_ms'].values()):.1f} | {row['coordinator_ms']:.0f} |"
        )
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.secure_aggregation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run", action="store_true", help="also 20 rounds of HAPT")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "secure-aggregation", metavar="DIR")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "out" / "secure-aggregation", metavar="STEM", help="of the .json and .md"
    )
    arguments = parser.parse_args(argv)
    rows = [price(*case) for case in CASES]
    result: dict[str, Any] = {
        "command": "python -m benchmarks.secure_aggregation",
        "machine": describe(),
        "versions": {name: version(name) for name in ("numpy", "pynacl")},
        "commit": commit(),
        "kept": KEPT,
        "rows": rows,
    }
    if arguments.run:
        console = Console()
        methods = {"clear": "hidenseek-signs", "hidden": "benchmarks.secure_aggregation:Hidden"}
        result["command"] += " --run"
        result["runs"] = {name: play(method, arguments, console) for name, method in methods.items()}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    arguments.output.with_suffix(".md").write_text("\n".join(table(rows)) + "\n")
    print("\n".join(table(rows)))
    for name, run in result.get("runs", {}).items():
        print(name, *(f"{key} {run[key]}" for key in ("seen", "unseen", "personalised")))


if __name__ == "__main__":
    main()
