"""signSGD with majority vote (Bernstein et al. 2018, arXiv 1810.05291), one bit a weight both ways.

After local epochs a device sends the signs of its update; the weights move by a fixed step along the
majority's sign. With `error_feedback` (Karimireddy et al. 2019, arXiv 1901.09847) it sends the signs of
update + residual and their mean magnitude, keeps what that leaves out, and the mean goes down as floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from coordinator.baselines.blobs import cut, floats, join, read_floats
from coordinator.baselines.dense_method import SGDSettings
from coordinator.baselines.method import Floats, Local, Samples, Settings, State, Update
from coordinator.baselines.replica import ReplicaMethod
from wire import bits


@dataclass(frozen=True, kw_only=True)
class SignSGDSettings(SGDSettings):
    """Local SGD and the coordinator's step.

    Attributes:
        step: how far every weight moves in a round; without error feedback.
        error_feedback: send update + residual.
    """

    step: float = 0.001
    error_feedback: bool = False


class SignSGD(ReplicaMethod[SignSGDSettings]):
    """Signs of updates."""

    Config: ClassVar[type[Settings]] = SignSGDSettings

    def apply(self, weights: Floats, update: bytes) -> Floats:
        """One round's update: signs, or the mean of scaled signs."""
        if self.settings.error_feedback:
            return weights + read_floats(update, self.net.size)
        signs = bits.unpack(update, self.net.size)
        return weights + np.where(signs, np.float32(self.settings.step), np.float32(-self.settings.step))

    def train(self, down: bytes, samples: Samples, memory: State, seed: int) -> Local:
        """Local SGD; the signs of where it went."""
        start = self.present(down, memory)
        trained, loss = self.sgd_from(start, samples, seed)
        wanted = trained - start
        kept: State = {"weights": start}
        scale = b""
        if self.settings.error_feedback:
            wanted = wanted + memory.get("residual", np.float32(0))
            size = np.abs(wanted).mean(dtype=np.float64).astype(np.float32)
            scale = floats(size.reshape(1))
            kept["residual"] = wanted - np.where(wanted >= 0, size, -size)
        return Local(up=join([bits.pack(wanted >= 0), scale]), memory=kept, model=trained, loss=loss)

    def aggregate(self, state: State, updates: Sequence[Update]) -> State:
        """Majority; a tie goes to +1. With error feedback the mean of scaled signs."""
        total = np.zeros(self.net.size, dtype=np.float64)
        for update in updates:
            packed, scale = cut(update.payload)
            size = float(read_floats(scale, 1)[0]) if self.settings.error_feedback else 1.0
            total += np.where(bits.unpack(packed, self.net.size), size, -size)
        if self.settings.error_feedback:
            message = floats((total / len(updates)).astype(np.float32))
        else:
            message = bits.pack(total >= 0)
        return self.replica.advance(state, message, [update.device for update in updates])
