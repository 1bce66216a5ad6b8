"""Smaller versions of shared-out data: for model selection without test data, and for runs that must be short."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from coordinator.datasets.dataset import DeviceData, FederatedData, Ints
from wire.errors import ConfigError

HELD_OUT = 0.2


def validation(data: FederatedData) -> FederatedData:
    """Test on the last fifth of every class of each device's training samples, train on the rest.

    Test samples and unseen people are gone, so nothing can be chosen by them. Samples keep their order in
    time, so that overlapping windows end up on both sides only where the two parts meet.
    """
    devices = {}
    for name, one in data.devices.items():
        last = np.concatenate([_last(np.flatnonzero(one.y_train == label)) for label in np.unique(one.y_train)])
        held = np.zeros(one.y_train.size, dtype=np.bool_)
        held[last] = True
        devices[name] = DeviceData(
            x_train=one.x_train[~held], y_train=one.y_train[~held], x_test=one.x_train[held], y_test=one.y_train[held]
        )
    return replace(data, how=f"{data.how}, validation", devices=devices, unseen=None)


def limit(data: FederatedData, *, train: int, test: int, seed: int) -> FederatedData:
    """Keep at most so many training and test samples a device, drawn at random.

    Raises:
        ConfigError: if a limit is below 1.
    """
    if train < 1 or test < 1:
        raise ConfigError(f"{train} training and {test} test samples a device, 1 or more expected", where="--limit")
    rng = np.random.default_rng(seed)
    devices = {}
    for name, one in data.devices.items():
        chosen, tried = _draw(rng, one.y_train.size, train), _draw(rng, one.y_test.size, test)
        devices[name] = DeviceData(
            x_train=one.x_train[chosen],
            y_train=one.y_train[chosen],
            x_test=one.x_test[tried],
            y_test=one.y_test[tried],
        )
    return replace(data, how=f"{data.how}, at most {train} + {test} samples a device", devices=devices)


def _last(rows: Ints) -> Ints:
    return rows[rows.size - max(round(HELD_OUT * rows.size), 1) :] if rows.size > 1 else rows[:0]


def _draw(rng: np.random.Generator, count: int, most: int) -> Ints:
    return np.sort(rng.permutation(count)[:most]).astype(np.int64)
