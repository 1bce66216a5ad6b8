"""Real data, and fair ways to share it out among devices. numpy only, never torch.

::

    from coordinator.datasets import load, natural

    data = natural(load("har"))  # 25 devices, one a person, and 5 people never trained on
    data.devices["person-01"].x_train  # float32 (n, 6, 128), scaled by fixed constants
"""

from __future__ import annotations

from coordinator.datasets.catalog import get, load, names
from coordinator.datasets.dataset import Dataset, DeviceData, FederatedData, Scale
from coordinator.datasets.splits import dirichlet, iid, natural, shards, split

__all__ = [
    "Dataset",
    "DeviceData",
    "FederatedData",
    "Scale",
    "dirichlet",
    "get",
    "iid",
    "load",
    "names",
    "natural",
    "shards",
    "split",
]
