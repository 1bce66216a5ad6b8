"""Share a data set out among devices. The same arguments give the same split, whatever the method.

- natural: one owner (person) is one device.
- shards: every device sees k classes (McMahan et al., arXiv 1602.05629, in spirit).
- dirichlet: every class is divided by one Dirichlet(alpha) draw (Hsu et al., arXiv 1909.06335).
- iid: equal random parts.

A device's test rows follow its own classes. Unseen owners stay unseen under every split.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from coordinator.datasets.dataset import TEST, TRAIN, UNSEEN, Dataset, DeviceData, FederatedData, Ints
from wire.errors import ConfigError, DataError, UnknownName, did_you_mean

HOW = ("natural", "shards", "dirichlet", "iid")
MAX_DEVICES = 10_000
MIN_TRAIN, MIN_TEST = 8, 1  # rows every device of a dirichlet split holds at least
_DRAWS = 1000  # dirichlet draws tried before giving up

Shares: TypeAlias = list[tuple[Ints, Ints]]  # per device: train rows, test rows


def split(
    dataset: Dataset,
    how: str,
    *,
    devices: int = 20,
    classes_per_device: int = 2,
    alpha: float = 0.5,
    seed: int = 0,
) -> FederatedData:
    """Share `dataset` out by the split named `how`; arguments a split does not use are ignored.

    Raises:
        UnknownName: if there is no such split.
        ConfigError: if the data set cannot be shared out that way.
    """
    match how:
        case "natural":
            return natural(dataset)
        case "shards":
            return shards(dataset, devices=devices, classes_per_device=classes_per_device, seed=seed)
        case "dirichlet":
            return dirichlet(dataset, devices=devices, alpha=alpha, seed=seed)
        case "iid":
            return iid(dataset, devices=devices, seed=seed)
    raise UnknownName(f"no split is called '{how}'", where="--how", hint=did_you_mean(how, list(HOW)))


def natural(dataset: Dataset) -> FederatedData:
    """One owner, one device, named `person-01`, `person-02`, ...; owners without training rows are unseen.

    Raises:
        ConfigError: if the data set does not say whose its rows are.
    """
    if dataset.owner is None:
        raise ConfigError(
            f"'{dataset.name}' does not say who made which sample, so it has no natural split",
            where="--how natural",
            hint="Use shards, dirichlet or iid",
        )
    train, test = dataset.rows(TRAIN), dataset.rows(TEST)
    owners = np.unique(dataset.owner[train])
    shares = [(train[dataset.owner[train] == o], test[dataset.owner[test] == o]) for o in owners]
    return _federate(dataset, [f"person-{owner:02d}" for owner in owners], shares, how="natural")


def shards(dataset: Dataset, *, devices: int, classes_per_device: int, seed: int) -> FederatedData:
    """Every device holds exactly `classes_per_device` classes; a class is divided evenly among its holders.

    Every class gets a holder as long as devices * classes_per_device >= classes.

    Raises:
        ConfigError: if there are fewer classes than asked for, or a class has too few rows to go round.
    """
    ids = _ids(devices)
    if not 1 <= classes_per_device <= dataset.classes:
        raise ConfigError(
            f"{classes_per_device} classes a device asked for, 1..{dataset.classes} expected",
            where="--classes-per-device",
        )
    rng = np.random.default_rng(seed)
    holders = deal_classes(dataset.classes, devices, classes_per_device, rng)  # (devices, classes) bool
    proportions = (holders / np.maximum(holders.sum(axis=0), 1)).T  # (classes, devices), 0 where not held
    shares = _shares(dataset, rng, *(_cuts(proportions, count) for count in _class_counts(dataset)))
    for device_id, (train, test), held in zip(ids, shares, holders, strict=True):
        missing = set(np.flatnonzero(held)) - set(dataset.y[train])
        if missing or len(test) == 0:
            raise ConfigError(
                f"too few rows to share out: {device_id} would get no row of a class or no test row",
                where=f"--devices {devices}",
                hint="Ask for fewer devices, or fewer classes a device",
            )
    return _federate(dataset, ids, shares, how=f"shards, {classes_per_device} classes a device, seed {seed}")


def dirichlet(dataset: Dataset, *, devices: int, alpha: float, seed: int) -> FederatedData:
    """Divide each class by proportions drawn from Dirichlet(alpha): small alpha, few classes a device.

    Draws again until every device has at least 8 training rows and 1 test row.

    Raises:
        ConfigError: if alpha is not positive, or no such draw is found.
    """
    ids = _ids(devices)
    if not 0 < alpha < float("inf"):
        raise ConfigError(f"alpha {alpha} found, a positive number expected", where="--alpha")
    rng = np.random.default_rng(seed)
    counts = _class_counts(dataset)
    for _ in range(_DRAWS):
        proportions = rng.dirichlet(np.full(devices, alpha), size=dataset.classes)  # (classes, devices)
        if not np.isfinite(proportions).all():
            continue  # alpha so small that a whole draw underflows
        train, test = (_cuts(proportions, count) for count in counts)  # (classes, devices + 1)
        enough = np.diff(train).sum(axis=0).min() >= MIN_TRAIN and np.diff(test).sum(axis=0).min() >= MIN_TEST
        if enough:
            break
    else:
        raise ConfigError(
            f"no draw in {_DRAWS} gives each of {devices} devices {MIN_TRAIN} training rows and {MIN_TEST} test row",
            where=f"--alpha {alpha:g}",
            hint="Ask for fewer devices or a larger alpha",
        )
    return _federate(dataset, ids, _shares(dataset, rng, train, test), how=f"dirichlet, alpha {alpha:g}, seed {seed}")


def iid(dataset: Dataset, *, devices: int, seed: int) -> FederatedData:
    """Equal random parts: sizes differ by one row at most.

    Raises:
        ConfigError: if there are more devices than training or test rows.
    """
    ids = _ids(devices)
    rng = np.random.default_rng(seed)
    train, test = (np.array_split(rng.permutation(dataset.rows(part)), devices) for part in (TRAIN, TEST))
    if len(train[-1]) == 0 or len(test[-1]) == 0:
        raise ConfigError(
            f"{devices} devices, but {len(dataset.rows(TRAIN))} training and {len(dataset.rows(TEST))} test rows",
            where="--devices",
        )
    return _federate(dataset, ids, list(zip(train, test, strict=True)), how=f"iid, seed {seed}")


def deal_classes(classes: int, devices: int, each: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Who holds which class: (devices, classes) bool with `each` per row; column sums differ by one at most."""
    holders = np.zeros((devices, classes), dtype=bool)
    slots = np.full(classes, devices * each // classes)
    slots[rng.permutation(classes)[: devices * each % classes]] += 1
    for device in range(devices):
        most_left_first = np.lexsort((rng.random(classes), -slots))  # ties in random order
        holders[device, most_left_first[:each]] = True
        slots[most_left_first[:each]] -= 1
    return holders


def _class_counts(dataset: Dataset) -> tuple[Ints, Ints]:
    """Rows of each class among the training and the test rows: two arrays (classes,)."""
    train, test = (
        np.bincount(dataset.y[dataset.rows(part)], minlength=dataset.classes).astype(np.int64) for part in (TRAIN, TEST)
    )
    return train, test


def _cuts(proportions: npt.NDArray[np.float64], counts: Ints) -> Ints:
    """Where to cut each class: proportions (classes, devices), counts (classes,) -> (classes, devices + 1).

    Rows of `proportions` sum to 1, or are all zero: such a class goes to nobody.
    """
    ends = np.rint(np.cumsum(proportions, axis=1) * counts[:, None]).astype(np.int64)
    return np.concatenate([np.zeros((len(counts), 1), dtype=np.int64), ends], axis=1)


def _shares(dataset: Dataset, rng: np.random.Generator, train_cuts: Ints, test_cuts: Ints) -> Shares:
    """Shuffle every class and cut it up as told: two (classes, devices + 1) -> rows per device, ascending."""
    sides = []
    for part, cuts in ((TRAIN, train_cuts), (TEST, test_cuts)):
        rows = dataset.rows(part)
        pieces = []
        for label in range(dataset.classes):
            shuffled = rng.permutation(rows[dataset.y[rows] == label])
            pieces.append(np.split(shuffled, cuts[label, 1:])[:-1])
        sides.append([np.sort(np.concatenate(of_device)) for of_device in zip(*pieces, strict=True)])
    return list(zip(*sides, strict=True))


def _ids(devices: int) -> list[str]:
    if not 1 <= devices <= MAX_DEVICES:
        raise ConfigError(f"{devices} devices asked for, 1..{MAX_DEVICES} expected", where="--devices")
    width = max(3, len(str(devices)))
    return [f"device-{number:0{width}d}" for number in range(1, devices + 1)]


def _federate(dataset: Dataset, ids: Sequence[str], shares: Sequence[tuple[Ints, Ints]], *, how: str) -> FederatedData:
    if not ids:
        raise DataError(f"data set '{dataset.name}' has no training rows")
    devices = {}
    for device_id, (train, test) in zip(ids, shares, strict=True):
        (x_train, y_train), (x_test, y_test) = dataset.take(train), dataset.take(test)
        devices[device_id] = DeviceData(x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    unseen = dataset.rows(UNSEEN)
    return FederatedData(
        name=dataset.name,
        how=how,
        class_names=dataset.class_names,
        input_shape=dataset.input_shape,
        scale=dataset.scale,
        devices=devices,
        unseen=dataset.take(unseen) if len(unseen) else None,
    )
