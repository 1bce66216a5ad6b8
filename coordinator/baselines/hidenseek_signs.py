"""HideNseek whose devices send signs: the very code that runs on devices and in the coordinator.

A device trains with the `sparse` runtime (`onnx` where there are no kernels) from scores that the votes say, and sends
its signs, or dithered bits of its scores; the coordinator makes the next votes of them. A federation sends signs
where masks are not seen one by one, or not in rounds (`coordinator.dithered`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from coordinator import dithered
from coordinator.aggregate import DEFEND, MEMORY, close_votes
from coordinator.baselines.method import Floats, Local, Method, Samples, Settings, State, Task, Update
from coordinator.estimate import macs_budget
from coordinator.prune import DEFAULT_BLOCK, LOGIT_DEVIATION, PASSES, prune
from edge_client.privacy import randomise
from edge_client.runtimes import registry
from edge_client.runtimes.base import Runtime
from edge_client.trainer import Trained, log_prior, train
from export.bundle import make_bundle
from wire import dither, mask, prng
from wire.settings import Training
from wire.ticket import Ticket, decode_ticket

BEFORE = "before_"  # how a state's names of the votes before start


@dataclass(frozen=True, kw_only=True)
class SignsSettings(Settings):
    """How to prune and how to train; see `coordinator.prune.prune`, `wire.settings.Training`, `coordinator.aggregate`.

    Attributes:
        density: share of the weights kept.
        pruning: method's name.
        passes: of iterative SynFlow.
        block: output rows that share kept positions.
        magnitudes: "constant" or "normal".
        logit_deviation: of the random network, by the last layer's scale; 4 times as much where a network
            normalises; 0: Kaiming's scale.
        macs: share of the dense network's multiply-adds that the kept weights may need; 0: no limit.
        optimiser: "adam" or "sgd".
        epsilon: Adam's: a score whose gradients are smaller than this moves less than the learning rate.
        start: scores start a round at start x mean vote.
        memory: share of the previous mean vote that stays.
        restrict: a device's softmax is over the classes it has (`edge_client.trainer.log_prior`).
        privacy_epsilon: randomised response on every sign sent (`edge_client.privacy`); 0: none.
        defend: hostile masks are not counted (`coordinator.robust`).
        dither: the largest score of which a dithered bit is sent (`wire.dither`); 0: signs are sent.
    """

    epochs: int = Training.epochs
    batch: int = Training.batch
    learning_rate: float = Training.learning_rate
    density: float = 0.10
    pruning: str = "synflow"
    passes: int = PASSES
    block: int = DEFAULT_BLOCK
    magnitudes: str = "constant"
    logit_deviation: float = LOGIT_DEVIATION
    macs: float = 0.0
    optimiser: str = Training.optimiser
    epsilon: float = Training.epsilon
    start: float = Training.start
    memory: float = MEMORY
    restrict: bool = True
    privacy_epsilon: float = Training.privacy_epsilon
    defend: bool = DEFEND
    dither: float = Training.dither


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """What the ticket has become: multipliers of its weights, own signs or mean votes, and what is added to logits."""

    multipliers: Floats
    log_prior: Floats | float = 0.0


class HideNseekSigns(Method[SignsSettings]):
    """Our recipe."""

    Config: ClassVar[type[Settings]] = SignsSettings

    def __init__(self, task: Task, settings: SignsSettings) -> None:
        super().__init__(task, settings)
        self._ticket_bytes = self.make_ticket().encoded
        self.training = Training(
            optimiser=settings.optimiser,
            learning_rate=settings.learning_rate,
            epsilon=settings.epsilon,
            start=settings.start,
            epochs=settings.epochs,
            batch=settings.batch,
            privacy_epsilon=settings.privacy_epsilon,
            dither=settings.dither,
        )

    def make_ticket(self) -> Ticket:
        """Prune the random network; here, once, not in every worker."""
        settings, plan = self.settings, self.task.plan
        dense = sum(shape.weights * shape.uses_per_weight for shape in plan.weight_layers())
        return prune(
            plan,
            density=settings.density,
            seed=self.task.seed,
            method=settings.pruning,
            block=settings.block,
            passes=settings.passes,
            magnitudes=settings.magnitudes,
            logit_deviation=settings.logit_deviation,
            budget=macs_budget(round(settings.macs * dense)) if settings.macs else None,
        )

    @cached_property
    def ticket(self) -> Ticket:
        """The network."""
        return decode_ticket(self._ticket_bytes)

    @cached_property
    def runtime(self) -> Runtime:
        """What devices train with."""
        bundle = make_bundle(self.ticket, registry.available()[0], self.training)
        return registry.open_runtime(bundle, self.training)

    def __getstate__(self) -> Mapping[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("ticket", "runtime")}

    @property
    def rule(self) -> dithered.Rule:
        """How mean scores follow what devices send, where that are dithered bits."""
        return dithered.RULE

    def start(self) -> State:
        """All agree on the initial signs."""
        first = dither.first_votes(self.ticket.kept, self.training)
        return _state(first, mask.unanimous(self.ticket.kept), 1, dithered.decode_remainder(None, self.ticket.kept))

    def announce(self, state: State, device: str | None) -> bytes:
        """The votes, the same for all; to devices in the context of those before, which all have heard."""
        return mask.encode_votes(votes_of(state), self.ticket.ends, votes_of(state, BEFORE) if device else None)

    def hear(self, state: State, device: str, payload: bytes) -> bytes:
        """The votes alone."""
        votes = mask.decode_votes(payload, self.ticket.ends, votes_of(state, BEFORE))
        return mask.encode_votes(votes, self.ticket.ends)

    def train(self, down: bytes, samples: Samples, memory: State, seed: int) -> Local:
        """As `edge_client.client` does."""
        votes = mask.decode_votes(down, self.ticket.ends)
        return self._train(samples, self.training, seed, votes)

    def _train(self, samples: Samples, training: Training, seed: int, votes: mask.Votes) -> Local:
        trained, own = self.fit(samples, dither.start_scores(votes, training), seed)
        bits = dither.signs_of(trained.scores, training, seed)
        sent = randomise(bits, training, prng.generator((seed, "privacy")).bytes)
        up = mask.encode_signs(sent, dither.context(votes, training, seed), self.ticket.ends)
        return Local(up=up, memory={}, model=own, loss=trained.loss)

    def fit(self, samples: Samples, start: Floats, seed: int) -> tuple[Trained, Network]:
        """Train from scores, float32 (kept,); what came of it, and the device's own network."""
        prior = self.prior(samples)
        steps = train(self.runtime, samples.x, samples.y, prior=prior, training=self.training, start=start, seed=seed)
        trained = [step for step in steps if step is not None][-1]
        return trained, Network(multipliers=mask.as_multipliers(trained.signs), log_prior=prior)

    def prior(self, samples: Samples) -> Floats:
        """What is added to a device's logits, float32 (classes,)."""
        classes = self.task.plan.classes
        return log_prior(samples.y, classes) if self.settings.restrict else np.zeros(classes, dtype=np.float32)

    def aggregate(self, state: State, updates: Sequence[Update]) -> State:
        """As `coordinator.modes` does."""
        return self._close(state, updates)[0]

    def remarks(self, state: State, updates: Sequence[Update]) -> tuple[str, ...]:
        """Who is not counted, and why."""
        return self._close(state, updates)[1] if self.settings.defend else ()

    def _close(self, state: State, updates: Sequence[Update]) -> tuple[State, tuple[str, ...]]:
        votes, read = votes_of(state), [(update.device, *self._read(state, update)) for update in updates]
        number = int(state["number"])
        if self.settings.dither:
            scores, remarks = dithered.close(
                dithered.Scores(votes=votes, remainder=state["remainder"]),
                read,
                number=number,
                defend=self.settings.defend,
                rule=self.rule,
            )
            return _state(scores.votes, votes, number + 1, scores.remainder), remarks
        after, remarks = close_votes(
            votes,
            ((device, signs) for device, signs, _ in read),
            memory=self.settings.memory,
            flip_chance=self.training.flip_chance,
            defend=self.settings.defend,
        )
        return _state(after, votes, number + 1, state["remainder"]), remarks

    def ideal_bytes(self, state: State, update: Update) -> float:
        """Length of the flips in an ideal adaptive code that knows layer and level (both sides do)."""
        signs, known = self._read(state, update)
        layers = np.repeat(np.arange(len(self.ticket.kept_layers)), [layer.kept for layer in self.ticket.kept_layers])
        return adaptive_bits(signs ^ known.signs, layers * mask.LEVELS + known.levels) / 8

    def _read(self, state: State, update: Update) -> tuple[mask.Signs, mask.Context]:
        """A mask, and what was known of it."""
        known = dither.context(votes_of(state), self.training, update.seed)
        return mask.decode_signs(update.payload, known, self.ticket.ends), known

    def model(self, down: bytes) -> Network:
        """The mean vote of every weight."""
        return Network(multipliers=mask.decode_votes(down, self.ticket.ends).mean)

    def logits(self, model: Network, x: Floats) -> Floats:
        """Run the network."""
        self.runtime.set_multipliers(model.multipliers)
        return self.runtime.logits(x) + model.log_prior


