"""HideNseek with dithered bits of scores (`wire.dither`) instead of signs: what turns no sign is not forgotten.

Steps are nearer to plain gradients than by default (Adam's epsilon is ten times as large), for small ones add up now.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from coordinator.baselines.hidenseek import HideNseek, HideNseekSettings
from coordinator.baselines.method import Settings


@dataclass(frozen=True, kw_only=True)
class DitheredSettings(HideNseekSettings):
    """What `training:` in devices.yaml would have (docs/method.md)."""

    dither: float = 0.3
    epsilon: float = 3e-4
    learning_rate: float = 0.02


class HideNseekDithered(HideNseek):
    """Our recipe, with another message."""

    Config: ClassVar[type[Settings]] = DitheredSettings
