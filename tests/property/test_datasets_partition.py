"""Properties every split has, whatever the data set and the settings."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.datasets import Dataset, Scale, dirichlet, iid, shards
from coordinator.datasets.dataset import TEST, TRAIN, UNSEEN
from coordinator.datasets.har import parts_in_time
from coordinator.datasets.splits import deal_classes
from wire.errors import ConfigError


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    """Up to 300 rows, raw value = row number, with any labels and parts."""
    classes = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = draw(st.integers(1, 300))
    return Dataset(
        name="toy",
        class_names=tuple(map(str, range(classes))),
        scale=Scale(mean=(0.0,), deviation=(1.0,)),
        raw=np.arange(rows, dtype=np.float32).reshape(rows, 1, 1),
        y=rng.integers(0, classes, rows),
        part=rng.choice([TRAIN, TEST, UNSEEN, 3], rows, p=[0.6, 0.2, 0.1, 0.1]).astype(np.uint8),
    )


@settings(max_examples=60, deadline=None)
@given(datasets(), st.sampled_from(["iid", "dirichlet", "shards"]), st.integers(1, 12), st.data())
def test_a_split_is_a_partition(dataset: Dataset, how: str, devices: int, data: st.DataObject) -> None:
    """Every training row goes to one device, every test row too, with its label; or ConfigError says why not.

    Shards may leave out a class nobody holds, but then all of it.
    """
    seed = data.draw(st.integers(0, 2**64))
    try:
        if how == "iid":
            federated = iid(dataset, devices=devices, seed=seed)
        elif how == "dirichlet":
            federated = dirichlet(dataset, devices=devices, alpha=data.draw(st.floats(0.01, 1e6)), seed=seed)
        else:
            each = data.draw(st.integers(1, dataset.classes))
            federated = shards(dataset, devices=devices, classes_per_device=each, seed=seed)
    except ConfigError:
        return
    assert len(federated.devices) == devices
    for part, side in ((TRAIN, "train"), (TEST, "test")):
        held = np.concatenate([getattr(one, f"x_{side}").ravel() for one in federated.devices.values()]).astype(int)
        labels = np.concatenate([getattr(one, f"y_{side}") for one in federated.devices.values()])
        assert all(len(getattr(one, f"y_{side}")) > 0 for one in federated.devices.values())
        np.testing.assert_array_equal(dataset.y[held], labels)
        rows = dataset.rows(part)
        if how == "shards":
            rows = rows[np.isin(dataset.y[rows], np.concatenate([one.y_train for one in federated.devices.values()]))]
        np.testing.assert_array_equal(np.sort(held), rows)
    unseen = dataset.rows(UNSEEN)
    assert (federated.unseen is None) == (len(unseen) == 0)


@given(st.integers(1, 12), st.integers(1, 40), st.data())
def test_classes_are_dealt_evenly(classes: int, devices: int, data: st.DataObject) -> None:
    """Every device gets exactly its number of classes, and no class more than one holder above another."""
    each = data.draw(st.integers(1, classes))
    holders = deal_classes(classes, devices, each, np.random.default_rng(data.draw(st.integers(0, 2**32))))
    assert (holders.sum(axis=1) == each).all()
    assert np.ptp(holders.sum(axis=0)) <= 1


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 5)), min_size=1, max_size=200))
def test_no_test_window_touches_a_training_window(rows: list[tuple[int, int]]) -> None:
    """Per person and activity: first training, then one window for nothing, then test; 26-30 only unseen."""
    owner, y = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    part = parts_in_time(y, owner)
    for person, label in set(rows):
        mine = part[(owner == person) & (y == label)].tolist()
        if person >= 26:
            assert mine == [UNSEEN] * len(mine)
        else:
            trained = int(0.75 * len(mine))
            assert mine == [TRAIN] * trained + [3] + [TEST] * (len(mine) - trained - 1)
