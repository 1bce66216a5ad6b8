"""Federated splits: who gets what, the same every time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from coordinator.datasets import Dataset, FederatedData, Scale, dirichlet, iid, natural, shards, split
from coordinator.datasets.dataset import TEST, TRAIN, UNSEEN
from coordinator.datasets.splits import deal_classes
from wire.errors import ConfigError, DataError, UnknownName


def _dataset(*, classes: int = 4, train: int = 40, test: int = 10, owners: int = 0) -> Dataset:
    """`train` + `test` rows of each class, raw value = row number; the last owner is unseen."""
    per_class = train + test
    rows = classes * per_class
    part = np.tile(np.array([TRAIN] * train + [TEST] * test, dtype=np.uint8), classes)
    owner = np.arange(rows, dtype=np.int64) % owners + 1 if owners else None
    if owner is not None:
        part[owner == owners] = UNSEEN
    return Dataset(
        name="toy",
        class_names=tuple("abcdefgh"[:classes]),
        scale=Scale(mean=(10.0,), deviation=(2.0,)),
        raw=np.arange(rows, dtype=np.float32).reshape(rows, 1, 1),
        y=np.repeat(np.arange(classes, dtype=np.int64), per_class),
        part=part,
        owner=owner,
    )


def _rows(federated: FederatedData, side: str) -> list[int]:
    """Row numbers held by the devices, found again through the raw value and the fixed scale."""
    held = np.concatenate([getattr(data, f"x_{side}").ravel() for data in federated.devices.values()])
    return sorted((held * 2 + 10).astype(int).tolist())


def test_natural_makes_one_device_of_each_owner_and_keeps_the_unseen_apart() -> None:
    """Five owners, the last one unseen: four devices, whose rows are their owner's alone."""
    dataset = _dataset(owners=5)
    federated = natural(dataset)
    assert list(federated.devices) == ["person-01", "person-02", "person-03", "person-04"]
    assert dataset.owner is not None
    for number, data in enumerate(federated.devices.values(), start=1):
        rows = (data.x_train.ravel() * 2 + 10).astype(int)
        assert (dataset.owner[rows] == number).all()
        assert data.x_train.dtype == np.float32
        assert data.y_train.dtype == np.int64
    assert federated.unseen is not None
    assert len(federated.unseen[1]) == (dataset.part == UNSEEN).sum() == 40


def test_natural_needs_owners() -> None:
    """A data set that does not say who made its samples has no natural split."""
    with pytest.raises(ConfigError, match="no natural split"):
        natural(_dataset())


def test_shards_give_every_device_its_number_of_classes_in_train_and_test() -> None:
    """Ten devices with two of four classes: every row is used once, tests follow the same classes."""
    federated = shards(_dataset(), devices=10, classes_per_device=2, seed=1)
    for data in federated.devices.values():
        assert len(set(data.y_train)) == 2
        assert set(data.y_test) == set(data.y_train)
    assert len(_rows(federated, "train")) == len(set(_rows(federated, "train"))) == 160
    assert len(_rows(federated, "test")) == len(set(_rows(federated, "test"))) == 40


def test_shards_leave_out_classes_nobody_holds() -> None:
    """One device with one class does not get the rest of the data with it."""
    federated = shards(_dataset(), devices=1, classes_per_device=1, seed=0)
    data = federated.devices["device-001"]
    assert (len(set(data.y_train)), len(data.y_train), len(data.y_test)) == (1, 40, 10)


def test_shards_refuse_what_cannot_be_dealt() -> None:
    """More classes than there are, or more holders than rows, is an error that names the argument."""
    with pytest.raises(ConfigError, match=r"1\.\.4 expected") as caught:
        shards(_dataset(), devices=3, classes_per_device=5, seed=0)
    assert caught.value.where == "--classes-per-device"
    with pytest.raises(ConfigError, match="too few rows to share out"):
        shards(_dataset(train=3, test=3), devices=30, classes_per_device=2, seed=0)


def test_dealing_classes_is_balanced() -> None:
    """Seven devices of three from five classes: three each, every class held by four or five."""
    holders = deal_classes(5, 7, 3, np.random.default_rng(3))
    assert holders.sum(axis=1).tolist() == [3] * 7
    assert sorted(holders.sum(axis=0).tolist()) == [4, 4, 4, 4, 5]


