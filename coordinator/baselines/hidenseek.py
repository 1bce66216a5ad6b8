"""HideNseek (arXiv 2206.04385) by our recipe: dithered bits of scores (`wire.dither`), as a federation's rounds are.

Steps are nearer to plain gradients than those whose signs are sent: what turns no sign is not forgotten, so small ones
may add up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from coordinator import dithered
from coordinator.baselines.hidenseek_signs import HideNseekSigns, SignsSettings
from coordinator.baselines.method import Settings, require


@dataclass(frozen=True, kw_only=True)
class HideNseekSettings(SignsSettings):
    """As `training:` in devices.yaml (docs/method.md)."""

    dither: float = dithered.TRAINING.dither
    epsilon: float = dithered.TRAINING.epsilon
    learning_rate: float = dithered.TRAINING.learning_rate

    def __post_init__(self) -> None:
        super().__post_init__()
        private = self.privacy_epsilon
        require("privacy_epsilon", private, not (private and self.dither), "0, or --method hidenseek-signs,")


class HideNseek(HideNseekSigns):
    """Our recipe."""

    Config: ClassVar[type[Settings]] = HideNseekSettings
