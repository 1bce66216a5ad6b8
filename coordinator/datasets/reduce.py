"""Smaller versions of shared-out data: for model selection without test data, and for runs that must be short."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from coordinator.datasets.dataset import DeviceData, FederatedData, Ints
from wire.errors import ConfigError


def validation(data: FederatedData, trained: float) -> FederatedData:
    """Train on the first samples of every class of each device's training samples, leave one out, test on the rest.

    Test samples and unseen people are gone, so nothing can be chosen by them. Samples keep their order in time, and
    the one left out is the window that overlaps both sides: what is tested is as much later as test data are. The
    last fifth without a gap was too easy, and chose badly; the first 65 % alone hide what more samples are good for
    (docs/method.md).

    Args:
        data: with the test samples and unseen people that are to be left out.
        trained: share of every class that trains.

    Raises:
        ConfigError: if that is not between 0 and 1.
    """
    if not 0 < trained < 1:
        raise ConfigError(
            f"{trained:g} of the training samples, more than 0 and less than 1 expected", where="--validate"
        )
    devices = {}
    for name, one in data.devices.items():
        rows = [np.flatnonzero(one.y_train == label) for label in np.unique(one.y_train)]
        first = np.sort(np.concatenate([r[: _trained(r.size, trained)] for r in rows]))
        later = np.sort(np.concatenate([r[_trained(r.size, trained) + 1 :] for r in rows]))
        devices[name] = DeviceData(
            x_train=one.x_train[first], y_train=one.y_train[first], x_test=one.x_train[later], y_test=one.y_train[later]
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


def _trained(count: int, share: float) -> int:
    return max(int(share * count), 1)


def _draw(rng: np.random.Generator, count: int, most: int) -> Ints:
    return np.sort(rng.permutation(count)[:most]).astype(np.int64)
