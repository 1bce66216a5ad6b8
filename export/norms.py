"""What stands for a batch normalisation, here and in the coordinator's own networks: one rule, without torch.

Devices see few samples of few classes, and one sign a weight leaves no room to exchange statistics, so a group of
channels of one sample is normalised instead (Hsieh et al. 2020, arXiv 1910.00189, section 5).
"""

from __future__ import annotations

CHANNELS_PER_GROUP = 8


def norm_groups(channels: int) -> int:
    """Groups of a normalisation that stands for a batch normalisation of so many channels."""
    return channels // CHANNELS_PER_GROUP if channels % CHANNELS_PER_GROUP == 0 else 1
