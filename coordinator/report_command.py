"""`hidenseek report`: the page of a run, its figures as files, two runs compared, a run held against limits."""

from __future__ import annotations

import argparse
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from coordinator.place import Place, read_place
from coordinator.store_options import database_in
from wire import command
from wire.errors import ConfigError, OverBudget, UnknownName

if TYPE_CHECKING:
    from coordinator.report.summary import Summary
    from coordinator.store import Store
    from coordinator.store_runs import StoredRun

Subparsers = argparse._SubParsersAction
ACTIONS = ("check", "diff")

EXAMPLES = """
examples:
  hidenseek report hidenseek-default                           # the newest run's page, also while it goes on
  hidenseek report hidenseek-default --list                    # which runs there are
  hidenseek report hidenseek-default --run 3fa9 -o old.html    # a run by the first digits of its id
  hidenseek report out/demo --csv figures --json figures.json
  hidenseek report hidenseek-default --profile profiles --pdf report.pdf    # boards' own profiles too; on paper
  hidenseek report check out/demo --budget devices.yaml        # exit code 27 if a device is above a limit
  hidenseek report diff before after                           # the newest runs of two folders
  hidenseek report diff hidenseek-default --run 3fa9 --run 77  # two runs of one folder
  hidenseek report postgresql://hidenseek@db.example.org/site  # of serve --store; the page goes to ./report.html

Limits are those of a devices.yaml; a device's own count before its profile's, those before everyone's:
  budget: {step_ms: 20, step_p95_ms: 30, round_s: 60, round_j: 50, peak_mb: 120, day_bytes: 90000, temperature_c: 80}
  profiles: {pi-zero-2w: {budget: {step_ms: 60}}}
  devices: {pi-07: {budget: {peak_mb: 150}}}
A folder that is called check or diff: ./check
"""


