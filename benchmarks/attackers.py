"""Hostile devices, as methods for `hidenseek simulate`: some of the fleet train like everyone and send something else.

    PYTHONPATH=. hidenseek simulate --method benchmarks.attackers:HostileHideNseek --set attack=flip --set attackers=5
    PYTHONPATH=. hidenseek simulate --method benchmarks.attackers:HostileFedAvg --set attack=flip --set scale=10

What they send is in `ATTACKS`. They are drawn from the seed, more of them always with the fewer among them, and
selected for rounds like everyone. A device does not know its name, so whether it is hostile is told with what goes
down, in one more byte for all. Its own network is the honest one, for everybody's personalised accuracy to compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from coordinator import robust
from coordinator.baselines.blobs import floats, read_floats
from coordinator.baselines.dense_method import SGDSettings
from coordinator.baselines.fedavg import FedAvg
from coordinator.baselines.hidenseek import HideNseek, HideNseekSettings
from coordinator.baselines.hidenseek_signs import votes_of
from coordinator.baselines.method import Array, Floats, Local, Samples, Settings, State, Task, Update, require
from wire import dither, mask, prng

# name: (what a hostile device sends as its mask, what as its weights). A step is trained minus announced weights.
ATTACKS = {
    "flip": ("its own trained mask, every sign turned", "the announced weights minus scale x its step"),
    "random": ("random signs, its own in every round", "the announced weights plus noise scale x as long as its step"),
    "collude": ("random signs, the same ones from all, always", "the same, with the same noise from all, always"),
    "invert": ("every announced sign turned", "the announced weights, every sign turned"),
    "hide": ("announced signs, 45 % drawn at random turned", "flip with scale 1: as long as an honest step"),
    "plot": ("announced signs, 90 % of them the same random signs from all, always", "collude with scale 1"),
    "poison": ("a mask trained on labels one class off", "weights trained on labels one class off"),
}
BELOW = 0.03  # what `coordinator.robust` calls turned, who knows the defence turns so much less
HONEST, HOSTILE = b"\x00", b"\x01"


def hostile_devices(task: Task, count: int) -> frozenset[str]:
    """Who is hostile: `count` devices drawn from the task's seed."""
    order = prng.generator((task.seed, "attackers")).permutation(len(task.devices))
    return frozenset(task.devices[i] for i in order[:count])


def mislabelled(samples: Samples, classes: int) -> Samples:
    """Samples with every label one class further."""
    return Samples(x=samples.x, y=(samples.y + 1) % classes)


def check(settings: HostileHideNseekSettings | HostileFedAvgSettings) -> None:
    """Refuse an unknown attack.

    Raises:
        ConfigError: naming it and those there are.
    """
    require("attack", settings.attack, settings.attack in ATTACKS, f"one of {', '.join(ATTACKS)}")  # type: ignore[arg-type]
    require("attackers", settings.attackers, settings.attackers >= 0, "at least 0")


@dataclass(frozen=True, kw_only=True)
class HostileHideNseekSettings(HideNseekSettings):
    """The recipe's, and: attack, a name of `ATTACKS`; attackers, how many devices."""

    attack: str = "flip"
    attackers: int = 0


class HostileHideNseek(HideNseek):
    """Our recipe, with hostile devices. The state also counts what the defence would make of every device's masks."""

    Config: ClassVar[type[Settings]] = HostileHideNseekSettings
    settings: HostileHideNseekSettings

    def __init__(self, task: Task, settings: HostileHideNseekSettings) -> None:
        check(settings)
        super().__init__(task, settings)
        self.hostile = hostile_devices(task, settings.attackers)

    @property
    def limits(self) -> robust.Limits:
        """Those of the defence."""
        return robust.DITHERED if self.settings.dither else robust.SIGNS

    @property
    def hidden(self) -> float:
        """Share that can be turned without being found."""
        return self.limits.turned - BELOW

    def start(self) -> State:
        """Nobody judged yet."""
        counts = np.zeros(len(self.task.devices), dtype=np.int64)
        return super().start() | {"judged": counts, "turned": counts, "copy": counts, "extremes": np.zeros((0, 4))}

    def announce(self, state: State, device: str | None) -> bytes:
        """The votes, after a byte that says whether to attack."""
        return (HOSTILE if device in self.hostile else HONEST) + super().announce(state, device)

    def hear(self, state: State, device: str, payload: bytes) -> bytes:
        """The same byte, and the votes as ever."""
        return payload[:1] + super().hear(state, device, payload[1:])

    def model(self, down: bytes) -> Any:
        """As ever."""
        return super().model(down[1:])

    def train(self, down: bytes, samples: Samples, memory: State, seed: int) -> Local:
        """Train; then send what `ATTACKS` says."""
        order, down = down[:1], down[1:]
        local = super().train(down, samples, memory, seed)
        if order == HONEST:
            return local
        if self.settings.attack == "poison":
            wrong = mislabelled(samples, self.task.plan.classes)
            return replace(local, up=super().train(down, wrong, memory, seed).up)
        known = dither.context(mask.decode_votes(down, self.ticket.ends), self.training, seed)
        sent = self.sent(mask.decode_signs(local.up, known, self.ticket.ends), known.signs, seed)
        return replace(local, up=mask.encode_signs(sent, known, self.ticket.ends))

    def sent(self, trained: mask.Signs, announced: mask.Signs, seed: int) -> mask.Signs:
        """The hostile mask, bool (kept,), from what training would have sent and what it was announced to be."""
        match self.settings.attack:
            case "flip":
                return ~trained
            case "invert":
                return ~announced
            case "hide":
                return announced ^ (prng.generator((seed, "hide")).random(announced.size) < self.hidden)
            case "plot":
                rng = prng.generator((self.task.seed, "plot"))
                same = rng.random(announced.size) < 2 * self.hidden  # half of those are turned
                return np.where(same, rng.random(announced.size) < 0.5, announced)
            case "collude":
                seed = self.task.seed
        return prng.generator((seed, "hostile")).random(announced.size) < 0.5

    def aggregate(self, state: State, updates: Sequence[Update]) -> State:
        """As ever, and keep the counts."""
        votes = votes_of(state)
        masks = {}
        for update in updates:
            sent, known = self._read(state, update)
            changed = sent ^ known.signs  # as `coordinator.dithered` looks at masks; of signs, that is the mask itself
            masks[update.device] = robust.pack(votes.signs ^ changed)
        chance = self.training.flip_chance
        kinds = {finding.device: finding.kind for finding in robust.judge(votes, masks, chance, self.limits).findings}
        here = {name: np.array([name == kinds.get(d) for d in self.task.devices]) for name in ("turned", "copy")}
        judged = np.array([device in masks for device in self.task.devices])
        kept: dict[str, Array] = {"judged": state["judged"] + judged}
        kept |= {name: state[name] + found for name, found in here.items()}
        row = extremes(votes, {d: m for d, m in masks.items() if d not in self.hostile}, chance)
        return super().aggregate(state, updates) | kept | {"extremes": np.vstack([state["extremes"], row])}


