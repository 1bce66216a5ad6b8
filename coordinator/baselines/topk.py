"""Top-k sparsification with error feedback (Stich et al. 2018, arXiv 1809.07599).

After local epochs a device sends the largest share of update + residual, positions and float32 values,
and keeps the rest for its next round. The mean goes down the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from coordinator.baselines.blobs import read_sparse, sparse
from coordinator.baselines.dense_method import SGDSettings
from coordinator.baselines.method import (
    Floats,
    Local,
    Samples,
    Settings,
    State,
    Update,
    require_share,
)
from coordinator.baselines.replica import ReplicaMethod


@dataclass(frozen=True, kw_only=True)
class TopKSettings(SGDSettings):
    """Local SGD and the share that is sent.

    Attributes:
        share: of the weights, in (0, 1].
    """

    share: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share(self, "share")


class TopK(ReplicaMethod[TopKSettings]):
    """Large updates only."""

    Config: ClassVar[type[Settings]] = TopKSettings

    def apply(self, weights: Floats, update: bytes) -> Floats:
        """Add one round's mean update."""
        kept, values = read_sparse(update, self.net.size)
        after = weights.copy()
        after[kept] += values
        return after

    def train(self, down: bytes, samples: Samples, memory: State, seed: int) -> Local:
        """Local SGD; the largest part of where it went, and of what was left over."""
        start = self.present(down, memory)
        trained, loss = self.sgd_from(start, samples, seed)
        wanted = trained - start + memory.get("residual", np.float32(0))
        count = max(round(self.settings.share * wanted.size), 1)
        kept = np.zeros(wanted.size, dtype=np.bool_)
        kept[np.argsort(-np.abs(wanted), kind="stable")[:count]] = True
        residual = np.where(kept, np.float32(0), wanted)
        return Local(up=sparse(wanted, kept), memory={"weights": start, "residual": residual}, model=trained, loss=loss)

    def aggregate(self, state: State, updates: Sequence[Update]) -> State:
        """Mean of the sparse updates, unweighted."""
        total = np.zeros(self.net.size, dtype=np.float64)
        touched = np.zeros(self.net.size, dtype=np.bool_)
        for update in updates:
            kept, values = read_sparse(update.payload, self.net.size)
            total[kept] += values
            touched |= kept
        mean = (total / len(updates)).astype(np.float32)
        return self.replica.advance(state, sparse(mean, touched), [update.device for update in updates])