def add_report(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`hidenseek report`."""
    parser = subparsers.add_parser(
        "report",
        help="write the report of a run, compare two, check one against limits",
        usage="hidenseek report DIR [options]\n       hidenseek report check DIR --budget FILE [--run ID]\n"
        "       hidenseek report diff DIR DIR | diff DIR --run ID --run ID",
        description="Write the HTML report of a run in a state folder, finished or not; compare two runs; "
        "or check what the devices spent against limits.",
        epilog=EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    parser.add_argument(
        "words",
        nargs="+",
        metavar="DIR",
        help="the folder of hidenseek serve --state or demo --out, or the address of serve --store",
    )
    parser.add_argument(
        "--run", action="append", default=[], dest="runs", metavar="ID", help="which run, by the first digits of its id"
    )
    parser.add_argument("--list", action="store_true", help="list the runs of the folder")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="the page (default DIR/report.html, of a server ./report.html)",
    )
    parser.add_argument(
        "--csv", type=Path, metavar="DIR", help="write rounds.csv, devices.csv, spent.csv, predicted.csv here too"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure here too")
    parser.add_argument("--pdf", type=Path, metavar="FILE", help="print the page into a PDF here too, with Chromium")
    parser.add_argument(
        "--profile",
        type=Path,
        action="append",
        default=[],
        dest="boards",
        metavar="PATH",
        help="show a report of hidenseek-edge profile --json too, or every one in a folder; may be repeated",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="whose profiles to predict with, and limits of memory to draw (default: devices.yaml, if it is here)",
    )
    parser.add_argument(
        "--deploy",
        type=Path,
        default=Path("deploy"),
        metavar="DIR",
        help="what broker init wrote: the page lists cards that were used twice (default ./deploy, if it is there)",
    )
    parser.add_argument("--budget", type=Path, metavar="FILE", help="devices.yaml with limits, for check")
    parser.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> int:
    words = list(arguments.words)
    action = words.pop(0) if words[0] in ACTIONS else "page"
    _check_usage(arguments, action, len(words))
    places = [read_place(word) for word in words]
    match action:
        case "check":
            return _check(_summary(places[0], *arguments.runs, config=arguments.budget), places[0], arguments.budget)
        case "diff":
            if len(places) == 2:
                return _diff(_summary(places[0]), _summary(places[1]))
            return _diff(*(_summary(places[0], run) for run in arguments.runs))
    return _list(places[0]) if arguments.list else _page(arguments, places[0])


def _check_usage(arguments: argparse.Namespace, action: str, folders: int) -> None:
    """Say early what does not go together.

    Raises:
        ConfigError: naming it.
    """
    if action == "diff":
        if (folders, len(arguments.runs)) not in ((2, 0), (1, 2)):
            raise ConfigError("diff takes two folders, or one and --run twice", hint="See hidenseek report --help")
    elif folders != 1 or len(arguments.runs) > 1:
        raise ConfigError("one folder and at most one --run are expected", hint="See hidenseek report --help")
    if (arguments.budget is not None) != (action == "check"):
        raise ConfigError("--budget FILE and check belong together", hint="hidenseek report check DIR --budget FILE")
    extra = [name for name in ("list", "output", "csv", "json", "pdf", "boards") if getattr(arguments, name)]
    if action != "page" and extra:
        raise ConfigError(f"--{extra[0]} is not for {action}", hint="See hidenseek report --help")


def _page(arguments: argparse.Namespace, place: Place) -> int:
    from rich.console import Console

    from coordinator.commands import conclude
    from coordinator.report import cards, profiles
    from coordinator.report.export import write_csv, write_json
    from coordinator.report.paper import find_browser, write_pdf

    browser = find_browser() if arguments.pdf else None  # said before work is done for nothing
    summary = replace(_summary(place, *arguments.runs, config=arguments.config), boards=profiles.read(arguments.boards))
    summary = replace(summary, limits_mb=_memory_limits(summary, arguments.config))
    with _store(place) as store:
        summary = replace(summary, cards=cards.notes(store, arguments.deploy, summary.name))
    if arguments.csv:
        write_csv(summary, arguments.csv)
    if arguments.json:
        write_json(summary, arguments.json)
    page = arguments.output or (place if isinstance(place, Path) else Path()) / "report.html"
    conclude(Console(), summary, page)
    if browser is not None:
        write_pdf(browser, page, arguments.pdf)
        print(f"paper:  {arguments.pdf}")
    return 0


def _memory_limits(summary: Summary, path: Path | None) -> dict[str, float]:
    """Of every device that a devices.yaml limits: the named one, or that of the current folder if there is one."""
    from coordinator import config
    from coordinator.profiles import DEFAULT_CONFIG

    if path is None and not DEFAULT_CONFIG.exists():
        return {}
    file = config.load(path or DEFAULT_CONFIG)
    found = {one.name: file.budget_of(one.name, one.profile).peak_mb for one in summary.spent}
    return {name: limit for name, limit in found.items() if limit is not None}


def _list(place: Place) -> int:
    from rich.console import Console
    from rich.table import Table

    from coordinator.report.words import moment
    from coordinator.terminal import printable

    table = Table("run", "name", "started", "finished", "rounds", box=None, pad_edge=False)
    with _store(place) as store:
        for run in store.runs():
            closed = sum(one.closed_s is not None for one in store.rounds(run.id))
            finished = moment(run.finished_s) if run.finished_s else "not yet"
            table.add_row(run.id.hex(), printable(run.name), moment(run.started_s), finished, str(closed))
    Console().print(table if table.rows else "no run in this folder yet")
    return 0


def _check(summary: Summary, place: Place, path: Path) -> int:
    from coordinator import config
    from coordinator.report.check import check
    from coordinator.terminal import printable

    limits, findings = check(summary.spent, config.load(path))
    for finding in findings:
        print(printable(str(finding)))
    if not limits:
        hint = f"Look at budget: in {path}, and at the names of its profiles and devices"
        raise OverBudget("no limit applies to any device of this run", where=str(place), hint=hint)
    if findings:
        hint = f"Look at the lines above, or change the limits in {path}"
        raise OverBudget(f"{len(findings)} of {limits} limits not kept", where=str(place), hint=hint)
    print(f"all {limits} limits are kept by {len(summary.spent)} devices")
    return 0


def _diff(before: Summary, after: Summary) -> int:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from coordinator.report.compare import compare
    from coordinator.terminal import printable

    table = Table("", before.run[:8], after.run[:8], "change", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for line in compare(before, after):
        table.add_row(Text(printable(line.name)), line.shown(line.before), line.shown(line.after), line.change)
    Console().print(table)
    return 0


def _summary(place: Place, run: str = "", *, config: Path | None = None) -> Summary:
    from coordinator import profiles
    from coordinator.report.summary import summarise

    with _store(place) as store:
        return summarise(store, _chosen(store, place, run) if run else None, known=profiles.known(config))


def _chosen(store: Store, place: Place, prefix: str) -> StoredRun:
    """The run whose id begins so.

    Raises:
        UnknownName: if none does, or more than one.
    """
    found = [run for run in store.runs() if run.id.hex().startswith(prefix.lower())]
    if len(found) != 1:
        what = f"{len(found)} runs begin with '{prefix}'" if found else f"no run begins with '{prefix}'"
        raise UnknownName(what, where=str(place), hint=f"hidenseek report {place} --list shows them")
    return found[0]


def _store(place: Place) -> closing[Store]:
    """The database in a folder of runs, or of a server."""
    from coordinator.store import Store

    return closing(Store(database_in(place) if isinstance(place, Path) else place, make=False))
