"""`hidenseek plan`: what training a ticket will take on every kind of board, and whether it may."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wire import command
from wire.errors import ConfigError, OverBudget, UnknownName, did_you_mean

if TYPE_CHECKING:
    from coordinator.budgets import Budget
    from coordinator.config import DevicesFile
    from coordinator.hardware import Profile
    from coordinator.planner import Choice, Load
    from wire.ticket import Ticket

Subparsers = argparse._SubParsersAction
SAMPLES, ROUNDS_PER_DAY = 300, 24.0
COUNTED_WITH = {"onnx": "onnx", "executorch": "torch"}  # a board that measures itself may have neither

EXAMPLES = """
examples:
  hidenseek plan har.hns                                      # on all boards that we know
  hidenseek plan har.hns --fleet devices.yaml                 # your devices, held against their budgets
  hidenseek plan har.hns --profile pi-zero-2w --profile pi-5-8gb --samples 500
  hidenseek plan --model conv4 --density 0.05 --profile pi-400
  hidenseek plan har.hns --fleet devices.yaml --json plan.json --strict   # exit code 27 if a device cannot do it
  hidenseek plan har.hns --here                               # on this machine: measures it first, for two seconds
  hidenseek plan har.hns --here --save this-board             # and adds it to devices.yaml as a profile

Everything shown is estimated, for one core. ◀ marks the runtime to use: the fastest that keeps all limits. A batch
below the federation's is chosen where only that fits. "density" is how dense a ticket of this network may be there
for the sparse runtime; hidenseek prune --budget-ms or --budget-mb makes one. docs/profiling.md: how good estimates are.
"""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Devices that are alike: of one profile, with one budget."""

    name: str
    devices: tuple[str, ...]
    profile: Profile
    budget: Budget


