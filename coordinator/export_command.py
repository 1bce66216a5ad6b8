"""The options of `hidenseek export` and `hidenseek verify`, and what each does with them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from wire import command
from wire.errors import ExportError, HidenseekError, UnknownName, did_you_mean

if TYPE_CHECKING:
    from coordinator.config import Profile
    from coordinator.verify_worker import Verified
    from export.manifest import Estimate
    from wire.ticket import Ticket

Subparsers = argparse._SubParsersAction

EXPORT_EXAMPLES = """
examples:
  hidenseek prune --model har-cnn -o har.hns
  hidenseek export har.hns -o har-export                            # for every runtime that can be made here
  hidenseek export har.hns --target onnx --batch 32 -o har-export
  hidenseek export har.hns --profile pi-zero-2w --profile pi-5-8gb -o har-export
  hidenseek verify har-export                                       # against torch autograd

The folder holds the ticket, the training step and the inference graph of every target, and manifest.json: hashes,
shapes, dtypes, the plan, and estimates for the profiles. The same ticket and options give the same bytes.
"""
VERIFY_EXAMPLES = """
examples:
  hidenseek verify har-export
  hidenseek verify har-export --target sparse --verbose

Every runtime runs in a fresh process: gradients of random batches twice in a row on one loaded graph, short and
padded batches, class priors, and 50 steps of training, each against torch autograd with the tolerance that
--verbose shows. Exit code 0: all agree; 22: a number differs; 23: a runtime is not installed here.
"""


def add_export(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`hidenseek export`."""
    parser = subparsers.add_parser(
        "export",
        help="write a ticket's trainable graphs for devices and phones",
        description="Write a ticket as graphs that train and infer on devices, one folder for all of its runtimes.",
        epilog=EXPORT_EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    parser.add_argument("ticket", type=Path, metavar="TICKET", help="a file of hidenseek prune")
    parser.add_argument(
        "--target",
        action="append",
        metavar="NAME[,NAME]",
        help="sparse, onnx or executorch (all that can be made here)",
    )
    parser.add_argument("--profile", action="append", metavar="NAME", help="boards to estimate for (all known)")
    parser.add_argument("--batch", type=int, default=16, metavar="N", help="samples of a training step")
    parser.add_argument("--optimiser", choices=("adam", "sgd"), default="adam", help="built into the training graphs")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="the folder; replaced whole")
    parser.add_argument("--config", type=Path, metavar="FILE", help="devices.yaml with profiles of your own")
    parser.set_defaults(run=_export)


def add_verify(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`hidenseek verify`."""
    parser = subparsers.add_parser(
        "verify",
        help="check exported graphs against torch autograd",
        description="Run every artifact of an exported folder in its own runtime and compare it with torch autograd.",
        epilog=VERIFY_EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder of hidenseek export")
    parser.add_argument("--target", action="append", metavar="NAME[,NAME]", help="check these only")
    parser.add_argument("--verbose", action="store_true", help="show every comparison")
    parser.set_defaults(run=_verify)


def _export(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from coordinator import export_table, profiles
    from export import manifest
    from export.bundle import OPTIONAL_RUNTIMES, RUNTIMES, make_bundle, planned_bytes
    from wire.settings import Training
    from wire.ticket import read_ticket

    here = [name for name in OPTIONAL_RUNTIMES if find_spec(name)]
    targets = _names(arguments.target, (*RUNTIMES, *OPTIONAL_RUNTIMES), "--target") or [*RUNTIMES, *here]
    ticket = read_ticket(arguments.ticket)
    training = Training(batch=arguments.batch, optimiser=arguments.optimiser)
    boards = profiles.known(arguments.config)
    if arguments.profile:
        boards = {name: profiles.named(name, arguments.config) for name in arguments.profile}
    bundles = []
    console = Console(stderr=True)
    for target in targets:
        with console.status(f"making {target}"):
            bundles.append(make_bundle(ticket, target, training))
    arenas = {bundle.runtime: size for bundle in bundles if (size := planned_bytes(bundle)) is not None}
    arenas |= {"sparse": _sparse_arena(ticket, training.batch)} if "sparse" in targets else {}
    described = manifest.describe(bundles, training, arenas, _estimates(ticket, boards, training.batch))
    manifest.write(arguments.output, described, bundles)
    Console().print(export_table.written(described))
    print(f"wrote {arguments.output}; check it with: hidenseek verify {arguments.output}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from coordinator import export_table, verify_worker
    from export import manifest

    exported = manifest.read(arguments.folder)
    results: dict[str, Verified | HidenseekError] = {}
    console = Console(stderr=True)
    for target in _names(arguments.target, tuple(exported.bundles), "--target") or exported.bundles:
        with console.status(f"{target}: a fresh process, {verify_worker.STEPS} steps"):
            try:
                results[target] = verify_worker.verify(arguments.folder, target)
            except HidenseekError as error:
                results[target] = error
    Console().print(export_table.verified(exported, results, verbose=arguments.verbose))
    failed = [one for one in results.values() if isinstance(one, HidenseekError)]
    if any(not isinstance(one, HidenseekError) and not one.ok for one in results.values()):
        return ExportError.exit_code
    return failed[0].exit_code if failed else 0


def _names(given: Sequence[str] | None, known: Sequence[str], option: str) -> list[str]:
    """Names of a repeatable, comma-separated option; none if it was not given.

    Raises:
        UnknownName: with the nearest name that is known.
    """
    names = list(dict.fromkeys(name.strip() for one in given or () for name in one.split(",")))
    for name in names:
        if name not in known:
            raise UnknownName(f"'{name}' is not here", where=option, hint=did_you_mean(name, list(known)))
    return names


def _sparse_arena(ticket: Ticket, batch: int) -> int:
    from coordinator import estimate

    blocks = [keep.block for keep in ticket.layers]
    return round(estimate.arena_bytes(ticket.plan, blocks, ticket.magnitudes, batch).of(ticket))


def _estimates(ticket: Ticket, boards: dict[str, Profile], batch: int) -> list[Estimate]:
    from coordinator import estimate
    from export.manifest import Estimate

    blocks = [keep.block for keep in ticket.layers]
    memory = estimate.process_bytes(ticket.plan, blocks, ticket.magnitudes, batch).of(ticket)
    found = []
    for name, profile in boards.items():
        cost = estimate.step_seconds(ticket.plan, blocks, profile, batch)
        found.append(
            Estimate(
                profile=name,
                title=profile.title,
                step_ms=round(1e3 * cost.of(ticket), 2) if cost else None,
                process_mb=round(memory / 1e6, 1),
                source=estimate.figures(profile),
            )
        )
    return found