def test_dirichlet_tests_follow_the_training_classes() -> None:
    """A device's share of a class is the same in train and test, to the row that rounding moves."""
    dataset = _dataset(train=400, test=100)
    federated = dirichlet(dataset, devices=5, alpha=0.5, seed=2)
    for data in federated.devices.values():
        train, test = np.bincount(data.y_train, minlength=4), np.bincount(data.y_test, minlength=4)
        assert np.abs(train / 4 - test).max() <= 1.25
    assert _rows(federated, "train") == dataset.rows(TRAIN).tolist()
    assert _rows(federated, "test") == dataset.rows(TEST).tolist()


def test_a_small_alpha_is_more_lopsided_than_a_large_one() -> None:
    """The largest class of a device holds more of it at alpha 0.1 than at alpha 100."""

    def largest_share(alpha: float) -> float:
        federated = dirichlet(_dataset(train=400, test=100), devices=5, alpha=alpha, seed=0)
        return float(np.mean([np.bincount(d.y_train).max() / len(d.y_train) for d in federated.devices.values()]))

    assert largest_share(0.1) > 0.5
    assert largest_share(100.0) < 0.35


def test_dirichlet_refuses_the_impossible() -> None:
    """An alpha that is no positive number, and more devices than rows allow, are errors."""
    for alpha in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="a positive number expected"):
            dirichlet(_dataset(), devices=2, alpha=alpha, seed=0)
    with pytest.raises(ConfigError, match="no draw in 1000"):
        dirichlet(_dataset(), devices=30, alpha=1.0, seed=0)


def test_iid_parts_are_equal_to_one_row() -> None:
    """160 rows over seven devices: 22 or 23 each."""
    federated = iid(_dataset(), devices=7, seed=0)
    assert {len(data.y_train) for data in federated.devices.values()} == {22, 23}
    with pytest.raises(ConfigError, match="41 devices, but 160 training and 40 test rows"):
        iid(_dataset(), devices=41, seed=0)


@pytest.mark.parametrize("how", ["natural", "shards", "dirichlet", "iid"])
def test_the_seed_alone_decides(how: str) -> None:
    """The same seed gives the same bytes; another seed gives others, except where nothing is drawn."""
    dataset = _dataset(train=100, test=50, owners=5)
    first, again, other = (split(dataset, how, devices=4, seed=seed).digest() for seed in (7, 7, 8))
    assert first == again
    assert (first == other) == (how == "natural")


def test_a_split_with_a_seed_is_the_same_in_every_version() -> None:
    """One pinned digest: if it changes, published splits change, and the docs must say so."""
    federated = shards(_dataset(), devices=4, classes_per_device=2, seed=0)
    assert federated.digest() == "dacd275d09392e027d78b79459f67de40cd0cf795a852d99db48d8e4352f6442"


def test_an_unknown_split_is_named() -> None:
    """A misspelt split gets a suggestion, and a fleet of no devices is refused."""
    with pytest.raises(UnknownName, match="Did you mean 'dirichlet'"):
        split(_dataset(), "dirichlett")
    with pytest.raises(ConfigError, match="0 devices asked for"):
        split(_dataset(), "iid", devices=0)


def test_device_names_sort_as_they_count() -> None:
    """Past 999 devices the numbers get wider, so that sorting keeps the order."""
    names = list(iid(_dataset(train=300, test=300), devices=1000, seed=0).devices)
    assert (names[0], names[-1]) == ("device-0001", "device-1000")
    assert names == sorted(names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.zeros(3, dtype=np.int64)}, r"y has shape \(3,\), \(200,\) expected"),
        ({"y": np.full(200, 4)}, r"labels 4\.\.4 found, 0\.\.3 expected"),
        ({"raw": np.zeros((200, 2, 1), dtype=np.float32)}, r"samples of shape \(2, 1\)"),
        ({"raw": np.zeros((0, 1, 1), dtype=np.float32)}, "no samples"),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(change: dict[str, np.ndarray], message: str) -> None:
    """A Dataset cannot be made of labels and samples that do not match."""
    with pytest.raises(DataError, match=message):
        dataclasses.replace(_dataset(), **change)


def test_scaling_is_per_channel_and_float32() -> None:
    """Each channel gets its own mean and deviation, for uint8 pixels as for readings."""
    raw = np.array([[[0, 10], [20, 30]]], dtype=np.uint8)
    scaled = Scale(mean=(10.0, 20.0), deviation=(10.0, 5.0)).apply(raw)
    assert scaled.dtype == np.float32
    assert scaled.tolist() == [[[-1.0, 0.0], [0.0, 2.0]]]