def add_plan(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`hidenseek plan`."""
    from coordinator.prune_command import DENSITY

    parser = subparsers.add_parser(
        "plan",
        help="which boards can train a ticket, with which runtime, at what cost",
        description="Estimate memory, time, energy and bytes of training a ticket on kinds of boards, with every "
        "runtime, and hold them against budgets. No device is needed.",
        epilog=EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    parser.add_argument("ticket", type=Path, nargs="?", metavar="FILE", help="a ticket made by hidenseek prune")
    parser.add_argument("--model", metavar="NAME", help="instead of a ticket: a model of hidenseek prune, at random")
    parser.add_argument("--density", type=float, default=DENSITY, metavar="D", help="of --model: share of weights kept")
    parser.add_argument(
        "--fleet", type=Path, metavar="FILE", help="devices.yaml (default: the one in this folder, if there is one)"
    )
    parser.add_argument("--profile", action="append", default=[], metavar="NAME", help="only these kinds of boards")
    parser.add_argument("--runtime", action="append", default=[], metavar="NAME", help="only these runtimes")
    parser.add_argument("--batch", type=int, metavar="N", help="samples of a step (default: the federation's)")
    parser.add_argument("--epochs", type=int, metavar="N", help="of a round (default: the federation's)")
    parser.add_argument("--samples", type=int, default=SAMPLES, metavar="N", help="that a device trains on")
    parser.add_argument(
        "--rounds-per-day", type=float, default=ROUNDS_PER_DAY, metavar="N", help="that a device takes part in"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure here too")
    parser.add_argument("--strict", action="store_true", help="fail if a device cannot keep its limits, for CI")
    parser.add_argument("--here", action="store_true", help="measure this machine, and plan for it")
    parser.add_argument("--save", metavar="NAME", help="with --here: write it to --fleet as a profile of this name")
    parser.set_defaults(run=_plan)


def _plan(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from coordinator import config, plan_table
    from coordinator.planner import Planner
    from coordinator.profiles import DEFAULT_CONFIG
    from coordinator.terminal import wide

    path = arguments.fleet or (DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None)
    if arguments.save and not arguments.here:
        raise ConfigError("--save goes with --here", hint="hidenseek plan FILE --here --save NAME")
    file = config.load(path) if path and not (arguments.save and not path.exists()) else config.DevicesFile()
    ticket, load = _ticket(arguments), _load(arguments, file)
    groups = _here(arguments, path) if arguments.here else _groups(arguments, file)
    planner = Planner(ticket=ticket, load=load, runtimes=_runtimes(arguments.runtime))
    choices: list[tuple[Group, Choice | None]] = []
    with Console(stderr=True).status("counting work") as status:
        for group in groups:
            status.update(f"counting work: {group.name}")
            choices.append((group, planner.choose(group.profile, group.budget)))
    console = wide(140)
    console.print(plan_table.heading(ticket, load))
    console.print(plan_table.table(choices))
    console.print(plan_table.notes(choices))
    if not arguments.here and not arguments.profile and (nameless := _without_profile(file)):
        console.print(f"Left out, for they have no profile in {path}: {', '.join(nameless)}", style="yellow")
    if arguments.json:
        command.write_whole(arguments.json, json.dumps(_figures(ticket, load, choices), indent=1).encode() + b"\n")
    unable = [name for group, choice in choices if choice is None or not choice.pick.fits for name in group.devices]
    if arguments.strict and unable:
        shown = ", ".join(unable[:5]) + (", ..." if len(unable) > 5 else "")
        raise OverBudget(f"{len(unable)} cannot keep their limits: {shown}", hint="Look at the table above")
    return 0


def _ticket(arguments: argparse.Namespace) -> Ticket:
    """The ticket of a file, or a random one of --model: what it costs does not depend on which weights are kept."""
    from wire.ticket import read_ticket

    if (arguments.ticket is None) == (arguments.model is None):
        raise ConfigError("a ticket or --model is needed, and not both", hint="See hidenseek plan --help")
    if arguments.ticket is not None:
        return read_ticket(arguments.ticket)
    from coordinator.models import build_plan
    from coordinator.prune_command import pruned

    return pruned(build_plan(arguments.model), density=arguments.density, seed=0, method="erk")


def _load(arguments: argparse.Namespace, file: DevicesFile) -> Load:
    from coordinator.planner import Load

    chosen = {name: getattr(arguments, name) for name in ("batch", "epochs") if getattr(arguments, name) is not None}
    for name in ("samples", "rounds_per_day"):
        if not 0 < getattr(arguments, name) <= 1e9:
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{getattr(arguments, name)} found, a number above 0 expected", where=option)
    return Load(
        training=replace(file.federation.local_training(), **chosen),
        samples=arguments.samples,
        per_round=file.federation.per_round,
        rounds_per_day=arguments.rounds_per_day,
    )


def _runtimes(names: list[str]) -> list[Any]:
    from typing import get_args

    from coordinator.hardware import Runtime

    known = list(get_args(Runtime))
    for name in names:
        if name not in known:
            raise UnknownName(f"no runtime is called '{name}'", where="--runtime", hint=did_you_mean(name, known))
    lacking = {name: package for name, package in COUNTED_WITH.items() if find_spec(package) is None}
    for name, package in lacking.items():
        print(f"note: {name} is left out, its work is counted with the package {package}, which is not installed here")
    return [name for name in known if (not names or name in names) and name not in lacking]


def _groups(arguments: argparse.Namespace, file: DevicesFile) -> list[Group]:
    """Devices that are alike together; without devices, one group for every profile."""
    from coordinator import profiles

    known = {**profiles.built_in(), **file.hardware}
    for name in arguments.profile:
        if name not in known:
            raise UnknownName(f"no profile is called '{name}'", where="--profile", hint=did_you_mean(name, list(known)))
    kinds = {name: device.profile for name, device in file.devices.items() if device and device.profile}
    if arguments.profile or not kinds:
        wanted = arguments.profile or list(file.hardware) or list(known)
        return [_of_profile(name, known[name], file) for name in wanted]
    together: dict[tuple[str, Budget], list[str]] = {}
    for device, kind in kinds.items():
        together.setdefault((kind, file.budget_of(device)), []).append(device)
    return [
        Group(name=kind, devices=tuple(devices), profile=known[kind], budget=budget)
        for (kind, budget), devices in together.items()
    ]


def _without_profile(file: DevicesFile) -> list[str]:
    """Devices that nobody can plan for, unless none has a profile: then all profiles are shown anyway."""
    nameless = [name for name, device in file.devices.items() if not device or not device.profile]
    return nameless if len(nameless) < len(file.devices) else []


def _of_profile(name: str, profile: Profile, file: DevicesFile) -> Group:
    return Group(name=name, devices=(name,), profile=profile, budget=file.budget_of("", name))


def _here(arguments: argparse.Namespace, path: Path | None) -> list[Group]:
    """The machine that we are on, measured."""
    from rich.console import Console

    from coordinator import config, here
    from coordinator.profiles import DEFAULT_CONFIG

    with Console(stderr=True).status("measuring this machine") as status:
        found = here.measure(lambda what: status.update(f"measuring this machine: {what}"))
    target = path or DEFAULT_CONFIG
    if arguments.save:
        here.save(target, arguments.save, found)
        print(f"wrote profile '{arguments.save}' to {target}")
    name = arguments.save or "this machine"
    file = config.load(target) if target.exists() else config.DevicesFile()
    return [Group(name=name, devices=(name,), profile=found, budget=file.budget_of(name, name))]


def _figures(ticket: Ticket, load: Load, choices: list[tuple[Group, Choice | None]]) -> dict[str, object]:
    from dataclasses import asdict

    def of(group: Group, choice: Choice | None) -> dict[str, object]:
        found: dict[str, object] = {
            "profile": group.name,
            "title": group.profile.title,
            "devices": list(group.devices),
            "budget": dict(group.budget.limits()),
        }
        if choice is None:
            return found | {"pick": None, "costs": []}
        costs = [asdict(cost) | {"fits": cost.fits} for cost in choice.costs]
        return found | {
            "pick": {"runtime": choice.pick.runtime, "batch": choice.batch, "fits": choice.pick.fits},
            "density": choice.density,
            "costs": costs,
        }

    return {
        "estimated": True,
        "ticket": ticket.id.hex(),
        "network": ticket.plan.name,
        "density": ticket.density,
        "batch": load.training.batch,
        "steps_per_round": load.steps,
        "samples": load.samples,
        "rounds_per_day": load.rounds_per_day,
        "boards": [of(group, choice) for group, choice in choices],
    }
