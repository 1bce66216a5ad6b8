"""The options of `hidenseek export` and `hidenseek verify`, and what each does with them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from coordinator.prune_command import DENSITY, METHOD, add_config, add_from, add_input, own_plan, pruned
from wire import command
from wire.errors import ConfigError, ExportError, HidenseekError, UnknownName, did_you_mean

if TYPE_CHECKING:
    from coordinator.board_estimates import BoardEstimate
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
  hidenseek export --from examples/my_network.py:SmallResNet --input 3x32x32 -o mine    # prunes it too; runs its code
  hidenseek verify har-export                                       # against torch autograd

The folder holds the ticket, the training step and the inference graph of every target, and manifest.json: hashes,
shapes, dtypes, the plan, and estimates for the profiles, signed by your federation's key (hidenseek key). The same
ticket, options and key give the same bytes.
"""
VERIFY_EXAMPLES = """
examples:
  hidenseek verify har-export
  hidenseek verify har-export --target sparse --verbose
  hidenseek verify har-export --trust KEY      # and signed by this key of hidenseek key, by nobody else

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
    networks = parser.add_mutually_exclusive_group(required=True)
    networks.add_argument("ticket", type=Path, nargs="?", metavar="TICKET", help="a file of hidenseek prune")
    add_from(networks)
    own = parser.add_argument_group("with --from, which is pruned first")
    add_input(own, "one sample")
    own.add_argument("--density", type=float, metavar="D", help=f"share of the weights to keep (default: {DENSITY})")
    own.add_argument("--seed", type=int, metavar="S", help="of the random network (default: 0)")
    own.add_argument("--method", metavar="NAME", help=f"a method of hidenseek prune (default: {METHOD})")
    parser.add_argument(
        "--target",
        action="append",
        metavar="NAME[,NAME]",
        help="sparse, onnx, executorch (all of these that can be made here), or executorch-trainer",
    )
    parser.add_argument(
        "--profile", action="append", metavar="NAME", help="boards to estimate for (default: the fleet's)"
    )
    parser.add_argument("--batch", type=int, default=16, metavar="N", help="samples of a training step")
    parser.add_argument("--optimiser", choices=("adam", "sgd"), default="adam", help="built into the training graphs")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="the folder; replaced whole")
    add_config(parser)
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
    parser.add_argument("--trust", metavar="KEY", help="accept this signer only (a public key of hidenseek key)")
    parser.add_argument("--verbose", action="store_true", help="show every comparison")
    parser.set_defaults(run=_verify)


def _export(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from coordinator import board_estimates, export_table, keys, profiles
    from export import manifest
    from export.bundle import OPTIONAL_RUNTIMES, RUNTIMES, TARGETS, make_bundle, planned_bytes
    from wire.settings import Training

    here = [name for name in OPTIONAL_RUNTIMES if find_spec(name)]
    targets = _names(arguments.target, TARGETS, "--target") or [*RUNTIMES, *here]
    key = keys.federation_key()  # before the minutes that programs take
    ticket = _ticket(arguments)
    training = Training(batch=arguments.batch, optimiser=arguments.optimiser)
    wanted = profiles.of_fleet(arguments.config)
    if arguments.profile:
        wanted = {name: profiles.named(name, arguments.config) for name in arguments.profile}
    bundles = []
    console = Console(stderr=True)
    for target in targets:
        with console.status(f"making {target}"):
            bundles.append(make_bundle(ticket, target, training))
    arenas = {bundle.runtime: size for bundle in bundles if (size := planned_bytes(bundle)) is not None}
    arenas |= {"sparse": _sparse_arena(ticket, training.batch)} if "sparse" in targets else {}
    boards = board_estimates.on_boards(ticket, wanted, training.batch)
    described = manifest.describe(bundles, training, arenas, [_noted(board) for board in boards])
    manifest.write(arguments.output, described, bundles, key=key)
    Console().print(export_table.written(described, boards))
    print(f"wrote {arguments.output}; check it with: hidenseek verify {arguments.output}")
    return 0


def _ticket(arguments: argparse.Namespace) -> Ticket:
    """The ticket that is named, or one of the network that --from names.

    Raises:
        ConfigError: if a ticket is to be pruned again.
    """
    from wire.ticket import read_ticket

    if arguments.source is None:
        for name in ("input_shape", "density", "seed", "method"):
            if getattr(arguments, name) is not None:
                option = f"--{name.replace('_', '-')}"
                raise ConfigError(f"{option} goes with --from: a ticket is pruned already", where=str(arguments.ticket))
        return read_ticket(arguments.ticket)
    return pruned(
        own_plan(arguments.source, arguments.input_shape),
        density=DENSITY if arguments.density is None else arguments.density,
        seed=arguments.seed or 0,
        method=arguments.method or METHOD,
    )


def _verify(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from coordinator import export_table, keys, verify_worker
    from export import manifest

    exported = manifest.read(arguments.folder)
    signer = keys.recognise(exported.signed_by, trusted=arguments.trust, where=str(arguments.folder))
    results: dict[str, Verified | HidenseekError] = {}
    console = Console(stderr=True)
    for target in _names(arguments.target, tuple(exported.bundles), "--target") or exported.bundles:
        with console.status(f"{target}: a fresh process, {verify_worker.STEPS} steps"):
            try:
                results[target] = verify_worker.verify(arguments.folder, target)
            except HidenseekError as error:
                results[target] = error
    Console().print(export_table.verified(exported, results, signer, verbose=arguments.verbose))
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


def _noted(board: BoardEstimate) -> Estimate:
    """An estimate as the manifest has it: to 10 microseconds and 0.1 MB."""
    from export.manifest import Estimate

    step_ms = None if board.step_ms is None else round(board.step_ms, 2)
    return Estimate(**asdict(replace(board, step_ms=step_ms, process_mb=round(board.process_mb, 1))))
