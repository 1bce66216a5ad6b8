"""Steps that count for less and less, late in a run: measured, and not kept (docs/method.md).

    PYTHONPATH=. hidenseek simulate --method benchmarks.method_settling:Settling --validate 0.85 --first-seed 100

After some rounds the largest score grows with the number of the round. Steps of the same size then count for less,
which with Adam is a smaller learning rate, and needs no other program on a device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from coordinator.baselines.hidenseek import HideNseek, HideNseekSettings
from coordinator.baselines.method import Local, Samples, Settings, State, Task, require
from wire import mask

NUMBER_BYTES = 8


@dataclass(frozen=True, kw_only=True)
class SettlingSettings(HideNseekSettings):
    """The recipe's, and after how many rounds the largest score grows, up to how many times what it was."""

    after: int = 15
    most: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require("after", self.after, self.after > 0, "a number of rounds")
        require("most", self.most, self.most >= 1, "1 or more")
        require("dither", self.dither, self.dither > 0, "above 0")


class Settling(HideNseek):
    """The recipe, with a largest score that grows in proportion to the round's number."""

    Config: ClassVar[type[Settings]] = SettlingSettings

    def __init__(self, task: Task, settings: SettlingSettings) -> None:
        super().__init__(task, settings)
        self.growth = settings
        self.training = replace(self.training, clip=settings.most * settings.dither)

    def hear(self, state: State, device: str, payload: bytes) -> bytes:
        """The round's number, which its message says, and the votes."""
        return int(state["number"]).to_bytes(NUMBER_BYTES, "little") + super().hear(state, device, payload)

    def train(self, down: bytes, samples: Samples, memory: State, seed: int) -> Local:
        """As ever, from larger scores, and the bits are those of scores so large."""
        number = int.from_bytes(down[:NUMBER_BYTES], "little")
        votes = mask.decode_votes(down[NUMBER_BYTES:], self.ticket.ends)
        largest = min(self.training.dither * max(1.0, number / self.growth.after), self.training.clip)
        return self._train(samples, replace(self.training, dither=largest), seed, votes)
