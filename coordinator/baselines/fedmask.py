"""FedMask (Li et al. 2021, ACM SenSys, "joint computation and communication-efficient personalized FL").

Weights are frozen; a device trains real scores s of {0,1} masks, m = 1 where sigmoid(s) >= 0.5. Before its
first round it prunes its scores once, to the same share of every layer, and keeps that structure for good.
It sends the bits of its structure. The coordinator averages only positions that at least two devices of a
round have; the others stay personal. The paper starts from a pre-trained network and was not available in
full: like every method here it starts from random weights, rescaled for the share that is kept, and
what goes down is the averaged mask in bits, the cheapest reading of its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from coordinator.baselines.blobs import cut, join, packed, unpacked
from coordinator.baselines.dense import Layers, adam
from coordinator.baselines.dense_method import DenseMethod
from coordinator.baselines.method import (
    Floats,
    Local,
    Samples,
    Settings,
    State,
    Update,
    require_share,
)
from export.torch_net import straight_through_sign
from wire import bits

Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class FedMaskSettings(Settings):
    """Local training of the scores, by Adam.

    Attributes:
        density: share of every layer that a device's structure keeps.
        start: scores start at +-start.
        shared: devices that must have a position before it is averaged.
    """

    density: float = 0.10
    start: float = 0.1
    shared: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share(self, "density")


class FedMask(DenseMethod[FedMaskSettings]):
    """Masks of frozen weights."""

    Config: ClassVar[type[Settings]] = FedMaskSettings

    def frozen(self, share: float) -> Floats:
        """The random weights, rescaled for the share of them that a mask can switch on."""
        return self.net.initial(self.task.seed) / np.float32(np.sqrt(share))

    def start(self) -> State:
        """Nothing is shared yet."""
        none = np.zeros(self.net.size, dtype=np.bool_)
        return {"shared": none, "on": none}

    def announce(self, state: State, device: str | None) -> bytes:
        """Which positions of the device's structure are shared, and the averaged mask there; empty at first."""
        if device is None:
            return join([bits.encode(state["shared"]), bits.encode(state["on"])])
        known = state.get(f"structure/{device}")
        if known is None:
            return b""
        structure = unpacked(known, self.net.size)
        shared = state["shared"][structure]
        return join([bits.encode(shared), bits.encode(state["on"][structure][shared])])

    def train(self, down: bytes, samples: Samples, memory: State, seed: int) -> Local:
        """Take over what is shared, train, send the bits of the structure (and at first the structure)."""
        first = "structure" not in memory
        if first:
            structure, scores = self.prune_once(samples, seed)
        else:
            structure, scores = memory["structure"], memory["scores"].copy()
            shared_bits, on_bits = cut(down)
            shared = bits.decode(shared_bits, scores.size)
            on = bits.decode(on_bits, int(np.count_nonzero(shared)))
            scores[shared] = np.where(on, self.settings.start, -self.settings.start)
        trained, loss = self._fit(scores, structure, samples, seed)
        mask = trained >= 0
        up = join([bits.encode(mask), *([bits.encode(structure)] if first else [])])
        return Local(
            up=up,
            memory={"structure": structure, "scores": trained},
            model=self._masked(structure, mask),
            loss=loss,
        )

    def prune_once(self, samples: Samples, seed: int) -> tuple[Mask, Floats]:
        """Train the dense scores for the round's epochs and keep each layer's largest.

        Returns:
            structure bool (weights,), scores of the kept, float32 (kept,).
        """
        every = np.ones(self.net.size, dtype=np.bool_)
        scores, _ = self._fit(np.full(self.net.size, self.settings.start, np.float32), every, samples, seed + 1)
        structure = np.zeros(self.net.size, dtype=np.bool_)
        for part in self.net.slices():
            count = max(round(self.settings.density * (part.stop - part.start)), 1)
            best = np.argsort(-scores[part], kind="stable")[:count]
            structure[part.start + best] = True
        return structure, np.full(np.count_nonzero(structure), self.settings.start, dtype=np.float32)

    def _fit(self, scores: Floats, structure: Mask, samples: Samples, seed: int) -> tuple[Floats, float]:
        whole = np.full(self.net.size, -1.0, dtype=np.float32)
        whole[structure] = scores
        layers = self.net.layers(whole)
        kept = self.net.layers((self.frozen(float(structure.mean())) * structure).astype(np.float32))

        def masked(trained: Layers) -> Layers:
            # (sign + 1) / 2 is 1 where sigmoid(s) >= 0.5; the gradient goes straight through.
            return [w0 * (straight_through_sign(s) + 1) / 2 for w0, s in zip(kept, trained, strict=True)]

        loss = self.net.fit(
            layers, samples, settings=self.settings, optimiser=adam(self.settings), seed=seed, weights=masked
        )
        return self.net.flat(layers)[structure], loss

    def aggregate(self, state: State, updates: Sequence[Update]) -> State:
        """Average the bits of positions that two devices or more have; of others nothing is said."""
        have = np.zeros(self.net.size, dtype=np.int64)
        on = np.zeros(self.net.size, dtype=np.int64)
        after = dict(state)
        for update in updates:
            parts = cut(update.payload)
            if len(parts) == 2:
                structure = bits.decode(parts[1], self.net.size)
                after[f"structure/{update.device}"] = packed(structure)
            else:
                structure = unpacked(state[f"structure/{update.device}"], self.net.size)
            have += structure
            on[structure] += bits.decode(parts[0], int(np.count_nonzero(structure)))
        shared = have >= self.settings.shared
        after["on"] = np.where(shared, 2 * on > have, state["on"])
        after["shared"] = state["shared"] | shared
        return after

    def model(self, down: bytes) -> Floats:
        """The shared part alone; the personal parts are nobody's but their devices'."""
        shared_bits, on_bits = cut(down)
        shared, on = bits.decode(shared_bits, self.net.size), bits.decode(on_bits, self.net.size)
        return self._masked(shared, on[shared]) if shared.any() else np.zeros(self.net.size, dtype=np.float32)

    def _masked(self, structure: Mask, on: Mask) -> Floats:
        weights = self.frozen(float(structure.mean())) * structure
        weights[structure] *= on
        return weights.astype(np.float32)
