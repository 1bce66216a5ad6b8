"""The options of `hidenseek freeze`: what was learned, as an ONNX file for other programs."""

from __future__ import annotations

import argparse
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coordinator.place import Place, read_place
from coordinator.store_options import database_in
from wire import __version__, command
from wire.errors import StateError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from wire.ticket import Ticket

Subparsers = argparse._SubParsersAction

EXAMPLES = """
examples:
  hidenseek freeze --run out/demo -o global.onnx                            # what all devices agreed on
  hidenseek freeze --run hidenseek-default/coordinator.db -o global.onnx
  hidenseek freeze --state out/demo/devices/person-01/state -o mine.onnx    # what one device learned for itself
  scp -r pi-01:.local/state/hidenseek/pi-01 . && hidenseek freeze --state pi-01 -o pi-01.onnx

The file is a plain float32 network of any batch size: input x, output logits, standard operators, opset 13.
Its softmax is the probability of every class. A device keeps its signs in some kilobytes; this file is dense.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """What is to be frozen.

    Attributes:
        ticket: the network.
        multipliers: of the initial weights, float32 (kept,): own signs, +-1, or the mean vote, in [-1, 1].
        log_prior: added to the logits of a personal network, float32 (classes,).
        what: whose they are, for people.
        run: the run they were trained in, 8 bytes.
        number: the last round they learned in.
    """

    ticket: Ticket
    multipliers: NDArray[np.float32]
    log_prior: NDArray[np.float32] | None
    what: str
    run: bytes
    number: int


def add_freeze(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`hidenseek freeze`."""
    parser = subparsers.add_parser(
        "freeze",
        help="write what was learned as a plain ONNX file, for phones and PCs",
        description="Write the network a run or one of its devices ended with as a dense ONNX inference graph, "
        "checked against torch.",
        epilog=EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    sources = parser.add_mutually_exclusive_group(required=True)
    sources.add_argument("--state", type=Path, metavar="DIR", help="a device's state folder: its personal network")
    sources.add_argument(
        "--run",
        dest="database",
        type=read_place,
        metavar="PATH",
        help="coordinator.db or its folder, or a PostgreSQL address: the newest run's global network",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="usually *.onnx")
    parser.set_defaults(run=_freeze)


def _freeze(arguments: argparse.Namespace) -> int:
    from export import frozen

    source = from_state(arguments.state) if arguments.state else from_database(arguments.database)
    notes = {"network": source.what, "run": source.run.hex(), "round": str(source.number)}
    notes["software"] = f"hidenseek {__version__}"
    model = frozen.freeze(source.ticket, source.multipliers, notes, log_prior=source.log_prior)
    checked = frozen.check(model, source.ticket, source.multipliers, log_prior=source.log_prior)
    command.write_whole(arguments.output, model)
    plan = source.ticket.plan
    shape = ", ".join(map(str, plan.input_shape))
    print(f"{plan.name}: {source.what} of round {source.number}, run {source.run.hex()}")
    print(
        f"ticket {source.ticket.id.hex()[:16]}…: {source.ticket.kept:,} of {plan.weights:,} weights kept, "
        f"{source.ticket.density:.1%}"
    )
    print(f"x float32 (n, {shape}) -> logits float32 (n, {plan.classes}), ONNX opset {frozen.OPSET}")
    print(
        f"{checked.runtime} agrees with torch on {checked.samples} random samples: logits differ by at most "
        f"{checked.difference:.1e}, the largest is {checked.largest:.3g}"
    )
    print(f"wrote {arguments.output}: {len(model):,} bytes")
    return 0


def from_state(folder: Path) -> Source:
    """The personal network of a device.

    Raises:
        StateError: if the folder holds none that can be read.
    """
    from wire.mask import as_multipliers
    from wire.state_folder import read_learned

    learned = read_learned(folder)
    return Source(
        ticket=learned.bundle.ticket,
        multipliers=as_multipliers(learned.personal.signs),
        log_prior=learned.personal.log_prior,
        what="personal network",
        run=learned.personal.run,
        number=learned.personal.number,
    )


def from_database(place: Place) -> Source:
    """The global network of the newest run in a coordinator's database, or in the folder it lies in.

    Raises:
        DataError: if there is no database.
        StateError: if it is none of ours, or no round has been counted in it.
        TicketError, WireError: if what it holds does not decode.
    """
    from coordinator.store import Store
    from wire.mask import decode_votes
    from wire.ticket import decode_ticket

    database = database_in(place) if isinstance(place, Path) and place.is_dir() else place
    with closing(Store(database, make=False)) as store:
        run = store.newest_run()
        rounds = store.rounds(run.id) if run else []
        if (
            run is None or not rounds or rounds[-1].number < 2
        ):  # a round is announced with the outcome of the one before
            raise StateError("no round has been counted yet", where=str(database), hint="Let the run go on")
    ticket = decode_ticket(run.ticket, where=f"ticket of run {run.id.hex()}")
    votes = decode_votes(rounds[-1].votes, ticket.ends)
    return Source(
        ticket=ticket,
        multipliers=votes.mean,
        log_prior=None,
        what="global network",
        run=run.id,
        number=min(rounds[-1].number - 1, sum(one.closed_s is not None for one in rounds)),  # a run may be stopped
    )
