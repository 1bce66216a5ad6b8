"""Ideas for the recipe that were measured and not kept: each a method for `hidenseek simulate`, in a few lines.

    PYTHONPATH=. hidenseek simulate --method benchmarks.method_variants:Bop --validate --rounds 30

They train in numpy on gradients of the device's runtime, so that any rule can be tried. `Plain` is
`hidenseek-signs` written that way, to compare with; `benchmarks.method_ablation` runs them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from coordinator.baselines.hidenseek import HideNseek, HideNseekSettings
from coordinator.baselines.hidenseek_signs import HideNseekSigns, Network, votes_of
from coordinator.baselines.method import Floats, Local, Samples, Settings, State, Update
from coordinator.dithered import RULE, UNITS, Rule
from wire import mask, prng
from wire.dither import TOP
from wire.mask import Votes

Signs = NDArray[np.bool_]


class Plain(HideNseekSigns):
    """Adam from start x mean vote, signs of the scores up: the default, by hand."""

    def begin(self, votes: Votes, memory: State) -> Floats:
        """Scores at the start of a round, float32 (kept,)."""
        return votes.start_scores(self.settings.start)

    def rate(self, done: float) -> float:
        """Learning rate after a share of the round's steps."""
        return self.settings.learning_rate

    def gradient(self, scores: Floats, gradient: Floats) -> Floats:
        """The surrogate gradient, from the straight-through one."""
        return gradient

    def finish(self, scores: Floats, seed: int) -> Signs:
        """The signs that are sent."""
        return scores >= 0

    def own(self, signs: Signs, votes: Votes) -> Floats:
        """Multipliers of the device's own network."""
        return mask.as_multipliers(signs)

    def keep(self, scores: Floats, votes: Votes) -> State:
        """What the device remembers for its next round."""
        return {}

    def train(self, down: bytes, samples: Samples, memory: State, seed: int) -> Local:
        """Epochs of steps by the hooks above."""
        votes = mask.decode_votes(down, self.ticket.ends)
        scores = self.begin(votes, memory)
        first, second = np.zeros_like(scores), np.zeros_like(scores)
        training, count = self.training, samples.y.size
        steps = training.epochs * -(-count // training.batch)
        ones = np.ones(training.batch, dtype=np.float32)
        prior = self.prior(samples)
        self.runtime.set_log_prior(prior)
        step, loss = 0, 0.0
        for epoch in range(training.epochs):
            order, loss = prng.permutation(seed, epoch, count), 0.0
            for at in range(0, count, training.batch):
                chosen = order[at : at + training.batch]
                self.runtime.set_scores(scores)
                result, straight = self.runtime.gradient(samples.x[chosen], samples.y[chosen], ones[: chosen.size])
                loss += result.loss * chosen.size
                step += 1
                scores = self.update(scores, self.gradient(scores, straight), first, second, step, steps)
        signs = self.finish(scores, seed)
        up = mask.encode_signs(signs, votes, self.ticket.ends)
        own = Network(multipliers=self.own(signs, votes), log_prior=prior)
        return Local(up=up, memory=self.keep(scores, votes), model=own, loss=loss / count)

    def update(self, scores: Floats, g: Floats, first: Floats, second: Floats, step: int, steps: int) -> Floats:
        """One step of Adam; moments are changed in place."""
        t = self.training
        first += (1 - t.beta1) * (g - first)
        second += (1 - t.beta2) * (g * g - second)
        root = np.sqrt(second / (1 - t.beta2**step)) + t.epsilon
        moved = scores - self.rate(step / steps) * (first / (1 - t.beta1**step)) / root
        return moved.clip(-t.clip, t.clip).astype(np.float32)


class Bop(Plain):
    """No scores: flip where an average of the gradient pushes hard against the sign (arXiv 1906.02107)."""

    gamma, threshold = 0.1, 2e-3  # of a few tried on four rounds

    def update(self, scores: Floats, g: Floats, first: Floats, second: Floats, step: int, steps: int) -> Floats:
        """Flip where mean gradient x sign exceeds the threshold."""
        first += self.gamma * (g - first)
        signs = mask.as_multipliers(scores >= 0)
        return np.where(first * signs > self.threshold, -signs, signs)


class TanhSurrogate(Plain):
    """The gradient of tanh(score / start) instead of the straight-through one."""

    def gradient(self, scores: Floats, gradient: Floats) -> Floats:
        """Smaller where the sign is settled."""
        return gradient * (1 - np.tanh(scores / self.settings.start) ** 2)


class StochasticSigns(Plain):
    """A sign is drawn, +1 with probability sigmoid(score / (start / 10)): votes without bias."""

    def finish(self, scores: Floats, seed: int) -> Signs:
        """Draw."""
        chance = 1 / (1 + np.exp(-(10 / self.settings.start) * scores))
        return np.random.default_rng(seed).random(scores.size) < chance


class ResetScores(Plain):
    """Scores start at +-start with the global sign, whatever the margin was."""

    def begin(self, votes: Votes, memory: State) -> Floats:
        """One size for all."""
        return mask.as_multipliers(votes.signs) * np.float32(self.settings.start)


class ClampScores(Plain):
    """A device keeps its scores, and clamps those that disagree with the global sign to a hair of it."""

    def begin(self, votes: Votes, memory: State) -> Floats:
        """Own scores where they agree."""
        scores = memory.get("scores", votes.start_scores(self.settings.start))
        agree = (scores >= 0) == votes.signs
        return np.where(agree, scores, mask.as_multipliers(votes.signs) * np.float32(1e-3)).astype(np.float32)

    def keep(self, scores: Floats, votes: Votes) -> State:
        """All scores."""
        return {"scores": scores}


class OwnMemory(Plain):
    """Half of where a device's own last training went is added to the start from the votes."""

    def begin(self, votes: Votes, memory: State) -> Floats:
        """Votes and own memory."""
        start = votes.start_scores(self.settings.start)
        return start + np.float32(0.5) * memory["went"] if memory else start

    def keep(self, scores: Floats, votes: Votes) -> State:
        """How far the scores went."""
        return {"went": scores - votes.start_scores(self.settings.start)}


class ClassFrequencies(Plain):
    """The loss takes out how often a device sees each class, not only which it has (arXiv 2007.07314, 2209.00189)."""

    def prior(self, samples: Samples) -> Floats:
        """Logarithm of every class's share."""
        counts = np.bincount(samples.y, minlength=self.task.plan.classes) + 1e-3
        return np.log(counts / counts.sum()).astype(np.float32)


class LeanOnVotes(Plain):
    """A device's own network is 0.7 of its signs and 0.3 of the mean vote (as arXiv 2003.13461 mixes weights)."""

    def own(self, signs: Signs, votes: Votes) -> Floats:
        """Blend."""
        return np.float32(0.7) * mask.as_multipliers(signs) + np.float32(0.3) * votes.mean


class PersonalTail(Plain):
    """The last layer's scores are the device's own and are kept; its signs are sent, for the global network."""

    def begin(self, votes: Votes, memory: State) -> Floats:
        """Own tail."""
        scores = votes.start_scores(self.settings.start)
        if memory:
            scores[self.ticket.kept_layers[-1].slice] = memory["tail"]
        return scores

    def keep(self, scores: Floats, votes: Votes) -> State:
        """The tail."""
        return {"tail": scores[self.ticket.kept_layers[-1].slice]}


class Decay(Plain):
    """Twice the learning rate, falling to 0 over the round."""

    def rate(self, done: float) -> float:
        """Linear."""
        return 2 * self.settings.learning_rate * (1 - done)


class OneBitDown(Plain):
    """No margins in the downlink: one bit a weight, as if every vote had been unanimous."""

    levels = 1

    def aggregate(self, state: State, updates: Sequence[Update]) -> State:
        """Round the mean vote to fewer levels."""
        after = super().aggregate(state, updates)
        votes = votes_of(after)
        share = votes.dissent / votes.voters
        dissent = np.rint(share * self.levels).clip(0, self.levels // 2).astype(np.uint16)
        return after | {"dissent": dissent, "voters": np.array(self.levels)}


class TwoBitsDown(OneBitDown):
    """Margins on two levels: at most two bits a weight."""

    levels = 3


@dataclass(frozen=True, kw_only=True)
class RuledSettings(HideNseekSettings):
    """The recipe's, and those of `coordinator.dithered.Rule`."""

    hold: int = RULE.hold
    settling: int = RULE.settling
    least: float = RULE.least


class Ruled(HideNseek):
    """Other rules for what is announced of dithered scores: `--set hold=1 --set settling=100000` is every change."""

    Config: ClassVar[type[Settings]] = RuledSettings

    @property
    def rule(self) -> Rule:
        """As set."""
        settings = self.settings
        assert isinstance(settings, RuledSettings)
        return Rule(hold=settings.hold, settling=settings.settling, least=settings.least)


@dataclass(frozen=True, kw_only=True)
class ExactSettings(RuledSettings):
    """Those, and `average`: the weight of earlier rounds in what is tried; 0: only the newest is."""

    average: float = 0.0


class Exact(Ruled):
    """The global network has the exact mean scores, or their running average; what is announced is as ever."""

    Config: ClassVar[type[Settings]] = ExactSettings

    def start(self) -> State:
        """No average yet."""
        return super().start() | {"average": np.zeros(self.ticket.kept, dtype=np.float32)}

    def aggregate(self, state: State, updates: Sequence[Update]) -> State:
        """Take the exact ones into the average; that of the first rounds is their mean."""
        after = super().aggregate(state, updates)
        assert isinstance(self.settings, ExactSettings)
        exact = (votes_of(after).levels + after["remainder"] / UNITS) * (2 / TOP) - 1
        old = min(self.settings.average, 1 - 1 / int(state["number"]))
        return after | {"average": (old * state["average"] + (1 - old) * exact).astype(np.float32)}

    def announce(self, state: State, device: str | None) -> bytes:
        """To nobody in particular, for the test of the global network: the average."""
        return super().announce(state, device) if device else state["average"].tobytes()

    def model(self, down: bytes) -> Network:
        """As `announce` has it."""
        return Network(multipliers=np.frombuffer(down, dtype=np.float32))
