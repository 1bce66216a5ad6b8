"""Which database a command means: a server's that is named, else the file in a state folder."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from coordinator.place import Place, Server, read_place
from wire.errors import ConfigError

if TYPE_CHECKING:
    from coordinator.store import Store

VARIABLE = "HIDENSEEK_STORE"


def add_store_argument(parser: argparse._ActionsContainer) -> None:
    """`--store`."""
    parser.add_argument(
        "--store",
        metavar="URL",
        help="the database on a PostgreSQL server, such as postgresql://USER@HOST/NAME, instead of a file in the "
        f"state folder (default: ${VARIABLE}, if it is set)",
    )


def read_server(arguments: argparse.Namespace) -> Server | None:
    """The server that is named; None if none is.

    Raises:
        ConfigError: if what is named is none.
    """
    text = arguments.store or os.environ.get(VARIABLE)
    if not text:
        return None
    place = read_place(text)
    if isinstance(place, Path):  # which may have a password in it
        raise ConfigError(
            "no address of a PostgreSQL server",
            where="--store" if arguments.store else f"${VARIABLE}",
            hint="It begins with postgresql://; to keep the database in a file, name its folder with --state DIR",
        )
    return place


def database_in(folder: Path) -> Path:
    """The file in a folder that a coordinator keeps its state in, there or not."""
    from coordinator.federation import DATABASE

    return folder / DATABASE


def read_store_place(arguments: argparse.Namespace) -> Place:
    """Where the database of the coordinator is that is meant.

    Raises:
        ConfigError: if neither a server, a state folder nor a readable devices.yaml says which.
    """
    server = read_server(arguments)
    if server is not None:
        return server
    from coordinator import config
    from coordinator.federation import state_folder

    if arguments.state is None and not arguments.config.exists():
        raise ConfigError("no such file", where=str(arguments.config), hint="Name the state folder with --state DIR")
    return database_in(arguments.state or state_folder(config.load(arguments.config).federation.name))


@contextmanager
def open_store(arguments: argparse.Namespace) -> Iterator[Store]:
    """The database of the coordinator that is meant.

    Raises:
        ConfigError: as `read_store_place`.
        DataError: if there is none.
        StateError, RuntimeMissing: as `coordinator.database.Database`.
    """
    from coordinator.store import Store

    with closing(Store(read_store_place(arguments), make=False)) as store:
        yield store
