"""Weights that every device keeps a copy of and brings up to date by what changed since its last round.

For methods whose update of a round is small: a device gets the updates it missed, one after another, or
all weights where that is shorter. The initial weights follow from the seed and are never sent.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from coordinator.baselines.blobs import cut, floats, join, read_floats
from coordinator.baselines.dense_method import SGDMethod, T
from coordinator.baselines.method import Floats, State, Task

WHOLE, UPDATES = b"\x00", b"\x01"
Apply: TypeAlias = Callable[[Floats, bytes], Floats]


@dataclass(frozen=True)
class Replica:
    """How to send and how to apply updates.

    Args:
        size: number of weights.
        apply: (weights, one round's update) -> weights; the same on both sides, to the last bit.
    """

    size: int
    apply: Apply

    def start(self, weights: Floats) -> State:
        """What the coordinator holds: the weights, how many rounds went into them, and when whom was told."""
        return {"weights": weights, "rounds": np.array(0)}

    def announce(self, state: State, device: str | None) -> bytes:
        """What brings a device from the round it knows to the present one."""
        whole = WHOLE + floats(state["weights"])
        if device is None:
            return whole
        known = int(state.get(f"known/{device}", np.array(0)))
        missed = [state.get(f"update/{number}") for number in range(known, int(state["rounds"]))]
        if any(update is None for update in missed):
            return whole
        return min(whole, UPDATES + join([update.tobytes() for update in missed if update is not None]), key=len)

    def receive(self, down: bytes, own: Floats) -> Floats:
        """The present weights, from what came down and the device's copy (initially the seed's weights)."""
        if down[:1] == WHOLE:
            return read_floats(down[1:], self.size)
        weights = own
        for update in cut(down[1:]):
            weights = self.apply(weights, update)
        return weights

    def advance(self, state: State, update: bytes, told: list[str]) -> State:
        """The coordinator's state after a round whose devices `told` knew the weights before it."""
        rounds = int(state["rounds"])
        after = dict(state)
        after["weights"] = self.apply(state["weights"], update)
        after["rounds"] = np.array(rounds + 1)
        after[f"update/{rounds}"] = np.frombuffer(update, dtype=np.uint8)
        for device in told:
            after[f"known/{device}"] = np.array(rounds)
        self._forget(after, rounds)
        return after

    def _forget(self, state: State, newest: int) -> None:
        """Drop updates so old that all weights are shorter than the chain from there."""
        total = 0
        for number in range(newest, -1, -1):
            update = state.get(f"update/{number}")
            if update is None:
                return
            total += update.size
            if total > 4 * self.size:
                del state[f"update/{number}"]


class ReplicaMethod(SGDMethod[T]):
    """A method whose devices keep such a copy, under "weights" in their memory."""

    def __init__(self, task: Task, settings: T) -> None:
        super().__init__(task, settings)
        self.replica = Replica(self.net.size, self.apply)

    @abstractmethod
    def apply(self, weights: Floats, update: bytes) -> Floats:
        """Apply one round's update, on both sides."""

    def start(self) -> State:
        """Random weights that every device makes for itself."""
        return self.replica.start(self.net.initial(self.task.seed))

    def announce(self, state: State, device: str | None) -> bytes:
        """The updates that the device missed."""
        return self.replica.announce(state, device)

    def present(self, down: bytes, memory: State) -> Floats:
        """The weights of this round, from what came down and what the device remembers."""
        own = memory["weights"] if memory else self.net.initial(self.task.seed)
        return self.replica.receive(down, own)

    def model(self, down: bytes) -> Floats:
        """All weights."""
        return self.replica.receive(down, np.empty(0, dtype=np.float32))
