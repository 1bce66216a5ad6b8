"""What one bit costs: a ticket's weights trained as real numbers, and sent whole or as one dithered bit each.

    PYTHONPATH=. hidenseek simulate --method benchmarks.method_soft:Dithered --validate --first-seed 100
    PYTHONPATH=. hidenseek simulate --method benchmarks.method_soft:Whole --validate --first-seed 100
    PYTHONPATH=. hidenseek simulate --method benchmarks.method_soft:TicketFedAvg --validate --set epochs=2
    PYTHONPATH=. hidenseek simulate --method benchmarks.method_soft:WholeScores --validate --first-seed 100

The default recipe runs the network on signs. Here a device trains multipliers in [-room, room] of the ticket's kept
weights, and the network of the next round has their mean. `Dithered` sends one bit a weight: whether the multiplier,
in units of the room, lies above a threshold that is drawn evenly from [-1, 1] and known to both sides (subtractive
dither; Roberts 1962, Gray and Stockham 1993). The coordinator knows the bit that no training would have brought; the
difference of the two bits is, in expectation, half the change of the multiplier, so it is unbiased, and where
little has changed there is little to send. `Whole` sends float32; `TicketFedAvg` trains without bounds, as FedAvg does.
`WholeScores` is the recipe, which trains signs, but with float32 of the scores both ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coordinator.baselines.dense import Dense, Layers
from coordinator.baselines.hidenseek import HideNseekSettings
from coordinator.baselines.hidenseek_signs import HideNseekSigns, Network, SignsSettings, adaptive_bits, votes_of
from coordinator.baselines.method import Floats, Local, Samples, Settings, State, Update
from export.torch_net import TorchNet
from wire import bits

SEED_BYTES = 8
DISTANCES = 16  # contexts of the ideal code: how far the threshold lies from the multiplier before training


@dataclass(frozen=True, kw_only=True)
class SoftSettings(SignsSettings):
    """As the default recipe's; `room`: how many times its initial weight a kept weight may grow to."""

    room: float = 2.0


class SentWhole(HideNseekSigns):
    """What goes down and up are float32."""

    def announce(self, state: State, device: str | None) -> bytes:
        """The mean, in units of the largest that a value may be."""
        return state["mean"].astype(np.float32).tobytes()

    def hear(self, state: State, device: str, payload: bytes) -> bytes:
        """As it came."""
        return payload

    def remarks(self, state: State, updates: Sequence[Update]) -> tuple[str, ...]:
        """None."""
        return ()

    def ideal_bytes(self, state: State, update: Update) -> float:
        """As sent."""
        return len(update.payload)


class Whole(SentWhole):
    """Multipliers trained by Adam within their bounds, all 32 bits of them sent."""

    Config: ClassVar[type[Settings]] = SoftSettings
    settings: SoftSettings

    def start(self) -> State:
        """The ticket as it was drawn."""
        return {"mean": np.full(self.ticket.kept, 1 / self.settings.room, dtype=np.float32)}

    def train(self, down: bytes, samples: Samples, memory: State, seed: int) -> Local:
        """Epochs of batches in torch."""
        mean = np.frombuffer(down, dtype=np.float32)
        net, prior, room = TorchNet(self.ticket), self.prior(samples), self.settings.room
        units = torch.from_numpy(mean.copy())
        loss = Dense(self.ticket.plan).fit(
            [units],
            samples,
            settings=self.settings,
            optimiser=self.optimiser,
            seed=seed,
            weights=lambda layers: net.multiplied(layers[0] * room),
            after_step=lambda: self.keep_bounds(units),
            prior=prior,
        )
        trained = units.numpy()
        own = Network(multipliers=trained * np.float32(room), log_prior=prior)
        return Local(up=self.send(trained, mean, seed), memory={}, model=own, loss=loss)

    def optimiser(self, layers: Layers) -> torch.optim.Optimizer:
        """Adam, as the default recipe has it."""
        return torch.optim.Adam(layers, lr=self.settings.learning_rate, eps=self.settings.epsilon)

    def keep_bounds(self, units: Tensor) -> None:
        """After every step."""
        with torch.no_grad():
            units.clamp_(-1, 1)

    def send(self, trained: Floats, mean: Floats, seed: int) -> bytes:
        """What goes up for multipliers in units of the room, float32 (kept,)."""
        return trained.tobytes()

    def read(self, payload: bytes, mean: Floats) -> Floats:
        """An unbiased estimate of what `send` was given, float32 (kept,)."""
        return np.frombuffer(payload, dtype=np.float32)

    def aggregate(self, state: State, updates: Sequence[Update]) -> State:
        """The mean of the devices."""
        mean: Floats = np.mean([self.read(update.payload, state["mean"]) for update in updates], axis=0)
        return {"mean": self.bound(mean)}

    def bound(self, mean: Floats) -> Floats:
        """An estimate may pass the bounds."""
        return mean.clip(-1, 1).astype(np.float32)

    def model(self, down: bytes) -> Network:
        """The mean."""
        return Network(multipliers=np.frombuffer(down, dtype=np.float32) * np.float32(self.settings.room))


