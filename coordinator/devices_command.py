"""`hidenseek devices`: the kinds of hardware that we know, each with its sources; and the schema of devices.yaml."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from wire import command

if TYPE_CHECKING:
    from coordinator.hardware import Profile

Subparsers = argparse._SubParsersAction

EXAMPLES = """
examples:
  hidenseek devices                                # all profiles, and those of ./devices.yaml
  hidenseek devices list --config fleet.yaml
  hidenseek devices show pi-5-8gb                  # every figure with its source
  hidenseek devices check fleet.yaml               # is the file right, and what does it say?
  hidenseek devices schema -o devices.schema.json  # for completion in an editor, with this first line of devices.yaml:
                                                   #   # yaml-language-server: $schema=devices.schema.json
"""
LABELS = {
    "cores": ("cores", ""),
    "clock_ghz": ("clock", " GHz"),
    "flops_per_cycle": ("of one core", " flop/cycle"),
    "memory_gb_s": ("memory, one core", " GB/s"),
    "l1d_kb": ("L1 data cache", " KiB"),
    "l2_kb": ("L2 cache", " KiB"),
    "l3_kb": ("L3 cache", " KiB"),
    "ram_mb": ("RAM", " MiB"),
    "usable_ram_mb": ("of it usable", " MB"),
    "idle_w": ("power, idle", " W"),
    "load_w": ("power, all cores busy", " W"),
}


def add_devices(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`hidenseek devices`."""
    parser = subparsers.add_parser(
        "devices",
        help="kinds of hardware we know, with sources; check devices.yaml, its schema",
        description="List the hardware profiles, show one with the source of every figure, check a devices.yaml, or "
        "write its JSON Schema. docs/devices.md explains the file.",
        epilog=EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    config = argparse.ArgumentParser(add_help=False)
    config.add_argument("--config", type=Path, metavar="FILE", help="with profiles of your own (default: devices.yaml)")
    parser.set_defaults(run=_list, config=None)
    actions = parser.add_subparsers(metavar="ACTION")
    one = actions.add_parser(
        "list", parents=[config], help="all profiles", epilog="examples:\n  hidenseek devices list"
    )
    one.set_defaults(run=_list)
    one = actions.add_parser(
        "show", parents=[config], help="one with its sources", epilog="examples:\n  hidenseek devices show pi-5-8gb"
    )
    one.add_argument("name", metavar="PROFILE")
    one.set_defaults(run=_show)
    one = actions.add_parser(
        "check", help="check a devices.yaml", epilog="examples:\n  hidenseek devices check devices.yaml"
    )
    one.add_argument("file", type=Path, metavar="FILE")
    one.set_defaults(run=_check)
    one = actions.add_parser(
        "schema", help="the file's JSON Schema", epilog="examples:\n  hidenseek devices schema -o devices.schema.json"
    )
    one.add_argument("-o", "--output", type=Path, metavar="FILE", help="write it here (default: print it)")
    one.set_defaults(run=_schema)


def _list(arguments: argparse.Namespace) -> int:
    from typing import get_args

    from rich.table import Table

    from coordinator import profiles
    from coordinator.hardware import Runtime
    from coordinator.terminal import wide

    table = Table(header_style="bold", box=None, pad_edge=False)
    for name in ("profile", "hardware", "processor"):
        table.add_column(name)
    for name in ("GHz", "flop/cycle", "GB/s", "RAM MiB", "W"):
        table.add_column(name, justify="right")
    table.add_column("runtimes")
    for name, profile in profiles.known(arguments.config).items():
        figures = (profile.clock_ghz, profile.flops_per_cycle, profile.memory_gb_s, profile.ram_mb, profile.load_w)
        shown = ["–" if figure is None else f"{figure:g}" for figure in figures]
        table.add_row(
            name,
            profile.title,
            profile.cpu,
            *shown,
            "all" if len(profile.runtimes) == len(get_args(Runtime)) else ", ".join(profile.runtimes),
        )
    console = wide(150)
    console.print(table)
    console.print(
        "[dim]GHz, flop/cycle and GB/s of one core; W with all at work. hidenseek devices show PROFILE: sources"
    )
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from rich.table import Table
    from rich.text import Text

    from coordinator import profiles
    from coordinator.terminal import wide
    from wire.errors import UnknownName, did_you_mean

    known = profiles.known(arguments.config)
    if arguments.name not in known:
        hint = did_you_mean(arguments.name, list(known))
        raise UnknownName(f"no profile is called '{arguments.name}'", where="devices show", hint=hint)
    profile = known[arguments.name]
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim", overflow="fold")
    for figure, (label, unit) in LABELS.items():
        if (value := getattr(profile, figure)) is not None:
            table.add_row(label, f"{value:g}{unit}", Text(_source(profile, figure)))
    console = wide()
    facts = [profile.cpu, profile.simd, profile.machine, profile.system, profile.storage, ", ".join(profile.runtimes)]
    console.print(Text.assemble((profile.title, "bold"), "\n", "; ".join(fact for fact in facts if fact)))
    console.print(table)
    for limit, value in profile.budget.limits():
        console.print(f"budget {limit}: {value:g}")
    return 0


def _source(profile: Profile, figure: str) -> str:
    from typing import cast

    from coordinator.hardware import Figure

    found = profile.source_of(cast("Figure", figure))
    if found is None:
        return "no source given"
    source, estimated = found
    return f"estimated: {source}" if estimated else source


def _check(arguments: argparse.Namespace) -> int:
    from coordinator import config

    print(f"{arguments.file}: {config.load(arguments.file).in_words()}")
    return 0


def _schema(arguments: argparse.Namespace) -> int:
    from coordinator.devices_schema import PACKAGED

    if arguments.output is None:
        print(PACKAGED.read_text(encoding="utf-8"), end="")
        return 0
    command.write_whole(arguments.output, PACKAGED.read_bytes())
    print(f"wrote {arguments.output}; put this on the first line of devices.yaml:")
    print(f"# yaml-language-server: $schema={arguments.output}")
    return 0