def extremes(votes: mask.Votes, honest: dict[str, robust.Packed], chance: float) -> list[float]:
    """How far a round's honest masks go, four figures.

    The largest share turned; the smallest distance of two against their changes; the largest distance to the others
    (its median) against the round's median, and in deviations from it (1.4826 x the median absolute deviation).
    """
    if len(honest) < 3:
        return [np.nan] * 4
    pairs = robust.compare(votes, honest, chance)
    others = ~np.eye(len(honest), dtype=np.bool_)
    changing = others & (pairs.together > 0)
    near = float((pairs.apart[changing] / pairs.together[changing]).min()) if changing.any() else np.nan
    apart = [float(np.median(row[own])) for row, own in zip(pairs.apart, others, strict=True)]
    middle = float(np.median(apart))
    spread = 1.4826 * float(np.median(np.abs(np.array(apart) - middle)))
    furthest = float(max(apart))
    turned = max(robust.turned(votes, honest).values())
    return [turned, near, furthest / max(middle, 1e-9), (furthest - middle) / max(spread, 1e-9)]


@dataclass(frozen=True, kw_only=True)
class HostileFedAvgSettings(SGDSettings):
    """FedAvg's, and: attack, a name of `ATTACKS`; attackers, how many devices; scale, of what they send."""

    attack: str = "flip"
    attackers: int = 0
    scale: float = 10.0


class HostileFedAvg(FedAvg):
    """FedAvg with hostile devices, undefended."""

    Config: ClassVar[type[Settings]] = HostileFedAvgSettings
    settings: HostileFedAvgSettings

    def __init__(self, task: Task, settings: HostileFedAvgSettings) -> None:
        check(settings)
        super().__init__(task, settings)
        self.hostile = hostile_devices(task, settings.attackers)

    def announce(self, state: State, device: str | None) -> bytes:
        """The weights, after a byte that says whether to attack."""
        return (HOSTILE if device in self.hostile else HONEST) + super().announce(state, device)

    def model(self, down: bytes) -> Floats:
        """As ever."""
        return super().model(down[1:])

    def train(self, down: bytes, samples: Samples, memory: State, seed: int) -> Local:
        """Train; then send what `ATTACKS` says."""
        local = super().train(down, samples, memory, seed)
        if down[:1] == HONEST:
            return local
        if self.settings.attack == "poison":
            wrong = mislabelled(samples, self.task.plan.classes)
            return replace(local, up=super().train(down, wrong, memory, seed).up)
        announced = read_floats(down[1:], self.net.size)
        return replace(local, up=floats(self.sent(local.model, announced, seed)))

    def sent(self, trained: Floats, announced: Floats, seed: int) -> Floats:
        """The hostile weights, float32 (weights,)."""
        step, scale = trained - announced, np.float32(self.settings.scale)
        match self.settings.attack:
            case "flip":
                return announced - scale * step
            case "hide":
                return announced - step
            case "invert":
                return -announced
            case "plot":
                seed, scale = self.task.seed, np.float32(1)
            case "collude":
                seed = self.task.seed
        noise = prng.generator((seed, "hostile")).normal(size=announced.size).astype(np.float32)
        return announced + scale * noise * (np.linalg.norm(step) / np.linalg.norm(noise))
