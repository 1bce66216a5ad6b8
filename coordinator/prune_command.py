"""The options of `hidenseek prune` and `inspect`, and what each does with them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wire import command
from wire.errors import ConfigError

if TYPE_CHECKING:
    from coordinator.ceiling import Ceiling
    from wire.plan import Plan
    from wire.ticket import Ticket

Subparsers = argparse._SubParsersAction
DENSITY = 0.10
METHOD = "synflow"

PRUNE_EXAMPLES = """
examples:
  hidenseek prune --model har-cnn --density 0.1 --seed 0 -o har.hns
  hidenseek prune --model har-cnn --budget-macs 300000 -o har.hns                      # also keeps at most 10 %
  hidenseek prune --model conv4 --budget-ms 300 --profile pi-zero-2w -o small.hns      # step time, estimated
  hidenseek prune --model conv4 --profile greenhouse -o small.hns          # its step_ms and peak_mb in devices.yaml
  hidenseek prune --model conv2 --density 0.2 --budget-mb 48 -o small.hns              # memory, estimated
  hidenseek prune --model conv4 --input-shape 3,32,32 --method random-synflow -o cifar.hns   # under 1 kB
  hidenseek prune --model lenet --method magnitude --block 1 -o lenet.hns
  hidenseek prune --from examples/my_network.py:SmallResNet --input 3x32x32 -o mine.hns      # runs its code

The same options give the same bytes on every machine. No data is looked at. With a budget, weights are ranked by
score per cost; both the density and the budget hold, and the ticket's notes say which one ended pruning.
"""


def add_prune(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`hidenseek prune`."""
    from coordinator.models import MODELS
    from coordinator.prune import DEFAULT_BLOCK, METHODS, PASSES

    models = "\n".join(f"  {name:18} {model.help}" for name, model in MODELS.items())
    methods = "\n".join(f"  {name:24} {what}" for name, what in METHODS.items())
    parser = subparsers.add_parser(
        "prune",
        help="prune a random network before any data, into a ticket",
        description="Prune a randomly initialised network and write its ticket.",
        epilog=f"models:\n{models}\n\nmethods:\n{methods}\n{PRUNE_EXAMPLES}",
        formatter_class=command.HelpFormatter,
    )
    networks = parser.add_mutually_exclusive_group(required=True)
    networks.add_argument("--model", metavar="NAME", help="a model, see below")
    add_from(networks)
    add_input(parser, "one sample (default: the model's usual one)")
    parser.add_argument("--classes", type=int, metavar="N", help="classes to tell apart (default: the model's usual)")
    parser.add_argument(
        "--density", type=float, default=DENSITY, metavar="D", help="share of the weights to keep, 0 to 1"
    )
    budgets = parser.add_mutually_exclusive_group()
    budgets.add_argument("--budget-macs", type=int, metavar="N", help="most multiply-adds of a sample's forward pass")
    budgets.add_argument("--budget-ms", type=float, metavar="MS", help="most time of a training step on --profile")
    budgets.add_argument("--budget-mb", type=float, metavar="MB", help="most memory of the training process")
    parser.add_argument(
        "--profile", metavar="NAME", help="hardware that --budget-ms is for; alone: keep its budget in devices.yaml"
    )
    parser.add_argument("--method", default=METHOD, metavar="NAME", help="a method, see below")
    parser.add_argument("--passes", type=int, default=PASSES, metavar="N", help="of iterative synflow")
    parser.add_argument("--block", type=int, default=DEFAULT_BLOCK, metavar="B", help="output rows sharing positions")
    parser.add_argument(
        "--magnitudes", choices=("constant", "normal"), default="constant", help="+-c, or Kaiming-normal"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the random network")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the ticket, usually *.hns")
    add_config(parser)
    parser.set_defaults(run=_prune)


def _prune(arguments: argparse.Namespace) -> int:
    plan = _plan(arguments)
    ceiling, density = _ceiling(arguments, plan)
    ticket = pruned(
        plan,
        density=density,
        seed=arguments.seed,
        method=arguments.method,
        block=arguments.block,
        passes=arguments.passes,
        magnitudes=arguments.magnitudes,
        budget=ceiling,
    )
    command.write_whole(arguments.output, ticket.encoded)
    _show(ticket, arguments.config)
    print(f"wrote {arguments.output}")
    return 0


def _plan(arguments: argparse.Namespace) -> Plan:
    """The network that --model or --from names."""
    from coordinator.models import build_plan

    if arguments.source is None:
        return build_plan(arguments.model, input_shape=arguments.input_shape, classes=arguments.classes)
    if arguments.classes is not None:
        raise ConfigError(
            "--classes goes with --model", where="--from", hint="A network of your own has as many as its last layer"
        )
    return own_plan(arguments.source, arguments.input_shape)


def own_plan(source: str, input_shape: tuple[int, ...] | None) -> Plan:
    """The plan of a module of the user's own; prints what is not taken over from it.

    Raises:
        ConfigError: if there is no input shape, or the module cannot be made.
        UnknownName, ExportError, PlanError: as `load_module` and `plan_from_module`.
    """
    from rich.console import Console

    from export.plan_from_torch import plan_from_module
    from export.user_module import load_module

    if input_shape is None:
        raise ConfigError("--from needs the shape of one sample", where=source, hint="For example --input 3x32x32")
    with Console(stderr=True).status(f"reading {source}"):
        module, name = load_module(source)
        plan, notes = plan_from_module(module, input_shape, name)
    for note in notes:
        print(f"note: {note}")
    return plan


