"""Errors: one tree, one line each, stable exit codes, and a document that names them all."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from wire import command, errors
from wire.errors import HidenseekError, Mismatch, TooLarge, Truncated, WireError, all_errors, did_you_mean

DOCUMENT = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
ROW = re.compile(r"^\| *(\d+) *\| *(?:`(\w+)`|[^|`]*) *\| *([^|]+)\| *([^|]+)\|$", re.MULTILINE)
SUBCLASSES_WITH_THEIR_PARENTS_CODE = {"Truncated", "TooLarge", "Forged", "Mismatch"}


def own_errors() -> list[type[HidenseekError]]:
    """Every class of the tree that `wire.errors` itself defines, but the base."""
    return [cls for cls in all_errors() if cls.__module__ == errors.__name__ and cls is not HidenseekError]


def test_every_error_is_in_the_table_with_its_exit_code() -> None:
    """docs/errors.md has one row for every class with a code of its own, and no row for any other."""
    rows = {name: int(code) for code, name, _, _ in ROW.findall(DOCUMENT) if name}
    classes = {
        cls.__name__: cls.exit_code for cls in own_errors() if cls.__name__ not in SUBCLASSES_WITH_THEIR_PARENTS_CODE
    }
    assert rows == classes


def test_the_table_has_the_codes_that_are_no_errors() -> None:
    """Success, an unexpected failure, a usage error and an interrupt are in the table too."""
    codes = {int(code) for code, name, _, _ in ROW.findall(DOCUMENT) if not name}
    assert codes == {0, HidenseekError.exit_code, 2, command.INTERRUPTED}


def test_every_error_has_a_section_with_a_typical_line() -> None:
    """Each class, subclasses too, has a heading, an example line and what to do."""
    sections = dict(re.findall(r"^### (?:\d+ )?`(\w+)`\n(.*?)(?=^##|\Z)", DOCUMENT, re.MULTILINE | re.DOTALL))
    assert sections.keys() == {cls.__name__ for cls in own_errors()}
    for name, text in sections.items():
        assert "```text\n" in text, name
        assert "**What to do:**" in text, name


def test_exit_codes_are_distinct_and_stable() -> None:
    """A code belongs to one error for ever; only the refinements of WireError share theirs."""
    codes = {cls.__name__: cls.exit_code for cls in own_errors()}
    assert codes == {
        "ConfigError": 10, "DataError": 11, "UnknownName": 12, "TicketError": 13, "WireError": 14, "Truncated": 14,
        "TooLarge": 14, "Forged": 14, "Mismatch": 14, "BrokerUnreachable": 15, "BrokerRefused": 16, "JoinRefused": 17,
        "DuplicateDevice": 18, "PlanError": 20, "PruneError": 21, "ExportError": 22, "RuntimeMissing": 23,
        "FetchError": 24, "StateError": 25, "RoundFailed": 26, "OverBudget": 27, "ImageError": 28,
        "NotEnoughMemory": 29, "BoardFailed": 30, "UpdateStopped": 31,
    }  # fmt: skip


def test_the_tree_is_drawn_in_the_docstring() -> None:
    """The drawing at the top of the module names every class."""
    assert all(re.search(rf"\b{cls.__name__}\b", errors.__doc__ or "") for cls in all_errors())


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (HidenseekError("it broke"), "it broke"),
        (HidenseekError("it broke", where="a.yaml:3"), "a.yaml:3: it broke"),
        (HidenseekError("it broke", hint="Mend it"), "it broke. Mend it"),
        (HidenseekError("it broke", where="a.yaml:3", hint="Mend it"), "a.yaml:3: it broke. Mend it"),
        (Truncated("mask", expected_bytes=9, got_bytes=4), "mask: expected 9 bytes, got 4"),
        (TooLarge("list", limit=10, got=11), "list: at most 10 accepted, got 11"),
        (Mismatch("round", expected=3, got=2), "round: expected 3, got 2"),
    ],
)
def test_an_error_is_one_line(error: HidenseekError, line: str) -> None:
    """Where, what and hint make one line, in this order."""
    assert str(error) == line


def test_errors_carry_their_numbers() -> None:
    """What a program wants to know of an error is an attribute, not only text."""
    short = Truncated("mask", expected_bytes=9, got_bytes=4)
    assert (short.expected_bytes, short.got_bytes) == (9, 4)
    large = TooLarge("list", limit=10, got=11)
    assert (large.limit, large.got) == (10, 11)
    other = Mismatch("round", expected=3, got=2)
    assert (other.expected, other.got) == (3, 2)
    assert isinstance(other, WireError)


def test_misspelt_names_get_a_hint() -> None:
    """The nearest known name is suggested, or all are listed."""
    assert did_you_mean("lenett", ["mlp", "lenet", "conv2"]) == "Did you mean 'lenet'?"
    assert did_you_mean("resnet", ["mlp", "conv2"]) == "Known: conv2, mlp"


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (None, 0, ""),
        (errors.TicketError("corrupt", where="t.hns"), 13, "prog: error: t.hns: corrupt\n"),
        (KeyboardInterrupt(), 130, "prog: stopped\n"),
    ],
)
def test_a_command_ends_in_one_line_and_its_code(
    raised: BaseException | None, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error leaves its exit code and one line on standard error, no traceback."""

    def work(_: argparse.Namespace) -> None:
        if raised is not None:
            raise raised

    parser = argparse.ArgumentParser()
    parser.set_defaults(run=work)
    assert command.run("prog", parser, []) == code
    assert capsys.readouterr().err == line


def test_passwords_come_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first line of --password-file, or the variable; an unreadable or empty file is a ConfigError."""
    file = tmp_path / "password"
    file.write_text("secret\nsecond line\n")
    assert command.read_password(argparse.Namespace(password_file=file)) == "secret"
    monkeypatch.setenv(command.PASSWORD_VARIABLE, "other")
    assert command.read_password(argparse.Namespace(password_file=None)) == "other"
    file.write_text("")
    for path in (file, tmp_path / "missing"):
        with pytest.raises(errors.ConfigError, match="password file"):
            command.read_password(argparse.Namespace(password_file=path))
