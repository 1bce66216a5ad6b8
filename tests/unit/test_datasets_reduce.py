"""Smaller data: validation samples taken from training samples, and limits."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator.datasets.dataset import DeviceData, FederatedData, Floats, Ints, Scale
from coordinator.datasets.reduce import limit, validation
from wire.errors import ConfigError

Labels = list[int]


def numbered(labels: Labels, first: int) -> tuple[Floats, Ints]:
    """Samples whose one value is their number, from `first` on."""
    x = np.arange(first, first + len(labels), dtype=np.float32).reshape(-1, 1, 1)
    return x, np.array(labels, dtype=np.int64)


def shared_out(train: dict[str, Labels], test: dict[str, Labels], unseen: Labels) -> FederatedData:
    """Training samples count from 0 on every device, test samples from 1000, unseen ones from 2000."""
    devices = {}
    for name, labels in train.items():
        (x_train, y_train), (x_test, y_test) = numbered(labels, 0), numbered(test[name], 1000)
        devices[name] = DeviceData(x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return FederatedData(
        name="toy",
        how="natural",
        class_names=("a", "b", "c"),
        input_shape=(1, 1),
        scale=Scale(mean=(0.0,), deviation=(1.0,)),
        devices=devices,
        unseen=numbered(unseen, 2000),
    )


def numbers(x: Floats) -> list[int]:
    """The numbers of samples."""
    found: list[int] = x.reshape(-1).astype(int).tolist()
    return found


TOY = shared_out(
    train={"a": [0] * 10 + [1] * 5 + [0] * 5, "b": [2, 1, 1, 0, 0, 0]},
    test={"a": [0, 1, 2], "b": [0, 1, 2, 0]},
    unseen=[0, 1],
)


def test_validation_is_the_later_third_of_every_class_behind_a_gap() -> None:
    """Of 15 of class 0 nine train and five validate, of 5 three and one; a single sample is trained on."""
    a, b = validation(TOY, 0.65).devices.values()
    assert numbers(a.x_train) == [*range(9), 10, 11, 12]
    assert a.y_train.tolist() == [0] * 9 + [1] * 3
    assert numbers(a.x_test) == [14, 15, 16, 17, 18, 19]
    assert a.y_test.tolist() == [1] + [0] * 5
    assert numbers(b.x_train) == [0, 1, 3]
    assert numbers(b.x_test) == [5]


def test_more_may_train_and_fewer_validate() -> None:
    """Of 15 of class 0 twelve train, one is left out and two validate; of 5 four train and none validates."""
    a, _ = validation(TOY, 0.85).devices.values()
    assert numbers(a.x_train) == [*range(10), 10, 11, 12, 13, 15, 16]
    assert numbers(a.x_test) == [18, 19]
    with pytest.raises(ConfigError, match=r"--validate: 1 of the training samples, more than 0 and less than 1"):
        validation(TOY, 1.0)


def test_validation_shows_no_test_sample_and_nobody_unseen() -> None:
    """What is left are training samples, but for those in the gap; the title says so."""
    reduced = validation(TOY, 0.65)
    assert reduced.unseen is None
    gaps = {"a": [9, 13], "b": [2, 4]}
    for name, one in reduced.devices.items():
        kept = numbers(one.x_train) + numbers(one.x_test)
        assert sorted(kept + gaps[name]) == numbers(TOY.devices[name].x_train)
    assert reduced.how == "natural, validation"
    assert (reduced.name, reduced.class_names, list(reduced.devices)) == ("toy", ("a", "b", "c"), ["a", "b"])


def test_validation_leaves_the_whole_data_as_it_was() -> None:
    """It is another object with the same outcome every time."""
    before = TOY.digest()
    assert validation(TOY, 0.65).digest() == validation(TOY, 0.65).digest()
    assert TOY.digest() == before


def test_limits_are_kept() -> None:
    """Three training and two test samples a device, in their order, each with its own label, none twice."""
    reduced = limit(TOY, train=3, test=2, seed=0)
    for name, one in reduced.devices.items():
        whole = TOY.devices[name]
        assert (one.y_train.size, one.y_test.size) == (3, 2)
        for x, y, all_y, first in (
            (one.x_train, one.y_train, whole.y_train, 0),
            (one.x_test, one.y_test, whole.y_test, 1000),
        ):
            found = numbers(x)
            assert found == sorted(set(found))
            assert y.tolist() == [all_y[number - first] for number in found]
    assert reduced.how == "natural, at most 3 + 2 samples a device"


def test_who_has_less_than_the_limit_keeps_it_all() -> None:
    """20 and 6 training samples of at most 10 are 10 and 6; unseen people are not touched."""
    reduced = limit(TOY, train=10, test=100, seed=0)
    assert [one.y_train.size for one in reduced.devices.values()] == [10, 6]
    assert [one.y_test.size for one in reduced.devices.values()] == [3, 4]
    assert numbers(reduced.devices["b"].x_train) == [0, 1, 2, 3, 4, 5]
    assert reduced.unseen is TOY.unseen


def test_limits_draw_by_the_seed() -> None:
    """The same seed the same samples, another seed others; not simply the first ones."""
    assert limit(TOY, train=3, test=2, seed=0).digest() == limit(TOY, train=3, test=2, seed=0).digest()
    drawn = [numbers(limit(TOY, train=3, test=2, seed=seed).devices["a"].x_train) for seed in range(20)]
    assert len(set(map(tuple, drawn))) > 10
    assert {number for one in drawn for number in one} > set(range(15))


@pytest.mark.parametrize(("train", "test"), [(0, 5), (5, 0), (-1, 5)])
def test_a_limit_below_one_is_refused(train: int, test: int) -> None:
    """The error says what was found and where."""
    with pytest.raises(ConfigError, match=f"--limit: {train} training and {test} test samples a device, 1 or more"):
        limit(TOY, train=train, test=test, seed=0)
