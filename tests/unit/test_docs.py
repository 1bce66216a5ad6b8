"""Documents cannot drift: every command they show is one the programs take."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator import cli as workstation
from edge_client import cli as edge

ROOT = Path(__file__).parents[2]
PARSERS = {"hidenseek": workstation.build_parser(), "hidenseek-edge": edge.build_parser()}


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of all its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from parsers(child)


def commands(text: str) -> list[str]:
    """Command lines of our programs in a text, continuation lines joined, comments dropped."""
    joined = re.sub(r"\\\n\s*", "", text)
    found = re.findall(r"^[ \t]*((?:[A-Z_]+=\S+ )?hidenseek(?:-edge)? [a-z-].*)$", joined, flags=re.MULTILINE)
    return [re.split(r"\s+#|\s{3,}", line)[0] for line in found]


SHOWN = {
    **{
        str(path.relative_to(ROOT)): path.read_text()
        for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    },
    **{parser.prog: parser.epilog or "" for root in PARSERS.values() for parser in parsers(root)},
}
LINES = [(where, line) for where, text in SHOWN.items() for line in commands(text)]


@pytest.mark.parametrize(("where", "line"), LINES)
def test_shown_commands_are_accepted(where: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Options and arguments in README, docs and --help examples exist."""
    words = [word for word in shlex.split(line) if not re.fullmatch(r"[A-Z_]+=.*", word)]
    try:
        PARSERS[words[0]].parse_args(words[1:])
        code = 0
    except SystemExit as ended:  # 0 after --help and --version
        code = int(ended.code or 0)
    assert code == 0, f"{where}: {line}\n{capsys.readouterr().err}"


def test_every_command_shows_an_example() -> None:
    """--help of every command ends with something to copy."""
    for root in PARSERS.values():
        for parser in parsers(root):
            if not any(isinstance(action, argparse._SubParsersAction) for action in parser._actions):
                assert commands(parser.epilog or ""), f"{parser.prog} --help shows no example"


def test_readme_names_every_command() -> None:
    """The table of commands is complete."""
    readme = (ROOT / "README.md").read_text()
    (choices,) = [a.choices for a in PARSERS["hidenseek"]._actions if isinstance(a, argparse._SubParsersAction)]
    for name in choices:
        assert re.search(rf"hidenseek {name}|`{name}`", readme), f"README does not mention `hidenseek {name}`"


def test_default_devices_yaml_loads_and_says_its_defaults() -> None:
    """The commented devices.yaml of the project is valid, and the values it calls defaults are."""
    from coordinator.config import DevicesFile, load

    assert load(ROOT / "devices.yaml").federation == DevicesFile().federation