def adaptive_bits(bits: NDArray[np.bool_], context: NDArray[np.integer]) -> float:
    """Length of bits (n,) in an adaptive binary code with a context (n,) each, in bits.

    A context with n bits, k of them set, takes log2((n + 1) * binomial(n, k)): the Bayes code with a
    uniform prior, what an adaptive arithmetic coder comes to (Cover and Thomas 2006, section 13.2).
    """
    total = np.bincount(context)
    ones = np.bincount(context, weights=bits).astype(np.int64)
    used = [(int(n), int(k)) for n, k in zip(total, ones, strict=True) if n]
    return sum(math.lgamma(n + 2) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for n, k in used) / math.log(2)


def votes_of(state: State, which: str = "") -> mask.Votes:
    """The votes that a state holds; `BEFORE`: those of the round before."""
    signs, dissent, voters = (state[which + name] for name in ("signs", "dissent", "voters"))
    return mask.Votes(signs=signs, dissent=dissent, voters=int(voters))


def _state(votes: mask.Votes, before: mask.Votes, number: int, remainder: dithered.Remainder) -> State:
    voted = {
        prefix + name: value
        for prefix, one in (("", votes), (BEFORE, before))
        for name, value in (("signs", one.signs), ("dissent", one.dissent), ("voters", np.array(one.voters)))
    }
    return {**voted, "number": np.array(number), "remainder": remainder}
