"""HideNseek (arXiv 2206.04385) without our changes: the reference design of what its abstract describes.

One pass of SynFlow over single weights, Kaiming-normal magnitudes, scores reset to a constant with the
global sign, and the sign of the sample-weighted mean: one bit a weight both ways. The paper's
hyper-parameters were not available: those here are inferred, and searched as every method's are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from coordinator.baselines.hidenseek_signs import HideNseekSigns, Network, SignsSettings, adaptive_bits
from coordinator.baselines.method import Local, Samples, Settings, State, Update, require
from wire import bits, mask


@dataclass(frozen=True, kw_only=True)
class PaperSettings(SignsSettings):
    """The reference preset."""

    passes: int = 1
    block: int = 1
    magnitudes: str = "normal"
    logit_deviation: float = 0.0
    epsilon: float = 1e-8
    memory: float = 0.0
    restrict: bool = False
    defend: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require("defend", self.defend, not self.defend, "false")  # it has a count of its own


class HideNseekPaper(HideNseekSigns):
    """The reference design."""

    Config: ClassVar[type[Settings]] = PaperSettings

    def start(self) -> State:
        """The untouched random network."""
        return {"signs": np.ones(self.ticket.kept, dtype=np.bool_)}

    def announce(self, state: State, device: str | None) -> bytes:
        """One sign a weight."""
        return bits.encode(~state["signs"])

    def train(self, down: bytes, samples: Samples, memory: State, seed: int) -> Local:
        """Scores start at +-start, with the global signs."""
        signs = self.model(down).multipliers
        return self._train(samples, self.training, seed, mask.certain(signs > 0))

    def aggregate(self, state: State, updates: Sequence[Update]) -> State:
        """Sign of the mean weighted by samples; a tie keeps the sign it had."""
        before = state["signs"]
        total = np.zeros(before.size, dtype=np.int64)
        for update in updates:
            total += np.where(self._signs(update, before), update.samples, -update.samples)
        return {"signs": np.where(total == 0, before, total > 0)}

    def _signs(self, update: Update, before: mask.Signs) -> mask.Signs:
        return mask.decode_signs(update.payload, mask.certain(before), self.ticket.ends)

    def ideal_bytes(self, state: State, update: Update) -> float:
        """Length of the flips in an ideal adaptive code."""
        before = state["signs"]
        flips = self._signs(update, before) ^ before
        return adaptive_bits(flips, np.zeros(flips.size, dtype=np.int64)) / 8

    def hear(self, state: State, device: str, payload: bytes) -> bytes:
        """As it was sent."""
        return payload

    def model(self, down: bytes) -> Network:
        """+-1 per kept weight."""
        return Network(multipliers=mask.as_multipliers(~bits.decode(down, self.ticket.kept)))