def pruned(plan: Plan, **options: Any) -> Ticket:
    """`coordinator.prune.prune` with these options and a progress bar."""
    from rich.console import Console
    from rich.progress import Progress

    from coordinator.prune import prune

    with Progress(transient=True, console=Console(stderr=True)) as progress:
        task = progress.add_task(f"pruning {plan.name} by {options['method']}", total=None)
        return prune(plan, progress=lambda done, total: progress.update(task, completed=done, total=total), **options)


def _ceiling(arguments: argparse.Namespace, plan: Plan) -> tuple[Ceiling | None, float]:
    """The budget asked for, if any, and the density: with --profile alone, of the profile's limits in devices.yaml.

    Raises:
        ConfigError: if --budget-ms comes without --profile, or another budget with it, or the profile has no limits.
    """
    from coordinator import estimate, profiles
    from coordinator.blocks import block_sizes

    step_ms, peak_mb, density = arguments.budget_ms, arguments.budget_mb, arguments.density
    if step_ms is not None and arguments.profile is None:
        raise ConfigError("--budget-ms needs to know for which hardware", hint="Name it with --profile")
    other = "--budget-macs" if arguments.budget_macs is not None else "--budget-mb" if peak_mb is not None else None
    if other and arguments.profile is not None:
        raise ConfigError(f"goes with --budget-ms, or alone; not with {other}", where="--profile")
    if arguments.budget_macs is not None:
        return estimate.macs_budget(arguments.budget_macs), density
    if arguments.profile is not None and step_ms is None:
        step_ms, peak_mb = _limits(arguments)
    memory = None
    if peak_mb is not None:
        blocks = block_sizes(plan, arguments.block)
        memory = estimate.memory_budget(plan, peak_mb, blocks, arguments.magnitudes)
    if step_ms is None:
        return memory, density
    if memory is not None:  # its prices hardly differ from weight to weight, so it is a density
        shapes = zip(plan.weight_layers(), block_sizes(plan, arguments.block), strict=True)
        dearest = max(memory.price(shape, block) / block for shape, block in shapes)
        density = min(density, max(memory.free, 0) / dearest / plan.weights)
    return estimate.time_budget(
        plan, step_ms, arguments.profile, profiles.named(arguments.profile, arguments.config)
    ), density


def _limits(arguments: argparse.Namespace) -> tuple[float | None, float | None]:
    """Milliseconds and megabytes that the profile may spend by devices.yaml.

    Raises:
        ConfigError: if it says neither.
    """
    from coordinator import config
    from coordinator.profiles import DEFAULT_CONFIG

    path = arguments.config or DEFAULT_CONFIG
    budget = (config.load(path) if path.exists() else config.DevicesFile()).budget_of("", arguments.profile)
    if budget.step_ms is None and budget.peak_mb is None:
        raise ConfigError(
            f"profile '{arguments.profile}' has no step_ms or peak_mb among its limits in {path}",
            where="--profile",
            hint="Add budget: to it, or give --budget-ms",
        )
    return budget.step_ms, budget.peak_mb


def add_inspect(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`hidenseek inspect`."""
    parser = subparsers.add_parser(
        "inspect",
        help="show what a ticket holds",
        description="Show a ticket, layer by layer, and what training it is estimated to take. Needs no torch.",
        epilog="examples:\n  hidenseek inspect har.hns\n  hidenseek inspect har.hns --config devices.yaml",
        formatter_class=command.HelpFormatter,
    )
    parser.add_argument("ticket", type=Path, metavar="FILE", help="a ticket made by hidenseek prune")
    add_config(parser)
    parser.set_defaults(run=_inspect)


def _inspect(arguments: argparse.Namespace) -> int:
    from wire.ticket import read_ticket

    _show(read_ticket(arguments.ticket), arguments.config)
    return 0


def add_from(parser: argparse._ActionsContainer) -> None:
    """`--from`, for `own_plan`."""
    parser.add_argument(
        "--from",
        dest="source",
        metavar="MODULE:NAME",
        help="an nn.Module of your own, e.g. mypkg.mynet:Net or nets/mynet.py:Net; its code is run",
    )


def add_input(parser: argparse._ActionsContainer, text: str) -> None:
    """`--input-shape`, or `--input`."""
    parser.add_argument("--input-shape", "--input", type=_shape, metavar="CxHxW", help=text)


def add_config(parser: argparse.ArgumentParser) -> None:
    """`--config`, for `coordinator.profiles.of_fleet` and `named`."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="for whose kinds of boards to estimate (default: devices.yaml in this folder, else all we know)",
    )


def _show(ticket: Ticket, config: Path | None) -> None:
    from coordinator import profiles
    from coordinator.terminal import wide
    from coordinator.ticket_table import render

    wide().print(render(ticket, profiles.of_fleet(config)))


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no shape; write it as 1x28x28 or 1,28,28") from None