class Dithered(Whole):
    """One bit a weight; what it would take in an ideal adaptive code is `ideal_bytes`, the payload is raw bits."""

    def send(self, trained: Floats, mean: Floats, seed: int) -> bytes:
        """The seed of the thresholds, and which multipliers lie above theirs."""
        head = (seed & (1 << 63) - 1).to_bytes(SEED_BYTES, "big")
        return head + bits.pack(trained > _thresholds(head, trained.size))

    def read(self, payload: bytes, mean: Floats) -> Floats:
        """The mean, and twice the difference of the bits."""
        sent, unchanged, _ = self._bits(payload, mean)
        return mean + 2 * (sent.astype(np.float32) - unchanged)

    def ideal_bytes(self, state: State, update: Update) -> float:
        """Bits that training has changed, in the context of layer, side and distance of the threshold."""
        sent, unchanged, distance = self._bits(update.payload, state["mean"])
        layers = np.repeat(np.arange(self.ticket.ends.size), np.diff(self.ticket.ends, prepend=0))
        near = np.minimum(distance * DISTANCES, DISTANCES - 1).astype(np.int64)
        return SEED_BYTES + adaptive_bits(sent ^ unchanged, (layers * DISTANCES + near) * 2 + unchanged) / 8

    def _bits(self, payload: bytes, mean: Floats) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Floats]:
        thresholds = _thresholds(payload[:SEED_BYTES], mean.size)
        return bits.unpack(payload[SEED_BYTES:], mean.size), mean > thresholds, np.abs(mean - thresholds)


class TicketFedAvg(Whole):
    """FedAvg on the kept weights: what the ticket can come to in this federation, whatever is sent."""

    def optimiser(self, layers: Layers) -> torch.optim.Optimizer:
        """SGD with momentum on the weights: a step of a multiplier counts 1 / (room x weight)^2."""
        (units,) = layers
        size_squared = torch.from_numpy(self._size_squared())
        units.register_hook(lambda gradient: gradient / size_squared)
        return torch.optim.SGD(layers, lr=self.settings.learning_rate, momentum=0.9)

    def keep_bounds(self, units: Tensor) -> None:
        """None."""

    def _size_squared(self) -> Floats:
        weights = np.concatenate([layer.weights for layer in self.ticket.kept_layers])
        return (weights * np.float32(self.settings.room)) ** 2

    def bound(self, mean: Floats) -> Floats:
        """None."""
        return mean


class WholeScores(SentWhole):
    """Mean scores as float32 both ways: what the recipe loses to bits, levels and holding back."""

    Config: ClassVar[type[Settings]] = HideNseekSettings

    def start(self) -> State:
        """The same first scores."""
        return {"mean": votes_of(super().start()).mean, "number": np.array(1)}

    def train(self, down: bytes, samples: Samples, memory: State, seed: int) -> Local:
        """As ever, and send how far every score has moved."""
        mean, largest = np.frombuffer(down, dtype=np.float32), np.float32(self.settings.dither)
        trained, own = self.fit(samples, mean * largest, seed)
        moved = (trained.scores / largest).clip(-1, 1) - mean
        return Local(up=moved.tobytes(), memory={}, model=own, loss=trained.loss)

    def aggregate(self, state: State, updates: Sequence[Update]) -> State:
        """Their mean, which counts as a round does."""
        moved = np.mean([np.frombuffer(update.payload, dtype=np.float32) for update in updates], axis=0)
        number = int(state["number"])
        mean = (state["mean"] + self.rule.gain(number) * moved).clip(-1, 1)
        return {"mean": mean.astype(np.float32), "number": np.array(number + 1)}

    def model(self, down: bytes) -> Network:
        """The mean."""
        return Network(multipliers=np.frombuffer(down, dtype=np.float32))


def _thresholds(seed: bytes, count: int) -> Floats:
    """Evenly from [-1, 1), float32 (count,)."""
    return np.random.default_rng(int.from_bytes(seed, "big")).uniform(-1, 1, count).astype(np.float32)
